"""The scheduler without I/O: records in, records out.  The shell reads, commits what comes out in one transaction, and
answers the look-ups that `watch` asks for.

`step` takes a batch through the groups' state machines, drains the ready set into dispatches and gives all records of
one transaction.  Memory runs ahead of the log by one step: if the transaction fails, the engine's partitions must be
dropped and loaded again.
"""

import heapq
import re
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple, TypeGuard, TypeVar

import msgspec

from streams import commands, distribution, edits, history, limits, protocol, rows, runs, totals
from streams import group as machine
from streams.breakers import Breaker, Breakers, BreakerSettings, BreakerState, Place
from streams.catalogue import OTHER, TYPES_MAX, WAIT_S
from streams.clock import Now
from streams.distribution import Distribution
from streams.express import Express, Item
from streams.flow import Asking, Flow
from streams.group import (
    Accepted,
    Announce,
    Answer,
    Behind,
    Bury,
    By,
    CancelRun,
    CutAsked,
    Decision,
    Displace,
    Due,
    Edit,
    Emit,
    Free,
    GoOn,
    Granted,
    Group,
    Ignored,
    Insert,
    Lease,
    LeaseExpired,
    Leave,
    LostBeforeStart,
    MakeReady,
    PauseUntil,
    Phase,
    Progress,
    Promoted,
    PromoteNext,
    Reported,
    ResumeAsked,
    Send,
    SetState,
    StartSweep,
    Swept,
    TakeBack,
    Unready,
    Wait,
    Withdrawn,
)  # fmt: skip
from streams.intake import AcceptedTask, Refused, read_task
from streams.limits import IDEMPOTENCY_WINDOW_S
from streams.memory import Dead
from streams.murmur2 import home_partition
from streams.partition import BrokenInvariant, Entry, Partition, Slot, read_row, sequence_of, take_head
from streams.placement import CLAIM_PREFIX, LOCAL, Here, Start
from streams.protocol import (
    PROTOCOL,
    TERMINAL,
    Change,
    Completion,
    Control,
    Dispatch,
    DispatchedTask,
    ErrorInfo,
    Event,
    FailurePolicy,
    Member,
    Moment,
    Outcome,
    Reason,
    Refusal,
    Report,
    TaskState,
)
from streams.ran import Ran
from streams.ready import Capacity, ReadySet
from streams.retry import Policy
from streams.rows import Headers
from streams.settings import TopicName
from streams.watch import Out, Watch

ORIGIN_HEADER = "pstp.origin"
# Partition and offset, no longer than real ones are: what a stranger writes there must not break a row.
_ORIGIN = re.compile(rb"(\d{1,4}):(\d{1,18})(:keyless)?")
Marks = dict[str, str | int]
# At most so many groups have moved and are not in the tallies yet; who looks at these counts them first.
MOVED_MAX = 5_000
# Kafka's own names for what ours say too (KIP-1191 as in Apache Kafka 4.4; the disposition is KIP-1317's).
DLQ = {
    "topic": "topic", "partition": "partition", "offset": "offset", "delivery.count": "attempts", "message": "error",
    "disposition": "reason",
}  # fmt: skip
# Why a task waits again, or is dead, without having failed by itself, or for a reason that lies in this task alone.
NO_FAILURE = frozenset({
    Reason.SNOOZED, Reason.EDITED, Reason.CASCADE, Reason.WORKER_LOST, Reason.RELEASED, Reason.HANDLER_REJECTED,
    Reason.INVALID_PAYLOAD,
})  # fmt: skip


class Input(NamedTuple):
    """One record of an input topic."""

    topic: TopicName
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers


class Output(NamedTuple):
    topic: TopicName
    partition: int
    key: bytes | None
    value: bytes | None
    headers: Headers | None = None


class RecordFailed(RuntimeError):
    """Processing this record raised: load afresh and, if it raises again, quarantine it."""

    def __init__(self, record: Input) -> None:
        super().__init__(f"{record.topic}-{record.partition}@{record.offset} cannot be processed")
        self.place = record.topic, record.partition, record.offset


class Engine:
    """Everything that one scheduler instance decides.  `partitions`: what it owns, by number."""

    def __init__(
        self, *, instance: str, boot_id: str, owner: str, partitions: int, lease_s: float, task_bytes_max: int,
        policy: Policy, here: Here | None = None, breakers: BreakerSettings = BreakerSettings(), flow: Flow = Flow(),
        group_policies: Iterable[tuple[str, FailurePolicy]] = (), idempotency_window_s: float = IDEMPOTENCY_WINDOW_S,
        run_ms: int = 0,
    ) -> None:  # fmt: skip
        self.instance, self.boot_id, self.owner = instance, boot_id, owner
        self.partition_count = partitions
        self.policy = policy
        self.here = here
        self._lease_ms = int(lease_s * 1000)
        self._starts: list[Start] = []
        self.cancels: list[tuple[bytes, int]] = []  # local executions to stop: group and token; the shell takes them
        self.partitions: dict[int, Partition] = {}
        self.ready = ReadySet()
        self.watch = Watch(self._lease_ms)
        self.members: list[Member] = []
        # For metrics of this process; what became of tasks is in each partition's totals.
        self.counts: Counter[tuple[str, str]] = Counter()  # by (what, label)
        self._types: set[str] = set()  # those that metrics tell apart
        self._moved: dict[Entry, Partition] = {}  # to be counted in the tallies
        self._waited: dict[str, list[float]] = {}  # to be counted in `waits`, and in `durations`
        self._ended: dict[str, list[float]] = {}
        self.waits: dict[str, Distribution] = {}  # per type, seconds
        self.durations: dict[str, Distribution] = {}
        self.ran = Ran()
        self.run_ms: dict[str, float] = {}  # per type: how long handlers ran lately
        # A breaker counts each execution before it lets the next one out.
        self.run_ms_max = 0 if breakers.rate else run_ms  # expected work in one dispatch; 0: one task at a time
        self._waiting_commands: dict[Out, None] = {}  # groups with commands that wait for the end of a run
        self.unclaimed: Counter[int] = Counter()
        self.running: Counter[str] = Counter()
        self.out: Counter[str] = Counter()  # per type
        self.capacity = Capacity((), {}, {})
        self.quarantined: set[tuple[str, int, int]] = set()
        self.stopped: dict[int, str] = {}  # partitions with something too new for this process, and what it is
        self.task_bytes_max = task_bytes_max
        self.breakers = Breakers(breakers)
        self.no_room = ""  # why a task was turned away lately
        self._told: dict[str, BreakerState | None] = {}  # by type, what the history says; None: who knows
        self.flow = flow
        self._group_policies = tuple(group_policies)  # (pattern, policy): the first that fits counts
        self._idempotency_ms = int(idempotency_window_s * 1000)
        self._pauses: list[tuple[int, int, bytes]] = []  # heap of (when, partition, key)
        self._sweeping: dict[Out, None] = {}
        self._asking = Asking()
        self._delays: list[tuple[int, int, bytes, int]] = []  # heaps of (when, partition, key, timer)
        self._times: list[tuple[int, int, bytes, int]] = []
        self._last_timer = 0
        self._out: list[Output] = []
        self._said: list[bytes] = []  # events of one group that are to share a record
        self._said_of: tuple[int, bytes | None] = (-1, None)
        self._said_bytes = 0
        self._dirty: dict[tuple[int, bytes], Entry] = {}
        self._now = Now(0, 0)
        # Limits and breakers count in the machine: with them, nothing takes the express lane.
        counted = breakers.rate or flow.group_max or flow.partition_max
        self.express = None if here is None or counted else Express(self, here)

    # -- ownership

    def adopt(self, partition: Partition, now: Now, dead: frozenset[str] = frozenset()) -> None:
        """Take over a loaded partition: everything that is out is watched anew, every other head goes on.

        `dead`: boot ids of processes that are known to be gone.
        """
        self.drop(partition.number)  # a rebalance may give again what it never took
        self._now = now
        gone = dead | {self.boot_id}
        self._be_careful(partition, gone)
        partition.begin_epoch()
        self.partitions[partition.number] = partition
        for entry in list(partition.entries.values()):
            head, out = entry.group.head, Out(partition.number, entry.key)
            if entry.group.held is not None:
                self._adopt_held(out, entry.group)
            if entry.commands:
                self._waiting_commands[out] = None
                self.cut_run(partition, entry)
            if head is None:
                if entry.parked and entry.group.sweep is None:
                    self._promote(partition, entry)
                continue
            match head.phase:
                case Phase.READY:
                    if entry.group.may_start:
                        self._make_ready(partition, entry)
                case Phase.WAITING:
                    self._wait(partition, entry, Wait(head.sequence, head.due_wall_ms, head.delay_ms))
                case Phase.DISPATCHED:
                    if head.claim_id:  # the next one of a run
                        self._hold(entry, worker=head.worker)
                        self.watch.claimed(out, head.token, head.dispatch_partition, now.mono_ms)
                    else:
                        self._hold(entry, dispatch_partition=head.dispatch_partition)
                        self.watch.dispatched(out, head.token, head.dispatch_partition, now.mono_ms)
                    self._out_again(out, entry, head.token)
                case Phase.RUNNING:
                    self._hold(entry, worker=head.worker)
                    self._out_again(out, entry, head.token)
                    self.watch.running(out, head.token, now.mono_ms)
                    if head.claim_id.removeprefix(CLAIM_PREFIX) in gone:
                        self._ended_with_its_process(partition, entry)
                case Phase.IDLE:
                    raise machine.IllegalTransition("a head is never idle")
        for entry in partition.entries.values():
            partition.tally.note(entry, entry.key in partition.states, self._label)

    def _out_again(self, out: Out, entry: Entry, token: int) -> None:
        if entry.task is not None:
            self.breakers.still_out(entry.task.type, Place(out.partition, token))

    def _be_careful(self, partition: Partition, gone: frozenset[str]) -> None:
        """After owners that ran handlers themselves and did not let go.

        One that is not known to be gone stops within a lease of its last commit, which was before we fenced it.
        """
        if partition.left_running:
            partition.left_running = False  # it is told in our rows from now on
            partition.careful_below = partition.counter
            partition.careful_end = max(partition.careful_end, partition.tasks_end)
        partition.may_run = tuple(boot_id for boot_id in partition.may_run if boot_id not in gone)
        partition.quiet_until_ms = self._now.mono_ms + self._lease_ms if partition.may_run else 0
        partition.quiet = []

    def _adopt_held(self, out: Out, group: Group) -> None:
        """Say again what the owner before may have said to nobody; all of it is harmless twice."""
        if group.sweep is not None:
            self._sweeping[out] = None
        if group.pause is not None and group.pause.until_wall_ms is not None:
            heapq.heappush(self._pauses, (group.pause.until_wall_ms, *out))
        if group.held is not None and group.held.asked and group.head is not None:
            self._asking.add(out, group.head.token)

    def drop(self, number: int) -> None:
        """Forget a partition: it has another owner, or memory is not to be trusted."""
        partition = self.partitions.pop(number, None)
        if partition is None:
            return
        if self.express is not None:
            self.express.drop_partition(partition)
        for entry in partition.entries.values():
            self._hold(entry)
        self.ready.drop_partition(number)
        self.watch.forget_partition(number)
        self._sweeping = {out: None for out in self._sweeping if out.partition != number}
        self._waiting_commands = {out: None for out in self._waiting_commands if out.partition != number}
        self._pauses = [pause for pause in self._pauses if pause[1] != number]
        heapq.heapify(self._pauses)
        self._asking.drop_partition(number)
        self.breakers.drop_partition(number)
        self._told = dict.fromkeys(self._told)  # it may stand in a transaction that has failed
        partition.held.clear()  # their offsets are not committed: they come again
        partition.asked.clear()
        partition.end_behind_held = partition.end_behind_asked = 0
        self._dirty = {k: e for k, e in self._dirty.items() if k[0] != number}
        self._moved = {e: p for e, p in self._moved.items() if p is not partition}
        for heap in (self._delays, self._times):
            heap[:] = [timer for timer in heap if timer[1] != number]
            heapq.heapify(heap)
        self._starts = [start for start in self._starts if start.partition is not partition]
        self._write_said()
        self._out = [output for output in self._out if output.partition != number] if self.partitions else []

    def stamp(self, number: int, *, released: bool) -> list[Output]:
        """The partition's row with our name on it, to be committed alone."""
        row = self.partitions[number].to_row(
            self.owner, self.boot_id, released=released, runs_tasks=self.here is not None
        )
        return [Output("changelog", number, rows.PARTITION_KEY, row)]

    # -- one step

    def step(self, records: Iterable[Input], ends: dict[tuple[str, int], int], now: Now) -> list[Output]:
        """Everything that one batch leads to, in the order in which it must be written.

        `ends`: up to where each input partition has been read, where that is known to be its end.  Raises
        `RecordFailed`; memory is not to be trusted then.
        """
        self.take_in(records, ends, now)
        if self.express is not None:
            self.express.settle_old(now)
            self._now = now
        self._fire_timers()
        self._expire()
        if self._waiting_commands:
            self._take_waiting_commands()
        if self._sweeping:
            self._sweep()
        if self._asking:
            self._ask_back()
        self._forget()
        self._end_quiet()
        self._dispatch()
        return self.cut()

    def take_in(self, records: Iterable[Input], ends: dict[tuple[str, int], int], now: Now) -> None:
        """The first part of a step.  What follows from it comes with the next step, or begins here at once."""
        self._now = now
        self._take_all(records)
        self._take_held()
        self._note_ends(ends)

    def _take_all(self, records: Iterable[Input]) -> None:
        for record in records:
            partition = self.partitions.get(record.partition)
            if partition is None or record.partition in self.stopped:
                continue
            try:
                self._take(partition, record)
            except protocol.VersionError as error:
                self._stop_before(partition, record, error)
            except Exception as error:
                raise RecordFailed(record) from error

    def cut(self) -> list[Output]:
        """All that has happened since the last cut, as the records of one transaction."""
        if self.express is not None:
            self.express.cut()
        self._write_said()
        self._write_rows()
        outputs, self._out = self._out, []
        return outputs

    def _stop_before(self, partition: Partition, record: Input, error: protocol.VersionError) -> None:
        """Nothing of it was taken in.  The shell lets go of the partition once this step is committed."""
        if self.express is not None:
            self.express.settle_partition(partition)
        partition.next_offsets[record.topic] = partition.read_up_to[record.topic] = record.offset
        self.stopped[partition.number] = f"{record.topic}-{record.partition} holds at offset {record.offset} {error}"

    def _take(self, partition: Partition, record: Input) -> None:
        if record.offset < partition.next_offsets[record.topic]:
            self.counts["already_taken", record.topic] += 1
            return
        if record.topic == "tasks" and self.flow.pauses and self._must_wait(partition, record):
            partition.held.append(record)
            return
        if record.topic == "commands" and partition.quiet_until_ms:
            partition.asked.append(record)  # who may still run the task it is about hears of no command
            return
        partition.next_offsets[record.topic] = partition.read_up_to[record.topic] = record.offset + 1
        partition.changed = True
        if (record.topic, record.partition, record.offset) in self.quarantined:
            self._quarantine(partition, record)
        elif record.topic == "tasks":
            self._take_task(partition, record)
        elif record.topic == "completions":
            self._take_completion(partition, record)
        else:
            if self.express is not None:
                self.express.flush()
                self.express.settle_partition(partition)
            commands.take(self, partition, record)

    def _must_wait(self, partition: Partition, record: Input) -> bool:
        """Whether there is no room for one more task, or others wait before it: intake of the partition pauses."""
        if partition.held:
            return True
        entry = partition.entries.get(record.key or b"")
        return self.flow.full(entry.group.parked if entry is not None else 0, partition.tasks) is not None

    def _take_held(self) -> None:
        """Take in what waited for room, as far as there is some now."""
        if not self.flow.pauses:
            return
        for partition in self.partitions.values():
            waiting, partition.held = partition.held, deque()
            while waiting:
                record = waiting.popleft()
                self._take(partition, record)
                if partition.held:
                    partition.held.extend(waiting)
                    break
            if partition.end_behind_held and not partition.held:
                self._note_ends({("tasks", partition.number): partition.end_behind_held})
                partition.end_behind_held = 0

    def full_partitions(self) -> list[int]:
        """Partitions of `tasks` from which nothing should be read now."""
        return [number for number, partition in self.partitions.items() if partition.held]

    def _note_ends(self, ends: dict[tuple[str, int], int]) -> None:
        """What lies between the last record and the end is no record: a transaction's marker, or an aborted one."""
        for (topic, number), end in ends.items():
            partition = self.partitions.get(number)
            if topic == "tasks" and partition is not None and partition.held:
                partition.end_behind_held = end  # it is told once
                continue
            if topic == "commands" and partition is not None and partition.asked:
                partition.end_behind_asked = end
                continue
            if partition is not None and number not in self.stopped and end > partition.read_up_to[topic]:
                partition.read_up_to[topic] = end
                partition.changed = True  # so that committed offsets, and lag as others see it, follow

    # -- tasks

    def _take_task(self, partition: Partition, record: Input) -> None:
        if record.headers:
            protocol.refuse_newer_headers(record.headers)
        origin_partition, origin_offset, key, headers, forwarded = read_origin(record, self.partition_count)
        task = read_task(
            key, record.value, headers, partition=origin_partition, offset=origin_offset,
            bytes_max=self.task_bytes_max,
        )  # fmt: skip
        origin = origin_partition, origin_offset
        if isinstance(task, Refused):
            self._reject(partition, record, key, headers, origin, task.reason, task.detail)
            return
        home = home_partition(task.key, self.partition_count)
        if home != partition.number:
            if forwarded:
                detail = f"forwarded from partition {origin_partition} and still not at home: see `pstp topics check`"
                self._reject(partition, record, key, headers, origin, Reason.WRONG_PARTITION, detail)
            else:
                self._forward(record, home, task.key)
            return
        if forwarded:
            if origin_offset < partition.origins.get(origin_partition, 0):
                detail = "forwarded a second time: the first was taken in"
                self._reject(partition, record, key, headers, origin, Reason.WRONG_PARTITION, detail)
                return
            partition.origins[origin_partition] = origin_offset + 1
        if (
            self.express is not None
            and not forwarded
            and key
            and self.express.takes(partition, task, record, self._now)
        ):
            self.counts["accepted", self._label(task.type)] += 1
            self.express.add(partition, task, record, self._now)
            return
        if (line := partition.lines.get(task.key)) is not None and self.express is not None:
            self.express.settle(line)  # what goes another way stands behind those in the lane
        value = record.value or b""
        row = rows.TaskRow(rows.ROW_FORMAT, *origin, key, value, headers, self._now.wall_ms)
        if task.idempotency_key is not None and self._is_duplicate(partition, task, origin):
            return
        entry = partition.entries.get(task.key)
        full = self.flow.full(entry.group.parked if entry is not None else 0, partition.tasks)
        if full is not None and not self.flow.pauses:
            self.no_room = f"group {task.group!r}: {full}"
            self._turn_away(partition, task, row)
            return
        self._accept(partition, task, row)
        if record.offset < partition.careful_end:
            partition.careful_below = partition.counter

    def _turn_away(self, partition: Partition, task: AcceptedTask, row: rows.TaskRow) -> None:
        """There is no room for it: a dead letter, which can be redriven when there is."""
        self.counts["group_full", ""] += 1
        place, group = Dead(partition.next_number(), task.key), task.group
        origin = row.origin_partition, row.origin_offset
        parked = Emit(TaskState.PARKED, place.sequence, 1)
        buried = Emit(TaskState.DEAD_LETTERED, place.sequence, 1, reason=Reason.GROUP_FULL)
        self._publish(partition, task.key, history.state_changed(group, task, parked, self._now, None, origin))
        self._publish(partition, task.key, history.state_changed(group, task, buried, self._now, None, None))
        self._bury_task(partition, rows.encode(row), row, task, place, Reason.GROUP_FULL)

    def _is_duplicate(self, partition: Partition, task: AcceptedTask, origin: tuple[int, int]) -> bool:
        assert task.idempotency_key is not None
        first = partition.memory.first(task.key, task.idempotency_key, self._now.wall_ms, self._idempotency_ms)
        if first is None:
            return False
        self.counts["duplicate", ""] += 1
        self._publish(partition, task.key, history.duplicate(task.group, task, first, origin, self._now))
        return True

    def _accept(self, partition: Partition, task: AcceptedTask, row: rows.TaskRow) -> None:
        if self.express is not None:
            self.express.flush()  # sequences rise in the order of the history
        entry = partition.entries.get(task.key)
        if entry is None:
            entry = partition.entries[task.key] = Entry(task.key)
        sequence, value = partition.next_number(), rows.encode(row)
        self._put("changelog", partition.number, rows.task_key(sequence, task.key), value)
        if task.idempotency_key is not None:
            seen = rows.SeenRow(rows.ROW_FORMAT, task.idempotency_key, task.task_id, self._now.wall_ms)
            old = partition.memory.remember(sequence, task.key, seen)
            if old is not None:
                self._put("changelog", partition.number, old, None)
            self._put("changelog", partition.number, rows.seen_key(sequence, task.key), rows.encode(seen))
        self.counts["accepted", self._label(task.type)] += 1
        self._take_on(partition, entry, sequence, (task, row), value)

    def _take_on(
        self, partition: Partition, entry: Entry, sequence: int, accepted: tuple[AcceptedTask, rows.TaskRow],
        value: bytes, *, told: bool = False,
    ) -> None:  # fmt: skip
        """Its row (`value`) is written; the machine hears of it.  `told`: it has its event as well."""
        task, row = accepted
        partition.tasks += 1
        if entry.group.head is None and entry.group.sweep is None:
            entry.task, entry.row, entry.accepted_ms = task, value, row.accepted_ms
        else:
            entry.park(sequence, value)
        event = Accepted(sequence, task.not_before_ms, task.max_attempts, task.on_failure)
        self._feed(partition, entry, event, accepted=accepted, told=told)

    def _label(self, task_type: str) -> str:
        """A type as a metric's label: publishers invent types, so only so many are told apart."""
        if task_type in self._types:
            return task_type
        if len(self._types) >= TYPES_MAX:
            return OTHER
        self._types.add(task_type)
        return task_type

    def types_without_handler(self) -> dict[str, int]:
        """Types of ready heads that no live worker handles, and how many heads wait for one."""
        return {t: n for t, n in self.ready.types().items() if not self.handles(t)}

    def handles(self, task_type: str) -> bool:
        """Whether any live worker, or this process, has a handler for this type."""
        return self.capacity.handles(task_type) or (self.here is not None and self.here.handles(task_type))

    def _forward(self, record: Input, home: int, key: bytes) -> None:
        """Move it to where its group lives, in this transaction.  Its publisher uses another partitioner."""
        self.counts["forwarded", ""] += 1
        origin = f"{record.partition}:{record.offset}{'' if record.key else ':keyless'}"
        headers: Headers = [*record.headers, (ORIGIN_HEADER, origin.encode())]
        self._out.append(Output(record.topic, home, key, record.value, headers))

    def _reject(
        self, partition: Partition, record: Input, key: bytes | None, headers: Headers, origin: tuple[int, int],
        reason: Reason, detail: str,
    ) -> None:  # fmt: skip
        """Not a task: a dead letter and a `rejected` event, and the partition goes on."""
        self.counts["rejected", reason] += 1
        marks: Marks = {"reason": reason, "detail": detail, "partition": origin[0], "offset": origin[1]}
        self._write_dead_letter(partition, key, record.value, headers, marks)
        self._publish(partition, shown(key), history.rejected(key, origin, reason, detail, self._now))

    def _quarantine(self, partition: Partition, record: Input) -> None:
        """It raised twice: set it aside and block its group, so that nothing runs on half a truth."""
        detail = "processing it failed twice; the log of the scheduler has the traceback"
        self._dead_letter_input(partition, record, Reason.INTERNAL_ERROR, detail)
        entry = partition.entries.get(record.key or b"")
        if entry is None and record.topic == "tasks" and is_group(record.key):
            entry = partition.entries[record.key] = Entry(record.key)
        if entry is not None:
            self.ready.discard(partition.number, entry.key)
            entry.group = msgspec.structs.replace(entry.group, blocked=Reason.INTERNAL_ERROR)
            self._dirty[partition.number, entry.key] = entry
            self.cut_run(partition, entry)

    def _dead_letter_input(self, partition: Partition, record: Input, reason: Reason, detail: str) -> None:
        if record.topic == "tasks":
            origin_partition, origin_offset, key, headers, _ = read_origin(record, self.partition_count)
            self._reject(partition, record, key, headers, (origin_partition, origin_offset), reason, detail)
            return
        self.counts["unreadable", record.topic] += 1
        marks: Marks = {
            "reason": reason, "detail": detail, "topic": record.topic,
            "partition": record.partition, "offset": record.offset,
        }  # fmt: skip
        self._write_dead_letter(partition, record.key, record.value, record.headers, marks)

    def _write_dead_letter(
        self, partition: Partition, key: bytes | None, value: bytes | None, headers: Headers,
        marks: Marks,
    ) -> None:  # fmt: skip
        """The original, byte for byte, and what is known about it in `pstp.` headers."""
        key, value, headers, bytes_uncut = fit(key, value, headers)
        if bytes_uncut:
            marks = marks | {"cut": f"no headers, and the beginning of what took {bytes_uncut} bytes"}
        marks = {"topic": "tasks"} | marks | {"v": PROTOCOL}
        added: Headers = [(f"__dlq.errors.{n}", str(marks[ours]).encode()) for n, ours in DLQ.items() if ours in marks]
        added += [(f"pstp.{name}", str(mark).encode()) for name, mark in marks.items()]
        self._out.append(Output("dead-letters", partition.number, key, value, [*headers, *added]))

    # -- completions

    def _take_completion(self, partition: Partition, record: Input) -> None:
        try:
            completion = protocol.decode_completion(record.value or b"")
        except msgspec.DecodeError as error:
            self._dead_letter_input(partition, record, Reason.BAD_JSON, f"no completion of ours: {error}")
            return
        key = completion.group.encode()
        for report in completion.reports:
            entry = partition.entries.get(key)
            if entry is None:
                self._refuse_report(partition, completion, report, Ignored.STALE_TOKEN)
                continue
            event = Reported(report, completion.claim_id, completion.worker)
            ignored = self._feed(partition, entry, event, completion=completion)
            if ignored is not None:
                self._refuse_report(partition, completion, report, ignored)

    def _refuse_report(self, partition: Partition, completion: Completion, report: Report, why: Ignored) -> None:
        """Refusing to believe a worker that lost its claim is what keeps a group serial."""
        event = history.report_refused(completion, report, why, self._now)
        if event is None:
            self.counts["renewal_refused", why] += 1
        else:
            self._publish(partition, shown(completion.group.encode()), event)

    # -- time

    def _fire_timers(self) -> None:
        for heap, now_ms in ((self._delays, self._now.mono_ms), (self._times, self._now.wall_ms)):
            while heap and heap[0][0] <= now_ms:
                _, number, key, timer = heapq.heappop(heap)
                partition = self.partitions.get(number)
                entry = partition.entries.get(key) if partition else None
                if partition and entry and entry.timer == timer and entry.group.head is not None:
                    self._feed(partition, entry, Due(entry.group.head.sequence))
        while self._pauses and self._pauses[0][0] <= self._now.wall_ms:
            _, number, key = heapq.heappop(self._pauses)
            self._feed_if_there(number, key, ResumeAsked(None))

    def _expire(self) -> None:
        self.watch.tick(self._now.mono_ms)
        for number, partition in self.partitions.items():
            for expired in self.watch.read_up_to(number, partition.read_up_to["completions"]):
                event = LeaseExpired(expired.token) if expired.running else LostBeforeStart(expired.token)
                self.counts["worker_lost" if expired.running else "lost_before_start", ""] += 1
                self._go_alone(partition, expired.out.key)
                self._feed_if_there(number, expired.out.key, event)

    def _go_alone(self, partition: Partition, key: bytes) -> None:
        """A run was lost with its worker.  A task of it may have ended that worker, and not have been told of: each of
        them goes alone from now on, so that its start is in the log before it begins, and its attempt counts.
        """
        entry = partition.entries.get(key)
        if entry is not None and entry.group.run:
            entry.alone_to = entry.group.run[-1].sequence

    def _feed_if_there(self, number: int, key: bytes, event: machine.Event) -> None:
        partition = self.partitions.get(number)
        entry = partition and partition.entries.get(key)
        if partition and entry:
            self._feed(partition, entry, event)

    # -- what takes more than one step

    def _sweep(self) -> None:
        """Take parked tasks out that are to leave, so many a step: one transaction must not grow with a backlog."""
        left = limits.SWEPT_PER_STEP
        for out in list(self._sweeping):
            if left <= 0:
                return
            del self._sweeping[out]
            partition = self.partitions[out.partition]
            entry = partition.entries[out.key]
            sweep = entry.group.sweep
            if sweep is None:
                continue
            count = min(left, sweep.left)
            for _ in range(count):
                self._sweep_one(partition, entry, sweep)
            left -= count
            self._feed(partition, entry, Swept(count))

    def _sweep_one(self, partition: Partition, entry: Entry, sweep: machine.Sweep) -> None:
        sequence, value = entry.unpark()
        partition.tasks -= 1
        row, task = read_row(value)
        self._put("changelog", partition.number, rows.task_key(sequence, entry.key), None)
        if sweep.by is None:
            self._bury_task(partition, value, row, task, Dead(sequence, entry.key), Reason.CASCADE,
                            cascade_of=sweep.cause)  # fmt: skip
            emit = Emit(TaskState.DEAD_LETTERED, sequence, 1, reason=Reason.CASCADE)
        else:
            emit = Emit(TaskState.CANCELLED, sequence, 1, reason=Reason.BY_COMMAND)
        self._publish(
            partition, entry.key, history.state_changed(entry.name, task, emit, self._now, None, None)
        )  # fmt: skip

    def _ask_back(self) -> None:
        """Ask for dispatches whose fate a command waits for; conclude where nobody is there to answer.

        Nobody owns the dispatch partition, as of our own announcement that was made after the request was committed: a
        worker that announces it later reads `control` to its end before it claims (see `consumers.control`).  But who
        has left, or was frozen, may have claimed the dispatch before, and start it yet: the claims are looked up, and
        what they hold is concluded as of any other claimed dispatch (see `streams.watch`).
        """
        owned = {p for m in self.members if m.role == "worker" for p in m.partitions}
        mine = max((m.at_ms for m in self.members if m.boot_id == self.boot_id), default=0)
        for out, token in self._asking.unsent(self._now.wall_ms):
            entry = self._awaited(out, token)
            if entry is None:
                self._asking.forget(out)
            else:
                self._control(entry, self.partitions[out.partition], "take_back")
        for out, token in self._asking.announced(mine, self._now.mono_ms):
            entry = self._awaited(out, token)
            if entry is None:
                self._asking.forget(out)
            elif (head := self._dispatched(entry, token)) is not None and head.dispatch_partition not in owned:
                self.watch.look(out, token, head.dispatch_partition)
        for out, token in self.watch.found_unclaimed():
            if out.partition not in self.partitions:
                continue
            entry = self._awaited(out, token)
            if entry is not None and self._dispatched(entry, token) is not None:
                self._asking.forget(out)
                self._feed(self.partitions[out.partition], entry, Withdrawn(token))

    def _awaited(self, out: Out, token: int) -> Entry | None:
        """The group, if somebody waits for the fate of that dispatch, or for the end of a run that is out."""
        entry = self.partitions[out.partition].entries.get(out.key)
        if entry is None:
            return None
        if entry.group.run:
            return entry
        asked = entry.group.held is not None and entry.group.held.asked
        return entry if asked and self._dispatched(entry, token) is not None else None

    def _dispatched(self, entry: Entry, token: int) -> machine.Head | None:
        """The head, if it is on its way under that token."""
        head = entry.group.head
        return head if head is not None and head.phase is Phase.DISPATCHED and head.token == token else None

    def _control(self, entry: Entry, partition: Partition, kind: str) -> None:
        head = entry.group.head
        assert head is not None
        control = Control(PROTOCOL, kind, head.dispatch_partition, entry.name, head.token, self.instance)
        self._put("control", 0, entry.key, protocol.encode(control))
        partition.changed = True  # a transaction is fenced by the positions of those for whom it speaks

    def _forget(self) -> None:
        """Let go of what is remembered for a time only."""
        for partition in self.partitions.values():
            memory = partition.memory
            for place in memory.expired(self._now.wall_ms):
                self.close_dead_letter(partition, place, Reason.EXPIRED, None)
            for key in memory.forgotten(self._now.wall_ms, self._idempotency_ms):
                self._put("changelog", partition.number, key, None)

    def close_dead_letter(self, partition: Partition, place: Dead, why: Reason, by: By | None) -> rows.DeadRow:
        """It can no longer be redriven.  Raises `KeyError` if it is not open."""
        row = partition.memory.raise_(place)
        self._put("changelog", partition.number, rows.dead_key(*place), None)
        partition.changed = True
        event = history.dead_letter_closed(place.key.decode(), row.task_id, place.sequence, why, by, self._now)
        self._publish(partition, place.key, event)
        return row

    # -- dispatching

    def _dispatch(self) -> None:
        schedulers = [m for m in self.members if m.role == "scheduler" and m.instance != self.instance]
        unclaimed, running = Counter(self.unclaimed), Counter(self.running)
        for scheduler in schedulers:
            unclaimed.update(scheduler.unclaimed)
            running.update(scheduler.running)
        self.capacity = Capacity((m for m in self.members if m.role == "worker"), unclaimed, running)
        self.capacity.share(self.demand(), (s.demand for s in schedulers))
        self._half_open()
        if self.here is not None:
            self.here.workers, self.capacity.never = self.capacity, self.here.only
            self._start_here()
        for task_type, most in self.breakers.limits():
            self.capacity.bound(task_type, most)
        for ready, dispatch_partition in self.ready.drain(self.capacity):
            partition = self.partitions[ready.partition]
            entry = partition.entries[ready.key]
            entry.run = runs.behind(entry, self.run_ms, self.run_ms_max, self._now)
            token = partition.next_numbers(1 + len(entry.run))
            if entry.task is not None:
                self.breakers.sent(entry.task.type, Place(partition.number, token))
            behind = (Behind(f.sequence, f.task.max_attempts, f.task.on_failure) for f in entry.run)
            self._feed(partition, entry, Granted(token, dispatch_partition, tuple(behind)))
        self._take_back()

    def _half_open(self) -> None:
        """Breakers that have waited for their time let one probe out from now on."""
        if not self.partitions or not self.breakers.settings.rate:
            return
        for _ in self.breakers.half_open(self._now.mono_ms):
            self.counts["breaker", BreakerState.HALF_OPEN] += 1
        for task_type, breaker in self.breakers.states().items():
            if self._told.get(task_type, BreakerState.CLOSED) is not breaker.state:
                self._tell_breaker(task_type, breaker)

    # -- local execution

    def _start_here(self) -> None:
        """Give this process's free slots to ready heads.  To the machine: dispatched, claimed and started at once."""
        here = self.here
        assert here is not None
        here.allowed = dict(self.breakers.limits())
        for ready, _ in self.ready.drain(here):
            partition = self.partitions[ready.partition]
            entry = partition.entries[ready.key]
            head, task = entry.group.head, entry.task
            assert head is not None and task is not None
            token = partition.next_number()
            self.breakers.sent(task.type, Place(partition.number, token))
            self._start_head(partition, entry, token, here.moment())
            careful = head.sequence <= partition.careful_below
            self._starts.append(Start(partition, entry, _dispatched(entry), _state(partition, entry), careful))

    def _start_head(self, partition: Partition, entry: Entry, token: int, began: Moment) -> None:
        """To the machine: granted, claimed and started at once."""
        here, head, task = self.here, entry.group.head, entry.task
        assert here is not None and head is not None and task is not None
        self._feed(partition, entry, Granted(token, LOCAL))
        self.ran.started[self._label(task.type)] += 1
        started = Report(
            protocol.ReportKind.STARTED, head.sequence, token, started=began, policy=here.policies.get(task.type)
        )  # fmt: skip
        self._feed(
            partition, entry, Reported(started, here.claim_id, self.instance),
            completion=self._completion(entry, started),
        )  # fmt: skip

    def take_starts(self) -> list[Start]:
        """What is to begin here; the careful ones once the transaction of the latest cut is committed."""
        starts, self._starts = self._starts, []
        return starts

    def put_off(self, start: Start) -> None:
        """A careful one: the next cut holds its start."""
        self._starts.append(start)

    def report_here(self, start: Start, reports: Sequence[Report], now: Now, *, ended: bool) -> bool:
        """What a local execution says.  `ended`: its slot is free again, and the next head may start.

        False if the partition was let go meanwhile: it says nothing any more.
        """
        here, partition, entry = self.here, start.partition, start.entry
        assert here is not None
        if ended:
            here.free += 1
            self._note_ran(start.task.type, reports[-1])
        if self.partitions.get(partition.number) is not partition:
            return False
        self._now = now
        partition.changed = True
        for report in reports:
            completion = self._completion(entry, report)
            why = self._feed(partition, entry, Reported(report, here.claim_id, self.instance), completion=completion)
            if why is not None:
                self._refuse_report(partition, completion, report, why)
        if ended:
            self._start_here()
        return True

    def _note_ran(self, task_type: str, report: Report) -> None:
        began, over = report.started, report.ended
        seconds = () if began is None or over is None else ((over.mono_ns - began.mono_ns) / 1e9,)
        self.ran.end(self._label(task_type), report.kind, seconds)

    def _completion(self, entry: Entry, report: Report) -> Completion:
        claim_id = self.here.claim_id if self.here else ""
        return Completion(PROTOCOL, entry.name, self.instance, self.boot_id, claim_id, LOCAL, LOCAL, (report,))

    def _ended_with_its_process(self, partition: Partition, entry: Entry) -> None:
        """It ran in a process that is gone.  If that was us, before we joined again, it was stopped in order."""
        head = entry.group.head
        assert head is not None
        if head.claim_id == CLAIM_PREFIX + self.boot_id:
            report = Report(protocol.ReportKind.ABANDONED, head.sequence, head.token)
            self._feed(partition, entry, Reported(report, head.claim_id, head.worker))
        else:
            self._feed(partition, entry, LeaseExpired(head.token))

    def _end_quiet(self) -> None:
        """The owners before have stopped by now whatever they were running: heads may begin."""
        for partition in self.partitions.values():
            if not partition.quiet_until_ms or self._now.mono_ms < partition.quiet_until_ms:
                continue
            partition.quiet_until_ms, partition.may_run, partition.changed = 0, (), True
            waiting, partition.quiet = partition.quiet, []
            for entry in filter(None, map(partition.entries.get, waiting)):
                if entry.group.phase is Phase.READY and entry.group.may_start:
                    self._make_ready(partition, entry)
            asked, partition.asked = partition.asked, deque()
            self._take_all(asked)
            if partition.end_behind_asked:
                self._note_ends({("commands", partition.number): partition.end_behind_asked})
                partition.end_behind_asked = 0

    def prove(self) -> None:
        """Have the next cut write a row of each partition: its commit proves that they are still ours."""
        for partition in self.partitions.values():
            partition.changed = True

    def _take_back(self) -> None:
        """Ask for dispatches that wait for a claim while a slot is free elsewhere."""
        for out, token in self.watch.unclaimed_for_long(self._now.mono_ms):
            partition = self.partitions[out.partition]
            entry = partition.entries[out.key]
            head, task = entry.group.head, entry.task
            if head is None or task is None or head.token != token:
                continue
            owner = self.capacity.owner_of.get(head.dispatch_partition)
            if self.capacity.free(task.type, but=owner):
                self.counts["take_back", ""] += 1
                self._control(entry, partition, "take_back")

    def _send(self, partition: Partition, entry: Entry, effect: Send) -> None:
        if effect.dispatch_partition == LOCAL:  # `_start_here` begins it
            return
        state = _state(partition, entry)
        behind = (_wire(f.task, f.sequence, effect.token + i, 1) for i, f in enumerate(entry.run, 1))
        tasks = (_dispatched(entry), *behind)
        dispatch = Dispatch(PROTOCOL, entry.name, partition.number, self.instance, tasks, state)
        self._put("dispatches", effect.dispatch_partition, entry.key, protocol.encode(dispatch))
        self._hold(entry, dispatch_partition=effect.dispatch_partition)
        out = Out(partition.number, entry.key)
        self.watch.dispatched(out, effect.token, effect.dispatch_partition, self._now.mono_ms)

    def _hold(self, entry: Entry, *, dispatch_partition: int | None = None, worker: str | None = None) -> None:
        """Count the entry's head as unclaimed in that partition, as running on that worker, or (neither) as not out."""
        if entry.holds is not None:
            self._count(entry.holds, -1)
            entry.holds = None
        if dispatch_partition is not None or worker is not None:
            assert entry.task is not None
            entry.holds = Slot(entry.task.type, dispatch_partition, worker)
            self._count(entry.holds, 1)

    def _count(self, slot: Slot, change: int) -> None:
        _add(self.out, slot.task_type, change)
        if slot.dispatch_partition is not None:
            _add(self.unclaimed, slot.dispatch_partition, change)
        elif slot.worker is not None:
            _add(self.running, slot.worker, change)

    def demand(self) -> dict[str, tuple[int, int]]:
        """Per type: heads that are ready, and heads that are out."""
        ready = self.ready.types()
        return {t: (ready.get(t, 0), self.out[t]) for t in ready.keys() | self.out.keys()}

    # -- a group moves

    def _feed(
        self, partition: Partition, entry: Entry, event: machine.Event,
        accepted: tuple[AcceptedTask, rows.TaskRow] | None = None, completion: Completion | None = None,
        *, told: bool = False,
    ) -> Ignored | None:  # fmt: skip
        """Let the machine decide and carry out what it says.  Why nothing changed, if so."""
        policy = self._policy_of(entry) if self._group_policies else self.policy
        decision: Decision = machine.decide(entry.group, event, self._now, policy)
        if isinstance(decision, Ignored):
            return decision
        group, effects = decision
        before = entry.group
        if group.head is not before.head or group.blocked is not before.blocked or group.held is not before.held:
            self._dirty[partition.number, entry.key] = entry
            if group.phase is not entry.group.phase:
                entry.since_ms = self._now.wall_ms
        entry.group = group
        for effect in effects:
            if not (told and isinstance(effect, Emit)):
                self._carry_out(partition, entry, effect, accepted, completion)
        return None

    def _policy_of(self, entry: Entry) -> Policy:
        for pattern, on_failure in self._group_policies:
            if fnmatchcase(entry.name, pattern):
                return msgspec.structs.replace(self.policy, group_on_failure=on_failure)
        return self.policy

    def _carry_out(
        self, partition: Partition, entry: Entry, effect: machine.Effect,
        accepted: tuple[AcceptedTask, rows.TaskRow] | None, completion: Completion | None,
    ) -> None:  # fmt: skip
        match effect:
            case Emit():
                self._emit(partition, entry, effect, accepted, completion)
            case MakeReady():
                self._make_ready(partition, entry)
            case Wait():
                self._wait(partition, entry, effect)
            case Send():
                self._send(partition, entry, effect)
            case Lease(token):
                head = entry.group.head
                assert head is not None
                if entry.holds is None or entry.holds.worker is None:
                    self._hold(entry, worker=head.worker)
                if self.here is None or head.claim_id != self.here.claim_id:  # what runs here cannot be lost unnoticed
                    self.watch.running(Out(partition.number, entry.key), token, self._now.mono_ms)
            case Free():
                self._hold(entry)
                self.watch.forget(Out(partition.number, entry.key))
                entry.overdue, entry.run = "", ()
            case SetState(report):
                self._set_state(partition, entry, report)
            case Bury():
                self._bury(partition, entry, effect)
            case Leave(sequence):
                self._leave(partition, entry, sequence)
            case GoOn():
                self._go_on(partition, entry, effect)
            case _:
                self._carry_out_rare(partition, entry, effect, accepted)

    def _carry_out_rare(
        self, partition: Partition, entry: Entry, effect: machine.Effect,
        accepted: tuple[AcceptedTask, rows.TaskRow] | None,
    ) -> None:  # fmt: skip
        match effect:
            case Progress(report, worker):
                head, task = entry.group.head, entry.task
                assert head is not None and task is not None
                if report.reason in machine.GOES_ON:
                    entry.overdue = report.note or "goes on after its time"
                event = history.progress(entry.name, task, head, report, worker, self._now)
                self._publish(partition, entry.key, event)
            case Unready():
                self.ready.discard(partition.number, entry.key)
            case TakeBack(token):
                self._asking.add(Out(partition.number, entry.key), token)
            case CancelRun(token):
                if entry.group.head is not None and entry.group.head.dispatch_partition == LOCAL:
                    self.cancels.append((entry.key, token))
                else:
                    self._control(entry, partition, "cancel")
            case Announce():
                partition.changed = True
                self._publish(partition, entry.key, history.announced(entry.name, effect, self._now))
            case Answer(by, outcome, refusal, count):
                about = accepted[0] if accepted is not None else entry.task
                task_id = None if about is None else about.task_id
                self.answer(partition, entry.key, by, outcome, refusal=refusal, count=count, task_id=task_id)
            case Edit(by):
                assert accepted is not None and entry.task is not None
                changes = edits.changes(entry.task.payload, accepted[0].payload)
                self.answer(partition, entry.key, by, Outcome.DONE, task_id=entry.task.task_id, changes=changes)
                self._replace_head(partition, entry, *accepted)
            case StartSweep():
                self._sweeping[Out(partition.number, entry.key)] = None
            case PauseUntil(until_wall_ms):
                heapq.heappush(self._pauses, (until_wall_ms, partition.number, entry.key))
            case Displace(sequence):
                entry.park(sequence, entry.row, 0)
                entry.task, entry.row = None, b""
            case Insert(redriven):
                assert accepted is not None
                self._insert(partition, entry, redriven, accepted[1])
            case PromoteNext():
                self._promote(partition, entry)
            case _:
                raise AssertionError(f"no such effect: {effect}")

    def answer(
        self, partition: Partition, key: bytes, by: By, outcome: Outcome, *, refusal: Refusal | None = None,
        count: int | None = None, task_id: str | None = None, changes: tuple[Change, ...] = (),
    ) -> None:  # fmt: skip
        """Answer a command, unless another event of it does."""
        if by.quiet:
            return
        self.counts["commands", outcome] += 1
        partition.changed = True
        event = history.answered(
            key.decode(), by, outcome, self._now, refusal=refusal, task_id=task_id, count=count, changes=changes
        )
        self._publish(partition, key, event)

    def _replace_head(self, partition: Partition, entry: Entry, task: AcceptedTask, row: rows.TaskRow) -> None:
        head = entry.group.head
        assert head is not None
        entry.task, entry.row = task, rows.encode(row)
        self._put("changelog", partition.number, rows.task_key(head.sequence, entry.key), entry.row)

    def _insert(self, partition: Partition, entry: Entry, redriven: machine.Redriven, row: rows.TaskRow) -> None:
        value, sequence = rows.encode(row), redriven.sequence
        self._put("changelog", partition.number, rows.task_key(sequence, entry.key), value)
        partition.tasks += 1
        place = len(entry.parked)
        if redriven.to_head:
            place = next((i for i, packed in enumerate(entry.parked) if sequence_of(packed) > sequence), place)
        entry.park(sequence, value, place)

    def _make_ready(self, partition: Partition, entry: Entry) -> None:
        assert entry.task is not None
        if partition.quiet_until_ms:
            partition.quiet.append(entry.key)
        elif (partition.number, entry.key) not in self.ready:
            self.ready.add(partition.number, entry.key, entry.task.type)

    def _wait(self, partition: Partition, entry: Entry, wait: Wait) -> None:
        """Delays run on the monotonic clock, times of day on the wall clock: it is looked at anew in each step."""
        self._last_timer += 1
        entry.timer = self._last_timer
        if wait.delay_ms is None:
            heapq.heappush(self._times, (wait.due_wall_ms, partition.number, entry.key, entry.timer))
            return
        left_ms = max(0, min(wait.delay_ms, wait.due_wall_ms - self._now.wall_ms))
        heapq.heappush(self._delays, (self._now.mono_ms + left_ms, partition.number, entry.key, entry.timer))

    def _leave(self, partition: Partition, entry: Entry, sequence: int) -> None:
        """The head's rows go; the next task, if any, becomes the head."""
        self._put("changelog", partition.number, rows.task_key(sequence, entry.key), None)
        entry.task, entry.row = None, b""
        partition.tasks -= 1
        if entry.parked and entry.group.sweep is None:
            self._promote(partition, entry)

    def _go_on(self, partition: Partition, entry: Entry, effect: GoOn) -> None:
        """The next task of the run is the head."""
        self._put("changelog", partition.number, rows.task_key(effect.sequence, entry.key), None)
        partition.tasks -= 1
        head = entry.group.head
        assert head is not None
        sequence, value = entry.unpark()
        if sequence != head.sequence:
            raise BrokenInvariant(f"task {head.sequence} of {entry.name!r} is not the first that is parked")
        if entry.run and entry.run[0].sequence == sequence:
            following = entry.run.popleft()
            entry.row, entry.task, entry.accepted_ms = value, following.task, following.accepted_ms
        else:  # it was sent by an owner before
            take_head(entry, value)
        self.watch.claimed(Out(partition.number, entry.key), effect.token, effect.dispatch_partition, self._now.mono_ms)

    def _promote(self, partition: Partition, entry: Entry) -> None:
        sequence, value = entry.unpark()
        task = take_head(entry, value)
        self._feed(partition, entry, Promoted(sequence, task.not_before_ms, task.max_attempts, task.on_failure))

    def _set_state(self, partition: Partition, entry: Entry, report: Report) -> None:
        state = None if report.state is None or bytes(report.state) == b"null" else report.state
        if state is None:
            partition.states.pop(entry.key, None)
        else:
            partition.states[entry.key] = bytes(state)
        self._put("changelog", partition.number, rows.state_key(entry.key), partition.states.get(entry.key))
        assert entry.task is not None
        self._publish(partition, entry.key, history.group_state(entry.name, entry.task, report, state, self._now))

    def _bury(self, partition: Partition, entry: Entry, effect: Bury) -> None:
        row, task = read_row(entry.row)
        self._bury_task(
            partition, entry.row, row, task, Dead(effect.head.sequence, entry.key), effect.reason,
            attempts=effect.head.attempt, error=effect.error, first=effect.head.first_error,
        )  # fmt: skip

    def _bury_task(
        self, partition: Partition, value: bytes, row: rows.TaskRow, task: AcceptedTask, place: Dead,
        reason: Reason, *, attempts: int = 0, error: ErrorInfo | None = None, first: ErrorInfo | None = None,
        cascade_of: int = 0,
    ) -> None:  # fmt: skip
        """A dead letter for whoever reads the topic, and a row that keeps it open for a redrive."""
        marks: Marks = {
            "reason": reason, "partition": row.origin_partition, "offset": row.origin_offset,
            "group": task.group, "task-id": task.task_id, "type": task.type,
            "sequence": place.sequence, "attempts": attempts,
        }  # fmt: skip
        if error is not None:
            marks |= {"error-type": error.type, "error": error.message, "traceback": error.traceback or ""}
        first = first or error
        if first is not None:
            marks |= {
                "first-error-type": first.type, "first-error": first.message, "first-traceback": first.traceback or "",
            }  # fmt: skip
        if cascade_of:
            marks["cascade-of"] = cascade_of
        original = row.original or row
        if row.original is not None:
            marks["edited-value"] = row.value.decode()
        self._write_dead_letter(partition, original.key, original.value, original.headers, marks)
        letter = rows.DeadRow(
            rows.ROW_FORMAT, value, self._now.wall_ms, reason, task.task_id, task.type, attempts, error, cascade_of,
            None if first == error else first,
        )  # fmt: skip
        partition.memory.bury(place, letter)
        self._put("changelog", partition.number, rows.dead_key(*place), rows.encode(letter))

    # -- for `streams.express`

    def entry(self, partition: Partition, key: bytes) -> Entry:
        entry = partition.entries.get(key)
        if entry is None:
            entry = partition.entries[key] = Entry(key)
        return entry

    def settle(self, partition: Partition, entry: Entry, item: Item) -> None:
        """Feed the machine what it has missed, as of then: the task was accepted, and perhaps it was started."""
        here, now = self.here, self._now
        assert here is not None
        self._now = item.accepted
        row = item.row()
        value = rows.encode(row)
        if not item.rowed:
            self._put("changelog", partition.number, rows.task_key(item.sequence, entry.key), value)
        self._take_on(partition, entry, item.sequence, (item.task, row), value, told=item.rowed)
        if item.token:
            self._now = Now(item.started.wall_ms, item.started.mono_ns // 1_000_000)
            self.ready.discard(partition.number, entry.key)
            self._start_head(partition, entry, item.token, item.started)
        self._now = now

    def settle_lines(self, partitions: Iterable[Partition]) -> None:
        """Nothing of these is in the express lane any more."""
        if self.express is not None:
            for partition in partitions:
                self.express.settle_partition(partition)

    def lane_ended(self, now: Now) -> None:
        """A slot that served the express lane is free: heads that wait come first."""
        here = self.here
        assert here is not None
        here.free += 1
        if self.ready:
            self._now = now
            self._start_here()

    def heads_wait(self) -> bool:
        """Whether heads in the ready set wait for a slot here."""
        here = self.here
        assert here is not None
        return here.free <= 0 and len(self.ready) > 0 and any(map(here.handles, self.ready.types()))

    def put(self, topic: TopicName, partition: int, key: bytes, value: bytes | None) -> None:
        self._write_said()
        self._put(topic, partition, key, value)

    def time_runs(self, items: list[Item]) -> None:
        """These have ended, all at their first attempt."""
        by_type: dict[str, list[Item]] = {}
        for item in items:
            by_type.setdefault(item.task.type, []).append(item)
        for task_type, ran in by_type.items():
            self._timed(self.waits, task_type).add_all([(i.started.wall_ms - i.accepted.wall_ms) / 1000 for i in ran])
            self._timed(self.durations, task_type).add_all([(i.ended.wall_ms - i.accepted.wall_ms) / 1000 for i in ran])
            run_s = [(i.ended.mono_ns - i.started.mono_ns) / 1e9 for i in ran]
            self._note_run_ms(task_type, sum(run_s) / len(run_s) * 1e3, len(run_s))
            label = self._label(task_type)
            self.ran.started[label] += len(ran)
            self.ran.end(label, protocol.ReportKind.SUCCEEDED, run_s)

    # -- for `streams.commands`

    @property
    def now(self) -> Now:
        return self._now

    def feed(
        self, partition: Partition, entry: Entry, event: machine.Event,
        accepted: tuple[AcceptedTask, rows.TaskRow] | None = None,
    ) -> None:  # fmt: skip
        self._feed(partition, entry, event, accepted)

    def touch(self, partition: Partition, entry: Entry) -> None:
        """Look at the end of the step whether the group is still needed."""
        self._dirty[partition.number, entry.key] = entry

    def publish(self, partition: Partition, key: bytes, event: Event) -> None:
        self._publish(partition, key, event)

    def put_row(self, partition: Partition, key: bytes, value: bytes) -> None:
        self._put("changelog", partition.number, key, value)

    def must_wait(self, partition: Partition, key: bytes) -> Entry | None:
        """The group, if commands to it must wait for the end of a run."""
        entry = partition.entries.get(key)
        return entry if entry is not None and (entry.group.run or entry.commands) else None

    def keep_command(self, partition: Partition, entry: Entry, value: bytes) -> None:
        """Until the group's run is over; it is cut for that."""
        number = partition.next_number()
        row = rows.encode(rows.WaitingRow(rows.ROW_FORMAT, value))
        self._put("changelog", partition.number, rows.waiting_key(number, entry.key), row)
        entry.commands = (*entry.commands, (number, value))
        self._waiting_commands[Out(partition.number, entry.key)] = None
        self.cut_run(partition, entry)

    def cut_run(self, partition: Partition, entry: Entry) -> None:
        """Ask for what is out of the group and has not begun, but for a head that is out alone."""
        if entry.group.run:
            self._feed(partition, entry, CutAsked())

    def _take_waiting_commands(self) -> None:
        for out in list(self._waiting_commands):
            partition = self.partitions[out.partition]
            entry = partition.entries[out.key]
            while entry.commands and not entry.group.run:
                (number, value), *rest = entry.commands
                entry.commands = tuple(rest)
                self._put("changelog", partition.number, rows.waiting_key(number, entry.key), None)
                self._take_waiting(partition, Input("commands", partition.number, -number, entry.key, value, []))
            if not entry.commands:
                del self._waiting_commands[out]
                self.touch(partition, entry)

    def _take_waiting(self, partition: Partition, record: Input) -> None:
        """Raises `RecordFailed`."""
        if (record.topic, record.partition, record.offset) in self.quarantined:
            self._quarantine(partition, record)
            return
        try:
            commands.take_waiting(self, partition, record)
        except Exception as error:
            raise RecordFailed(record) from error

    def set_aside(self, partition: Partition, record: Input, reason: Reason, detail: str) -> None:
        self._dead_letter_input(partition, record, reason, detail)

    def forward(self, record: Input, home: int, key: bytes) -> None:
        self._forward(record, home, key)

    def take_out(
        self, partition: Partition, entry: Entry, sequence: int, value: bytes, event: machine.ParkedLeft
    ) -> None:
        """A parked task, which the caller has removed (its row is `value`), is cancelled."""
        row, task = read_row(value)
        partition.tasks -= 1
        self._put("changelog", partition.number, rows.task_key(sequence, entry.key), None)
        emit = Emit(TaskState.CANCELLED, sequence, 1, reason=Reason.BY_COMMAND)
        cancelled = history.state_changed(entry.name, task, emit, self._now, None, None)
        self._publish(partition, entry.key, cancelled)
        self._feed(partition, entry, event, accepted=(task, row))

    def forget_state(self, partition: Partition, key: bytes, by: By) -> None:
        del partition.states[key]
        if (entry := partition.entries.get(key)) is not None:
            self.touch(partition, entry)
        self._put("changelog", partition.number, rows.state_key(key), None)
        self._publish(partition, key, history.forgotten(key.decode(), by, self._now))
        self.answer(partition, key, by, Outcome.DONE)

    # -- what the world sees

    def _emit(
        self, partition: Partition, entry: Entry, effect: Emit,
        accepted: tuple[AcceptedTask, rows.TaskRow] | None, completion: Completion | None,
    ) -> None:  # fmt: skip
        task = accepted[0] if accepted and effect.reason is not Reason.DISPLACED else entry.task
        assert task is not None
        self._time(entry, task.type, effect)
        boot_id = completion.boot_id if completion else None
        is_new = accepted is not None and effect.reason is None
        origin = (accepted[1].origin_partition, accepted[1].origin_offset) if accepted and is_new else None
        if self.breakers.settings.rate and effect.token:
            self._judge(partition, task.type, effect)
        event = history.state_changed(entry.name, task, effect, self._now, boot_id, origin)
        self._publish(partition, entry.key, event)

    def _judge(self, partition: Partition, task_type: str, effect: Emit) -> None:
        """What this execution's end says about its type: successes and failures do, a snooze and a return do not."""
        place = Place(partition.number, effect.token)
        match effect.state:
            case TaskState.SUCCEEDED:
                succeeded = True
            case TaskState.DEAD_LETTERED | TaskState.RETRYING if effect.reason not in NO_FAILURE:
                succeeded = False
            case TaskState.DISPATCHED | TaskState.RUNNING | TaskState.CANCELLING:
                return
            case _:
                self.breakers.came_back(task_type, place)
                return
        state = self.breakers.ended(task_type, place, succeeded, self._now.mono_ms)
        if state is not None:
            self.counts["breaker", state] += 1
            self._tell_breaker(task_type, self.breakers.states()[task_type])

    def _tell_breaker(self, task_type: str, breaker: Breaker) -> None:
        """It speaks for all partitions of this scheduler; its events stand in the lowest of them, in order.  It is told
        again when partitions were let go: the last time may stand in a transaction that has failed.
        """
        partition, state = self.partitions[min(self.partitions)], breaker.state
        left_ms = max(0, breaker.until_mono_ms - self._now.mono_ms)
        until = self._now.wall_ms + left_ms if state is BreakerState.OPEN else None
        self._told[task_type] = state
        partition.changed = True
        self._publish(partition, None, history.breaker(task_type, state, self.instance, until, self._now))

    def _note_run(self, task_type: str, report: Report) -> None:
        if report.started is None or report.ended is None:
            return
        self._note_run_ms(task_type, (report.ended.mono_ns - report.started.mono_ns) / 1e6)

    def _note_run_ms(self, task_type: str, run_ms: float, runs: int = 1) -> None:
        before = self.run_ms.get(task_type)
        if before is not None or len(self.run_ms) < TYPES_MAX:
            kept = 0.9**runs
            self.run_ms[task_type] = run_ms if before is None else before * kept + run_ms * (1 - kept)

    def _time(self, entry: Entry, task_type: str, effect: Emit) -> None:
        """How long the head waited for its first start, and for its end, by the clocks of its partition's owners."""
        if effect.state is TaskState.RUNNING:
            times = self._waited if effect.attempt == 1 else None
        else:
            times = self._ended if effect.state in TERMINAL else None
            if effect.state is TaskState.SUCCEEDED and effect.report is not None:
                self._note_run(task_type, effect.report)
        if times is not None:
            seconds = (self._now.wall_ms - entry.accepted_ms) / 1000
            if task_type in times:
                times[task_type].append(seconds)
            else:
                times[task_type] = [seconds]

    def _count_times(self) -> None:
        for gathered, times in ((self._waited, self.waits), (self._ended, self.durations)):
            for task_type, seconds in gathered.items():
                self._timed(times, task_type).add_all(seconds)
            gathered.clear()

    def count_standings(self) -> None:
        """Bring the tallies up to date.  Counting a group once for many moves is what keeps it cheap."""
        for entry, partition in self._moved.items():
            if entry.is_idle():
                partition.tally.forget(entry)
            else:
                partition.tally.note(entry, entry.key in partition.states, self._label)
        self._moved.clear()

    def _timed(self, times: dict[str, Distribution], task_type: str) -> Distribution:
        return distribution.of(times, self._label(task_type), WAIT_S)

    def _publish(self, partition: Partition, key: bytes | None, event: Event) -> None:
        if self.express is not None and self.express.done:
            self.express.flush()  # it happened before
        partition.told.append(totals.told(event))
        said, of = protocol.encode(event), (partition.number, key)
        if self._said and (
            of != self._said_of
            or len(self._said) >= limits.EVENTS_MAX
            or self._said_bytes + len(said) > limits.EVENTS_BYTES_MAX
        ):
            self._write_said()
        self._said_of = of
        self._said_bytes += len(said)
        self._said.append(said)

    def _write_said(self) -> None:
        """What one group's events in a row have to say, in one record; they are in order for the whole partition."""
        if self._said:
            value = self._said[0] if len(self._said) == 1 else history.together(self._said)
            self._put("task-events", *self._said_of, value)
            self._said, self._said_bytes = [], 0

    # -- rows

    def _write_rows(self) -> None:
        """The head rows that changed, once each, and the watermarks of every partition that moved."""
        for (number, key), entry in self._dirty.items():
            group = entry.group
            if needs_row(group):
                value = rows.encode(rows.HeadRow(rows.head_format(group.head), group.head, group.blocked, group.held))
                self._put("changelog", number, rows.head_key(key), value)
                entry.has_row = True
            elif entry.has_row:
                self._put("changelog", number, rows.head_key(key), None)
                entry.has_row = False
            partition = self.partitions[number]
            if not entry.is_idle():
                self._moved[entry] = partition
                continue
            del partition.entries[key]
            if entry.standing is None:
                self._moved.pop(entry, None)  # came and went: it was never counted
            else:
                self._moved[entry] = partition
        self._dirty.clear()
        if len(self._moved) > MOVED_MAX:
            self.count_standings()
        if self._waited or self._ended:
            self._count_times()
        for number, partition in self.partitions.items():
            if partition.changed:
                self._out += self.stamp(number, released=False)
                partition.changed = False

    def _put(self, topic: TopicName, partition: int, key: bytes | None, value: bytes | None) -> None:
        self._out.append(Output(topic, partition, key, value))


K = TypeVar("K", int, str)


def _dispatched(entry: Entry) -> DispatchedTask:
    head, task = entry.group.head, entry.task
    assert head is not None and task is not None
    return _wire(task, head.sequence, head.token, head.attempt)


def _wire(task: AcceptedTask, sequence: int, token: int, attempt: int) -> DispatchedTask:
    return DispatchedTask(
        sequence, task.task_id, task.type, token, attempt, task.payload, task.timeout_s, task.labels, task.extra,
        task.trace,
    )  # fmt: skip


def _state(partition: Partition, entry: Entry) -> protocol.MaybeRaw:
    state = partition.states.get(entry.key)
    return None if state is None else msgspec.Raw(state)


def _add(counter: Counter[K], key: K, change: int) -> None:
    counter[key] += change
    if not counter[key]:
        del counter[key]


def needs_row(group: Group) -> bool:
    """A head that is simply ready for its first attempt is what its task row alone says."""
    head = group.head
    if group.blocked is not None or group.held is not None:
        return True
    return head is not None and not (head.phase is Phase.READY and head.token == 0)


def is_group(key: bytes | None) -> TypeGuard[bytes]:
    try:
        return bool(key and key.decode())
    except UnicodeDecodeError:
        return False


def shown(key: bytes | None) -> bytes | None:
    """The key of a task-event about a record that may say anything."""
    return key and key[: limits.SHOWN_BYTES_MAX]


def read_origin(record: Input, partitions: int) -> tuple[int, int, bytes | None, Headers, bool]:
    """Where its publisher put it: (partition, offset, key, headers, whether it was forwarded).

    A header that is no origin of ours belongs to the publisher and changes nothing.
    """
    name, value = record.headers[-1] if record.headers else ("", None)
    match = _ORIGIN.fullmatch(value or b"") if name == ORIGIN_HEADER else None
    if match is None or int(match[1]) >= partitions or int(match[1]) == record.partition:
        return record.partition, record.offset, record.key, record.headers, False
    return int(match[1]), int(match[2]), None if match[3] else record.key, record.headers[:-1], True


def fit(key: bytes | None, value: bytes | None, headers: Headers) -> tuple[bytes | None, bytes | None, Headers, int]:
    """What of a stranger's record a dead letter can carry, and how many bytes it takes if that is not all (else 0).

    Compressed, a client can send more than Kafka takes from us.
    """
    size = len(key or b"") + len(value or b"")
    size += sum(
        len(name.encode(errors="surrogatepass")) + len(data or b"") + limits.HEADER_BYTES for name, data in headers
    )
    if size <= limits.RECORD_BYTES_MAX - limits.ENVELOPE_BYTES_MAX:
        return key, value, headers, 0
    return key and key[: limits.SHOWN_BYTES_MAX], value and value[: limits.TASK_BYTES_MAX], [], size
