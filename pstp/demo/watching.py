"""Following `task-events` while the demo runs: a light fold in a thread of its own."""

import threading
from typing import Final

import confluent_kafka as ck
import msgspec
from msgspec import Raw, Struct

from streams.protocol import PROTOCOL, TERMINAL, EventKind, TaskState, VersionError
from streams.settings import Settings

FETCH_RECORDS: Final = 2_000
POLL_S: Final = 0.05


class Seen(Struct, gc=False):
    """What the fold needs of an event; the rest is not even decoded."""

    v: int
    kind: EventKind
    state: TaskState | None = None
    group: str | None = None
    reason: str | None = None
    group_state: Raw = Raw()


class SeenTogether(Struct, gc=False):
    v: int
    events: tuple[Seen, ...]


_decode = msgspec.json.Decoder(Seen).decode
_decode_together = msgspec.json.Decoder(SeenTogether).decode


class Watching(threading.Thread):
    """Counts tasks by what became of them and keeps each group's newest state, as JSON.

    `error` is set if it had to stop.  `stop` it and join it.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__(name="watching", daemon=True)
        self.accepted = 0
        self.done = 0  # terminal, rejected ones included
        self.rejected = 0
        self.repeats = 0
        self.moving: set[str] = set()  # groups whose task is out at the workers
        self.states: dict[str, bytes] = {}
        self.error: Exception | None = None
        self._settings = settings
        self._stopping = False
        self._read_up_to: dict[int, int] = {}

    def has_read(self, ends: dict[int, int]) -> bool:
        """Whether each partition was read up to this offset."""
        return all(self._read_up_to.get(partition, 0) >= end for partition, end in ends.items())

    @property
    def parked(self) -> int:
        return max(0, self.accepted - (self.done - self.rejected) - len(self.moving))

    def stop(self) -> None:
        self._stopping = True

    def run(self) -> None:
        try:
            self._follow()
        except Exception as error:
            self.error = error

    def _follow(self) -> None:
        settings, topic = self._settings, self._settings.topic("task-events")
        consumer = ck.Consumer(settings.kafka(**{
            "group.id": f"{settings.app}-demo", "enable.auto.commit": False, "isolation.level": "read_committed",
            "enable.partition.eof": True, "fetch.queue.backoff.ms": 5, "log_level": 2,
        }))  # fmt: skip
        try:
            consumer.assign([ck.TopicPartition(topic, p, ck.OFFSET_BEGINNING) for p in range(settings.partitions)])
            while not self._stopping:
                for message in consumer.consume(FETCH_RECORDS, POLL_S):
                    error = message.error()
                    if error is None:
                        self.see(message.value() or b"")
                    elif error.code() == ck.KafkaError._PARTITION_EOF:
                        self._read_up_to[message.partition() or 0] = message.offset() or 0
        finally:
            consumer.close()

    def see(self, record: bytes) -> None:
        """Fold one record.  Raises `VersionError` and `msgspec.DecodeError`."""
        if b'"events":' in record[:40]:
            for event in _decode_together(record).events:
                self._fold(event)
        else:
            self._fold(_decode(record))

    def _fold(self, event: Seen) -> None:
        if event.v > PROTOCOL:
            raise VersionError(f"record of protocol {event.v}, this process speaks {PROTOCOL}")
        state, group = event.state, event.group or ""
        if event.kind is EventKind.GROUP_STATE:
            self.states[group] = bytes(event.group_state) or b"null"
        if event.kind is not EventKind.TASK:
            return
        if state is TaskState.DISPATCHED:
            self.moving.add(group)
        elif state is TaskState.PARKED:
            if event.reason is None:
                self.accepted += 1
            else:
                self.moving.discard(group)
        elif state is TaskState.RETRYING:
            self.repeats += 1
            self.moving.discard(group)
        elif state is TaskState.REJECTED:
            self.done += 1
            self.rejected += 1
        elif state in TERMINAL:
            self.done += 1
            self.moving.discard(group)
