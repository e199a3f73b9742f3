"""Following the public history while it grows: what is open, and when something last came to its end."""

import threading
import time
from typing import Final

import confluent_kafka as ck
import msgspec

from streams.admin import silent_logger
from streams.protocol import TERMINAL
from streams.settings import Settings

_TERMINAL: Final = frozenset(state.value for state in TERMINAL)


class _Glance(msgspec.Struct):
    kind: str = ""
    group: str | None = None
    reason: str | None = None
    state: str | None = None
    task_id: str | None = None
    sequence: int | None = None
    events: tuple["_Glance", ...] = ()


class Watcher(threading.Thread):
    """Reads `task-events` in a thread of its own; its figures may be read by any."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(name="watcher", daemon=True)
        self.seen: set[str] = set()
        self.open: set[tuple[int, int]] = set()
        self.ended: dict[str, str] = {}  # the state of those that have come to an end and were not redriven
        self.begun: set[str] = set()  # those of operators and nemeses that have run at least once
        self.blocked: set[str] = set()  # groups
        self.breakers_opened = 0
        self.stubborn: set[str] = set()  # tasks that their worker could not end
        self.terminal = 0
        self.moved_s = time.monotonic()
        self.longest_stillness_s = 0.0
        self._stopping = threading.Event()
        self._away = threading.Event()
        self._closed = threading.Event()
        self._decode = msgspec.json.Decoder(_Glance).decode
        self._settings = settings
        self._next = dict.fromkeys(range(settings.partitions), 0)

    def run(self) -> None:
        while not self._stopping.is_set():
            if self._away.is_set():
                self._stopping.wait(0.1)
                continue
            self._closed.clear()
            consumer = self._open()
            while not (self._stopping.is_set() or self._away.is_set()):
                for message in consumer.consume(2_000, 0.2):
                    self._read(message)
            consumer.close()
            self._closed.set()

    def leave(self) -> None:
        """Hang up until `come_back`: no client of this process may see a broker that has been fenced."""
        self._away.set()
        self._closed.wait(20)

    def come_back(self) -> None:
        self._away.clear()

    def _open(self) -> ck.Consumer:
        consumer = ck.Consumer(self._settings.kafka(**{
            "group.id": f"{self._settings.app}-chaos-watcher", "enable.auto.commit": False,
            "isolation.level": "read_committed", "fetch.queue.backoff.ms": 5,
        }), logger=silent_logger)  # fmt: skip
        topic = self._settings.topic("task-events")
        consumer.assign([ck.TopicPartition(topic, partition, offset) for partition, offset in self._next.items()])
        return consumer

    def _read(self, message: ck.Message) -> None:
        if message.error() is not None:
            return
        partition = message.partition() or 0
        self._next[partition] = (message.offset() or 0) + 1
        glance = self._decode(message.value() or b"{}")
        for event in glance.events or (glance,):
            self._take(partition, event)

    def stop(self) -> None:
        self._stopping.set()
        self.join(10)

    def _take(self, partition: int, event: _Glance) -> None:
        match event.kind:
            case "group_blocked":
                self.blocked.add(event.group or "")
            case "group_unblocked":
                self.blocked.discard(event.group or "")
            case "breaker" if event.reason == "open":
                self.breakers_opened += 1
            case "progress" if event.reason is not None:
                self.stubborn.add(event.task_id or "")
        if event.kind != "task" or event.sequence is None or event.state is None:
            return
        key = (partition, event.sequence)
        if event.state in _TERMINAL:
            self.ended[event.task_id or ""] = event.state
            now_s = time.monotonic()
            if self.open:
                self.longest_stillness_s = max(self.longest_stillness_s, now_s - self.moved_s)
            self.moved_s = now_s
            self.open.discard(key)
            self.terminal += 1
        else:
            if not self.open:
                self.moved_s = time.monotonic()
            self.open.add(key)
            self.ended.pop(event.task_id or "", None)
            if event.state == "running" and not (event.task_id or "")[:1].isdigit():  # the publisher's are too many
                self.begun.add(event.task_id or "")
            self.seen.add(event.task_id or "")
