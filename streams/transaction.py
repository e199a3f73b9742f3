"""One Kafka transaction per step: changelog, dispatches, history and input offsets become visible together or not.

The group fences only the offsets (KIP-447), so each transaction carries the positions of the partitions it writes for.

**Hanging transactions.**  A coordinator that comes back after its brokers were down skips the markers of partitions
whose leader it does not know yet ("these partitions are likely deleted already").  There the transaction stays open
for ever: nobody reads past it, offsets that it would have changed are told to nobody, and the next *commit* of the
same producer id would bring it to life.  So whoever takes up a transactional id, its own or a predecessor's, first
aborts a transaction of that id which touches every partition it can have written to.
"""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

import confluent_kafka as ck
import structlog

from streams import limits
from streams.catalogue import RECORDS, SHORT_S
from streams.clock import mono_ns
from streams.distribution import Distribution
from streams.engine import Output
from streams.fatal import fatal_errors
from streams.logs import kafka_logger
from streams.partition import INPUTS
from streams.settings import Settings, TopicName
from streams.topic_plan import plan_topics

log = structlog.get_logger("transaction")

# Longer than the transaction's own time-out, after which the broker has aborted it anyway.
FLUSH_S = COMMIT_S = limits.TRANSACTION_TIMEOUT_MS / 1000 + 1

OUTPUTS: Final[tuple[TopicName, ...]] = (
    "changelog", "task-events", "dispatches", "control", "dead-letters", "tasks", "commands",
)  # fmt: skip

# The group metadata of a consumer, as confluent-kafka hands it out; opaque.
GroupMetadata = Any


class TransactionFailed(RuntimeError):
    """Nothing of it happened, or nobody knows: memory must be loaded afresh."""


class Figures:
    """Of all transactions of this process."""

    def __init__(self) -> None:
        self.committed = self.failed = 0
        self.seconds, self.records = Distribution(SHORT_S), Distribution(RECORDS)


class Transactor:
    """The instance's transactional producer.  Its methods block; all are called from one worker thread."""

    def __init__(
        self, settings: Settings, transactional_id: str, stats: Mapping[str, Any] = MappingProxyType({})
    ) -> None:
        """`stats`: settings that make librdkafka tell its statistics."""
        self._settings = settings
        self._id = transactional_id
        self._stats = stats
        self._producer: ck.Producer | None = None
        group = settings.kafka(**{"group.id": settings.scheduler_group})
        self._outsider = ck.Consumer(group, logger=kafka_logger())  # never joins
        self._topics: dict[TopicName, str] = {}
        self.figures = Figures()

    def successor(self) -> "Transactor":
        """A new one with the same id, for when this one hangs."""
        new = Transactor(self._settings, self._id, self._stats)
        new.figures = self.figures
        return new

    def start(self) -> None:
        """Become the one producer with this id: what an earlier life left open is aborted.  Raises `KafkaException`."""
        self._producer = self._take_up(self._id)

    def fence(self, transactional_id: str) -> None:
        """End whatever that producer has open.  Fencing a live one is safe: it joins again.  Raises `KafkaException`.

        Our own id is fenced by starting anew, after a transaction of ours failed: what it left open would hide our
        own records and offsets from us.
        """
        if transactional_id != self._id:
            log.info("fencing the owner before us", transactional_id=transactional_id)
            self._take_up(transactional_id)
        elif self._producer is None:
            self.start()

    def _take_up(self, transactional_id: str) -> ck.Producer:
        """The one producer with this id, after all that the ones before it left open has ended, everywhere."""
        producer = self._new_producer(transactional_id)
        producer.init_transactions(30)
        producer.begin_transaction()
        plans = plan_topics(self._settings)
        for topic in OUTPUTS:
            for partition in range(plans[topic].partitions):
                producer.produce(self._topic(topic), b"", b"", partition)
        if _unsent(producer):
            raise ck.KafkaException(ck.KafkaError(ck.KafkaError._TIMED_OUT, "the broker does not take records"))
        positions = [ck.TopicPartition(self._topic(t), p, 0) for t in INPUTS for p in range(self._settings.partitions)]
        # Of a consumer that is no member: that may take part in a transaction, and this one changes nothing.
        producer.send_offsets_to_transaction(positions, self._outsider.consumer_group_metadata(), COMMIT_S)
        producer.abort_transaction(COMMIT_S)
        return producer

    def commit(
        self, outputs: Sequence[Output], offsets: dict[tuple[TopicName, int], int], group: GroupMetadata
    ) -> None:
        """Write `outputs` and `offsets` (next to read) in one transaction.  Raises `TransactionFailed`."""
        began_ns = mono_ns()
        try:
            if self._producer is None:
                self.start()
            assert self._producer is not None
            self._write(self._producer, outputs)
            # Else AddOffsetsToTxn meets AddPartitionsToTxn: CONCURRENT_TRANSACTIONS, and 100 ms of back-off.
            if _unsent(self._producer):
                raise TransactionFailed(f"the broker did not take everything within {FLUSH_S} s")
            positions = [ck.TopicPartition(self._topic(t), p, offset) for (t, p), offset in offsets.items()]
            self._producer.send_offsets_to_transaction(positions, group, COMMIT_S)
            self._producer.commit_transaction(COMMIT_S)
        except (ck.KafkaException, BufferError, TransactionFailed) as error:
            # Not aborted here: that may wait for a broker that is gone.  The next start aborts it, under a new epoch.
            self._producer = None
            self.figures.failed += 1
            log.warning("transaction failed", error=str(error))
            raise TransactionFailed(str(error)) from error
        self.figures.committed += 1
        self.figures.seconds.add((mono_ns() - began_ns) / 1e9)
        self.figures.records.add(len(outputs))

    def _write(self, producer: ck.Producer, outputs: Iterable[Output]) -> None:
        producer.begin_transaction()
        for topic, partition, key, value, headers in outputs:
            if headers:
                producer.produce(self._topic(topic), value, key, partition, headers=list(headers))
            else:
                producer.produce(self._topic(topic), value, key, partition)

    def _topic(self, name: TopicName) -> str:
        topic = self._topics.get(name)
        if topic is None:
            topic = self._topics[name] = self._settings.topic(name)
        return topic

    def _new_producer(self, transactional_id: str) -> ck.Producer:
        conf = self._settings.kafka(**{
            "transactional.id": transactional_id,
            "transaction.timeout.ms": limits.TRANSACTION_TIMEOUT_MS,
            "linger.ms": 0,
            "retry.backoff.ms": 5,
            "retry.backoff.max.ms": 100,
            "message.max.bytes": limits.RECORD_BYTES_MAX,
            "queue.buffering.max.messages": 1_000_000,
            "queue.buffering.max.kbytes": 1_048_576,
            "compression.type": "lz4",
        })  # fmt: skip
        if transactional_id == self._id:
            conf |= self._stats
        return ck.Producer(conf, logger=kafka_logger())


def _unsent(producer: ck.Producer) -> int:
    """How many records the broker did not take within `FLUSH_S`.  Raises `KafkaException`."""
    with fatal_errors():
        return producer.flush(FLUSH_S)
