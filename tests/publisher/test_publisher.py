"""`TaskPublisher` and its asynchronous twin against a real broker."""

import asyncio
import multiprocessing
import threading
from collections import defaultdict
from collections.abc import Iterator

import confluent_kafka as ck
import msgspec
import pytest

from producers import AsyncTaskPublisher, BulkError, InvalidTaskError, PublishError, TaskMessage, TaskPublisher
from producers import connection as producers_connection
from streams.murmur2 import home_partition
from streams.settings import Settings
from streams.tail import read_to_end
from streams.topics import create_topics
from tests.publisher.stored import stored_tasks

GROUPS = [f"g-{n}" for n in range(40)]


@pytest.fixture
def settings(settings: Settings) -> Settings:
    create_topics(settings)
    return settings


def counting(groups: list[str], count: int, who: str = "") -> Iterator[TaskMessage]:
    for n in range(count):
        yield TaskMessage(group=groups[n % len(groups)], type="count", payload={"n": n, "who": who})


def test_publish_tells_where_the_task_stands(settings: Settings) -> None:
    with TaskPublisher(settings) as publisher:
        first = publisher.publish(
            "g", "t", {"n": 1970670598291982290}, labels={"a": "b"}, headers={"traceparent": "00"}
        )
        named = publisher.publish("g", "t", id="mine", extra={"more": [1]})
    assert first.partition == named.partition == home_partition(b"g", settings.partitions)
    assert (first.offset, named.offset) == (0, 1)
    assert (first.task_id, named.task_id) == (f"{first.partition}-0", "mine")
    one, two = stored_tasks(settings)
    assert (one.group, one.task_id, bytes(one.payload)) == ("g", first.task_id, b'{"n":1970670598291982290}')
    assert (one.labels, one.trace) == ({"a": "b"}, {"traceparent": "00"})
    assert (two.task_id, bytes(two.extra["more"])) == ("mine", b"[1]")


def test_what_is_wrong_is_refused_before_anything_is_sent(settings: Settings) -> None:
    with TaskPublisher(settings) as publisher:
        for arguments in (("", "t"), ("g", ""), ("g", "t", float("nan"))):
            with pytest.raises(ValueError):
                publisher.publish(*arguments)
        with pytest.raises(ValueError, match="`id` is a known field"):
            publisher.publish("g", "t", extra={"id": "x"})
        with pytest.raises(TypeError, match="unexpected keyword argument 'timeout'"):
            publisher.publish("g", "t", timeout=5)  # type: ignore[call-arg]
        with pytest.raises(InvalidTaskError, match="bytes together"):
            publisher.publish("g", "t", "x" * settings.task_bytes_max)
    assert stored_tasks(settings) == []


def test_the_largest_task_is_taken(settings: Settings) -> None:
    envelope = len(b"g" + b'{"type":"t","payload":""}')
    payload = "x" * (settings.task_bytes_max - envelope)
    with TaskPublisher(settings) as publisher:
        publisher.publish("g", "t", payload)
        with pytest.raises(InvalidTaskError):
            publisher.publish("g", "t", payload + "x")
    (task,) = stored_tasks(settings)
    assert len(task.payload) == len(payload) + 2


def test_bulk_keeps_the_order_of_each_group_and_puts_it_where_murmur2_says(settings: Settings) -> None:
    told: list[int] = []
    with TaskPublisher(settings) as publisher:
        summary = publisher.publish_many(counting(GROUPS, 20_000), told.append)
    assert summary.acknowledged == told[-1] == 20_000
    assert told == sorted(told)
    assert_in_order(settings, {"": 20_000})


def test_three_publishers_in_processes_of_their_own(settings: Settings) -> None:
    context = multiprocessing.get_context("spawn")
    started = [context.Process(target=publish_in_bulk, args=(settings, who)) for who in "abc"]
    for process in started:
        process.start()
    for process in started:
        process.join(60)
        assert process.exitcode == 0
    assert_in_order(settings, dict.fromkeys("abc", 4_000))


def publish_in_bulk(settings: Settings, who: str) -> None:
    TaskPublisher(settings).publish_many(counting(GROUPS, 4_000, who))


def assert_in_order(settings: Settings, counts: dict[str, int]) -> None:
    """All there, once, each publisher's tasks of a group in order, each group in its home."""
    seen: dict[tuple[str, str], list[int]] = defaultdict(list)
    topic = settings.topic("tasks")
    for message in read_to_end(settings, topic, dict.fromkeys(range(settings.partitions), 0)):
        key, value = message.key() or b"", message.value() or b""
        assert message.partition() == home_partition(key, settings.partitions)
        payload = msgspec.json.decode(value)["payload"]
        seen[payload["who"], key.decode()].append(payload["n"])
    for numbers in seen.values():
        assert numbers == sorted(set(numbers))
    for who, count in counts.items():
        assert sorted(n for (w, _), numbers in seen.items() if w == who for n in numbers) == list(range(count))


def test_threads_may_share_a_publisher(settings: Settings) -> None:
    failures: list[Exception] = []

    def publish(group: str) -> None:
        try:
            offsets = [publisher.publish(group, "t", n).offset for n in range(30)]
            assert offsets == sorted(offsets)
        except Exception as error:
            failures.append(error)

    with TaskPublisher(settings) as publisher:
        threads = [threading.Thread(target=publish, args=(group,)) for group in GROUPS[:8]]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert failures == []
    assert len(stored_tasks(settings)) == 8 * 30


def test_a_wrong_task_in_bulk_stops_it_and_those_before_are_stored(settings: Settings) -> None:
    tasks = [*counting(GROUPS, 100), TaskMessage(group="g", type="t", payload=float("nan")), *counting(GROUPS, 5)]
    with TaskPublisher(settings) as publisher, pytest.raises(BulkError, match="cannot be JSON") as caught:
        publisher.publish_many(tasks)
    assert (caught.value.acknowledged, caught.value.first_missing) == (100, 100)
    assert isinstance(caught.value.__cause__, InvalidTaskError)
    assert len(stored_tasks(settings)) == 100


def test_a_source_that_fails_stops_it_likewise(settings: Settings) -> None:
    def tasks() -> Iterator[TaskMessage]:
        yield from counting(GROUPS, 10)
        raise OSError("the file is gone")

    with TaskPublisher(settings) as publisher, pytest.raises(BulkError, match="the file is gone") as caught:
        publisher.publish_many(tasks())
    assert (caught.value.acknowledged, caught.value.first_missing) == (10, 10)


def test_bulk_of_nothing(settings: Settings) -> None:
    assert TaskPublisher(settings).publish_many([]).acknowledged == 0


def test_a_full_queue_holds_the_publisher_back_and_drops_nothing(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(producers_connection._BASE, "queue.buffering.max.messages", 100)
    with TaskPublisher(settings) as publisher:
        assert publisher.publish_many(counting(GROUPS, 5_000)).acknowledged == 5_000
    assert_in_order(settings, {"": 5_000})


def test_async_publishes_concurrently_in_the_order_of_the_calls(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(producers_connection._BASE, "queue.buffering.max.messages", 100)

    async def run() -> None:
        async with AsyncTaskPublisher(settings) as publisher:
            await asyncio.gather(*(
                publisher.publish(GROUPS[n % 40], "count", {"n": n, "who": ""}, timeout_s=1) for n in range(2_000)
            ))  # fmt: skip

    asyncio.run(run())
    assert_in_order(settings, {"": 2_000})


def test_async_bulk_calls_back_in_the_loop(settings: Settings) -> None:
    async def run() -> None:
        told: dict[int, str] = {}
        async with AsyncTaskPublisher(settings) as publisher:
            summary = await publisher.publish_many(
                counting(GROUPS, 3_000), lambda n: told.setdefault(n, threading.current_thread().name)
            )
        assert summary.acknowledged == 3_000
        await asyncio.sleep(0)
        assert told[3_000] == threading.main_thread().name

    asyncio.run(run())


def test_async_cancelling_one_call_harms_no_other(settings: Settings) -> None:
    async def run() -> None:
        async with AsyncTaskPublisher(settings) as publisher:
            await publisher.publish("g", "t", 0)
            doomed = asyncio.create_task(publisher.publish("g", "t", 1))
            other = asyncio.create_task(publisher.publish("g", "t", 2))
            await asyncio.sleep(0)
            doomed.cancel()
            assert (await other).offset in (1, 2)
            with pytest.raises(asyncio.CancelledError):
                await doomed

    asyncio.run(run())


def test_a_missing_topic_is_not_created(bootstrap: str) -> None:
    settings = Settings(app="nobody-created-this", bootstrap_servers=bootstrap)
    tasks = settings.topic("tasks")
    with TaskPublisher(settings) as publisher:
        with pytest.raises(PublishError, match="run `pstp topics create`"):
            publisher.publish("g", "t")
        with pytest.raises(PublishError, match="run `pstp topics create`"):
            publisher.publish_many(counting(GROUPS, 1))
    admin = ck.Producer({"bootstrap.servers": bootstrap})
    assert tasks not in admin.list_topics(timeout=10).topics


def test_no_broker(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(producers_connection, "CONNECT_S", 0.5)

    async def run() -> None:
        async with AsyncTaskPublisher("127.0.0.1:1") as publisher:
            await publisher.publish("g", "t")

    for call in (
        lambda: TaskPublisher("127.0.0.1:1").publish("g", "t"),
        lambda: TaskPublisher("127.0.0.1:1").publish_many(counting(GROUPS, 1)),
        lambda: asyncio.run(run()),
    ):
        with pytest.raises(PublishError, match=r"Kafka does not answer at 127.0.0.1:1 \(Connect .*refused\): start"):
            call()
    assert capfd.readouterr() == ("", "")
