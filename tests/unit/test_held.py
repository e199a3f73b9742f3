"""Input that somebody's open transaction holds up is told from input that is busy."""

from types import SimpleNamespace
from typing import Any

from faust.types import TP

from streams.clock import Now
from streams.partition import Partition
from streams.scheduler import HELD_MS, Scheduler

TASKS = TP("tasks", 0)


def scheduler() -> Any:
    ends: dict[TP, int] = {}
    return SimpleNamespace(
        pump=SimpleNamespace(known_ends=lambda: ends), engine=SimpleNamespace(partitions={0: Partition(0)}),
        _names={"tasks": "tasks"}, _ended_at={}, _stuck={}, _stuck_due_ms=0, ends=ends,
    )  # fmt: skip


def look(one: Any, mono_ms: int, read: int, end: int) -> list[int]:
    """Read up to there, and found that to be the end for a committed reader; what is held then."""
    one.engine.partitions[0].read_up_to["tasks"] = one._ended_at[TASKS] = read
    one.ends[TASKS] = end
    Scheduler._note_stuck(one, Now(0, mono_ms))
    return [number for _, number in Scheduler.held(one)]


def test_an_input_that_goes_on_between_two_looks_is_not_held() -> None:
    one = scheduler()
    for number in range(20):
        assert look(one, number * HELD_MS, read=number, end=number + 1) == []


def test_an_input_that_stands_still_before_its_end_is() -> None:
    one = scheduler()
    looks = [look(one, number * HELD_MS // 4, read=5, end=7 + number) for number in range(6)]
    assert looks == [[], [], [], [], [0], [0]]
    assert look(one, 3 * HELD_MS, read=10, end=10) == []


def test_a_step_that_takes_long_holds_nothing() -> None:
    """What was fetched meanwhile is taken in by the next one."""
    one = scheduler()
    look(one, 0, read=5, end=7)
    assert look(one, 10 * HELD_MS, read=5, end=90) == []
    assert look(one, 11 * HELD_MS, read=90, end=95) == []
