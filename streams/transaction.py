"""One Kafka transaction per step: changelog, dispatches, history and input offsets become visible together or not.

The group fences only the offsets (KIP-447), so each transaction carries the positions of the partitions it writes for.
"""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import confluent_kafka as ck
import structlog

from streams import limits
from streams.catalogue import RECORDS, SHORT_S
from streams.clock import mono_ns
from streams.distribution import Distribution
from streams.engine import Output
from streams.logs import kafka_logger
from streams.settings import Settings, TopicName

log = structlog.get_logger("transaction")

# Longer than the transaction's own time-out, after which the broker has aborted it anyway.
FLUSH_S = COMMIT_S = limits.TRANSACTION_TIMEOUT_MS / 1000 + 1

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
        self._topics: dict[TopicName, str] = {}
        self.figures = Figures()

    def successor(self) -> "Transactor":
        """A new one with the same id, for when this one hangs."""
        new = Transactor(self._settings, self._id, self._stats)
        new.figures = self.figures
        return new

    def start(self) -> None:
        """Become the one producer with this id: what an earlier life left open is aborted.  Raises `KafkaException`."""
        producer = self._new_producer(self._id)
        producer.init_transactions(30)
        self._producer = producer

    def fence(self, transactional_id: str) -> None:
        """End whatever that producer has open.  Fencing a live one is safe: it joins again.  Raises `KafkaException`.

        Our own id is fenced by starting anew, after a transaction of ours failed: what it left open would hide our
        own records and offsets from us.
        """
        if transactional_id != self._id:
            log.info("fencing the owner before us", transactional_id=transactional_id)
            self._new_producer(transactional_id).init_transactions(30)
        elif self._producer is None:
            self.start()

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
            if self._producer.flush(FLUSH_S):
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
