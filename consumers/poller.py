"""The polling thread: owns the consumer of `dispatches`, reads ahead a little, and claims when a slot is free."""

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Final, NamedTuple

import confluent_kafka as ck
import msgspec
import structlog

from consumers.claims import Attempt, Pick, Read, ReadAhead, Verdict, commit_claim, committed, read_back
from consumers.control import STOP_S_MAX, ControlReader
from consumers.reports import Claim
from consumers.runs import Run, Runtime, returned
from streams import limits
from streams.clock import mono_ns, new_id
from streams.errors import UserError
from streams.logs import kafka_logger
from streams.protocol import Reason, VersionError, decode_dispatch
from streams.settings import Settings

log = structlog.get_logger("worker")

_NS: Final = 1_000_000_000
_POLL_S: Final = 0.1
_RECORDS_MAX: Final = 500
_LOOK_UP_S_MAX: Final = 5.0


class _Doubt(NamedTuple):
    """A claim of which nobody knows yet whether it holds."""

    attempt: Attempt
    picks: dict[int, list[Pick]]
    partitions: set[int]


class Slots:
    """How many runs there may be at once."""

    def __init__(self, total: int, on_free: Callable[[], None]) -> None:
        self._free, self._lock, self._on_free = total, threading.Lock(), on_free
        self.total = total

    @property
    def free(self) -> int:
        return self._free

    def take(self) -> None:
        with self._lock:
            self._free -= 1

    def release(self) -> None:
        with self._lock:
            self._free += 1
        self._on_free()


class Poller(threading.Thread):
    """Calls that touch the consumer are made in this thread only, between two polls.

    `say` announces which partitions are ours, `announced` waits until that is in the log (False after a timeout), and
    `silent_s` is how long ago anything was announced.
    """

    def __init__(
        self,
        settings: Settings,
        runtime: Runtime,
        control: ControlReader,
        say: Callable[[frozenset[int]], None],
        announced: Callable[[], bool],
        silent_s: Callable[[], float],
        on_failed: Callable[[Exception], None],
    ) -> None:
        super().__init__(name="poller", daemon=True)
        self._runtime, self._metrics = runtime, runtime.metrics
        self._say, self._announced = say, announced
        self._silent_s, self._on_failed = silent_s, on_failed
        self._topic = settings.topic("dispatches")
        self._lease_ns = int((settings.lease_s - settings.lease_margin_s) * _NS)
        self._wake = threading.Condition()
        self._woken = False
        self.slots = Slots(settings.slots, self.wake)
        self._control = control
        control.on_change = self.wake
        self._ahead = ReadAhead(lambda name: runtime.registry.get(name) is not None, control.tokens)
        self._ahead_max = max(2 * settings.slots, 64)
        self._owned: frozenset[int] = frozenset()
        self._paused: set[int] = set()
        # Not to be claimed from until `control` was read to its end: partition -> which assignment of it that is.
        self._closed: dict[int, int] = {}
        self._assignments = 0
        self._opening: SimpleQueue[dict[int, int]] = SimpleQueue()
        self._floor: dict[int, int] = {}  # of each partition: claimed up to here
        self._doubts: list[_Doubt] = []
        self._stopping = threading.Event()
        self.polled_ns = mono_ns()
        conf = settings.kafka(**{
            "group.id": settings.worker_group, "client.id": runtime.instance, "auto.offset.reset": "earliest",
            "enable.auto.commit": False, "enable.auto.offset.store": False, "isolation.level": "read_committed",
            "group.protocol": "classic", "partition.assignment.strategy": "cooperative-sticky",
            "session.timeout.ms": limits.SESSION_TIMEOUT_MS, "heartbeat.interval.ms": limits.HEARTBEAT_INTERVAL_MS,
            "max.poll.interval.ms": limits.POLL_INTERVAL_MS_MAX, "socket.timeout.ms": 10_000,
            "fetch.queue.backoff.ms": 5, "fetch.wait.max.ms": 100, "reconnect.backoff.max.ms": 500,
        })  # fmt: skip
        self._consumer = ck.Consumer(conf, logger=kafka_logger())

    @property
    def owned(self) -> frozenset[int]:
        return self._owned

    @property
    def ready(self) -> bool:
        """Whether it owns partitions and may claim from them."""
        return len(self._owned) > len(self._closed)

    def wake(self) -> None:
        """A slot is free, or something was taken back."""
        with self._wake:
            self._woken = True
            self._wake.notify()

    def stop(self) -> None:
        """Claim nothing more, leave the group and end."""
        self._stopping.set()
        self.wake()
        if self.ident is not None:
            self.join(2 * STOP_S_MAX)  # a claim may be under way

    def run(self) -> None:
        try:
            self._consumer.subscribe(
                [self._topic], on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._revoked
            )
            while not self._stopping.is_set():
                self.polled_ns = mono_ns()
                self._read(self._wait())
                self._settle_doubts()
                self._open()
                self._claim()
        except Exception as error:
            self._on_failed(error)
        finally:
            self._owned = frozenset()
            self._consumer.close()

    # -- reading

    def _wait(self) -> float:
        """Wait for a slot if that is what is missing.  Returns for how long to wait for records, in seconds."""
        if not len(self._ahead):
            return _POLL_S
        with self._wake:
            if self.slots.free == 0 or self._closed or self._doubts:
                self._wake.wait_for(lambda: self._woken, _POLL_S)
            self._woken = False
        return 0

    def _read(self, timeout_s: float) -> None:
        first = self._consumer.poll(timeout_s)
        if first is not None:
            self._take(first)
        # What is not needed yet waits in librdkafka.  Polling goes on, one record at a time, so pausing is the last
        # resort: it throws away what was fetched, and resuming takes a while.
        if (room := min(self._ahead_max - len(self._ahead), _RECORDS_MAX)) > 0 and first is not None:
            for message in self._consumer.consume(room, 0):
                self._take(message)
        self._pause_and_resume()

    def _take(self, message: ck.Message) -> None:
        partition, offset = message.partition(), message.offset()
        if (error := message.error()) is not None:
            if error.fatal():
                raise ck.KafkaException(error)
            if error.code() == ck.KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise UserError(f"topic {self._topic} is missing: run `pstp topics create`")
            log.warning("dispatches cannot be read", error=error.str())
            return
        if partition is None or offset is None or partition not in self._owned:
            return
        if offset < self._floor.get(partition, 0):
            # Read again, such as after a reset of the position: claimed is claimed, an offset must not go back.
            log.warning("dispatch passed over: it was claimed before", partition=partition, offset=offset)
            return
        try:
            dispatch = decode_dispatch(message.value() or b"")
            if not dispatch.tasks:
                raise msgspec.ValidationError("a run without tasks")
        except VersionError:
            raise
        except msgspec.DecodeError as error:
            log.error("dispatch cannot be read, passed over", partition=partition, offset=offset, error=str(error))
            self._metrics.undecodable.labels("dispatches").inc()
            self._ahead.add(Read(partition, offset, None))
            return
        self._ahead.add(Read(partition, offset, dispatch))

    def _pause_and_resume(self) -> None:
        full = {p for p in self._owned - self._paused if self._ahead.count(p) >= 2 * self._ahead_max}
        low = {p for p in self._paused if self._ahead.count(p) < self._ahead_max}
        if full:
            self._consumer.pause([ck.TopicPartition(self._topic, p) for p in full])
        if low:
            self._consumer.resume([ck.TopicPartition(self._topic, p) for p in low])
        self._paused = (self._paused | full) - low

    # -- rebalances: these run inside poll

    def _assigned(self, consumer: ck.Consumer, partitions: list[ck.TopicPartition]) -> None:
        new = {tp.partition for tp in partitions}
        consumer.incremental_assign(partitions)
        self._own(self._owned | new)
        if new:
            self._assignments += 1
            closed = dict.fromkeys(new, self._assignments)
            self._closed |= closed
            threading.Thread(target=self._catch_up, args=(closed,), name="catch-up", daemon=True).start()

    def _revoked(self, consumer: ck.Consumer, partitions: list[ck.TopicPartition]) -> None:
        gone = {tp.partition for tp in partitions}
        for partition in gone:
            self._ahead.forget(partition)
            self._closed.pop(partition, None)
            self._floor.pop(partition, None)
        self._paused -= gone
        self._doubts = [
            doubt._replace(partitions=doubt.partitions - gone) for doubt in self._doubts if doubt.partitions - gone
        ]
        self._own(self._owned - gone)
        consumer.incremental_unassign(partitions)

    def _own(self, partitions: frozenset[int]) -> None:
        self._owned = partitions
        self._say(partitions)
        self._metrics.partitions.set(len(partitions))
        log.info("partitions of dispatches", owned=sorted(partitions))

    def _catch_up(self, closed: dict[int, int]) -> None:
        """Announce new partitions, then read `control` to its end; a thread of its own, since others' claims go on."""
        while not self._stopping.is_set():
            if self._announced() and self._control.catch_up(_LOOK_UP_S_MAX):
                self._opening.put(closed)
                self.wake()
                return

    def _open(self) -> None:
        """Allow claims from partitions for which `control` has been read, unless they have come and gone meanwhile."""
        while not self._opening.empty():
            ready = self._opening.get()
            partitions = [p for p, assignment in ready.items() if self._closed.get(p) == assignment]
            floors = committed(self._consumer, self._topic, partitions)
            if floors is None:
                self._opening.put(ready)
                return
            for partition, offset in floors.items():
                self._floor[partition] = offset
                self._ahead.drop_below(partition, offset)
                del self._closed[partition]

    # -- claiming

    def _claim(self) -> None:
        doubtful = {partition for doubt in self._doubts for partition in doubt.partitions}
        picks = self._ahead.pick(self.slots.free, self._closed.keys() | doubtful)
        self._metrics.read_ahead.set(len(self._ahead))
        if not picks:
            return
        step = self._runtime.step
        ends = {partition: prefix[-1].read.offset + 1 for partition, prefix in picks.items()}
        step("claim")
        attempt = Attempt(new_id(), ends, self._consumer.memberid(), mono_ns())
        verdict = commit_claim(self._consumer, self._topic, attempt)
        step("claimed")
        self._metrics.claim_s.observe((mono_ns() - attempt.began_ns) / _NS)
        self._settle(_Doubt(attempt, picks, set(ends)), verdict)
        if not verdict.claimed:
            self._metrics.claim_failures.labels("refused").inc()
            self._breathe()

    def _breathe(self) -> None:
        """After a refusal the group is about to rebalance: do not ask again at once."""
        with self._wake:
            self._wake.wait(_POLL_S / 2)

    def _settle_doubts(self) -> None:
        doubts, self._doubts = self._doubts, []
        for doubt in doubts:
            self._settle(doubt, read_back(self._consumer, self._topic, doubt.attempt, doubt.partitions))

    def _settle(self, doubt: _Doubt, verdict: Verdict) -> None:
        """Go on with what is claimed; ask again for what is not known; the rest stays in the read-ahead."""
        if verdict.unknown:
            self._metrics.claim_failures.labels("unknown").inc()
            self._doubts.append(doubt._replace(partitions=verdict.unknown))
        if not verdict.claimed:
            return
        for partition in verdict.claimed:
            self._floor[partition] = doubt.attempt.next_offsets[partition]
            self._ahead.remove(partition, len(doubt.picks[partition]))
        if not verdict.proven:
            self._metrics.claim_failures.labels("other_member").inc()
            log.warning("claim dropped: the group has let this worker go", claim_id=doubt.attempt.claim_id)
            return
        self._begin(doubt, verdict.claimed)

    def _begin(self, doubt: _Doubt, partitions: set[int]) -> None:
        known = self._control_is_known()
        for partition in sorted(partitions):
            for pick in doubt.picks[partition]:
                self._begin_one(doubt.attempt, pick, known)

    def _begin_one(self, attempt: Attempt, pick: Pick, control_known: bool) -> None:
        read, dispatch = pick.read, pick.read.dispatch
        if dispatch is None:
            return
        self._metrics.claimed.inc()
        claim = Claim(dispatch, read.partition, read.offset, attempt.claim_id, attempt.began_ns)
        back = pick.back
        taken_back = self._control.tokens(read.partition)
        if any(task.token in taken_back for task in dispatch.tasks):
            back = Reason.TAKEN_BACK
        elif back is None and (not control_known or mono_ns() - attempt.began_ns >= self._lease_ns):
            back = Reason.LOST_BEFORE_START
        for task in dispatch.tasks:
            self._control.met(read.partition, task.token)
        if back is None:
            self.slots.take()
            Run(self._runtime, claim).announce()
            return
        for task in dispatch.tasks:
            self._metrics.ended.labels(task.type, "returned").inc()
        self._runtime.reporter.send(claim, returned(dispatch.tasks, back))

    def _control_is_known(self) -> bool:
        """Whether the schedulers cannot have written us off before the claim: else read `control` once more.

        A worker that was frozen is silent on `members` and may be taken for dead, its dispatches taken back for good,
        while its session still stands and lets it claim them.
        """
        if self._silent_s() < limits.MEMBER_SILENT_S - limits.ANNOUNCE_INTERVAL_S:
            return True
        return self._announced() and self._control.catch_up(_LOOK_UP_S_MAX)
