"""Reports to the schedulers: records on `completions`, in order, acknowledged by all replicas."""

import threading
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import confluent_kafka as ck
import structlog

from streams import limits
from streams.logs import kafka_logger
from streams.protocol import PROTOCOL, Completion, Dispatch, Report, encode
from streams.settings import Settings

log = structlog.get_logger("worker")

_QUEUED_MAX: Final = 1_000_000

# Called in the reporter's thread when the record is in the log (None) or will never be (an error).
Acknowledged = Callable[[str | None], None]


class Claim(NamedTuple):
    """A dispatch that this worker has claimed, and by which claim."""

    dispatch: Dispatch
    partition: int
    offset: int
    claim_id: str
    began_ns: int  # monotonic: before its commit was sent


class Reporter(threading.Thread):
    """One idempotent producer.  A report waits for the broker as long as it takes; leases decide what it is worth."""

    def __init__(
        self, settings: Settings, worker: str, boot_id: str, on_fatal: Callable[[str], None],
        stats: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:  # fmt: skip
        """`stats`: settings that make librdkafka tell its statistics."""
        super().__init__(name="reports", daemon=True)
        self._topic = settings.topic("completions")
        self._worker, self._boot_id = worker, boot_id
        self._on_fatal = on_fatal
        self._stopping = threading.Event()
        conf = settings.kafka(**{
            "enable.idempotence": True, "linger.ms": 1, "message.timeout.ms": 0,
            # As soon as the broker is back: leases are waiting (`limits.ACKNOWLEDGED_S`).
            "reconnect.backoff.ms": 50, "reconnect.backoff.max.ms": 150, "retry.backoff.ms": 50,
            "retry.backoff.max.ms": 150,
            "message.max.bytes": limits.RECORD_BYTES_MAX, "queue.buffering.max.messages": _QUEUED_MAX,
            "error_cb": self._error, **stats,
        })  # fmt: skip
        self._producer = ck.Producer(conf, logger=kafka_logger())

    def send(self, claim: Claim, reports: tuple[Report, ...], acknowledged: Acknowledged | None = None) -> None:
        """Report on the tasks of a claim.  Records of one group arrive in the order of these calls."""
        dispatch = claim.dispatch
        value = encode(Completion(
            PROTOCOL, dispatch.group, self._worker, self._boot_id,
            claim.claim_id, claim.partition, claim.offset, reports,
        ))  # fmt: skip

        def delivered(error: ck.KafkaError | None, _message: ck.Message) -> None:
            if error is not None:
                log.error("report not delivered", group=dispatch.group, claim_id=claim.claim_id, error=error.str())
            if acknowledged is not None:
                try:
                    acknowledged(None if error is None else error.str())
                except Exception:  # this thread serves everybody
                    log.exception("acknowledgement not handled", group=dispatch.group, claim_id=claim.claim_id)

        while True:
            try:
                self._producer.produce(
                    self._topic, value, dispatch.group.encode(), dispatch.partition, on_delivery=delivered
                )
                return
            except BufferError:  # its queue is full: let it work
                self._producer.poll(0.05)

    def unacknowledged(self) -> int:
        return len(self._producer)

    def stop(self, timeout_s: float) -> int:
        """Wait for acknowledgements, then end.  Returns how many reports have none."""
        left = self._producer.flush(timeout_s)
        self._stopping.set()
        if self.ident is not None:
            self.join()
        return left

    def run(self) -> None:
        while not self._stopping.is_set():
            self._producer.poll(0.1)

    def _error(self, error: ck.KafkaError) -> None:
        if error.fatal():
            self._on_fatal(f"no report can be delivered any more: {error.str()}")
