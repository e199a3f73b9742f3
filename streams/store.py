"""Where the table `groups` lives: partitions in memory, rows in the changelog, read here and written by transactions.

Taking over a partition means: read its rows, make sure that the owner before can write no more, read what it wrote in
the meantime, and check that the committed inputs have not moved meanwhile.  Only then are the rows the truth.
"""

import gc
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import confluent_kafka as ck
import structlog
from confluent_kafka.admin import AdminClient

from streams import limits, rows
from streams.ends import log_ends
from streams.logs import kafka_logger
from streams.partition import INPUTS, Partition, load
from streams.protocol import VersionError
from streams.settings import Settings

log = structlog.get_logger("store")

_READ_S = 0.1
_READ_RECORDS = 10_000
_QUEUED_KIB = 2_048  # per partition, fetched ahead: without a bound, 32 long partitions took 2 GiB
_KEEP_S_MAX = 0.5
_RELEASE_RECORDS = 2  # the stamp and the marker of its transaction
_OPEN_S_MAX = 2 * limits.TRANSACTION_TIMEOUT_MS / 1000  # longer, and Kafka has not ended it by itself
Rows = dict[bytes, bytes]


class LoadingInterrupted(Exception):
    """A rebalance took the partitions away while they were being loaded."""


class LogWentBack(RuntimeError):
    """A topic's end lies below what was taken in from it: it was deleted and created again, or truncated."""


class Store:
    """Loads partitions, and keeps the cleanly released ones in case they come back.  Its methods block."""

    def __init__(
        self, settings: Settings, own: str, fence: Callable[[str], None], on_progress: Callable[[int], None],
        is_followed: Callable[[str, str], bool] = lambda owner, boot_id: False,
    ) -> None:  # fmt: skip
        """`own`: our transactional id.  `is_followed`: whether a later process is known to have taken up that id."""
        self._settings, self._own, self._fence, self._is_followed = settings, own, fence, is_followed
        self._on_progress = on_progress
        self._changelog = settings.topic("changelog")
        self._kept: dict[int, tuple[Partition, int]] = {}
        self._admin = AdminClient(settings.kafka(), logger=kafka_logger())
        # Never subscribes, so it never joins; it only asks what the group has committed.
        group = settings.kafka(**{"group.id": settings.scheduler_group, "enable.auto.commit": False})
        self._group = ck.Consumer(group, logger=kafka_logger())
        self.interrupted = threading.Event()
        self.load_s = 0.0  # how long the latest load took
        self.read_part = 1.0  # of the changelog that the latest load reads
        self.refused: dict[int, str] = {}  # what the latest load could not read, since a newer version wrote it
        self.input_ids: dict[str, str] = {}  # what the topics are, by Kafka's ids; set before the first load

    def load(self, numbers: Iterable[int]) -> dict[int, Partition]:
        """Partitions as their rows say; those that a newer version wrote to are left out and named in `refused`.

        Raises `LoadingInterrupted`, `LogWentBack`, `KafkaException`.
        """
        wanted = sorted(numbers)
        self.refused = {}
        ends = self._changelog_ends(wanted)
        loaded = {p: self._kept[p][0] for p in wanted if p in self._kept and self._kept[p][1] == ends[p]}
        self._kept.clear()
        if rest := [p for p in wanted if p not in loaded]:
            began_s = time.monotonic()
            with _no_garbage_collection():
                tables = self._read(rest, sum(ends[p] for p in rest))
                count = sum(map(len, tables.values()))
                for number in set(rest) - self.refused.keys():
                    try:
                        loaded[number] = load(number, tables[number])
                    except VersionError as error:
                        self._refuse(number, error)
            self.load_s = round(time.monotonic() - began_s, 3)
            log.info("loaded", partitions=rest, rows=count, seconds=self.load_s)
        for partition in loaded.values():
            partition.follow(self.input_ids)
        self._check_inputs(loaded)
        return loaded

    def keep(self, partitions: Iterable[Partition], boot_id: str) -> None:
        """Remember partitions that were released cleanly just now, if their log ends with our release.

        Its commit marker is written a little after the commit was answered; until then the stable end lags behind.
        """
        kept = {p.number: p for p in partitions}
        deadline_s = time.monotonic() + _KEEP_S_MAX
        while (ends := self._changelog_ends(kept)) != self._changelog_ends(kept, committed=True):
            if time.monotonic() > deadline_s:
                return  # then they are loaded again, should they come back
        starts = {n: max(0, end - _RELEASE_RECORDS) for n, end in ends.items()}
        with _Reader(self._settings, self._changelog, starts, threading.Event(), lambda *_: None) as reader:
            reader.read_to_end()
        for number, partition in kept.items():
            value = reader.tables[number].get(rows.PARTITION_KEY)
            row = rows.decode_partition(value) if value else None
            # If we were held up for longer than a session, somebody else may have written meanwhile.
            if row and row.released and row.boot_id == boot_id and reader.offsets[number] == ends[number]:
                self._kept[number] = partition, ends[number]

    def _read(self, numbers: list[int], size: int) -> dict[int, Rows]:
        """`size`: offsets that there were to read at first."""
        fenced: set[str] = set()
        began_s = time.monotonic()
        starts = dict.fromkeys(numbers, 0)

        def note(rows: int, offsets: int) -> None:
            self.read_part = min(1.0, offsets / max(1, size))
            self._on_progress(rows)

        with _Reader(self._settings, self._changelog, starts, self.interrupted, note) as reader:
            while True:
                reader.read_to_end()
                # Ourselves too: what a failed transaction of ours left open hides the end, whoever owned it meanwhile.
                owners = self._owners_to_fence(reader.tables) | {self._own}
                for owner in owners - fenced:
                    self._fence(owner)
                fenced |= owners
                # Only now: Kafka does not tell offsets while a transaction that would change them is open.
                before = self._committed(numbers)
                ends = self._changelog_ends(numbers)
                reader.read_to_end()
                # A read-committed reader ends at the first open transaction: what lies behind may yet be committed.
                if (
                    all(reader.offsets[n] == ends[n] for n in ends if n not in self.refused)
                    and self._committed(numbers) == before
                ):
                    return reader.tables
                if time.monotonic() - began_s > _OPEN_S_MAX:
                    stuck = [f"{self._changelog}-{n}" for n in numbers if reader.offsets[n] != ends[n]]
                    log.error("a transaction stays open: end it with `kafka-transactions.sh abort`", partitions=stuck)
                    began_s = time.monotonic()
                if self.interrupted.wait(_READ_S):
                    raise LoadingInterrupted

    def _refuse(self, number: int, error: VersionError) -> None:
        self.refused[number] = f"{self._changelog}-{number} holds {error}"

    def _owners_to_fence(self, tables: dict[int, Rows]) -> set[str]:
        """Nobody is fenced for a partition that we cannot take over, nor for what an earlier life of his has left: his
        start has ended that, and what he runs now would have to stop.
        """
        owners = set()
        for number, table in tables.items():
            try:
                left = _unclean_owner(table)
                if left is not None and not self._is_followed(*left):
                    owners.add(left[0])
            except VersionError as error:
                self._refuse(number, error)
        return owners

    def _committed(self, numbers: Iterable[int]) -> dict[tuple[str, int], int]:
        places = [ck.TopicPartition(self._settings.topic(t), p) for t in INPUTS for p in numbers]
        return {(t.topic, t.partition): t.offset for t in self._group.committed(places, timeout=10)}

    def _changelog_ends(self, numbers: Iterable[int], *, committed: bool = False) -> dict[int, int]:
        return log_ends(self._admin, self._changelog, numbers, committed=committed)

    def _check_inputs(self, partitions: dict[int, Partition]) -> None:
        for topic in INPUTS:
            name = self._settings.topic(topic)
            ends = log_ends(self._admin, name, partitions)
            for number, partition in partitions.items():
                if topic == "tasks":
                    partition.tasks_end = ends[number]
                if ends[number] < partition.next_offsets[topic]:
                    raise LogWentBack(
                        f"{name}-{number} ends at {ends[number]}, but everything below "
                        f"{partition.next_offsets[topic]} was taken in: the topic was recreated or truncated; "
                        "`pstp topics adopt` accepts it as it is now"
                    )


def _unclean_owner(table: Rows) -> tuple[str, str] | None:
    """Who may still have a transaction open, and its boot id; it may be an earlier life of ours."""
    value = table.get(rows.PARTITION_KEY)
    if value is None:
        return None
    row = rows.decode_partition(value)
    return (row.owner, row.boot_id) if row.owner and not row.released else None


class _Reader:
    """Reads changelog partitions, committed records only, into tables; may be asked to read on."""

    def __init__(
        self, settings: Settings, topic: str, starts: dict[int, int], interrupted: threading.Event,
        on_progress: Callable[[int, int], None],
    ) -> None:  # fmt: skip
        """`on_progress` is told how many rows were read, and offsets passed, in all."""
        conf: dict[str, Any] = settings.kafka(**{
            "group.id": f"{settings.app}-loader", "enable.auto.commit": False, "auto.offset.reset": "earliest",
            "isolation.level": "read_committed", "enable.partition.eof": True, "fetch.queue.backoff.ms": 5,
            "queued.min.messages": 100_000, "queued.max.messages.kbytes": _QUEUED_KIB, "fetch.wait.max.ms": 10,
            "check.crcs": False,
        })  # fmt: skip
        self._consumer = ck.Consumer(conf, logger=kafka_logger())
        self._topic, self._interrupted, self._on_progress = topic, interrupted, on_progress
        self.tables: dict[int, Rows] = {n: {} for n in starts}
        self.offsets = dict(starts)
        self._count = 0
        self._at = dict(starts)

    def __enter__(self) -> "_Reader":
        return self

    def __exit__(self, *_: object) -> None:
        self._consumer.close()

    def read_to_end(self) -> None:
        """Up to the last stable offset of each partition."""
        self._consumer.assign([ck.TopicPartition(self._topic, n, o) for n, o in self.offsets.items()])
        open_ends = set(self.tables)
        while open_ends:
            if self._interrupted.is_set():
                raise LoadingInterrupted
            messages = self._consumer.consume(_READ_RECORDS, _READ_S)
            for message in messages:  # a million of them: nothing in here that need not be
                if message.error() is not None:
                    self._note(message, open_ends)
                    continue
                table, value = self.tables[message.partition()], message.value()  # type: ignore[index]
                if value is None:
                    table.pop(message.key(), None)  # type: ignore[arg-type]
                else:
                    table[message.key()] = value  # type: ignore[index]
            self._count += len(messages)
            if messages:
                last = messages[-1]
                self._at[last.partition() or 0] = (last.offset() or 0) + 1
            self._on_progress(self._count, sum(self._at.values()))

    def _note(self, message: ck.Message, open_ends: set[int]) -> None:
        """The end of a partition, or something that went wrong."""
        error, number = message.error(), message.partition()
        assert error is not None
        if error.code() == ck.KafkaError._PARTITION_EOF:
            assert number is not None
            open_ends.discard(number)
            self.offsets[number] = message.offset() or 0
        elif error.retriable() or not error.fatal():
            log.warning("loading", error=error.str())
        else:
            raise ck.KafkaException(error)


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """What is loaded stays, and has no cycles.  Searching it for garbage, again and again while it grows, took most of
    the time of a large load; afterwards the collector leaves it alone.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
