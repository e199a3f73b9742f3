"""The express lane: local tasks that begin, succeed and leave without anything else happening to their group.  Pure.

Most tasks that run here do.  For them no step of the group's machine is taken and, if they end before the transaction
in hand is cut, no row is written: the source offset and all their events, in one record, are committed together.  What
is cut while it has not ended gets its row and its `parked` event then, so offsets never pass what is not kept.

Whatever else happens, a failure, a state update, progress, a command, a second in the lane, a revocation, **settles**
the group's line: the machine is fed what it would have been fed, with the times at which it happened, and all goes on
there.  A group is in the lane or has something in the machine, never both.

What a handler began and no transaction tells is started carefully by a successor (see `streams.local`), here as there.
"""

from collections import Counter, deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from msgspec import Raw

from streams import history, rows, totals
from streams.clock import Now
from streams.group import IDLE, Emit
from streams.intake import AcceptedTask
from streams.partition import Entry, Partition
from streams.placement import Here, Start
from streams.protocol import DispatchedTask, MaybeRaw, Moment, TaskState

if TYPE_CHECKING:
    from streams.engine import Engine, Input

# Longer than this nothing stays in the lane: then history and the answers of `pstp explain` tell of it.
SETTLE_MS: Final = 1_000
# A longer line settles: a parked task takes less memory in the machine.
LINE_MAX: Final = 5_000


class Item:
    """One task in the lane.  `over`: it has ended, or has left the lane.  `runs`: for whoever runs it.

    `sequence` is given when it is first told of, since sequences rise in the order of the history; 0 before.
    """

    __slots__ = (
        "accepted", "ended", "headers", "line", "offset", "over", "result", "result_cut", "rowed", "runs",
        "sequence", "started", "task", "token", "value",
    )  # fmt: skip

    started: Moment
    ended: Moment

    def __init__(self, line: "Line", task: AcceptedTask, record: "Input", accepted: Now) -> None:
        self.line, self.task, self.accepted = line, task, accepted
        self.offset, self.value, self.headers = record.offset, record.value or b"", record.headers
        self.over = self.rowed = self.result_cut = False
        self.result: MaybeRaw = None
        self.runs: object = None
        self.token = self.sequence = 0

    def wire(self) -> DispatchedTask:
        task = self.task
        return DispatchedTask(
            self.sequence, task.task_id, task.type, self.token, 1, task.payload, task.timeout_s, task.labels,
            task.extra, task.trace,
        )  # fmt: skip

    def row(self) -> rows.TaskRow:
        return rows.TaskRow(
            rows.ROW_FORMAT, self.line.partition.number, self.offset, self.line.key, self.value, self.headers,
            self.accepted.wall_ms,
        )  # fmt: skip

    @property
    def origin(self) -> tuple[int, int]:
        return self.line.partition.number, self.offset


class Line:
    """The tasks of one group in the lane, in order: the first one runs, or is the next to.  `over`: it has settled."""

    __slots__ = ("items", "key", "over", "partition")

    def __init__(self, partition: Partition, key: bytes) -> None:
        self.partition, self.key = partition, key
        self.items: deque[Item] = deque()
        self.over = False


class Express:
    """The lane of one engine.  `count`: tasks in it that have not ended; `on_room`: see `want_room`."""

    def __init__(self, engine: "Engine", here: Here) -> None:
        self._engine, self._here = engine, here
        self._worker = history.Worker(engine.instance, engine.boot_id)
        self.waiting: deque[Line] = deque()
        self.running: dict[Item, None] = {}  # in the order in which they began
        self.count = 0
        self._wanted: tuple[int, int] | None = None
        self.on_room: Callable[[], None] = lambda: None
        self.done: list[Item] = []  # since the last flush
        self._fresh: list[Item] = []  # accepted since the last cut
        self._by_age: deque[Item] = deque()
        self._handed: list[tuple[Item, Start]] = []

    # -- in

    def takes(self, partition: Partition, task: AcceptedTask, record: "Input", now: Now) -> bool:
        """Whether this task may go into the lane; if not, its line, if there is one, has to settle."""
        here = self._here
        if not here.open or task.type not in here.express or task.type in here.allowed:
            return False
        if task.idempotency_key is not None or task.not_before_ms is not None:
            return False
        if task.timeout_s is not None and task.timeout_s * 1000 < SETTLE_MS:
            return False
        line = partition.lines.get(task.key)
        if line is not None:
            return len(line.items) < LINE_MAX
        entry = partition.entries.get(task.key)
        if entry is not None and entry.group != IDLE:
            return False
        if here.free <= 0 and here.workers is not None and here.workers.handles(task.type):
            return False  # workers help
        if record.offset < partition.careful_end:
            return False  # it may have begun before
        return not partition.quiet_until_ms

    def add(self, partition: Partition, task: AcceptedTask, record: "Input", now: Now) -> None:
        line = partition.lines.get(task.key)
        if line is None:
            line = partition.lines[task.key] = Line(partition, task.key)
            self.waiting.append(line)
        item = Item(line, task, record, now)
        line.items.append(item)
        self._fresh.append(item)
        self._by_age.append(item)
        self.count += 1
        partition.tasks += 1

    def holds(self, lines: int, tasks: int) -> bool:
        """Whether so many groups, or tasks, are in it."""
        return len(self.running) + len(self.waiting) >= lines or self.count >= tasks

    def oldest_ms(self) -> int | None:
        """When the oldest task in it was accepted, by the wall clock."""
        return next((item.accepted.wall_ms for item in self._by_age if not item.over), None)

    def want_room(self, lines: int, tasks: int) -> None:
        """Have `on_room` called when it holds no longer so many."""
        self._wanted = lines, tasks

    def _say_room(self) -> None:
        if self._wanted is not None and not self.holds(*self._wanted):
            self._wanted = None
            self.on_room()

    # -- for whoever runs handlers

    def begin(self, moment: Moment) -> Item | None:
        """The next task to run, as of this moment, with its token.  The caller has a slot."""
        if not self._here.open:
            return None
        waiting = self.waiting
        while waiting:
            line = waiting.popleft()
            if line.over:
                continue
            item = line.items[0]
            item.token = line.partition.next_number()
            item.started = moment
            self.running[item] = None
            return item
        return None

    def state_of(self, item: Item) -> MaybeRaw:
        """The group's state."""
        state = item.line.partition.states.get(item.line.key)
        return None if state is None else Raw(state)

    def succeeded(self, item: Item, ended: Moment, result: MaybeRaw = None, result_cut: bool = False) -> None:
        """It has succeeded, and there is nothing else to say of it."""
        self.running.pop(item, None)
        if item.over:  # its partition was let go meanwhile
            return
        item.over = True
        item.ended, item.result, item.result_cut = ended, result, result_cut
        line = item.line
        line.items.popleft()
        if line.items:
            self.waiting.append(line)
        else:
            line.over = True
            del line.partition.lines[line.key]
        line.partition.changed = True
        line.partition.tasks -= 1
        self.done.append(item)
        self.count -= 1
        if self._wanted is not None:
            self._say_room()

    def hand_over(self, item: Item) -> Start | None:
        """It needs the machine: its line settles.  What to report about from now on; None if it has settled before."""
        if item in self.running and item.over:  # its partition was let go: nobody listens any more
            del self.running[item]
            return self._start(item, None)
        if not item.over:
            self.settle(item.line)
        for place, (handed, start) in enumerate(self._handed):
            if handed is item:
                del self._handed[place]
                return start
        return None

    def take_handed(self) -> list[tuple[Item, Start]]:
        """What runs and has settled since."""
        handed, self._handed = self._handed, []
        return handed

    def hand_over_all(self) -> None:
        """All that runs settles."""
        for item in list(self.running):
            if item.over:
                del self.running[item]
                self._handed.append((item, self._start(item, None)))
            else:
                self.settle(item.line)

    # -- out of the lane

    def settle(self, line: Line) -> None:
        """The machine takes over: what waits is parked or ready, what runs is running."""
        self.flush()
        engine, partition = self._engine, line.partition
        del partition.lines[line.key]
        line.over = True
        entry = engine.entry(partition, line.key)
        for item in line.items:
            item.over = True
            partition.tasks -= 1
            self.count -= 1
            item.sequence = item.sequence or partition.next_number()
            engine.settle(partition, entry, item)
            if item in self.running:
                del self.running[item]
                self._handed.append((item, self._start(item, entry)))
        self._say_room()

    def _start(self, item: Item, entry: Entry | None) -> Start:
        partition = item.line.partition
        if entry is None:
            entry = Entry(item.line.key)  # of a partition that was let go: nobody listens
        return Start(partition, entry, item.wire(), self.state_of(item), careful=False)

    def settle_partition(self, partition: Partition) -> None:
        for line in list(partition.lines.values()):
            self.settle(line)

    def settle_old(self, now: Now) -> None:
        by_age = self._by_age
        while by_age:
            item = by_age[0]
            if not item.over:
                if now.mono_ms - item.accepted.mono_ms < SETTLE_MS:
                    return
                self.settle(item.line)
            by_age.popleft()

    def drop_partition(self, partition: Partition) -> None:
        """It is let go: what runs of it says nothing any more."""
        for line in partition.lines.values():
            line.over = True
            for item in line.items:
                item.over = True
                self.count -= 1
        partition.lines.clear()
        self.done = [item for item in self.done if item.line.partition is not partition]
        self._fresh = [item for item in self._fresh if item.line.partition is not partition]
        self._say_room()

    # -- what is written

    def flush(self) -> None:
        """Tell of what has ended, before anything that comes later."""
        if not self.done:
            return
        engine, worker = self._engine, self._worker
        done, self.done = self.done, []
        counts: Counter[tuple[Partition, bool, str]] = Counter()
        for item in done:
            line = item.line
            partition = line.partition
            item.sequence = item.sequence or partition.next_number()
            told = history.run_through(item.task, item, worker)
            engine.put("task-events", partition.number, line.key, told)
            if item.rowed:
                engine.put("changelog", partition.number, rows.task_key(item.sequence, line.key), None)
            counts[partition, not item.rowed, item.task.type] += 1
        for (partition, parked, task_type), count in counts.items():
            totals.add_run_through(partition.totals, task_type, count, parked=parked)
        engine.time_runs(done)

    def cut(self) -> None:
        """A transaction ends here: what has not ended is kept from now on."""
        self.flush()
        engine = self._engine
        fresh, self._fresh = self._fresh, []
        for item in fresh:
            if item.over:
                continue
            item.rowed = True
            line = item.line
            item.sequence = line.partition.next_number()
            key = rows.task_key(item.sequence, line.key)
            engine.put("changelog", line.partition.number, key, rows.encode(item.row()))
            emit = Emit(TaskState.PARKED, item.sequence, 1)
            event = history.state_changed(item.task.group, item.task, emit, item.accepted, None, item.origin)
            engine.publish(line.partition, line.key, event)
