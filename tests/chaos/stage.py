"""What a nemesis can lay hands on."""

import json
import random
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import Any

import confluent_kafka as ck

from streams.admin import silent_logger
from streams.protocol import TaskState
from streams.settings import Settings
from tests.chaos.cluster import Cluster
from tests.chaos.faults import Faults
from tests.chaos.fleet import Fleet, Life
from tests.chaos.watch import Watcher

# A nemesis yields for how many seconds it wants to be left alone.
Steps = Iterator[float]


@dataclass
class Stage:
    cluster: Cluster
    fleet: Fleet
    faults: Faults
    settings: Settings
    folder: Path
    rng: random.Random
    watcher: Watcher
    published: dict[str, str] = field(default_factory=dict)  # acknowledged special tasks: id -> type
    wrong: list[str] = field(default_factory=list)  # what went wrong under the eyes of a nemesis
    skipped: set[str] = field(default_factory=set)  # nemeses that cannot be done here, and why
    ends: dict[str, TaskState] = field(default_factory=dict)  # how tasks must end of which operators make something
    never_begun: set[str] = field(default_factory=set)  # they were cancelled before

    def __post_init__(self) -> None:
        self._producer: ck.Producer | None = None
        self._waiting: list[tuple[bytes | None, bytes | None, Callable[..., None]]] = []
        self._away = False

    @property
    def freeze_s(self) -> float:
        """Longer than lease and session."""
        return max(self.settings.lease_s, 6.0) + 2.0

    def pick(self, role: str) -> Life | None:
        live = self.fleet.live(role)
        return self.rng.choice(live) if live else None

    def publish(self, kind: str, payload: Any = None, group: str = "", **fields: Any) -> str:
        """A task beside the publisher's, in a group of its own unless one is given; its id."""
        task_id = f"{kind}-{uuid.UUID(int=self.rng.getrandbits(128)).hex[:12]}"
        value = json.dumps({"type": f"chaos.{kind}", "payload": payload, "id": task_id, **fields}).encode()

        def delivered(error: ck.KafkaError | None, _: ck.Message) -> None:
            if error is None:
                self.published[task_id] = f"chaos.{kind}"

        self._produce(value, (group or f"special-{task_id}").encode(), delivered)
        return task_id

    def publish_raw(self, key: bytes | None, value: bytes | None) -> None:
        self._produce(value, key, lambda error, message: None)

    def _produce(self, value: bytes | None, key: bytes | None, delivered: Callable[..., None]) -> None:
        self._waiting.append((value, key, delivered))
        self.serve()

    def serve(self) -> None:
        if self._away:
            return
        if self._producer is None:
            self._producer = ck.Producer(self.settings.kafka(**{
                "partitioner": "murmur2_random", "enable.idempotence": True, "message.timeout.ms": 120_000,
            }), logger=silent_logger)  # fmt: skip
        while self._waiting:
            value, key, delivered = self._waiting.pop(0)
            self._producer.produce(self.settings.topic("tasks"), value, key, -1, on_delivery=delivered)
        self._producer.poll(0)

    def flush(self, timeout_s: float) -> int:
        """How many are still not acknowledged."""
        left = self._producer.flush(timeout_s) if self._producer is not None else 0
        return len(self._waiting) + left

    def leave(self) -> None:
        """Hang up: librdkafka may crash the process when a broker that was fenced answers (see docs/faults.md)."""
        self.flush(5)
        self._away, self._producer = True, None
        self.watcher.leave()

    def come_back(self) -> None:
        self._away = False
        self.watcher.come_back()

    def began(self, task_id: str) -> dict[str, Any] | None:
        """The journal's line of its newest start."""
        newest: dict[str, Any] | None = None
        for path in self.folder.glob("journal-*.jsonl"):
            for text in path.read_text().splitlines():
                if f'"{task_id}"' in text and '"start_mono_ns"' in text and text.endswith("}"):
                    line: dict[str, Any] = json.loads(text)
                    if newest is None or line["start_mono_ns"] > newest["start_mono_ns"]:
                        newest = line
        return newest


def until(condition: Callable[[], object], timeout_s: float) -> Steps:
    """Yield until it holds or the time is over."""
    deadline = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < deadline:
        yield 0.1


def aside(act: Callable[[], object]) -> Steps:
    """Something that takes its time, while other nemeses go on; raises what it raised."""
    failed: list[BaseException] = []

    def run() -> None:
        try:
            act()
        except BaseException as error:
            failed.append(error)

    thread = Thread(target=run, daemon=True)
    thread.start()
    while thread.is_alive():
        yield 0.1
    if failed:
        raise failed[0]
