"""The scheduler without I/O: records in, records out.  The shell reads, commits what comes out in one transaction, and
answers the look-ups that `watch` asks for.

`step` takes a batch through the groups' state machines, drains the ready set into dispatches and gives all records of
one transaction.  Memory runs ahead of the log by one step: if the transaction fails, the engine's partitions must be
dropped and loaded again.
"""

import heapq
import re
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple, TypeGuard, TypeVar

import msgspec

from streams import group as machine
from streams import history, limits, protocol, rows, totals
from streams.catalogue import TYPES_MAX, WAIT_S
from streams.clock import Now
from streams.distribution import Distribution
from streams.group import (
    Accepted,
    Bury,
    Decision,
    Due,
    Emit,
    Free,
    Granted,
    Group,
    Ignored,
    Lease,
    LeaseExpired,
    Leave,
    LostBeforeStart,
    MakeReady,
    Phase,
    Progress,
    Promoted,
    Reported,
    Send,
    SetState,
    Wait,
)  # fmt: skip
from streams.intake import AcceptedTask, Refused, read_task
from streams.murmur2 import home_partition
from streams.partition import Entry, Partition, Slot, read_row, take_head
from streams.protocol import (
    PROTOCOL,
    TERMINAL,
    Completion,
    Control,
    Dispatch,
    DispatchedTask,
    Event,
    Member,
    Reason,
    Report,
    TaskState,
)
from streams.ready import Capacity, ReadySet
from streams.retry import Policy
from streams.rows import Headers
from streams.settings import TopicName
from streams.watch import Out, Watch

ORIGIN_HEADER = "pstp.origin"
# Partition and offset, no longer than real ones are: what a stranger writes there must not break a row.
_ORIGIN = re.compile(rb"(\d{1,4}):(\d{1,18})(:keyless)?")
Marks = dict[str, str | int]


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
        policy: Policy,
    ) -> None:  # fmt: skip
        self.instance, self.boot_id, self.owner = instance, boot_id, owner
        self.partition_count = partitions
        self.policy = policy
        self.partitions: dict[int, Partition] = {}
        self.ready = ReadySet()
        self.watch = Watch(int(lease_s * 1000))
        self.members: list[Member] = []
        # For metrics of this process; what became of tasks is in each partition's totals.
        self.counts: Counter[tuple[str, str]] = Counter()  # by (what, label)
        self.waits: dict[str, Distribution] = {}  # per type, seconds
        self.durations: dict[str, Distribution] = {}
        self.unclaimed: Counter[int] = Counter()
        self.running: Counter[str] = Counter()
        self.out: Counter[str] = Counter()  # per type
        self.capacity = Capacity((), {}, {})
        self.quarantined: set[tuple[str, int, int]] = set()
        self.stopped: dict[int, str] = {}  # partitions with something too new for this process, and what it is
        self._task_bytes_max = task_bytes_max
        self._delays: list[tuple[int, int, bytes, int]] = []  # heaps of (when, partition, key, timer)
        self._times: list[tuple[int, int, bytes, int]] = []
        self._last_timer = 0
        self._out: list[Output] = []
        self._dirty: dict[tuple[int, bytes], Entry] = {}
        self._now = Now(0, 0)

    # -- ownership

    def adopt(self, partition: Partition, now: Now) -> None:
        """Take over a loaded partition: everything that is out is watched anew, every other head goes on."""
        self._now = now
        partition.begin_epoch()
        self.partitions[partition.number] = partition
        for entry in list(partition.entries.values()):
            head = entry.group.head
            if head is None:
                if entry.parked:
                    self._promote(partition, entry)
                continue
            out = Out(partition.number, entry.key)
            match head.phase:
                case Phase.READY:
                    if entry.group.blocked is None:
                        self._make_ready(partition, entry)
                case Phase.WAITING:
                    self._wait(partition, entry, Wait(head.sequence, head.due_wall_ms, head.delay_ms))
                case Phase.DISPATCHED:
                    self._hold(entry, dispatch_partition=head.dispatch_partition)
                    self.watch.dispatched(out, head.token, head.dispatch_partition, now.mono_ms)
                case Phase.RUNNING:
                    self._hold(entry, worker=head.worker)
                    self.watch.running(out, head.token, now.mono_ms)
                case Phase.IDLE:
                    raise machine.IllegalTransition("a head is never idle")

    def drop(self, number: int) -> None:
        """Forget a partition: it has another owner, or memory is not to be trusted."""
        partition = self.partitions.pop(number, None)
        if partition is None:
            return
        for entry in partition.entries.values():
            self._hold(entry)
        self.ready.drop_partition(number)
        self.watch.forget_partition(number)
        self._dirty = {k: e for k, e in self._dirty.items() if k[0] != number}
        for heap in (self._delays, self._times):
            heap[:] = [timer for timer in heap if timer[1] != number]
            heapq.heapify(heap)

    def stamp(self, number: int, *, released: bool) -> list[Output]:
        """The partition's row with our name on it, to be committed alone."""
        row = self.partitions[number].to_row(self.owner, self.boot_id, released=released)
        return [Output("changelog", number, rows.PARTITION_KEY, row)]

    # -- one step

    def step(self, records: Iterable[Input], ends: dict[tuple[str, int], int], now: Now) -> list[Output]:
        """Everything that one batch leads to, in the order in which it must be written.

        `ends`: up to where each input partition has been read, where that is known to be its end.  Raises
        `RecordFailed`; memory is not to be trusted then.
        """
        self._now, self._out = now, []
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
        self._note_ends(ends)
        self._fire_timers()
        self._expire()
        self._dispatch()
        self._write_rows()
        return self._out

    def _stop_before(self, partition: Partition, record: Input, error: protocol.VersionError) -> None:
        """Nothing of it was taken in.  The shell lets go of the partition once this step is committed."""
        partition.next_offsets[record.topic] = partition.read_up_to[record.topic] = record.offset
        self.stopped[partition.number] = f"{record.topic}-{record.partition} holds at offset {record.offset} {error}"

    def _take(self, partition: Partition, record: Input) -> None:
        if record.offset < partition.next_offsets[record.topic]:
            self.counts["already_taken", record.topic] += 1
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
            protocol.refuse_newer_json(record.value or b"")
            self._dead_letter_input(partition, record, Reason.BAD_JSON, "commands are not understood by this version")

    def _note_ends(self, ends: dict[tuple[str, int], int]) -> None:
        """What lies between the last record and the end is no record: a transaction's marker, or an aborted one."""
        for (topic, number), end in ends.items():
            partition = self.partitions.get(number)
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
            bytes_max=self._task_bytes_max,
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
                self._forward(record, home, task)
            return
        if forwarded:
            if origin_offset < partition.origins.get(origin_partition, 0):
                detail = "forwarded a second time: the first was taken in"
                self._reject(partition, record, key, headers, origin, Reason.WRONG_PARTITION, detail)
                return
            partition.origins[origin_partition] = origin_offset + 1
        value = record.value or b""
        row = rows.TaskRow(rows.ROW_FORMAT, *origin, key, value, headers, self._now.wall_ms)
        self._accept(partition, task, row)

    def _accept(self, partition: Partition, task: AcceptedTask, row: rows.TaskRow) -> None:
        entry = partition.entries.get(task.key)
        if entry is None:
            entry = partition.entries[task.key] = Entry(task.key)
        sequence, value = partition.next_number(), rows.encode(row)
        self._put("changelog", partition.number, rows.task_key(sequence, task.key), value)
        self.counts["accepted", self._label(task.type)] += 1
        if entry.group.head is None:
            entry.task, entry.row, entry.accepted_ms = task, value, row.accepted_ms
        else:
            entry.parked.append((sequence, value))
        event = Accepted(sequence, task.not_before_ms, task.max_attempts)
        self._feed(partition, entry, event, accepted=(task, row))

    def _label(self, task_type: str) -> str:
        """A type as a metric's label: publishers invent types, so only so many are told apart."""
        if ("accepted", task_type) in self.counts or len(self.counts) < TYPES_MAX:
            return task_type
        return "(other)"

    def types_without_handler(self) -> dict[str, int]:
        """Types of ready heads that no live worker handles, and how many heads wait for one."""
        return {t: n for t, n in self.ready.types().items() if not self.capacity.handles(t)}

    def _forward(self, record: Input, home: int, task: AcceptedTask) -> None:
        """Move it to where its group lives, in this transaction.  Its publisher uses another partitioner."""
        self.counts["forwarded", ""] += 1
        origin = f"{record.partition}:{record.offset}{'' if record.key else ':keyless'}"
        headers: Headers = [*record.headers, (ORIGIN_HEADER, origin.encode())]
        self._out.append(Output("tasks", home, task.key, record.value, headers))

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
        added: Headers = [
            (f"pstp.{name}", str(mark).encode())
            for name, mark in ({"topic": "tasks"} | marks | {"v": PROTOCOL}).items()
        ]
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

    def _expire(self) -> None:
        self.watch.tick(self._now.mono_ms)
        for number, partition in self.partitions.items():
            for expired in self.watch.read_up_to(number, partition.read_up_to["completions"]):
                event = LeaseExpired(expired.token) if expired.running else LostBeforeStart(expired.token)
                self.counts["worker_lost" if expired.running else "lost_before_start", ""] += 1
                self._feed_if_there(number, expired.out.key, event)

    def _feed_if_there(self, number: int, key: bytes, event: machine.Event) -> None:
        partition = self.partitions.get(number)
        entry = partition and partition.entries.get(key)
        if partition and entry:
            self._feed(partition, entry, event)

    # -- dispatching

    def _dispatch(self) -> None:
        schedulers = [m for m in self.members if m.role == "scheduler" and m.instance != self.instance]
        unclaimed, running = Counter(self.unclaimed), Counter(self.running)
        for scheduler in schedulers:
            unclaimed.update(scheduler.unclaimed)
            running.update(scheduler.running)
        self.capacity = Capacity((m for m in self.members if m.role == "worker"), unclaimed, running)
        self.capacity.share(self.demand(), (s.demand for s in schedulers))
        for ready, dispatch_partition in self.ready.drain(self.capacity):
            partition = self.partitions[ready.partition]
            entry = partition.entries[ready.key]
            self._feed(partition, entry, Granted(partition.next_number(), dispatch_partition))
        self._take_back()

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
                control = Control(PROTOCOL, "take_back", head.dispatch_partition, entry.name, token, self.instance)
                self._put("control", 0, entry.key, protocol.encode(control))
                partition.changed = True  # a transaction is fenced by the positions of those for whom it speaks

    def _send(self, partition: Partition, entry: Entry, effect: Send) -> None:
        head, task = entry.group.head, entry.task
        assert head is not None and task is not None
        dispatched = DispatchedTask(
            head.sequence, task.task_id, task.type, effect.token, head.attempt, task.payload, task.timeout_s,
            task.labels, task.extra, task.trace,
        )  # fmt: skip
        state = None if entry.state is None else msgspec.Raw(entry.state)
        dispatch = Dispatch(PROTOCOL, entry.name, partition.number, self.instance, (dispatched,), state)
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
    ) -> Ignored | None:  # fmt: skip
        """Let the machine decide and carry out what it says.  Why nothing changed, if so."""
        decision: Decision = machine.decide(entry.group, event, self._now, self.policy)
        if isinstance(decision, Ignored):
            return decision
        group, effects = decision
        if group.head is not entry.group.head or group.blocked is not entry.group.blocked:
            self._dirty[partition.number, entry.key] = entry
            if group.phase is not entry.group.phase:
                entry.since_ms = self._now.wall_ms
        entry.group = group
        for effect in effects:
            self._carry_out(partition, entry, effect, accepted, completion)
        return None

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
                self.watch.running(Out(partition.number, entry.key), token, self._now.mono_ms)
            case Free():
                self._hold(entry)
                self.watch.forget(Out(partition.number, entry.key))
                entry.overdue = ""
            case SetState(report):
                self._set_state(partition, entry, report)
            case Bury():
                self._bury(partition, entry, effect)
            case Leave(sequence):
                self._leave(partition, entry, sequence)
            case Progress(report, worker):
                head, task = entry.group.head, entry.task
                assert head is not None and task is not None
                if report.reason is Reason.TIMEOUT:
                    entry.overdue = report.note or "goes on after its time"
                event = history.progress(entry.name, task, head, report, worker, self._now)
                self._publish(partition, entry.key, event)

    def _make_ready(self, partition: Partition, entry: Entry) -> None:
        assert entry.task is not None
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
        if entry.parked:
            self._promote(partition, entry)

    def _promote(self, partition: Partition, entry: Entry) -> None:
        sequence, value = entry.parked.popleft()
        task = take_head(entry, value)
        self._feed(partition, entry, Promoted(sequence, task.not_before_ms, task.max_attempts))

    def _set_state(self, partition: Partition, entry: Entry, report: Report) -> None:
        state = None if report.state is None or bytes(report.state) == b"null" else report.state
        entry.state = None if state is None else bytes(state)
        self._put("changelog", partition.number, rows.state_key(entry.key), entry.state)
        assert entry.task is not None
        self._publish(partition, entry.key, history.group_state(entry.name, entry.task, report, state, self._now))

    def _bury(self, partition: Partition, entry: Entry, effect: Bury) -> None:
        row, task = read_row(entry.row)
        marks: Marks = {
            "reason": effect.reason, "partition": row.origin_partition, "offset": row.origin_offset,
            "group": entry.name, "task-id": task.task_id, "type": task.type,
            "sequence": effect.head.sequence, "attempts": effect.head.attempt,
        }  # fmt: skip
        if effect.error is not None:
            error = effect.error
            marks |= {"error-type": error.type, "error": error.message, "traceback": error.traceback or ""}
        self._write_dead_letter(partition, row.key, row.value, row.headers, marks)

    # -- what the world sees

    def _emit(
        self, partition: Partition, entry: Entry, effect: Emit,
        accepted: tuple[AcceptedTask, rows.TaskRow] | None, completion: Completion | None,
    ) -> None:  # fmt: skip
        task = accepted[0] if accepted else entry.task
        assert task is not None
        self._time(entry, task.type, effect)
        boot_id = completion.boot_id if completion else None
        origin = (accepted[1].origin_partition, accepted[1].origin_offset) if accepted else None
        event = history.state_changed(entry.name, task, effect, self._now, boot_id, origin)
        self._publish(partition, entry.key, event)

    def _time(self, entry: Entry, task_type: str, effect: Emit) -> None:
        """How long the head waited for its first start, and for its end, by the clocks of its partition's owners."""
        if effect.state is TaskState.RUNNING:
            times = self.waits if effect.attempt == 1 else None
        else:
            times = self.durations if effect.state in TERMINAL else None
        if times is not None:
            label = self._label(task_type)
            if label not in times:
                times[label] = Distribution(WAIT_S)
            times[label].add((self._now.wall_ms - entry.accepted_ms) / 1000)

    def _publish(self, partition: Partition, key: bytes | None, event: Event) -> None:
        totals.add(partition.totals, event)
        self._put("task-events", partition.number, key, protocol.encode(event))

    # -- rows

    def _write_rows(self) -> None:
        """The head rows that changed, once each, and the watermarks of every partition that moved."""
        for (number, key), entry in self._dirty.items():
            group = entry.group
            if needs_row(group):
                value = rows.encode(rows.HeadRow(rows.ROW_FORMAT, group.head, group.blocked))
                self._put("changelog", number, rows.head_key(key), value)
                entry.has_row = True
            elif entry.has_row:
                self._put("changelog", number, rows.head_key(key), None)
                entry.has_row = False
            if entry.is_idle():
                del self.partitions[number].entries[key]
        self._dirty.clear()
        for number, partition in self.partitions.items():
            if partition.changed:
                self._out += self.stamp(number, released=False)
                partition.changed = False

    def _put(self, topic: TopicName, partition: int, key: bytes | None, value: bytes | None) -> None:
        self._out.append(Output(topic, partition, key, value))


K = TypeVar("K", int, str)


def _add(counter: Counter[K], key: K, change: int) -> None:
    counter[key] += change
    if not counter[key]:
        del counter[key]


def needs_row(group: Group) -> bool:
    """A head that is simply ready for its first attempt is what its task row alone says."""
    head = group.head
    if group.blocked is not None:
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
