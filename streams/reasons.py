"""Why a task waits: exactly one reason, and when it goes away.  Pure.

Of several things that hold a group the one named is the one that must go first for anything to move: what runs, then
what only an operator lifts, then time, then capacity.
"""

from enum import StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple

from streams.breakers import BreakerState
from streams.group import Head, Phase
from streams.murmur2 import home_partition
from streams.protocol import Reason, utc

if TYPE_CHECKING:
    from streams.engine import Engine
    from streams.partition import Entry, Partition


class Blocker(StrEnum):
    """The closed set of reasons."""

    RUNNING = "running"
    DISPATCHED = "dispatched"
    SWEEPING = "sweeping"  # its group's backlog is being cancelled, or cascades
    BLOCKED = "blocked"
    PAUSED = "paused"
    BACKOFF = "backoff"
    SNOOZED = "snoozed"
    NOT_BEFORE = "not_before"
    NO_HANDLER = "no_handler"
    BREAKER = "breaker"
    NO_FREE_SLOT = "no_free_slot"
    TAKING_OVER = "taking_over"  # the owner before may still run what it had begun
    BEHIND = "behind"  # another task of its group is first
    INTAKE = "intake"  # there is no room for it: it is read, and not taken in


class Why(NamedTuple):
    """`text`: for people.  `until_ms`: wall time at which it goes away by itself, where that is known."""

    blocker: Blocker
    text: str
    until_ms: int | None = None
    limiter: str | None = None


# Reasons that go away by themselves when work goes on, so that a start can be expected.
MOVING: Final = frozenset({Blocker.RUNNING, Blocker.DISPATCHED, Blocker.NO_FREE_SLOT, Blocker.TAKING_OVER})


def of_group(engine: "Engine", entry: "Entry") -> Why:
    """Why the group's next start has not happened.  The group has a head, or a sweep is under way."""
    group, head, task = entry.group, entry.group.head, entry.task
    behind = f"; {group.parked} parked behind it" if group.parked else ""
    if head is None or task is None:
        return Why(Blocker.SWEEPING, f"{group.parked} parked tasks are being taken out, nothing starts meanwhile")
    if head.phase is Phase.RUNNING:
        doing = entry.overdue or _runs(entry, head)
        if head.stop is not None:
            doing = f"{doing}, and is being cancelled"
        return Why(Blocker.RUNNING, f"task {task.task_id} {doing}{behind}")
    if head.phase is Phase.DISPATCHED:
        owner = engine.capacity.owner_of.get(head.dispatch_partition)
        where = f"worker {owner}" if owner else f"dispatch partition {head.dispatch_partition}, which nobody owns"
        return Why(Blocker.DISPATCHED, f"task {task.task_id} is on its way to {where}{behind}")
    if group.sweep is not None:
        return Why(Blocker.SWEEPING, f"{group.sweep.left} parked tasks are being taken out, nothing starts meanwhile")
    if group.blocked is not None:
        return Why(Blocker.BLOCKED, _blocked(entry, task.task_id) + behind)
    if group.pause is not None:
        return Why(Blocker.PAUSED, paused(entry) + behind, group.pause.until_wall_ms)
    if head.phase is Phase.WAITING:
        due = head.due_wall_ms
        why = f"after {head.why}" if head.why else "not before its time"
        text = f"task {task.task_id} waits until {utc(due):%Y-%m-%d %H:%M:%S} UTC, {why}{behind}"
        if head.why is None:
            return Why(Blocker.NOT_BEFORE, text, due)
        return Why(Blocker.SNOOZED if head.why is Reason.SNOOZED else Blocker.BACKOFF, text, due)
    return _ready(engine, entry, task.type, behind)


def _runs(entry: "Entry", head: Head) -> str:
    since = f" since {utc(entry.since_ms):%H:%M:%S} UTC" if entry.since_ms else ""
    return f"{'goes on after its time' if head.overdue else 'runs'} on {head.worker}{since}"


def _blocked(entry: "Entry", task_id: str) -> str:
    head, reason = entry.group.head, entry.group.blocked
    error = head.last_error if head is not None and reason is not Reason.INTERNAL_ERROR else None
    if error is None:
        return f"blocked: {reason}"
    return f"blocked by task {task_id}: {reason}, {error.type}: {error.message}; retry, skip or edit it"


def paused(entry: "Entry") -> str:
    pause = entry.group.pause
    assert pause is not None
    until = f" until {utc(pause.until_wall_ms):%Y-%m-%d %H:%M:%S} UTC" if pause.until_wall_ms is not None else ""
    note = f": {pause.by.note}" if pause.by.note else ""
    return f"paused by {pause.by.actor or 'somebody'} since {utc(pause.since_wall_ms):%H:%M:%S} UTC{until}{note}"


def _ready(engine: "Engine", entry: "Entry", task_type: str, behind: str) -> Why:
    number = home_partition(entry.key, engine.partition_count)
    left_ms = engine.partitions[number].quiet_until_ms - engine.now.mono_ms
    if left_ms > 0:
        text = "its partition was taken over: what the owner before may have begun must have ended first"
        return Why(Blocker.TAKING_OVER, text + behind, engine.now.wall_ms + left_ms)
    if not engine.handles(task_type):
        text = f"no worker handles type {task_type!r}: start one whose handlers include it{behind}"
        return Why(Blocker.NO_HANDLER, text, limiter=task_type)
    breaker = engine.breakers.get(task_type)
    if breaker is not None and breaker.state is not BreakerState.CLOSED:
        left_ms = max(0, breaker.until_mono_ms - engine.now.mono_ms)
        goes = f"in {left_ms / 1000:.0f} s" if breaker.state is BreakerState.OPEN else "with the next free slot"
        when = "one probe is out" if breaker.probe is not None else f"one probe goes out {goes}"
        text = f"the breaker of type {task_type!r} is {breaker.state.replace('_', ' ')}: {when}{behind}"
        return Why(Blocker.BREAKER, text, engine.now.wall_ms + left_ms, task_type)
    place, count = engine.ready.position(number, entry.key), engine.ready.types().get(task_type, 0)
    where = "" if place is None else f", it is number {place + 1} of {count} groups that wait for one"
    text = f"ready: every slot for type {task_type!r} is taken{where}{behind}"
    return Why(Blocker.NO_FREE_SLOT, text, limiter="slots")


def of_parked(entry: "Entry", place: int) -> Why:
    """Why a parked task waits; `place` from 0 among the parked ones."""
    first = entry.task.task_id if entry.task is not None else "(those that are being taken out)"
    between = f" and {place} parked before it" if place else ""
    along = ", in the same dispatch" if place < len(entry.group.run) else ""
    return Why(Blocker.BEHIND, f"behind task {first}{between}{along}")


def of_held(engine: "Engine", partition: "Partition") -> Why:
    """Why what was read from a partition's `tasks` is not taken in.  Something is held."""
    first = partition.held[0]
    entry = partition.entries.get(first.key or b"")
    full = engine.flow.full(entry.group.parked if entry is not None else 0, partition.tasks)
    name = (first.key or b"").decode(errors="backslashreplace")
    of = f" (group {name!r})" if entry is not None and full and "in this group" in full else ""
    why = f": {full}{of}" if full else ""
    return Why(Blocker.INTAKE, f"intake of partition {partition.number} pauses until there is room{why}")
