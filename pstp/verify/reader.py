"""Reading a history: from a cluster, or from a dump of it with one JSON object per line."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition
from msgspec import Raw, Struct

from streams.errors import UserError
from streams.settings import Settings

ANSWER_TIMEOUT_S: Final = 5.0
SILENCE_MAX_S: Final = 30.0
FETCH_RECORDS: Final = 5_000


class Bounds(NamedTuple):
    """Of one partition: its first offset, and where it ended when we looked."""

    low: int
    high: int


class TopicReader:
    """Reads a topic's committed records up to where it ended when this was made.  Close it.

    It joins no consumer group and commits nothing.  Raises `UserError` if the cluster or the topic is not there.
    """

    def __init__(self, settings: Settings, topic: str) -> None:
        self.topic = topic
        self._where = settings.bootstrap_servers
        self._consumer = Consumer(
            settings.kafka(**{
                "group.id": f"{settings.app}-verify",
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "auto.offset.reset": "error",
                "enable.partition.eof": True,
                "fetch.queue.backoff.ms": 5,
            })
        )  # fmt: skip
        try:
            self.bounds = {partition: self._look_up(partition) for partition in self._partitions()}
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._consumer.close()

    def __len__(self) -> int:
        """Offsets to read; some of them hold no record but a mark of a transaction."""
        return sum(bounds.high - bounds.low for bounds in self.bounds.values())

    def read(self, partition: int, on_progress: Callable[[int], None] = lambda offsets: None) -> Iterator[Message]:
        """The partition's records.  `on_progress` is told how many offsets each fetch has passed."""
        low, high = self.bounds[partition]
        at = low
        if low == high:
            return
        self._consumer.assign([TopicPartition(self.topic, partition, OFFSET_BEGINNING if low == 0 else low)])
        while at < high:
            messages = self._consumer.consume(FETCH_RECORDS, timeout=SILENCE_MAX_S)
            if not messages:
                raise UserError(
                    f"nothing came from {self.topic!r} for {SILENCE_MAX_S:g} s: see whether the cluster at "
                    f"{self._where} is well, then try again"
                )
            before = at
            for message in messages:
                if (error := message.error()) is not None:
                    at = self._ended(error, high)
                    break
                offset = message.offset()
                assert offset is not None
                at = offset + 1
                if at > high:
                    break
                yield message
            on_progress(min(at, high) - before)

    def _ended(self, error: KafkaError, high: int) -> int:
        """The end may be a mark, or an open transaction that nobody can read behind."""
        if error.code() == KafkaError._PARTITION_EOF:
            return high
        if error.retriable() or error.code() in (KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT):
            raise self._unreachable()
        raise KafkaException(error)

    def _partitions(self) -> list[int]:
        try:
            found = self._consumer.list_topics(self.topic, timeout=ANSWER_TIMEOUT_S).topics[self.topic]
        except KafkaException as error:
            raise self._unreachable() from error
        if found.error is not None:
            raise UserError(
                f"topic {self.topic!r} is not in the cluster at {self._where}: create the topics with "
                "`pstp topics create`, or name another cluster with PSTP_BOOTSTRAP_SERVERS"
            )
        return sorted(found.partitions)

    def _look_up(self, partition: int) -> Bounds:
        at = TopicPartition(self.topic, partition)
        try:
            bounds = self._consumer.get_watermark_offsets(at, timeout=ANSWER_TIMEOUT_S)
        except KafkaException as error:
            raise self._unreachable() from error
        if bounds is None:
            raise self._unreachable()
        return Bounds(*bounds)

    def _unreachable(self) -> UserError:
        return UserError(
            f"no broker answers at {self._where}: start one with `pstp broker`, or set PSTP_BOOTSTRAP_SERVERS"
        )


class DumpLine(Struct, frozen=True):
    """One record of `task-events` in a dump: {"partition": 0, "offset": 17, "value": {...}}."""

    partition: int
    offset: int
    value: Raw


_dump_line = msgspec.json.Decoder(DumpLine).decode


def read_dump(path: Path, on_progress: Callable[[int], None] = lambda offsets: None) -> Iterator[DumpLine]:
    """The records of a dump, partitions mixed, each in the order of its log; `on_progress` is told the bytes read."""
    number = 0
    try:
        with path.open("rb") as lines:
            for line in lines:
                number += 1
                on_progress(len(line))
                if line.strip():
                    yield _dump_line(line)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UserError(
            f"line {number} of {path} is no record of a dump ({error}): each line is one JSON object like "
            '{"partition": 0, "offset": 17, "value": {…}}'
        ) from error
