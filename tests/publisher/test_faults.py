"""Publishing while the broker dies, stands still or refuses: what was acknowledged is there, in order, once."""

import os
import signal
import threading
import uuid
from collections.abc import Iterator

import msgspec
import pytest

from producers import BulkError, PublishError, TaskMessage, TaskPublisher, bulk
from producers import connection as producers_connection
from pstp.broker import EmbeddedBroker
from streams.admin import Admin
from streams.settings import Settings
from streams.topics import create_topics
from tests.publisher.stored import stored_tasks

GROUPS = [f"g-{n}" for n in range(20)]


@pytest.fixture(scope="module")
def module_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker(tmp_path_factory.mktemp("faults") / "broker") as running:
        yield running


@pytest.fixture
def broker(module_broker: EmbeddedBroker) -> EmbeddedBroker:
    """A broker that a test may kill."""
    module_broker.start()
    return module_broker


@pytest.fixture
def settings(broker: EmbeddedBroker) -> Settings:
    app = f"t{uuid.uuid4().hex[:10]}"
    settings = Settings(app=app, bootstrap_servers=broker.bootstrap, partitions=4, dispatch_partitions=2)
    create_topics(settings)
    return settings


def numbers(settings: Settings) -> list[int]:
    """Of all stored tasks; each group's are in order and without a hole."""
    by_group: dict[str, list[int]] = {}
    for task in stored_tasks(settings):
        if task.task_id != "later":
            by_group.setdefault(task.group, []).append(msgspec.json.decode(task.payload)["n"])
    for group, found in by_group.items():
        first = GROUPS.index(group)
        assert found == list(range(first, first + len(found) * len(GROUPS), len(GROUPS)))
    return sorted(n for found in by_group.values() for n in found)


class Source:
    """Tasks in order; `at` calls something before a certain one."""

    def __init__(self, count: int, at: int, call: object, padding: str = "") -> None:
        self.count, self.at, self.call, self.padding = count, at, call, padding

    def __iter__(self) -> Iterator[TaskMessage]:
        for n in range(self.count):
            if n == self.at and callable(self.call):
                self.call()
            yield TaskMessage(group=GROUPS[n % 20], type="t", payload={"n": n, "padding": self.padding})


def test_a_broker_killed_and_started_again_in_the_middle(broker: EmbeddedBroker, settings: Settings) -> None:
    restarting = threading.Thread(target=broker.start)

    def kill() -> None:
        broker.kill()
        restarting.start()

    summary = TaskPublisher(settings).publish_many(Source(30_000, 15_000, kill))
    restarting.join()
    assert summary.acknowledged == 30_000
    assert numbers(settings) == list(range(30_000))


def test_a_broker_that_stays_away(broker: EmbeddedBroker, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "STALL_MS", 1_500)
    with pytest.raises(BulkError, match="did not acknowledge the task") as caught:
        TaskPublisher(settings).publish_many(Source(20_000, 10_000, broker.kill))
    broker.start()
    stored = numbers(settings)
    assert caught.value.first_missing <= caught.value.acknowledged <= len(stored)
    assert stored[: caught.value.first_missing] == list(range(caught.value.first_missing))


def test_a_broker_that_stands_still_and_wakes(
    broker: EmbeddedBroker, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was given up must not be sent later by a producer that nobody holds any more."""
    monkeypatch.setattr(bulk, "STALL_MS", 1_500)
    pid = broker.pid
    try:
        with pytest.raises(BulkError) as caught:
            TaskPublisher(settings).publish_many(Source(20_000, 10_000, lambda: os.kill(pid, signal.SIGSTOP)))
    finally:
        os.kill(pid, signal.SIGCONT)
    TaskPublisher(settings).publish(GROUPS[0], "t", {"n": 0}, id="later")
    stored = numbers(settings)
    assert caught.value.first_missing <= caught.value.acknowledged <= len(stored) < 20_000


def test_a_record_that_the_broker_refuses_leaves_no_hole(settings: Settings) -> None:
    tasks = settings.topic("tasks")

    def shrink() -> None:
        Admin(settings).set_configs({tasks: {"max.message.bytes": "1000"}})

    with pytest.raises(BulkError, match="Kafka refused the task") as caught:
        TaskPublisher(settings).publish_many(Source(5_000, 2_000, shrink, padding="x" * 2_000))
    stored = numbers(settings)
    assert caught.value.acknowledged <= len(stored) < 5_000
    with TaskPublisher(settings) as publisher:
        with pytest.raises(PublishError, match="Kafka refused the task"):
            publisher.publish("g", "t", os.urandom(1_000).hex())
        publisher.publish("g", "t")


def test_one_task_while_the_broker_is_away(
    broker: EmbeddedBroker, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(producers_connection._BASE, "message.timeout.ms", 1_500)
    with TaskPublisher(settings) as publisher:
        publisher.publish("g", "t")
        broker.kill()
        with pytest.raises(PublishError, match=r"did not acknowledge the task \(.*\), so it may be stored or not"):
            publisher.publish("g", "t")
        broker.start()
        assert publisher.publish("g", "t").offset >= 1
