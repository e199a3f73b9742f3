"""After the last fault: everything must move within the promised time (G6), end (G3), and leave nothing behind."""

from typing import TYPE_CHECKING

import msgspec

from pstp.verify.findings import Findings
from pstp.verify.history import History
from pstp.verify.shared import Options
from streams import rows
from streams.partition import INPUTS
from streams.protocol import TaskState
from tests.sim import memory
from tests.sim.local import LocalLife
from tests.sim.loop import MS, S, Violation
from tests.sim.scheduler import SchedulerLife
from tests.sim.worker import WorkerLife

if TYPE_CHECKING:
    from tests.sim.world import World

LOOK_US = 500 * MS
PROGRESS_US = 30 * S
QUIET_US = 3 * S


def drain(world: "World") -> None:
    """Run on until every task has its end, holding G6 against it all the time."""
    healed_us = world.loop.now_us
    bound_us = healed_us + PROGRESS_US + _work_us(world)
    free_since_us: dict[str, int] = {}
    while not _is_done(world):
        world.operate()
        _go_on(world, LOOK_US)
        free = _free_types(world)
        free_since_us = {t: free_since_us.get(t, world.loop.now_us) for t in free}
        _check_progress(world, healed_us, free_since_us)
        if world.loop.now_us > bound_us:
            left = [t.plan.number for t in world.truth.tasks.values() if t.expected and t.terminals < t.submissions]
            words = f"tasks {left}, commands {world.truth.orders.unanswered()} have no end"
            raise Violation("G6", f"{words} {(bound_us - healed_us) // S} s after the last fault")
    settled_us = max(world.loop.now_us, healed_us) + PROGRESS_US
    world.loop.run(world.loop.now_us + QUIET_US)  # whatever is still on its way must change nothing
    while not _is_settled(world) and world.loop.now_us < settled_us:
        _go_on(world, LOOK_US)


def wait(world: "World") -> None:
    """The same without holding anything against it."""
    bound_us = world.loop.now_us + PROGRESS_US + _work_us(world)
    while not all(t.terminals or t.plan.stranger == "abort" for t in world.truth.tasks.values()):
        if world.loop.now_us > bound_us:
            break
        world.operate_blindly()
        _go_on(world, 10 * LOOK_US)
    world.loop.run(world.loop.now_us + QUIET_US)


def _go_on(world: "World", time_us: int) -> None:
    """For that long; also where all processes are dead, and nothing happens in it."""
    began_us = world.loop.now_us
    world.loop.run(began_us + time_us)
    if world.loop.now_us == began_us:
        world.loop.now_us = began_us + time_us


def _owned(world: "World") -> list[int]:
    """Partitions that some scheduler reads, sorted."""
    lives = [life for life in world.lives.values() if isinstance(life, SchedulerLife) and life.process.alive]
    return sorted(n for life in lives if life.pump.flowing for n in life.engine.partitions)


def _is_settled(world: "World") -> bool:
    """A scheduler that started last has joined by now, and the aborted records it began with have been passed over."""
    return _owned(world) == list(range(world.scenario.partitions)) and _lag(world) is None


def _work_us(world: "World") -> int:
    """Generous: everything one after the other, each execution with a long wait."""
    total_ms = 0
    for task in world.truth.tasks.values():
        if task.terminals < task.submissions:
            total_ms += sum(b.ms + 2_000 + (20_000 if b.kind == "die" else 3_000) for b in task.plan.behaviours) + 5_000
    return total_ms * MS


def _is_done(world: "World") -> bool:
    truth = world.truth
    if any(tale.paused or tale.blocked for tale in truth.tales.values()) or truth.orders.unanswered():
        return False
    return all(t.terminals >= t.submissions or t.plan.stranger == "abort" for t in truth.tasks.values())


def _check_progress(world: "World", healed_us: int, free_since_us: dict[str, int]) -> None:
    """A group that could go on must do so: its head waits, and a slot for its type is free, for all that time.

    A dispatch whose claimant has died is not ready: it takes two leases to know, counted anew by a new owner.
    """
    for tale in world.truth.tales.values():
        head = tale.head()
        leases_us = int(2 * world.scenario.lease_s * S)
        bound_us = max(PROGRESS_US, PROGRESS_US * 2 // 3 + leases_us if tale.phase is TaskState.DISPATCHED else 0)
        since_us = world.loop.now_us - bound_us
        if (
            head is None
            or tale.phase is TaskState.RUNNING
            or tale.paused
            or tale.blocked
            or max(tale.moved_us, healed_us) > since_us
        ):
            continue
        if free_since_us.get(head.plan.type, world.loop.now_us) <= since_us:
            raise Violation("G6", f"task {head.plan.number} is {tale.phase} for 30 s though a slot is free", tale.name)


def _free_types(world: "World") -> set[str]:
    """Types for which there is a free slot at this moment."""
    free: set[str] = set()
    placed = {plan.type: plan.placement for plan in world.scenario.handlers}
    lives = [life for life in world.lives.values() if life.process.alive]
    for life in lives:
        if isinstance(life, WorkerLife) and life.poller.slots.free > 0 and life.poller.owned:
            free |= {task_type for task_type in life.plan.types if placed.get(task_type) != "local"}
    # Which of them owns a group nobody here asks: with none of them busy, all have room.
    here = [life.engine.here for life in lives if isinstance(life, LocalLife)]
    if here and len(here) == len(world.scenario.schedulers) and all(h.open and h.free > 0 for h in here):
        free |= here[0].first
    return free


def check(world: "World") -> None:
    """Nothing is lost, nothing is left."""
    truth = world.truth
    for task in truth.tasks.values():
        if task.terminals != (task.submissions if task.expected else 0):
            raise Violation("G3", f"task {task.plan.number} has {task.terminals} ends", task.plan.group)
    for tale in truth.tales.values():
        if tale.owes is not None:
            raise Violation("G8", "the state that a success carried was not applied", tale.name)
    _check_left(world)
    if (lag := _lag(world)) is not None:
        raise Violation("G7", lag)
    _verify(world)


def _check_left(world: "World") -> None:
    truth = world.truth
    states = {g.encode(): t.state for g, t in truth.tales.items() if t.state is not None}
    for life in world.lives.values():
        if not isinstance(life, SchedulerLife):
            if life.process.alive and life.poller.slots.free != life.poller.slots.total:
                raise Violation("G6", f"{life.process.name} has a slot that nobody uses any more")
            continue
        if not life.process.alive:
            continue  # a handler that did not listen has ended with it
        engine = life.scheduler.engine
        if engine.unclaimed or engine.running or len(engine.ready) or len(engine.watch):
            words = f"{engine.unclaimed} {engine.running} {len(engine.ready)} {len(engine.watch)}"
            raise Violation("G7", f"{life.process.name} counts tasks that are over: {words}")
        if isinstance(life, LocalLife):
            _check_left_here(world, life)
        memory.check_rows(truth, engine)
    if (owned := _owned(world)) != list(range(world.scenario.partitions)):
        raise Violation("G6", f"partitions {owned} of {world.scenario.partitions} have an owner")
    for number, table in truth.tables.items():
        for key, value in table.items():
            if key[:1] == b"D" or _is_remembered(world, key):
                continue
            if key != rows.PARTITION_KEY and not (
                key[:1] == b"S" and msgspec.json.decode(value) == states.get(key[1:])
            ):
                raise Violation("G7", f"row {key!r} of partition {number} is left behind")
    letters = {
        (n, int.from_bytes(key[1:9], "big")) for n, table in truth.tables.items() for key in table if key[:1] == b"D"
    }
    if letters != truth.dead:
        raise Violation("G7", f"open dead letters {sorted(letters ^ truth.dead)} are not those of the history")
    left = {key[1:] for table in truth.tables.values() for key in table if key[:1] == b"S"}
    if left != states.keys():
        raise Violation("G8", f"states of {sorted(left ^ states.keys())} are not kept")


def _check_left_here(world: "World", life: LocalLife) -> None:
    here, lane = life.engine.here, life.engine.express
    tales = world.truth.tales.values()
    live = [run for tale in tales for run in tale.live if run.is_live and run.token in tale.released]
    given_up = sum(run.process is life.process for run in live)  # by operators; they go on
    if max(here.slots - here.free, len(life.runner.running)) > given_up:
        raise Violation("G6", f"{life.process.name} has slots that nobody uses any more: {here.slots - here.free}")
    if lane is not None and (lane.count or lane.running or lane.waiting or lane.done):
        raise Violation("G7", f"the lane of {life.process.name} holds tasks that are over")


def _is_remembered(world: "World", key: bytes) -> bool:
    """Ids of commands that were taken in, and idempotency keys."""
    if key[:1] == b"C":
        return world.truth.orders.by_id[key[1:].decode()].outcome is not None
    return key[:1] == b"I" and key[9:].decode() in {group for group, _ in world.truth.seen}


def _lag(world: "World") -> str | None:
    """Where committed offsets do not say, to any tool, that everything was read."""
    for number in range(world.scenario.partitions):
        for topic in INPUTS:
            end = len(world.broker.log(topic, number).records)
            offset = world.broker.offsets.get((world.settings.scheduler_group, topic, number), (0, ""))[0]
            if offset != end:
                return f"{topic}-{number} ends at {end}, committed is {offset}"
    return None


def _verify(world: "World") -> None:
    for found in verify(world):
        raise Violation("verify", f"{found.guarantee} {found.kind}: {found.text}", found.group)


def verify(world: "World") -> Findings:
    """What the checker that users have says of the whole history."""
    history = History(Options(partitions=world.scenario.partitions))
    for (topic, number), log in world.broker.logs.items():
        if topic == "task-events":
            for message in log.read(0, len(log.records), committed=True)[0]:
                history.record(number, message.offset(), message.value())
    history.close()
    history.shared.compare_with_tasks((p for p, task in world.truth.tasks.items() if task.expected), {})
    return history.shared.violations
