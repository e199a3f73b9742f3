"""`streams.trim`: what was read and is old goes, nothing else."""

import confluent_kafka as ck

from streams.admin import Admin
from streams.clock import now
from streams.settings import Settings, TopicName
from streams.topic_plan import HOUR_MS
from streams.topics import create_topics
from streams.trim import trim_topics

TOMORROW_MS = 25 * HOUR_MS
NEXT_MONTH_MS = 31 * 24 * HOUR_MS


def publish(settings: Settings, name: TopicName, count: int) -> None:
    producer = ck.Producer({"bootstrap.servers": settings.bootstrap_servers})
    for _ in range(count):
        producer.produce(settings.topic(name), b"{}", b"g", partition=0)
    assert producer.flush(20) == 0


def commit(settings: Settings, group: str, name: TopicName, offset: int) -> None:
    consumer = ck.Consumer({"bootstrap.servers": settings.bootstrap_servers, "group.id": group})
    consumer.commit(offsets=[ck.TopicPartition(settings.topic(name), 0, offset)], asynchronous=False)
    consumer.close()


def beginnings(settings: Settings, *names: TopicName) -> list[int]:
    """The first offset of partition 0 of each topic."""
    consumer = ck.Consumer({"bootstrap.servers": settings.bootstrap_servers, "group.id": "any"})
    lows = [consumer.get_watermark_offsets(ck.TopicPartition(settings.topic(n), 0))[0] for n in names]
    consumer.close()
    return lows


def test_only_what_was_read_and_is_old_goes(settings: Settings) -> None:
    create_topics(settings)
    names: tuple[TopicName, ...] = ("tasks", "commands", "completions")
    for name in names:
        publish(settings, name, 5)
        commit(settings, settings.scheduler_group, name, 3)
    trim_topics(settings, now().wall_ms)
    assert beginnings(settings, *names) == [0, 0, 0]
    trim_topics(settings, now().wall_ms + TOMORROW_MS)
    assert beginnings(settings, *names) == [0, 0, 3]
    assert trim_topics(settings, now().wall_ms + NEXT_MONTH_MS) == {(settings.topic(name), 0): 3 for name in names}
    assert beginnings(settings, *names) == [3, 3, 3]


def test_control_stays_as_long_as_a_dispatch_of_its_time_is_unclaimed(settings: Settings) -> None:
    create_topics(settings)
    publish(settings, "dispatches", 2)
    publish(settings, "control", 4)
    trim_topics(settings, now().wall_ms + TOMORROW_MS)
    assert beginnings(settings, "dispatches", "control") == [0, 0]
    commit(settings, settings.worker_group, "dispatches", 1)
    trim_topics(settings, now().wall_ms + TOMORROW_MS)
    assert beginnings(settings, "dispatches", "control") == [1, 0]
    commit(settings, settings.worker_group, "dispatches", 2)
    trim_topics(settings, now().wall_ms)
    assert beginnings(settings, "dispatches", "control") == [1, 0]
    trim_topics(settings, now().wall_ms + TOMORROW_MS)
    assert beginnings(settings, "dispatches", "control") == [2, 4]


def test_nothing_to_trim(settings: Settings) -> None:
    create_topics(settings)
    assert trim_topics(settings, now().wall_ms + NEXT_MONTH_MS) == {}
    assert Admin(settings).committed(settings.worker_group) == {}
