"""Any two commands, in either order and in one step, on a group in every situation: both are answered, no harm done."""

from collections import Counter
from collections.abc import Callable
from datetime import timedelta

import pytest
from msgspec import Raw

from streams import protocol
from streams.murmur2 import home_partition
from streams.protocol import TERMINAL, Command, CommandKind, EventKind, Outcome, TaskState
from tests.unit.one_group import K, answers, ask, dead_letters, fail, new_world, publish, run_next
from tests.unit.world import N, World

HOME = home_partition(b"g", N)


def full(world: World) -> None:
    world.workers["w1"].slots = 0
    publish(world, "a", "b", "c")


def on_its_way(world: World) -> None:
    publish(world, "a", "b", "c")


def running(world: World) -> None:
    publish(world, "a", "b", "c")
    run_next(world)


def between_attempts(world: World) -> None:
    publish(world, "a", "b", "c")
    world.end(run_next(world), protocol.ReportKind.FAILED)
    world.step()


def blocked(world: World) -> None:
    publish(world, "a", "b", "c", on_failure="block")
    fail(world, 2)


def too_early(world: World) -> None:
    due = protocol.utc(world.now.wall_ms) + timedelta(minutes=1)
    publish(world, "a", not_before=due.isoformat())
    publish(world, "b", "c")


def paused(world: World) -> None:
    ask(world, K.PAUSE_GROUP)
    publish(world, "a", "b", "c")


def gone_on_for_too_long(world: World) -> None:
    publish(world, "a", "b", "c")
    world.say(run_next(world), protocol.ReportKind.PROGRESS, reason=protocol.Reason.TIMEOUT)
    world.step()


def nobody_there(world: World) -> None:
    publish(world, "a", "b", "c")
    world.vanish("w1")


def idle(world: World) -> None:
    pass


SITUATIONS = [
    full, on_its_way, running, between_attempts, blocked, too_early, paused, gone_on_for_too_long, nobody_there, idle,
]  # fmt: skip


def situation(make: Callable[[World], None]) -> World:
    """With an open dead letter `d`, and a group state."""
    world = new_world()
    publish(world, "s")
    world.end(run_next(world), state=Raw(b"1"), state_set=True)
    publish(world, "d", max_attempts=1)
    fail(world)
    make(world)
    return world


def send(world: World, kind: CommandKind, number: int) -> None:
    task_id = "d" if kind in (K.REDRIVE, K.EDIT_AND_REDRIVE, K.DISCARD_DEAD_LETTER) else "a"
    payload = Raw(b"7") if kind in (K.EDIT_HEAD, K.EDIT_AND_REDRIVE) else None
    command = Command(f"pair-{number}", kind, "g", task_id=task_id, payload=payload)
    world.append("commands", HOME, b"g", protocol.encode(command))


def let_go(world: World) -> None:
    """Whatever the two have left standing goes on."""
    if "w1" not in world.workers:
        world.hire("w1")
    world.workers["w1"].slots = 4
    for _ in range(4):  # who waits for a dispatch that nobody owned, for a lease, or for a time
        world.pass_time(20_000)
        world.work_off()
        world.answer_all()
        ask(world, K.RESUME_GROUP)
        ask(world, K.UNBLOCK)
    world.work_off()


@pytest.mark.parametrize("make", SITUATIONS)
def test_any_two_commands_in_either_order_do_no_harm(make: Callable[[World], None]) -> None:
    for first in K:
        for second in K:
            world = situation(make)
            send(world, first, 1)
            send(world, second, 2)
            world.step()
            for execution in [*world.executing.values()] if K.RELEASE in (first, second) else []:
                world.end(execution)  # whoever released it has seen to that; its report comes too late
            let_go(world)
            check(world, first, second)


def check(world: World, first: CommandKind, second: CommandKind) -> None:
    for number in (1, 2):
        (event,) = answers(world, f"pair-{number}")
        assert event.outcome is not Outcome.REFUSED or event.reason is not None
    submissions: Counter[str] = Counter()
    open_tasks: set[str] = set()
    for event in world.events():
        task_id = event.task_id or ""
        if event.kind is not EventKind.TASK:
            continue
        if event.state is TaskState.PARKED and event.reason in (None, "redriven_head", "redriven_tail"):
            assert task_id not in open_tasks, "one submission at a time"
            submissions[task_id] += 1
            open_tasks.add(task_id)
        assert task_id in open_tasks, f"{first}, {second}: {task_id} is {event.state} after its end"
        if event.state in TERMINAL:
            open_tasks.remove(task_id)
    assert open_tasks == set(), f"{first}, {second}: not at its end"
    redriven = {e.task_id for e in world.events() if e.kind is EventKind.DEAD_LETTER_CLOSED and e.reason != "discarded"}
    assert all(count == 1 + (task_id in redriven) for task_id, count in submissions.items())
    assert len(dead_letters(world)) >= 1
