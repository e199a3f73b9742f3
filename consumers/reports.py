"""Reports to the schedulers: records on `completions`, in order, acknowledged by all replicas."""

import threading
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import confluent_kafka as ck
import structlog

from streams import limits
from streams.clock import mono_ns
from streams.fatal import fatal_errors
from streams.logs import kafka_logger
from streams.protocol import PROTOCOL, Completion, Dispatch, Report, encode
from streams.settings import Settings

log = structlog.get_logger("worker")

_QUEUED_MAX: Final = 1_000_000
_NS: Final = 1_000_000_000
# A producer whose oldest report is not acknowledged for a lease and this long is given up: librdkafka's may never
# recover.  Not sooner: an outage of up to a lease is waited out, and a new producer would have to begin anew.
_STUCK_S: Final = limits.GRACE_S + 3.0

# Called in the reporter's thread when the record is in the log (None) or will never be (an error).
Acknowledged = Callable[[str | None], None]


class Claim(NamedTuple):
    """A dispatch that this worker has claimed, and by which claim."""

    dispatch: Dispatch
    partition: int
    offset: int
    claim_id: str
    began_ns: int  # monotonic: before its commit was sent


@dataclass(slots=True)
class _Sent:
    """A report that is on its way."""

    value: bytes
    key: bytes
    partition: int
    acknowledged: Acknowledged | None
    sent_ns: int
    claim_id: str
    over: bool = False


class Reporter(threading.Thread):
    """Idempotent producing.  A report waits for the broker as long as it takes; leases decide what it is worth.

    A producer can get stuck for good on a partition that was without a leader for a moment, while others work.  So
    one that is late is replaced, and the new one sends everything again, in the same order.  What is in the log twice
    by that is stale the second time: reports carry token and claim id.
    """

    def __init__(
        self, settings: Settings, worker: str, boot_id: str, on_fatal: Callable[[str], None],
        stats: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:  # fmt: skip
        """`stats`: settings that make librdkafka tell its statistics."""
        super().__init__(name="reports", daemon=True)
        self._topic = settings.topic("completions")
        self._worker, self._boot_id = worker, boot_id
        self._on_fatal = on_fatal
        self._stuck_ns = int((settings.lease_s + _STUCK_S) * _NS)
        self._stopping = threading.Event()
        self._conf = settings.kafka(**{
            "enable.idempotence": True, "linger.ms": 1, "message.timeout.ms": 0,
            # As soon as the broker is back: leases are waiting (`limits.ACKNOWLEDGED_S`).
            "reconnect.backoff.ms": 50, "reconnect.backoff.max.ms": 150, "retry.backoff.ms": 50,
            "retry.backoff.max.ms": 150,
            "message.max.bytes": limits.RECORD_BYTES_MAX, "queue.buffering.max.messages": _QUEUED_MAX, **stats,
        })  # fmt: skip
        self._sending = threading.RLock()  # order; taken again by acknowledgements that send
        self._sent: deque[_Sent] = deque()
        self._producer = self._new_producer()

    def send(self, claim: Claim, reports: tuple[Report, ...], acknowledged: Acknowledged | None = None) -> None:
        """Report on the tasks of a claim.  Records of one group arrive in the order of these calls."""
        dispatch = claim.dispatch
        value = encode(Completion(
            PROTOCOL, dispatch.group, self._worker, self._boot_id,
            claim.claim_id, claim.partition, claim.offset, reports,
        ))  # fmt: skip
        sent = _Sent(value, dispatch.group.encode(), dispatch.partition, acknowledged, mono_ns(), claim.claim_id)
        with self._sending:
            self._sent.append(sent)
            self._produce(sent)

    def unacknowledged(self) -> int:
        with self._sending:
            return sum(not sent.over for sent in self._sent)

    def stop(self, timeout_s: float) -> int:
        """Wait for acknowledgements, then end.  Returns how many reports have none."""
        deadline_ns = mono_ns() + int(timeout_s * _NS)
        while (left := self.unacknowledged()) and mono_ns() < deadline_ns:
            self._serve()
        self._stopping.set()
        if self.ident is not None:
            self.join()
        return left

    def run(self) -> None:
        while not self._stopping.is_set():
            self._serve()

    def _serve(self) -> None:
        self._poll(self._producer, 0.1)
        with self._sending:
            while self._sent and self._sent[0].over:
                self._sent.popleft()
            if self._sent and mono_ns() - self._sent[0].sent_ns > self._stuck_ns:
                self._replace()

    def _produce(self, sent: _Sent) -> None:
        producer = self._producer

        def delivered(error: ck.KafkaError | None, _message: ck.Message) -> None:
            if sent.over or (error is not None and producer is not self._producer):
                return  # told before, or its producer was given up: another one has it
            sent.over = True
            if error is not None:
                log.error("report not delivered", key=sent.key, claim_id=sent.claim_id, error=error.str())
            if sent.acknowledged is not None:
                try:
                    sent.acknowledged(None if error is None else error.str())
                except Exception:  # this thread serves everybody
                    log.exception("acknowledgement not handled", key=sent.key, claim_id=sent.claim_id)

        while True:
            try:
                producer.produce(self._topic, sent.value, sent.key, sent.partition, on_delivery=delivered)
                return
            except BufferError:  # its queue is full: let it work
                self._poll(producer, 0.05)

    def _poll(self, producer: ck.Producer, timeout_s: float) -> None:
        try:
            with fatal_errors():
                producer.poll(timeout_s)
        except ck.KafkaException as error:
            self._on_fatal(f"no report can be delivered any more: {error.args[0].str()}")

    def _replace(self) -> None:
        """Go on with a new producer; the old one may be waiting for ever."""
        waiting = [sent for sent in self._sent if not sent.over]
        log.warning("reports are not acknowledged: sent again by a new producer", reports=len(waiting))
        old, self._producer = self._producer, self._new_producer()
        threading.Thread(target=_bury, args=(old,), name="bury-producer", daemon=True).start()
        self._sent = deque(waiting)
        now_ns = mono_ns()
        for sent in waiting:
            sent.sent_ns = now_ns
            self._produce(sent)

    def _new_producer(self) -> ck.Producer:
        return ck.Producer(self._conf, logger=kafka_logger())


def _bury(producer: ck.Producer) -> None:
    """Its clean-up may hang as well, so it has a thread of its own."""
    producer.purge()
    with suppress(ck.KafkaException), fatal_errors():
        producer.flush(1)
