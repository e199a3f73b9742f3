"""One partition in the memory of its owner: its groups, counter and watermarks.  Built from changelog rows.  Pure."""

from collections import deque
from collections.abc import Iterator, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from streams import limits, rows
from streams.group import IDLE, Group
from streams.intake import AcceptedTask, Refused, read_task
from streams.memory import Memory, load_memory
from streams.rows import PartitionRow, TaskRow
from streams.standing import Standing, Tally
from streams.totals import Told, Totals, add

if TYPE_CHECKING:
    from streams.express import Line

INPUTS: Final = ("tasks", "completions", "commands")
_SEQUENCE_BYTES: Final = 8


class BrokenInvariant(RuntimeError):
    """The changelog says something that no owner can have written."""


class Slot(NamedTuple):
    """One task out at the workers: unclaimed in a dispatch partition, or running on a worker."""

    task_type: str
    dispatch_partition: int | None = None
    worker: str | None = None


class Following(NamedTuple):
    """A task behind the head of a run."""

    sequence: int
    task: AcceptedTask
    accepted_ms: int


class Entry:
    """One group that is not idle.  `task` and `row` belong to its head; `parked` holds those behind, in order: one
    string each, sequence and row, since a million of them shall fit.
    """

    __slots__ = (
        "accepted_ms", "alone_to", "commands", "group", "has_row", "holds", "key", "name", "overdue", "parked", "row",
        "run", "since_ms", "standing", "task", "tick", "timer",
    )  # fmt: skip

    def __init__(self, key: bytes) -> None:
        self.key = key
        self.name = key.decode()
        self.group: Group = IDLE
        self.task: AcceptedTask | None = None
        self.row = b""
        self.accepted_ms = 0  # wall time, of the head
        self.parked: deque[bytes] | tuple[()] = ()  # most groups never have any, and a deque has its price
        self.has_row = False  # whether the changelog holds a head row
        self.holds: Slot | None = None  # the slot that it takes at the workers
        self.timer = 0  # names the one timer that still counts
        self.since_ms = 0  # wall time of the last change of phase
        self.overdue = ""  # what its worker says of a head that goes on after its time
        self.standing: Standing | None = None  # as it is counted in the partition's tally
        self.tick: int | None = None
        self.run: deque[Following] | tuple[()] = ()  # what this process has sent out with the head and knows already
        self.alone_to = 0  # tasks up to this sequence go out one by one
        self.commands: tuple[tuple[int, bytes], ...] = ()  # numbers and records: they wait for the end of the run

    def is_idle(self) -> bool:
        return self.group == IDLE and not self.commands

    def park(self, sequence: int, row: bytes, place: int | None = None) -> None:
        """Behind all others, or at a place among them."""
        if not isinstance(self.parked, deque):
            self.parked = deque()
        packed = sequence.to_bytes(_SEQUENCE_BYTES, "big") + row
        if place is None:
            self.parked.append(packed)
        else:
            self.parked.insert(place, packed)

    def unpark(self, place: int = 0) -> tuple[int, bytes]:
        """Take out the one at that place.  Raises `IndexError` when there is none."""
        taken = self.parked[place]
        if len(self.parked) > 1:
            assert isinstance(self.parked, deque)
            del self.parked[place]
        else:
            self.parked = ()
        return sequence_of(taken), taken[_SEQUENCE_BYTES:]

    def backlog(self) -> Iterator[tuple[int, bytes]]:
        """Sequence and row of each parked task, in order."""
        return ((sequence_of(packed), packed[_SEQUENCE_BYTES:]) for packed in self.parked)


def sequence_of(packed: bytes) -> int:
    return int.from_bytes(packed[:_SEQUENCE_BYTES], "big")


class Partition:
    """What this process owns of one partition.  `next_offsets`: what was taken in of each input topic."""

    def __init__(self, number: int, row: PartitionRow | None = None) -> None:
        self.number = number
        self.counter = row.counter if row else 0
        self.next_offsets = dict.fromkeys(INPUTS, 0) | (row.next_offsets if row else {})
        self.origins: dict[int, int] = row.origins if row else {}
        self.input_ids: dict[str, str] = row.input_ids if row else {}
        self.totals: Totals = row.totals if row else {}
        self.told: list[Told] = []  # since the totals were counted last
        self.entries: dict[bytes, Entry] = {}  # groups with tasks, or on hold
        self.states: dict[bytes, bytes] = {}  # group state, JSON; an idle group is nothing but that
        self.lines: dict[bytes, Line] = {}  # groups whose tasks are in the express lane
        self.read_up_to = dict(self.next_offsets)  # also past what carries no record, such as transaction markers
        self.changed = False
        self.memory = Memory()
        self.tally = Tally()
        self.tasks = 0  # parked ones and heads
        self.held: deque[Any] = deque()  # records of `tasks` that wait until there is room; they are not taken in
        self.end_behind_held = 0  # the end of `tasks`, as it was told while some waited
        self.tasks_end = 0  # of `tasks`, as it was found when the partition was loaded
        # After an owner that ran handlers itself and did not let go: what it may have begun without a row that says so.
        # It outlives the next owners, who may let go in order, or not, before it is over.
        self.left_running = row is not None and row.runs_tasks and not row.released
        self.may_run: tuple[str, ...] = row.may_run if row else ()  # boot ids of those that may not have ended
        if row is not None and self.left_running:
            self.may_run = (*self.may_run, row.boot_id)
        # Tasks up to this sequence, or read below this offset, begin only when it is committed that they do.
        self.careful_below, self.careful_end = row.careful if row else (0, 0)
        self.quiet_until_ms = 0  # monotonic: until then nothing begins, and no command is taken in; 0 when it is over
        self.quiet: list[bytes] = []  # groups whose heads wait for that
        self.asked: deque[Any] = deque()  # records of `commands` that do
        self.end_behind_asked = 0

    def next_number(self) -> int:
        """The next token or sequence.  Raises `BrokenInvariant` when 2**53 are used up."""
        return self.next_numbers(1)

    def next_numbers(self, count: int) -> int:
        """The first of so many that follow one another."""
        self.counter += count
        self.changed = True
        if self.counter > limits.COUNTER_MAX:
            raise BrokenInvariant(f"the counter of partition {self.number} is used up")
        return self.counter - count + 1

    def begin_epoch(self) -> None:
        """A new owner's numbers are above all that the owner before can have given out."""
        self.counter = ((self.counter >> limits.EPOCH_SHIFT) + 1) << limits.EPOCH_SHIFT

    def to_row(self, owner: str, boot_id: str, *, released: bool, runs_tasks: bool = False) -> bytes:
        add(self.totals, self.told)
        self.told.clear()
        return rows.encode(
            PartitionRow(
                rows.ROW_FORMAT, self.counter, self.next_offsets, self.origins, owner, boot_id, released,
                self.input_ids, self.totals, runs_tasks, self.may_run, (self.careful_below, self.careful_end),
            )
        )  # fmt: skip

    def follow(self, input_ids: Mapping[str, str]) -> None:
        """Offsets count for one certain topic: of one that was recreated, and adopted by an operator, none was read."""
        for topic in INPUTS:
            if self.input_ids.get(topic, input_ids[topic]) != input_ids[topic]:
                self.next_offsets[topic] = self.read_up_to[topic] = 0
                if topic == "tasks":
                    self.origins, self.careful_end = {}, 0
        self.input_ids = {topic: input_ids[topic] for topic in INPUTS}


def load(number: int, table: MutableMapping[bytes, bytes]) -> Partition:
    """Build a partition from its rows.  Task rows are taken out of the table as they find their place, so that a
    million of them are not held twice.  Raises `VersionError` or `BrokenInvariant`.
    """
    row = table.get(rows.PARTITION_KEY)
    partition = Partition(number, rows.decode_partition(row) if row else None)
    tasks = sorted((key for key in table if key[:1] == b"T"), reverse=True)  # by sequence, the oldest last
    while tasks:
        key = tasks.pop()
        value = table.pop(key)
        rows.refuse_newer(key, value)
        sequence, group = rows.read_task_key(key)
        _entry(partition, group).park(sequence, value)
    for key, value in table.items():
        rows.refuse_newer(key, value)
        match key[:1]:
            case b"H":
                _load_head(_entry(partition, key[1:]), value)
            case b"S":
                partition.states[key[1:]] = value
            case b"W":
                place, group = rows.read_task_key(key)
                entry = _entry(partition, group)
                command = place, rows.decode_waiting(value).command
                entry.commands = tuple(sorted((*entry.commands, command)))
    load_memory(partition.memory, table)
    for entry in partition.entries.values():
        entry.group = Group(entry.group.head, len(entry.parked), entry.group.blocked, entry.group.held)
        partition.tasks += len(entry.parked) + (entry.group.head is not None)
    return partition


def read_row(value: bytes) -> tuple[TaskRow, AcceptedTask]:
    """The task of a row.  It was accepted once; a build that refuses what an older one took must not be run."""
    row = rows.decode_task(value)
    task = read_task(
        row.key, row.value, row.headers, partition=row.origin_partition, offset=row.origin_offset,
        bytes_max=limits.RECORD_BYTES_MAX,
    )  # fmt: skip
    if isinstance(task, Refused):
        raise BrokenInvariant(f"a task that was accepted is refused now: {task.detail}")
    return row, task


def take_head(entry: Entry, value: bytes) -> AcceptedTask:
    """The task of this row is the entry's head from now on."""
    row, task = read_row(value)
    entry.row, entry.task, entry.accepted_ms = value, task, row.accepted_ms
    return task


def _entry(partition: Partition, key: bytes) -> Entry:
    entry = partition.entries.get(key)
    if entry is None:
        entry = partition.entries[key] = Entry(key)
    return entry


def _load_head(entry: Entry, value: bytes) -> None:
    row = rows.decode_head(value)
    entry.has_row = True
    entry.group = Group(row.head, 0, row.blocked, row.held)
    if row.head is None:
        return
    for place, (sequence, task) in enumerate(entry.backlog()):
        if sequence == row.head.sequence:
            entry.unpark(place)
            take_head(entry, task)
            return
    raise BrokenInvariant(f"group {entry.name!r} has a head without its task")
