"""A partition that was paused when it was let go is read again when it comes back."""

from types import SimpleNamespace
from typing import Any

import confluent_kafka as ck
import pytest
from prometheus_client import CollectorRegistry

from consumers.metrics import WorkerMetrics
from consumers.poller import Poller
from streams.settings import Settings


class Noting:
    """Which partitions are paused, as librdkafka would have it: a pause outlives assignments."""

    def __init__(self) -> None:
        self.paused: set[int] = set()

    def incremental_assign(self, partitions: list[Any]) -> None:
        pass

    incremental_unassign = incremental_assign

    def pause(self, partitions: list[Any]) -> None:
        self.paused |= {p.partition for p in partitions}

    def resume(self, partitions: list[Any]) -> None:
        self.paused -= {p.partition for p in partitions}


def test_what_was_paused_when_it_was_let_go_is_read_when_it_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime: Any = SimpleNamespace(metrics=WorkerMetrics(CollectorRegistry()), instance="w1")
    control: Any = SimpleNamespace(tokens=lambda _: frozenset())
    poller = Poller(
        Settings(bootstrap_servers="127.0.0.1:1", slots=1), runtime, control,
        say=lambda _: None, announced=lambda: True, silent_s=lambda: 0.0, on_failed=lambda _: None,
    )  # fmt: skip
    poller._consumer.close()
    consumer: Any = Noting()
    poller._consumer = consumer
    place = ck.TopicPartition("dispatches", 3)
    poller._assigned(consumer, [place])
    monkeypatch.setattr(poller._ahead, "count", lambda _: 10_000)
    poller._pause_and_resume()
    assert consumer.paused == {3}
    poller._revoked(consumer, [place])
    poller._assigned(consumer, [place])
    assert consumer.paused == set()
