"""A producer to the topic `tasks`: how it is set up, and what its errors mean to people."""

import logging
import threading
from collections.abc import Callable
from typing import Any, Final

import confluent_kafka as ck

from producers.message import Record
from streams import limits
from streams.errors import UserError
from streams.fatal import fatal_errors
from streams.settings import Settings

CONNECT_S: Final = 10.0
# Without an acknowledgement for this long, publishing has failed.
ACK_S: Final = 30.0

# librdkafka's own lines; heard where a program sets up logging, never printed unasked.
_log = logging.getLogger("pstp.kafka")
_log.addHandler(logging.NullHandler())
_log.setLevel(logging.ERROR)  # below are only remarks on our own configuration and on what it retries

_BASE: Final[dict[str, Any]] = {
    # Java's default and the place that the scheduler expects; librdkafka's own default differs.
    "partitioner": "murmur2_random",
    # Retries neither repeat nor reorder tasks.
    "enable.idempotence": True,
    "acks": "all",
    "compression.type": "lz4",  # costs nothing that could be measured, and halves what the broker writes
    "message.max.bytes": limits.RECORD_BYTES_MAX,
    "message.timeout.ms": int(ACK_S * 1000),
    # When so much waits, `produce` raises BufferError and the caller has to poll: memory stays bounded.
    "queue.buffering.max.messages": 50_000,
    "queue.buffering.max.kbytes": 64 * limits.KIB,
}

# After these errors nobody knows whether the broker has the record.
_UNCERTAIN: Final = frozenset({
    ck.KafkaError._MSG_TIMED_OUT, ck.KafkaError._PURGE_INFLIGHT, ck.KafkaError._PURGE_QUEUE, ck.KafkaError._FATAL,
})  # fmt: skip

Acknowledged = Callable[[ck.KafkaError | None, ck.Message], None]


class PublishError(UserError):
    """Kafka did not take a task, or did not say so.  The text says which, and what to do."""


class Connection:
    """One idempotent producer, connected on first use.  Callbacks run inside `poll`, in its caller's thread."""

    def __init__(self, settings: Settings, **more: Any) -> None:
        self._settings = settings
        self._topic = settings.topic("tasks")
        self._conf = settings.kafka(**_BASE, **more, error_cb=self._note)
        self._cause = ""
        self._lock = threading.Lock()
        self.current: ck.Producer | None = None

    def open(self) -> ck.Producer:
        """The producer.  The first call waits up to `CONNECT_S` and raises `PublishError` if `tasks` is not there."""
        with self._lock:
            if self.current is None:
                self.current = self._connected()
            return self.current

    def send(self, producer: ck.Producer, record: Record, acknowledged: Acknowledged) -> bool:
        """Hand a record over; False if the producer's queue is full: poll, and try again.  Raises `PublishError`."""
        try:
            producer.produce(self._topic, record.value, record.key, headers=record.headers, on_delivery=acknowledged)
        except BufferError:
            return False
        except ck.KafkaException as error:
            self._retire(producer)
            raise self.failure(error.args[0]) from None
        return True

    def poll(self, producer: ck.Producer, timeout_s: float) -> ck.KafkaError | None:
        """Serve callbacks; returns the fatal error after which this producer only gives back what it holds."""
        try:
            with fatal_errors():
                producer.poll(timeout_s)
        except ck.KafkaException as error:
            self._retire(producer)
            fatal: ck.KafkaError = error.args[0]
            return fatal
        return None

    def close(self) -> None:
        """Free the producer; a later call opens another."""
        with self._lock:
            self.current = None

    def failure(self, error: ck.KafkaError) -> PublishError:
        """What a delivery error means."""
        if error.code() in _UNCERTAIN:
            return self.silence(self._cause or error.str())
        return PublishError(f"Kafka refused the task ({error.str()}): mend that in the cluster, then publish it again")

    def silence(self, cause: str = "") -> PublishError:
        return PublishError(
            f"Kafka did not acknowledge the task ({cause or self._cause or 'no answer'}), so it may be stored or not: "
            "look at the broker, then at `pstp tasks`, before publishing it again"
        )

    def _connected(self) -> ck.Producer:
        try:
            producer = ck.Producer(self._conf, logger=_log)
        except ck.KafkaException as error:
            raise PublishError(f"Kafka's settings make no sense ({error.args[0].str()}): correct PSTP_…") from None
        try:
            # All topics, since asking for one by name may create it, with a wrong number of partitions.
            topics = producer.list_topics(timeout=CONNECT_S).topics
        except ck.KafkaException:
            producer.poll(0)  # fills in the cause
            because = f" ({self._cause})" if self._cause else ""
            raise PublishError(
                f"Kafka does not answer at {self._settings.bootstrap_servers}{because}: "
                "start one with `pstp broker`, or set PSTP_BOOTSTRAP_SERVERS to yours"
            ) from None
        if self._topic not in topics:
            raise PublishError(f"topic `{self._topic}` does not exist: run `pstp topics create`")
        return producer

    def _retire(self, producer: ck.Producer) -> None:
        """The next call opens another producer."""
        with self._lock:
            if self.current is producer:
                self.current = None

    def _note(self, error: ck.KafkaError) -> None:
        if error.code() != ck.KafkaError._ALL_BROKERS_DOWN:
            self._cause = error.str().rpartition("/bootstrap: ")[2].partition(" (after ")[0]
