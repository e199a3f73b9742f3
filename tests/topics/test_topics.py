"""`streams.topics` against a real broker."""

from collections.abc import Callable
from typing import Any

import confluent_kafka as ck
import pytest
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic  # type: ignore[attr-defined]

from streams import admin, topics
from streams.admin import Admin, TopicsError
from streams.protocol import encode
from streams.settings import Settings, TopicName
from streams.tail import read_to_end
from streams.topic_plan import plan_topics
from streams.topics import Problem, adopt_topics, check_topics, create_topics, verify_identity
from tests.support.system import until

Make = Callable[..., Settings]


def change(settings: Settings, ask: Callable[[AdminClient], dict[str, Any]]) -> None:
    """Do what an operator does with Kafka's own tools."""
    client = AdminClient({"bootstrap.servers": settings.bootstrap_servers})
    for future in ask(client).values():
        future.result()


def create(settings: Settings, *topics: NewTopic) -> None:
    """And see them: a broker shows a topic a little after the controller has made it."""
    change(settings, lambda client: client.create_topics(list(topics)))
    until(lambda: None not in Admin(settings).describe([topic.topic for topic in topics]).values())


def delete(settings: Settings, *names: TopicName) -> None:
    gone = [settings.topic(name) for name in names]
    change(settings, lambda client: client.delete_topics(gone))
    until(lambda: set(Admin(settings).describe(gone).values()) == {None})


def publish(settings: Settings, name: TopicName, records: list[tuple[bytes | None, int]], value: bytes = b"{}") -> None:
    """Records of a key and a partition each, with a clock that stands at 1970."""
    producer = ck.Producer({"bootstrap.servers": settings.bootstrap_servers})
    for key, partition in records:
        producer.produce(settings.topic(name), value, key, partition=partition, timestamp=1)
    assert producer.flush(20) == 0


def refusal(call: Callable[[Settings], object], settings: Settings) -> str:
    with pytest.raises(TopicsError) as caught:
        call(settings)
    text = str(caught.value)
    assert "\n" not in text and ": " in text  # one sentence: what is wrong: what to do
    return text


def test_create_makes_everything_as_planned_and_again_does_nothing(settings: Settings) -> None:
    plans = plan_topics(settings)
    assert refusal(verify_identity, settings).startswith(f"topic `{settings.topic('tasks')}` does not exist")
    assert create_topics(settings) == [plan.topic for plan in plans.values()]
    assert check_topics(settings) == []
    record = verify_identity(settings)
    assert (record.partitions, record.dispatch_partitions, set(record.topic_ids)) == (2, 2, set(plans))
    assert create_topics(settings) == []
    assert verify_identity(settings) == record


def test_a_client_with_a_clock_of_1970_does_not_date_its_tasks(settings: Settings) -> None:
    create_topics(settings)
    publish(settings, "tasks", [(b"g", 0)])
    (message,) = read_to_end(settings, settings.topic("tasks"), {0: 0})
    kind, timestamp_ms = message.timestamp()
    assert kind == ck.TIMESTAMP_LOG_APPEND_TIME and timestamp_ms > 1_700_000_000_000


def test_wrong_settings_are_found_and_set_right(settings: Settings) -> None:
    create_topics(settings)
    tasks = settings.topic("tasks")
    Admin(settings).set_configs({tasks: {"retention.ms": "3600000", "message.timestamp.type": "CreateTime"}})
    (problem,) = check_topics(settings)
    assert (problem.topic, problem.fatal) == (tasks, False)
    assert "retention.ms=3600000" in problem.text and "message.timestamp.type=CreateTime" in problem.text
    verify_identity(settings)
    assert create_topics(settings) == []
    assert check_topics(settings) == []


def test_a_recreated_topic_is_not_taken_for_the_old_one_until_it_is_adopted(settings: Settings) -> None:
    create_topics(settings)
    before = verify_identity(settings)
    delete(settings, "tasks")
    assert "does not exist: run `pstp topics create`" in refusal(verify_identity, settings)
    assert "does not exist: run `pstp topics create`" in refusal(adopt_topics, settings)
    assert create_topics(settings) == [settings.topic("tasks")]
    assert "was deleted and created again" in refusal(verify_identity, settings)
    assert [problem.fatal for problem in check_topics(settings)] == [True]
    record = adopt_topics(settings)
    assert record.topic_ids != before.topic_ids
    assert record.topic_ids | {"tasks": before.topic_ids["tasks"]} == before.topic_ids
    assert verify_identity(settings) == record
    assert check_topics(settings) == []


def test_added_partitions_are_refused(settings: Settings) -> None:
    create_topics(settings)
    tasks = settings.topic("tasks")
    change(settings, lambda client: client.create_partitions([NewPartitions(tasks, 3)]))
    until(lambda: Admin(settings).describe([tasks])[tasks].partitions == 3)  # type: ignore[union-attr]
    for call in (verify_identity, create_topics, adopt_topics):
        assert f"topic `{tasks}` has 3 partitions, not 2" in refusal(call, settings)
    assert [problem.topic for problem in check_topics(settings) if problem.fatal] == [tasks]


def test_another_number_of_partitions_in_the_settings_is_refused(make_settings: Make) -> None:
    create_topics(make_settings())
    for call in (verify_identity, create_topics):
        text = refusal(call, make_settings(partitions=3))
        assert "set up with 2 partitions, PSTP_PARTITIONS is 3" in text and "set PSTP_PARTITIONS=2" in text


def test_topics_that_others_made_are_used_only_with_the_right_number_of_partitions(make_settings: Make) -> None:
    settings = make_settings()
    create(settings, NewTopic(settings.topic("tasks"), 3, 1))
    assert "set PSTP_PARTITIONS=3" in refusal(create_topics, settings)
    settings = make_settings(partitions=3)
    assert settings.topic("tasks") not in create_topics(settings)
    assert check_topics(settings) == []
    assert verify_identity(settings).partitions == 3


def test_members_without_a_record(settings: Settings) -> None:
    create_topics(settings)
    delete(settings, "members")
    create_topics(settings)
    verify_identity(settings)
    publish_record(settings, None)
    assert "no record of how topics were set up: run `pstp topics create`" in refusal(verify_identity, settings)


def test_a_record_of_a_newer_version(settings: Settings) -> None:
    create_topics(settings)
    record = {"v": 2, "partitions": 2, "dispatch_partitions": 2, "topic_ids": {}}
    publish_record(settings, encode(record))
    for call in (verify_identity, create_topics, adopt_topics, check_topics):
        assert "newer PSTP" in refusal(call, settings)


def publish_record(settings: Settings, value: bytes | None) -> None:
    producer = ck.Producer({"bootstrap.servers": settings.bootstrap_servers})
    producer.produce(settings.topic("members"), value, topics.TOPICS_KEY, partition=0)
    assert producer.flush(20) == 0


def test_dispatches_may_grow(make_settings: Make) -> None:
    create_topics(make_settings())
    more = make_settings(dispatch_partitions=4)
    assert "has 2 partitions, not 4: run `pstp topics create` to add some" in refusal(verify_identity, more)
    create_topics(more)
    until(lambda: check_topics(more) == [])
    assert verify_identity(more).dispatch_partitions == 4
    for call in (verify_identity, create_topics):
        assert "has 4 partitions, not 2: set PSTP_DISPATCH_PARTITIONS=4" in refusal(call, make_settings())


def test_adopting_another_number_of_partitions_takes_that_nothing_is_left(make_settings: Make) -> None:
    settings = make_settings()
    create_topics(settings)
    holding: list[TopicName] = ["tasks", "commands", "completions", "task-events", "dead-letters"]
    delete(settings, *holding)
    more = make_settings(partitions=3)
    created = [NewTopic(more.topic(name), 3, 1) for name in holding]
    create(more, *created)
    changelog = settings.topic("changelog")
    until(lambda: None not in Admin(more).describe(more.topic(n) for n in plan_topics(more)).values())
    assert f"topic `{changelog}` has 2 partitions, not 3" in refusal(adopt_topics, more)
    change(more, lambda client: client.create_partitions([NewPartitions(changelog, 3)]))
    until(lambda: Admin(more).describe([changelog])[changelog].partitions == 3)  # type: ignore[union-attr]
    assert f"`{changelog}` still has the groups of that time" in refusal(adopt_topics, more)
    delete(settings, "changelog")
    create(more, NewTopic(changelog, 3, 1))
    until(lambda: Admin(more).describe([changelog])[changelog] is not None)
    assert adopt_topics(more).partitions == 3
    verify_identity(more)
    create_topics(more)
    assert check_topics(more) == []


def test_tasks_of_another_partitioner_are_noticed(settings: Settings) -> None:
    create_topics(settings)
    publish(settings, "tasks", [(key, p) for key in (b"a", b"b", b"c") for p in (0, 1)] + [(None, 0)])  # half astray
    (problem,) = check_topics(settings)
    assert isinstance(problem, Problem) and not problem.fatal
    assert problem.text.startswith("3 of the newest 6 tasks") and "murmur2_random" in problem.text


def test_too_few_brokers_for_the_replicas(make_settings: Make) -> None:
    text = refusal(create_topics, make_settings(replication_factor=3))
    assert "cannot create topic" in text and "replication" in text.lower()
    create_topics(make_settings())
    problems = check_topics(make_settings(replication_factor=2))
    assert len(problems) == 9 and "has 1 replicas, not 2" in problems[0].text


@pytest.mark.parametrize("server", ["127.0.0.1:1", "nowhere.invalid:9092"])
def test_no_broker(
    server: str, make_settings: Make, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(admin, "DEADLINE_S", 0.5)
    for call in (create_topics, check_topics, verify_identity, adopt_topics):
        text = refusal(call, make_settings(bootstrap_servers=server))
        assert text.startswith(f"Kafka does not answer at {server} (") and "`pstp broker`" in text
    assert capfd.readouterr() == ("", "")


def test_settings_that_librdkafka_refuses(make_settings: Make) -> None:
    assert "make no sense" in refusal(verify_identity, make_settings(security_protocol="nonsense"))
