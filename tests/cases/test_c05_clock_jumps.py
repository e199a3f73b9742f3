"""C-05: somebody sets the clock, and all that waits runs at once, or stands still until the old time comes again.

Elsewhere setting the system time ahead released all scheduled jobs together, and setting it back stopped them
(sidekiq-scheduler #283, dbader/schedule #323, apscheduler #339).
"""

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from streams.protocol import TaskState
from tests.support import judge
from tests.support.system import HANDLERS, Process, System, until

STEP_S = 2 * 3600
RETRY_S = 6.0
RUNS_S = 7.0  # longer than a lease and what is added to it
DUE_S = 60


@pytest.mark.parametrize("step_s", [STEP_S, -STEP_S], ids=["ahead", "back"])
def test_a_step_of_the_schedulers_clock_moves_only_what_waits_for_a_time_of_day(system: System, step_s: int) -> None:
    set_clock(system, 0)
    start(system, "s1", ["scheduler"])
    system.worker()
    check_what_runs_and_what_is_in_backoff(system, step_s)

    # What waits for a time of day follows the clock, as it should, and explain says for what it waits.
    due = publish_not_before(system)
    if step_s > 0:
        system.history.wait(lambda h: TaskState.SUCCEEDED in h.states("due"), what="by that clock it is due")
        return
    until(lambda: f"{due:%Y-%m-%d %H:%M:%S} UTC" in system.get("s1", "/explain?group=due")["text"])
    assert system.history.read() and TaskState.RUNNING not in system.history.states("due")
    set_clock(system, 2 * DUE_S)  # set right again, or a little more: no longer than the step
    system.history.wait(lambda h: TaskState.SUCCEEDED in h.states("due"), 10)


@pytest.mark.parametrize("step_s", [STEP_S, -STEP_S], ids=["ahead", "back"])
def test_a_step_of_the_workers_clock_moves_nothing(system: System, step_s: int) -> None:
    set_clock(system, 0)
    system.scheduler("s1")
    start(system, "w1", ["worker", "--handlers", str(HANDLERS)])
    check_what_runs_and_what_is_in_backoff(system, step_s)
    publish_not_before(system)
    until(lambda: system.get("s1", "/explain?group=due").get("blocker") == "not_before")
    assert system.history.read() and TaskState.RUNNING not in system.history.states("due")


def check_what_runs_and_what_is_in_backoff(system: System, step_s: int) -> None:
    """The clock is set while a task runs, and another is to be tried again later."""
    system.publish("runs", "sleep", RUNS_S, id="runs", max_attempts=1)
    system.publish("waits", "outcome", {"do": "retry", "times": 1, "after_s": RETRY_S}, id="waits")
    system.flush()
    system.history.wait(lambda h: TaskState.RUNNING in h.states("runs") and TaskState.RETRYING in h.states("waits"))
    set_clock(system, step_s)
    for number in range(20):
        system.publish(f"probe {number}", "echo", id=f"probe {number}")
    system.flush()
    system.history.wait_terminal(20, 10)  # what is ready keeps moving
    system.history.wait_terminal(22, 30)

    assert system.history.states("runs") == [
        TaskState.PARKED, TaskState.DISPATCHED, TaskState.RUNNING, TaskState.SUCCEEDED,
    ], "its lease did not end early"  # fmt: skip
    journal = system.journal()
    assert judge.overlaps([line for line in journal if line["id"] != "waits"]) == []  # its handler notes no failure
    first, second = (line["mono_ns"] / 1e9 for line in journal if line["id"] == "waits" and line["what"] == "start")
    assert RETRY_S - 0.5 < second - first < RETRY_S + 10, "the delay is one of the monotonic clock"
    assert {len(ids) for group, ids in judge.starts(journal).items() if group != "waits"} == {1}


def publish_not_before(system: System) -> datetime:
    due = datetime.fromtimestamp(time.time(), UTC) + timedelta(seconds=DUE_S)
    system.publish("due", "echo", id="due", not_before=due.isoformat())
    system.flush()
    return due


def start(system: System, name: str, arguments: list[str]) -> Process:
    """A process that believes the clock that `set_clock` sets."""
    return system.start(name, arguments, {}, module="tests.support.clock_set")


def set_clock(system: System, offset_s: int) -> None:
    path: Path = system.folder / "clock"
    beside = path.with_suffix(".new")
    beside.write_text(str(offset_s))
    beside.replace(path)
