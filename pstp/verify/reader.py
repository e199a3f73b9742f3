"""Reading a history: from a cluster, or from a dump of it with one JSON object per line."""

from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]
from msgspec import Raw, Struct

from pstp.verify.findings import Place
from pstp.verify.split import told
from streams.clock import now
from streams.errors import UserError
from streams.settings import Settings

ANSWER_TIMEOUT_S: Final = 5.0
SILENCE_MAX_S: Final = 30.0
# Our own transactions are over by then; a longer one is a stranger's.
OPEN_TRANSACTION_WAIT_S: Final = 12.0
POLL_S: Final = 0.1
FETCH_RECORDS: Final = 5_000


class Bounds(NamedTuple):
    """Of one partition: its first offset, and where it ended when we looked."""

    low: int
    high: int


class TopicReader:
    """Reads a topic's committed records up to where it ended when this was made.  Close it.

    It joins no consumer group and commits nothing.  `held`: partitions that end for us before their end, because a
    transaction there stays open.  Raises `UserError` if the cluster or the topic is not there.
    """

    def __init__(self, settings: Settings, topic: str) -> None:
        self.topic = topic
        self.held: list[int] = []
        self._where = settings.bootstrap_servers
        conf = settings.kafka(**{
            "group.id": f"{settings.app}-verify",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "auto.offset.reset": "error",
            "enable.partition.eof": True,
            "fetch.queue.backoff.ms": 5,
            "fetch.wait.max.ms": 10,  # the end of a partition shows after this long
            "log_level": 2,  # what goes wrong is told by our own errors
        })  # fmt: skip
        self._consumer = Consumer(conf)
        try:
            self.bounds = self._look_up(AdminClient(settings.kafka(log_level=2)))
        except KafkaException as error:
            self.close()
            raise self._unreachable() from error
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
        silent_s = 0.0
        if at < high:
            self._consumer.assign([TopicPartition(self.topic, partition, low)])
        while at < high:
            messages = self._consumer.consume(FETCH_RECORDS, timeout=POLL_S)
            silent_s = 0.0 if messages else silent_s + POLL_S
            if silent_s > SILENCE_MAX_S:
                raise UserError(
                    f"nothing came from {self.topic!r} for {SILENCE_MAX_S:g} s: see whether the cluster at "
                    f"{self._where} is well, then try again"
                )
            before = at
            for message in filter(_counts, messages):
                at = self._next_offset(message)
                if message.error() is None and at <= high:
                    yield message
            on_progress(min(at, high) - before)

    def values(self, places: Iterable[Place]) -> dict[Place, bytes]:
        """What is in these records; one that is gone by now is left out."""
        found = {}
        for place in places:
            self._consumer.assign([TopicPartition(self.topic, place.partition, place.offset)])
            deadline_ms = now().mono_ms + ANSWER_TIMEOUT_S * 1000
            while now().mono_ms < deadline_ms:
                message = self._consumer.poll(POLL_S)
                if message is None or not _counts(message):
                    continue
                if message.error() is None and message.offset() == place.offset:
                    found[place] = message.value() or b""
                break
        return found

    def _next_offset(self, message: Message) -> int:
        """The offset behind `message`, which may also say that the partition ends here."""
        offset = message.offset() or 0
        error = message.error()
        if error is None:
            return offset + 1
        if error.code() == KafkaError._PARTITION_EOF:
            return offset
        if error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
            raise self._forbidden()
        if error.retriable() or error.code() in (KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT):
            raise self._unreachable()
        raise KafkaException(error)

    def _look_up(self, admin: AdminClient) -> dict[int, Bounds]:
        """Where everything written so far begins and ends: it waits for transactions under way."""
        partitions = [TopicPartition(self.topic, partition) for partition in self._partitions()]
        latest = {partition: OffsetSpec.latest() for partition in partitions}  # type: ignore[no-untyped-call]
        ends = admin.list_offsets(
            latest, isolation_level=IsolationLevel.READ_UNCOMMITTED, request_timeout=ANSWER_TIMEOUT_S
        )
        deadline_ms = now().mono_ms + OPEN_TRANSACTION_WAIT_S * 1000
        bounds = {}
        for partition, end in ends.items():
            high = end.result().offset
            low, committed = self._committed(partition)
            while committed < high and now().mono_ms < deadline_ms:
                self._consumer.poll(POLL_S)
                low, committed = self._committed(partition)
            if committed < high:
                self.held.append(partition.partition)
            bounds[partition.partition] = Bounds(low, min(high, committed))
        return bounds

    def _committed(self, partition: TopicPartition) -> tuple[int, int]:
        bounds = self._consumer.get_watermark_offsets(partition, timeout=ANSWER_TIMEOUT_S)
        if bounds is None:
            raise self._unreachable()
        return bounds

    def _partitions(self) -> list[int]:
        found = self._consumer.list_topics(self.topic, timeout=ANSWER_TIMEOUT_S).topics[self.topic]
        if found.error is not None and found.error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
            raise self._forbidden()
        if found.error is not None:
            raise UserError(
                f"topic {self.topic!r} is not in the cluster at {self._where}: create the topics with "
                "`pstp topics create`, or name another cluster with PSTP_BOOTSTRAP_SERVERS"
            )
        return sorted(found.partitions)

    def _forbidden(self) -> UserError:
        return UserError(
            f"this user may not read topic {self.topic!r}: it needs READ on it and nothing else, see docs/verify.md"
        )

    def _unreachable(self) -> UserError:
        return UserError(
            f"no broker answers at {self._where}: start one with `pstp broker`, or set PSTP_BOOTSTRAP_SERVERS"
        )


def _counts(message: Message) -> bool:
    """librdkafka looks for a group's coordinator; we never use the group, so it need not be allowed to us."""
    error = message.error()
    return error is None or error.code() != KafkaError.GROUP_AUTHORIZATION_FAILED


class DumpLine(Struct, frozen=True):
    """One record of `task-events` in a dump: {"partition": 0, "offset": 17, "value": {...}}."""

    partition: int
    offset: int
    value: Raw


dump_line = msgspec.json.Decoder(DumpLine).decode


def dump_values(path: Path, places: Collection[Place]) -> dict[Place, bytes]:
    """What is in these records of a dump."""
    if not places:
        return {}
    return {
        place: bytes(line.value)
        for line in (dump_line(data) for _, data in read_dump(path))
        if (place := Place(line.partition, line.offset)) in places
    }  # fmt: skip


def read_dump(path: Path, on_progress: Callable[[int], None] = lambda offsets: None) -> Iterator[tuple[int, bytes]]:
    """Partition and line of each record of a dump, partitions mixed, each in the order of its log; every line is one
    that `dump_line` reads.  `on_progress` is told the bytes read.
    """
    number = 0
    try:
        with path.open("rb") as lines:
            for line in told(lines, on_progress):
                number += 1
                if line := line.strip():
                    yield dump_line(line).partition, line
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UserError(
            f"line {number} of {path} is no record of a dump ({error}): each line is one JSON object like "
            '{"partition": 0, "offset": 17, "value": {…}}'
        ) from error
