"""The two questions that the watch asks of Kafka: how far has this log come, and what is still unclaimed?  Blocking."""

from collections.abc import Iterable

import confluent_kafka as ck
import msgspec
from confluent_kafka.admin import AdminClient

from streams.ends import log_ends
from streams.logs import kafka_logger
from streams.protocol import decode_dispatch
from streams.settings import Settings


class Lookups:
    """Called from one worker thread.  All methods raise `KafkaException`."""

    def __init__(self, settings: Settings) -> None:
        self._completions, self._dispatches = settings.topic("completions"), settings.topic("dispatches")
        self._admin = AdminClient(settings.kafka(), logger=kafka_logger())
        # Never subscribes, so it never joins the workers; it only asks what they have committed.  It also sees what
        # lies behind another scheduler's open transaction, which workers do not yet see: that is unclaimed too.
        self._workers = ck.Consumer(settings.kafka(**{
            "group.id": settings.worker_group, "enable.auto.commit": False, "isolation.level": "read_uncommitted",
            "enable.partition.eof": True, "auto.offset.reset": "earliest", "fetch.queue.backoff.ms": 5,
            "fetch.wait.max.ms": 10,  # the end of a partition is told by an empty fetch
        }), logger=kafka_logger())  # fmt: skip

    def completion_ends(self, partitions: Iterable[int]) -> dict[int, int]:
        """The ends of these partitions of `completions` as they are now."""
        return log_ends(self._admin, self._completions, partitions)

    def unclaimed(self, partition: int) -> set[tuple[int, int]]:
        """What lies in this partition of `dispatches` at or behind the workers' committed offset: partitions of groups,
        and tokens, which count within these.
        """
        place = ck.TopicPartition(self._dispatches, partition)
        (committed,) = self._workers.committed([place], timeout=10)
        start = committed.offset if committed.offset >= 0 else ck.OFFSET_BEGINNING
        self._workers.assign([ck.TopicPartition(self._dispatches, partition, start)])
        found: set[tuple[int, int]] = set()
        try:
            while True:
                first = self._workers.poll(1.0)
                for message in [first, *self._workers.consume(500, 0)] if first else []:
                    if (error := message.error()) is not None:
                        if error.code() == ck.KafkaError._PARTITION_EOF:
                            return found
                        raise ck.KafkaException(error)
                    found |= _named(message.value() or b"")
        finally:
            self._workers.unassign()


def _named(value: bytes) -> set[tuple[int, int]]:
    try:
        dispatch = decode_dispatch(value)
        return {(dispatch.partition, task.token) for task in dispatch.tasks}
    except msgspec.DecodeError:
        return set()  # not ours, so nobody waits for it
