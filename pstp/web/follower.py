"""Follows `task-events` into the read model, from the offsets that stand in its database."""

import threading
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

import confluent_kafka as ck
import msgspec
import structlog
from sqlalchemy.exc import DBAPIError

from pstp.web.folding import Record
from pstp.web.settings import WebSettings
from pstp.web.store import Changed, ReadModel
from pstp.web.trimming import Trimmer
from streams.clock import now
from streams.errors import UserError
from streams.logs import kafka_logger
from streams.protocol import VersionError, decode_events
from streams.settings import Settings

log = structlog.get_logger("web")

RECORDS: Final = 5000
POLL_S: Final = 0.05
TRIM_INTERVAL_MS: Final = 1000
RETRY_S: Final = 1.0
LOOK_UP_S: Final = 10.0
LOOK_S_MAX: Final = 1.0
HOUR_MS: Final = 3_600_000


class Follower(threading.Thread):
    """Runs from `start` to `stop`.  `on_changed` is called in its thread after each commit.

    `fault` is a sentence when it cannot go on by itself; what the read model holds stays readable.
    """

    def __init__(
        self, settings: Settings, web: WebSettings, model: ReadModel, on_changed: Callable[[Changed | None], None],
        stats: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:  # fmt: skip
        """`on_changed` is given None when what changed is not known.  `stats`: settings that make librdkafka tell its
        statistics.  Raises `UserError` without Kafka or topic.
        """
        super().__init__(name="follower", daemon=True)
        self._web, self._model, self._on_changed = web, model, on_changed
        self._topic = settings.topic("task-events")
        self._where = settings.bootstrap_servers
        self._consumer = ck.Consumer(settings.kafka(**{
            "group.id": f"{settings.app}-web", "enable.auto.commit": False, "isolation.level": "read_committed",
            "auto.offset.reset": "error", "enable.partition.eof": True, "fetch.queue.backoff.ms": 5,
            "fetch.wait.max.ms": 100, **stats,
        }), logger=kafka_logger())  # fmt: skip
        self._partitions = self._look_up()
        self._lows: dict[int, int] = {}
        self.total = 0  # offsets that were in the log when we came
        for partition in self._partitions:
            place = ck.TopicPartition(self._topic, partition)
            low, high = self._consumer.get_watermark_offsets(place, LOOK_UP_S) or (0, 0)
            self._lows[partition] = low
            self.total += high - low
        self._at_end: set[int] = set()
        self._last_event_ms = 0
        self._down_since_ms: int | None = None
        self._trimmer, self._trimmed_mono_ms = Trimmer(model), now().mono_ms
        self._looked_mono_ms = now().mono_ms
        self._stopping = threading.Event()
        self.caught_up = threading.Event()
        self.unreadable = 0
        self.fault = ""

    def lag_s(self) -> float:
        """How old what is shown may be; 0 when everything in the log is in the read model."""
        wall_ms = now().wall_ms
        if self._down_since_ms is not None or self.fault:
            return (wall_ms - (self._down_since_ms or self._last_event_ms or wall_ms)) / 1000
        if len(self._at_end) == len(self._partitions) or not self._last_event_ms:
            # At the end when we last looked: how long ago that was counts once it is long.
            looked_s = (now().mono_ms - self._looked_mono_ms) / 1000
            return looked_s if looked_s > LOOK_S_MAX else 0.0
        return max(0, wall_ms - self._last_event_ms) / 1000

    def stop(self) -> None:
        self._stopping.set()
        if self.ident is not None:
            self.join(LOOK_UP_S)

    def read_offsets(self) -> int:
        """How many of `total` are behind us."""
        at = self._model.version.offsets
        return sum(max(0, at.get(partition, low) - low) for partition, low in self._lows.items())

    def run(self) -> None:
        self._assign()
        try:
            while not self._stopping.is_set() and not self.fault:
                self._step()
        except UserError as error:
            self._fail(str(error))
        finally:
            self._consumer.close()

    def _step(self) -> None:
        messages = self._consumer.consume(RECORDS, POLL_S)
        self._looked_mono_ms = now().mono_ms
        records, ends = self._read(messages)
        try:
            if ends:
                self._on_changed(self._model.apply(records, ends))
            if now().mono_ms - self._trimmed_mono_ms > TRIM_INTERVAL_MS:
                self._trimmed_mono_ms = now().mono_ms
                self._trimmer.step(now().wall_ms - self._web.retention_hours * HOUR_MS, self._web.tasks_max)
        except DBAPIError as error:
            self._begin_again(error)
            return
        if len(self._at_end) == len(self._partitions):
            self.caught_up.set()

    def _read(self, messages: list[ck.Message]) -> tuple[list[Record], dict[int, int]]:
        """Readable records and the next offset of each partition that they, or unreadable ones, came from."""
        records: list[Record] = []
        ends: dict[int, int] = {}
        for message in messages:
            partition, offset = message.partition() or 0, message.offset() or 0
            if (error := message.error()) is not None:
                self._hear(error, partition)
                continue
            self._down_since_ms = None
            self._at_end.discard(partition)
            try:
                events = decode_events(message.value() or b"")
            except VersionError as too_new:
                self._fail(f"the history holds {too_new}")
                break
            except msgspec.DecodeError:
                self.unreadable += 1
                log.warning("unreadable record passed over", topic=self._topic, partition=partition, offset=offset)
                events = ()
            records.append(Record(partition, offset, events))
            ends[partition] = offset + 1
            if events:
                self._last_event_ms = int(events[-1].at.timestamp() * 1000)
        return records, ends

    def _hear(self, error: ck.KafkaError, partition: int) -> None:
        match error.code():
            case ck.KafkaError._PARTITION_EOF:
                self._down_since_ms = None
                self._at_end.add(partition)
            case ck.KafkaError._ALL_BROKERS_DOWN | ck.KafkaError._TRANSPORT:
                self._down_since_ms = self._down_since_ms or now().wall_ms
            case ck.KafkaError._AUTO_OFFSET_RESET | ck.KafkaError.OFFSET_OUT_OF_RANGE:
                self._fail(
                    f"partition {partition} of {self._topic!r} no longer holds what follows the read model: retention "
                    "cut it, or the topic was made anew; fold what is there with `pstp web --rebuild`"
                )
            case _:
                log.warning("Kafka says", error=error.str())

    def _fail(self, sentence: str) -> None:
        self.fault = sentence
        log.error("the read model stands still", why=sentence)

    def _begin_again(self, error: Exception) -> None:
        """Whether the commit went through is not known: ask the database, and read on from what it says."""
        log.warning("the database failed, trying again", error=str(error.__cause__ or error))
        while not self._stopping.wait(RETRY_S):
            try:
                self._model.reload()
            except DBAPIError:
                continue
            self._assign()
            self._on_changed(None)
            return

    def _assign(self) -> None:
        at = self._model.version.offsets
        self._at_end.clear()
        self._consumer.assign([
            ck.TopicPartition(self._topic, partition, at.get(partition, ck.OFFSET_BEGINNING))
            for partition in self._partitions
        ])  # fmt: skip

    def _look_up(self) -> list[int]:
        try:
            found = self._consumer.list_topics(self._topic, LOOK_UP_S).topics[self._topic]
        except ck.KafkaException as error:
            self._consumer.close()
            raise UserError(f"no answer from Kafka at {self._where}: is it running? `pstp dev` starts one") from error
        if found.error is not None or not found.partitions:
            self._consumer.close()
            raise UserError(
                f"topic {self._topic!r} is not in the cluster at {self._where}: create the topics with "
                "`pstp topics create`, or name another cluster with PSTP_BOOTSTRAP_SERVERS"
            )
        return sorted(found.partitions)
