"""G7: memory, changelog and history of a scheduler say the same."""

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from streams.clock import Now
from streams.engine import Engine, Output
from streams.express import Line
from streams.group import Phase
from streams.memory import Memory
from streams.murmur2 import home_partition
from streams.partition import Entry, load
from streams.protocol import TaskState
from streams.retry import Policy
from streams.rows import PARTITION_KEY, decode_partition, encode
from tests.sim.loop import Violation
from tests.sim.stage import STAGE
from tests.support.recount import difference

if TYPE_CHECKING:
    from tests.sim.scheduler import SchedulerLife
    from tests.sim.truth import Tale, Truth

SHOWS = {
    TaskState.PARKED: {Phase.READY, Phase.WAITING},
    TaskState.RETRYING: {Phase.READY, Phase.WAITING},
    TaskState.DISPATCHED: {Phase.DISPATCHED},
    TaskState.RUNNING: {Phase.RUNNING},
}


def check(truth: "Truth", life: "SchedulerLife") -> None:
    """After a step: the groups of its transaction; now and then, everything against what a successor would load."""
    engine: Engine = life.scheduler.engine
    for group in truth.touched.pop(engine.owner, ()):
        tale = truth.tales.get(group)
        if tale is not None and owns(truth, engine, home_partition(group.encode(), engine.partition_count)):
            _check_group(engine, tale)
    check_slots(engine)
    if wrong := difference(engine):
        raise Violation("G7", wrong)
    if STAGE.loop.chance.random() < 0.01:
        check_rows(truth, engine)


def owns(truth: "Truth", engine: Engine, number: int) -> bool:
    """Whether nobody has taken the partition over; who has lost it may not know yet, and writes no more."""
    row = truth.tables[number].get(PARTITION_KEY)
    return row is not None and decode_partition(row).boot_id == engine.boot_id


def _check_group(engine: Engine, tale: "Tale") -> None:
    entries = [e for p in engine.partitions.values() if (e := p.entries.get(tale.name.encode())) is not None]
    if not entries:
        return  # let go meanwhile, or idle
    group = entries[0].group
    if group.head is None:
        if tale.queue and group.sweep is None:
            raise Violation("G7", "memory shows an idle group, the history does not", tale.name)
        return
    if tale.head() is None or group.phase not in SHOWS[tale.phase]:
        raise Violation("G7", f"memory shows {group.phase}, the history {tale.phase}", tale.name)
    if (group.head.token, group.head.attempt) != (tale.token, tale.attempt):
        raise Violation("G7", f"memory shows {group.head}, the history {tale.token} {tale.attempt}", tale.name)
    if len(entries[0].parked) != group.parked or group.parked != len(tale.queue) - 1:
        raise Violation("G7", f"memory shows {group.parked} parked, not {len(tale.queue) - 1}", tale.name)
    shown, told = (group.pause is not None, group.blocked is not None), (tale.paused, tale.blocked)
    if shown != told:
        raise Violation("G7", f"memory shows paused, blocked: {shown}, the history {told}", tale.name)


def check_slots(engine: Engine) -> None:
    """A slot counts as taken for as long as a head is out, and no longer."""
    heads = [e.group.head for p in engine.partitions.values() for e in p.entries.values() if e.group.head is not None]
    out = [h for h in heads if h.phase in (Phase.DISPATCHED, Phase.RUNNING)]  # the next one of a run has its claim
    unclaimed = Counter(h.dispatch_partition for h in out if not h.claim_id)
    running = Counter(h.worker for h in out if h.claim_id)
    if (engine.unclaimed, engine.running) != (unclaimed, running):
        raise Violation("G7", f"slots taken: {engine.unclaimed} {engine.running}, out are {unclaimed} {running}")


def check_cut(truth: "Truth", engine: Engine, outputs: Iterable[Output]) -> None:
    """Where handlers run in the scheduler's process, memory goes on while a transaction commits.  So it is compared with
    what the log will hold, at the moment of its cut.
    """
    check_slots(engine)
    if STAGE.loop.chance.random() < 0.05:
        check_rows(truth, engine, outputs)


def check_rows(truth: "Truth", engine: Engine, outputs: Iterable[Output] = ()) -> None:
    """Whoever loads what is in the log, with `outputs`, has what is in memory."""
    for number, partition in engine.partitions.items():
        if not owns(truth, engine, number):
            continue
        table = dict(truth.tables[number])
        for output in outputs:
            if output.topic == "changelog" and output.partition == number:
                key = output.key or b""
                table.pop(key, None)
                if output.value is not None:
                    table[key] = output.value
        loaded = load(number, table)
        if (loaded.next_offsets, loaded.origins) != (partition.next_offsets, partition.origins):
            one, other = (loaded.next_offsets, loaded.origins), (partition.next_offsets, partition.origins)
            raise Violation("G7", f"watermarks of partition {number} differ: {one} in the log, {other} in memory")
        successor = Engine(
            instance="next", boot_id="b", owner="o", partitions=engine.partition_count, lease_s=1,
            task_bytes_max=1 << 20, policy=Policy(),
        )  # fmt: skip
        # A head whose `not_before` has passed has no row; a wall clock that went back would make it wait again.
        successor.adopt(loaded, Now(STAGE.wall_ms_max + 3_600_000, 0))
        if loaded.states != partition.states:
            raise Violation("G7", f"group states differ: {loaded.states} in the log, {partition.states} in memory")
        if (one := _remembered(loaded.memory)) != (other := _remembered(partition.memory)):
            raise Violation("G7", f"dead letters, keys or commands of partition {number} differ in memory and log")
        lines = {line.key: _picture_of_line(line) for line in partition.lines.values()}
        if both := [key for key in lines if key in partition.entries]:
            raise Violation("G7", f"{both} are in the lane and in the machine", both[0].decode())
        for key, line in lines.items():
            entry = loaded.entries.pop(key, None)
            if entry is None or (shown := _picture_of_rows(entry)) != line:
                raise Violation("G7", f"the lane holds {line}, the log {shown if entry else None}", key.decode())
        if (one := _picture(loaded.entries)) != (other := _picture(partition.entries)):
            keys = [k for k in one.keys() | other.keys() if one.get(k) != other.get(k)]
            raise Violation("G7", f"memory and log differ in {[(one.get(k), other.get(k)) for k in keys]}")


def _remembered(memory: Memory) -> tuple[Any, ...]:
    """Open dead letters, idempotency keys, ids of commands."""
    return dict(memory.dead), {key: seen[0] for key, seen in memory.seen.items()}, dict(memory.commands)


def _picture_of_line(line: Line) -> list[tuple[int, bytes]]:
    """What has not ended of it, as rows."""
    return [(item.sequence, encode(item.row())) for item in line.items]


def _picture_of_rows(entry: Entry) -> list[tuple[int, bytes]]:
    head = entry.group.head
    if head is None or entry.group.held is not None or entry.has_row:
        return []
    return [(head.sequence, entry.row), *entry.backlog()]


def _picture(entries: Any) -> dict[bytes, tuple[Any, ...]]:
    return {e.key: (e.group, e.task, e.row, list(e.parked), e.holds, e.commands) for e in entries.values()}
