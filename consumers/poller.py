"""The polling thread: owns the consumer of `dispatches`, reads ahead a little, and claims when a slot is free."""

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Final

import confluent_kafka as ck
import msgspec
import structlog

from consumers.claiming import Claims, Slots
from consumers.claims import Read, positions
from consumers.control import STOP_S_MAX, ControlReader
from consumers.runs import Runtime
from streams import limits
from streams.clock import mono_ns
from streams.errors import UserError
from streams.logs import kafka_logger
from streams.protocol import VersionError, decode_dispatch
from streams.settings import Settings

log = structlog.get_logger("worker")

_POLL_S: Final = 0.1
_RECORDS_MAX: Final = 500
_LOOK_UP_S_MAX: Final = 5.0


class Poller(threading.Thread):
    """Calls that touch the consumer are made in this thread only, between two polls.

    `say` announces which partitions are ours, `announced` waits until that is in the log (False after a timeout), and
    `silent_s` is for how long nothing was announced, at most, since it was asked last.
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
        self._on_failed = on_failed
        self._topic = settings.topic("dispatches")
        self._wake = threading.Condition()
        self._woken = False
        self.slots = Slots(settings.slots, self.wake)
        self._control = control
        control.on_change = self.wake
        self._claims = Claims(settings, runtime, control, self.slots, silent_s)
        self._ahead = self._claims.ahead
        self._ahead_max = max(2 * settings.slots, 64)
        self._owned: frozenset[int] = frozenset()
        self._paused: set[int] = set()
        # Not to be claimed from until `control` was read to its end: partition -> which assignment of it that is.
        self._closed: dict[int, int] = {}
        self._assignments = 0
        self._unknown: set[int] = set()  # nor before it is known where claims begin
        self._stopped: dict[int, str] = {}  # with a dispatch that is too new for this process
        self._opening: SimpleQueue[dict[int, int]] = SimpleQueue()
        self._stopping = threading.Event()
        self.polled_ns = mono_ns()
        conf = settings.kafka(**{
            "group.id": settings.worker_group, "client.id": runtime.instance, "auto.offset.reset": "earliest",
            "enable.auto.commit": False, "enable.auto.offset.store": False, "isolation.level": "read_committed",
            "group.protocol": "classic", "partition.assignment.strategy": "cooperative-sticky",
            "session.timeout.ms": limits.SESSION_TIMEOUT_MS, "heartbeat.interval.ms": limits.HEARTBEAT_INTERVAL_MS,
            "max.poll.interval.ms": limits.POLL_INTERVAL_MS_MAX, "socket.timeout.ms": 10_000,
            "fetch.queue.backoff.ms": 5, "fetch.wait.max.ms": 100, "reconnect.backoff.max.ms": 500,
            **self._metrics.kafka.conf("dispatches"),
        })  # fmt: skip
        self._consumer = ck.Consumer(conf, logger=kafka_logger())

    @property
    def owned(self) -> frozenset[int]:
        return self._owned

    @property
    def ready(self) -> bool:
        """Whether it owns partitions and may claim from them."""
        return len(self._owned) > len(self._closed) and not self._stopped

    @property
    def stopped(self) -> str:
        """Why a partition of its cannot go on, if so."""
        return next(iter(self._stopped.values()), "")

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
                self._claims.settle_doubts(self._consumer)
                self._look_up()
                self._open()
                if not self._claims.claim(self._consumer, self._closed.keys()):
                    self._breathe()
        except Exception as error:
            self._on_failed(error)
        finally:
            self._owned = frozenset()
            self._consumer.close()

    def _breathe(self) -> None:
        """After a refusal the group is about to rebalance: do not ask again at once."""
        with self._wake:
            self._wake.wait(_POLL_S / 2)

    # -- reading

    def _wait(self) -> float:
        """Wait for a slot if that is what is missing.  Returns for how long to wait for records, in seconds."""
        if not len(self._ahead):
            return _POLL_S
        with self._wake:
            if self.slots.free == 0 or self._closed or self._claims.in_doubt:
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
        if partition is None or offset is None or partition not in self._owned or partition in self._stopped:
            return
        try:
            dispatch = decode_dispatch(message.value() or b"")
            if not dispatch.tasks:
                raise msgspec.ValidationError("a run without tasks")
        except VersionError as too_new:
            self._stop_before(partition, offset, too_new)
            return
        except msgspec.DecodeError as error:
            log.error("dispatch cannot be read, passed over", partition=partition, offset=offset, error=str(error))
            self._metrics.undecodable.labels("dispatches").inc()
            self._claims.add(Read(partition, offset, None))
            return
        self._claims.add(Read(partition, offset, dispatch))

    def _stop_before(self, partition: int, offset: int, error: VersionError) -> None:
        """Nothing is claimed from there on, and nothing more is dispatched there: it is announced no more."""
        why = f"{self._topic}-{partition} holds at offset {offset} {error}"
        log.error("partition stopped, nothing of it is lost: upgrade this worker", partition=partition, why=why)
        self._stopped[partition] = why
        self._consumer.pause([ck.TopicPartition(self._topic, partition)])
        self._own(self._owned)

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
        consumer.incremental_assign(partitions)
        consumer.resume(partitions)  # in librdkafka a pause outlives assignments
        new = {tp.partition for tp in partitions}
        self._assignments += 1
        self._metrics.rebalances.inc()
        self._closed |= dict.fromkeys(new, self._assignments)
        self._unknown |= new
        self._own(self._owned | new)

    def _revoked(self, consumer: ck.Consumer, partitions: list[ck.TopicPartition]) -> None:
        gone = {tp.partition for tp in partitions}
        self._claims.forget(gone)
        for partition in gone:
            self._closed.pop(partition, None)
            self._stopped.pop(partition, None)
        self._unknown -= gone
        self._paused -= gone
        self._own(self._owned - gone)
        consumer.incremental_unassign(partitions)

    def _own(self, partitions: frozenset[int]) -> None:
        self._owned = partitions
        self._say(partitions - self._unknown - self._stopped.keys())
        self._metrics.partitions.set(len(partitions))
        log.info("partitions of dispatches", owned=sorted(partitions))

    # -- from assigned to open for claims

    def _look_up(self) -> None:
        """Find out where claims of new partitions begin, then announce them.  In this order: whoever dispatches because
        of the announcement dispatches behind what is found.
        """
        if not self._unknown:
            return
        try:
            found = positions(self._consumer, self._topic, self._unknown)
        except ck.KafkaException as error:
            log.warning("claims cannot be looked up", error=error.args[0].str())
            return
        for partition, position in found.items():
            self._claims.begin(partition, position)
        closed = {partition: self._closed[partition] for partition in self._unknown}
        self._unknown.clear()
        self._say(self._owned - self._stopped.keys())
        threading.Thread(target=self._catch_up, args=(closed,), name="catch-up", daemon=True).start()

    def _catch_up(self, closed: dict[int, int]) -> None:
        """Read `control` to its end once they are announced; a thread of its own, since others' claims go on."""
        while not self._stopping.is_set():
            if self._announced() and self._control.catch_up(_LOOK_UP_S_MAX):
                self._opening.put(closed)
                self.wake()
                return

    def _open(self) -> None:
        """Allow claims from partitions for which `control` has been read, unless they have come and gone meanwhile."""
        while not self._opening.empty():
            for partition, assignment in self._opening.get().items():
                if self._closed.get(partition) == assignment:
                    del self._closed[partition]
