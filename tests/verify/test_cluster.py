"""Reading a history from a real broker: transactions, deleted beginnings, forwarded copies."""

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from histories import Log

from pstp.verify import Options, check_cluster, reader
from streams.engine import ORIGIN_HEADER
from streams.errors import UserError
from streams.murmur2 import home_partition
from streams.protocol import encode
from streams.settings import Settings

PARTITIONS = 4
GROUPS = [f"g{number}" for number in range(12)]


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """With the two topics that a history needs."""
    assert settings.partitions == PARTITIONS
    topics = [NewTopic(settings.topic(name), PARTITIONS, 1) for name in ("tasks", "task-events")]  # type: ignore[arg-type]
    admin = AdminClient(settings.kafka())
    for made in admin.create_topics(topics).values():
        made.result()
    return settings


class Writer:
    """Writes logs in transactions, and for each origin a record of `tasks`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.producer = Producer(settings.kafka(**{"transactional.id": settings.app}))
        self.producer.init_transactions()
        self.producer.begin_transaction()
        self.offsets = [0] * PARTITIONS

    def task(self, partition: int, headers: list[tuple[str, bytes]] | None = None) -> tuple[int, int]:
        """Returns the place that the record gets."""
        self.producer.produce(self._settings.topic("tasks"), b"{}", partition=partition, headers=headers or [])
        self.offsets[partition] += 1
        return partition, self.offsets[partition] - 1

    def events(self, *logs: Log) -> None:
        for log in logs:
            for event in log.events:
                self.producer.produce(self._settings.topic("task-events"), encode(event), partition=log.partition)

    def commit(self) -> None:
        self.producer.commit_transaction()

    def begin(self) -> None:
        self.producer.begin_transaction()


def logs_with(writer: Writer) -> list[Log]:
    logs = [Log(partition) for partition in range(PARTITIONS)]
    for group in GROUPS * 3:
        log = logs[home_partition(group.encode(), PARTITIONS)]
        log.set_state(log.run(log.park(group, origin=writer.task(log.partition))))
    return logs


def test_a_good_history(settings: Settings) -> None:
    writer = Writer(settings)
    writer.events(*logs_with(writer))
    writer.commit()
    found = check_cluster(settings, Options())
    assert found.by_kind == {}
    assert (found.figures.tasks, found.figures.groups) == (36, 12)


def test_only_what_was_committed_counts(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "OPEN_TRANSACTION_WAIT_S", 0.5)
    writer = Writer(settings)
    logs = logs_with(writer)
    writer.events(*logs)
    writer.commit()
    writer.begin()
    writer.events(*logs)
    writer.producer.flush()
    writer.producer.abort_transaction()
    writer.begin()
    writer.events(*logs)
    writer.producer.flush()  # and stays open
    found = check_cluster(settings, Options())
    assert found.by_kind == {}
    assert {warning.kind for warning in found.warnings} == {"open_transaction"}
    writer.producer.abort_transaction()


def test_a_record_that_nobody_answered(settings: Settings) -> None:
    writer = Writer(settings)
    writer.events(*logs_with(writer))
    writer.task(1)
    writer.commit()
    assert check_cluster(settings, Options()).by_kind == {"G3 unanswered": 1}
    assert check_cluster(settings, Options(), compare_tasks=False).ok
    assert check_cluster(settings, Options(expect_drained=False)).ok


def test_a_forwarded_copy_is_answered_under_the_place_of_its_original(settings: Settings) -> None:
    writer = Writer(settings)
    home = home_partition(b"g", PARTITIONS)
    original = writer.task((home + 1) % PARTITIONS)
    writer.task(home, [(ORIGIN_HEADER, b"%d:%d" % original)])
    log = Log(home)
    log.run(log.park("g", origin=original))
    writer.events(log)
    writer.commit()
    assert check_cluster(settings, Options()).by_kind == {}


def test_a_group_away_from_home(settings: Settings) -> None:
    writer = Writer(settings)
    log = Log((home_partition(b"g", PARTITIONS) + 1) % PARTITIONS)
    log.run(log.park("g", origin=writer.task(log.partition)))
    writer.events(log)
    writer.commit()
    assert check_cluster(settings, Options()).by_kind == {"G1 split_group": 1}


def test_a_beginning_that_retention_deleted(settings: Settings) -> None:
    writer = Writer(settings)
    writer.events(*logs_with(writer))
    writer.commit()
    topic = settings.topic("task-events")
    cut = [TopicPartition(topic, partition, 4) for partition in range(PARTITIONS)]
    admin = AdminClient(settings.kafka())
    for deleted in admin.delete_records(cut).values():
        deleted.result()
    found = check_cluster(settings, Options(), compare_tasks=False)
    assert found.by_kind == {}
    assert found.figures.tasks < 36


def test_a_topic_that_is_not_there(bootstrap: str) -> None:
    settings = Settings(bootstrap_servers=bootstrap, app="absent")
    with pytest.raises(UserError, match="topic 'absent-tasks' is not in the cluster"):
        check_cluster(settings, Options())
