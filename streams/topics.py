"""Topics: bringing them into being and into shape, and never taking others for them.

Groups live where murmur2 and the number of partitions put them, and the table knows offsets of one certain log.  So
the number of partitions and the topics' ids are recorded when they are made, in `members` under a key that no
instance can have, and a process that finds something else must not start.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

import confluent_kafka as ck
import msgspec
from msgspec import Struct

from streams.admin import DEADLINE_S, Admin, TopicFacts, TopicsError, silent_logger, unreachable
from streams.engine import ORIGIN_HEADER
from streams.murmur2 import home_partition
from streams.protocol import PROTOCOL, encode
from streams.rows import Headers
from streams.settings import Settings, TopicName
from streams.tail import read_to_end
from streams.topic_plan import TopicPlan, min_insync, plan_topics

TOPICS_KEY: Final = b"\x00topics"  # in `members`: an instance's name has no such character
SAMPLED_TASKS: Final = 100  # per partition, by `check_topics`


class TopicsRecord(Struct, frozen=True):
    """What was made: how many partitions, and the id that Kafka gave each topic."""

    v: int
    partitions: int
    dispatch_partitions: int
    topic_ids: dict[TopicName, str]


class Problem(NamedTuple):
    """What is wrong with a topic, and what to do.  `fatal`: no process starts on it."""

    topic: str
    text: str
    fatal: bool


class _Found(NamedTuple):
    settings: Settings
    admin: Admin
    plans: dict[TopicName, TopicPlan]
    facts: dict[TopicName, TopicFacts]  # of the topics that exist
    record: TopicsRecord | None


def create_topics(settings: Settings) -> list[str]:
    """Create what is missing, record it, and set every topic's configuration; returns the topics that are new.

    Running it again is harmless: it adds partitions to `dispatches` if more are asked for, and touches no other count
    and no id that is recorded.  Raises `TopicsError`.
    """
    found = _look(settings)
    for problem in _count_problems(found):
        raise TopicsError(problem.text)
    lacking = _dispatches_lacking(found)
    if lacking < 0:
        raise TopicsError(_dispatches_text(found))
    created = found.admin.create(plan for name, plan in found.plans.items() if name not in found.facts)
    if lacking:
        found.admin.add_partitions(found.plans["dispatches"].topic, settings.dispatch_partitions)
    known_ids = found.record.topic_ids if found.record else {}
    found = _look(settings)  # others may create at the same time, and with other counts
    for problem in _count_problems(found):
        raise TopicsError(problem.text)
    found.admin.set_configs({topic: {key: planned[key] for key in wrong} for topic, planned, wrong in _misset(found)})
    _write_record(found, known_ids)
    return created


def check_topics(settings: Settings) -> list[Problem]:
    """Everything that is not as it should be; empty if all is well.  Raises `TopicsError` if Kafka does not answer."""
    found = _look(settings)
    return [*_identity_problems(found), *_shape_problems(found), *_placement_problems(found)]


def verify_identity(settings: Settings) -> TopicsRecord:
    """The record, if the topics are the very ones it speaks of.  Raises `TopicsError` if not: nothing may run then."""
    found = _look(settings)
    for problem in _identity_problems(found):
        raise TopicsError(problem.text)
    assert found.record is not None
    return found.record


def adopt_topics(settings: Settings) -> TopicsRecord:
    """Record the topics as they are now, deleted and recreated or not; what was in the old ones is gone for good.

    Raises `TopicsError` if one is missing, or has another count than its siblings or the settings.
    """
    found = _look(settings)
    for problem in [*_missing_problems(found), *_count_problems(found._replace(record=None))]:
        raise TopicsError(problem.text)
    record = found.record
    if record and record.partitions != settings.partitions and (kept := _kept_ids(found)):
        raise TopicsError(
            f"topics were set up with {record.partitions} partitions and `{kept[0]}` still has the groups of that "
            f"time: set PSTP_PARTITIONS={record.partitions}, or recreate all topics, or use another PSTP_APP"
        )
    return _write_record(found, {})


def _look(settings: Settings) -> _Found:
    admin, plans = Admin(settings), plan_topics(settings)
    described = admin.describe(plan.topic for plan in plans.values())
    facts = {name: fact for name, plan in plans.items() if (fact := described[plan.topic]) is not None}
    return _Found(settings, admin, plans, facts, _read_record(settings) if "members" in facts else None)


def _identity_problems(found: _Found) -> Iterator[Problem]:
    """In the order in which they should be mended."""
    yield from _missing_problems(found)
    if found.record is None:
        topic = found.settings.topic("members")
        yield Problem(topic, f"`{topic}` has no record of how topics were set up: run `pstp topics create`", True)
    yield from _count_problems(found)
    if _dispatches_lacking(found):
        yield Problem(found.plans["dispatches"].topic, _dispatches_text(found), True)
    if found.record is None:
        return
    for name, fact in found.facts.items():
        if (known := found.record.topic_ids.get(name)) not in (None, fact.topic_id):
            topic = found.plans[name].topic
            yield Problem(topic, (
                f"topic `{topic}` was deleted and created again (its id was {known} and is {fact.topic_id}), so what "
                "was in it is gone: run `pstp topics adopt` to go on with the new one"
            ), True)  # fmt: skip


def _missing_problems(found: _Found) -> Iterator[Problem]:
    for name, plan in found.plans.items():
        if name not in found.facts:
            yield Problem(plan.topic, f"topic `{plan.topic}` does not exist: run `pstp topics create`", True)


def _count_problems(found: _Found) -> Iterator[Problem]:
    """Partition counts that differ from the record or from the settings."""
    settings, record = found.settings, found.record
    if record and record.partitions != settings.partitions:
        yield Problem(settings.topic("tasks"), (
            f"topics were set up with {record.partitions} partitions, PSTP_PARTITIONS is {settings.partitions}, and "
            f"groups cannot move: set PSTP_PARTITIONS={record.partitions}, or use another PSTP_APP"
        ), True)  # fmt: skip
        return
    for name, fact in found.facts.items():
        plan = found.plans[name]
        if name != "dispatches" and fact.partitions != plan.partitions:
            variable = f"set PSTP_PARTITIONS={fact.partitions}, or " if plan.partitions > 1 and not record else ""
            yield Problem(plan.topic, (
                f"topic `{plan.topic}` has {fact.partitions} partitions, not {plan.partitions}, and groups cannot "
                f"move: {variable}delete it, run `pstp topics create` and `pstp topics adopt`, or use another PSTP_APP"
            ), True)  # fmt: skip


def _dispatches_lacking(found: _Found) -> int:
    """How many partitions `dispatches` has too few, or, negative, too many; dispatches need no certain partition."""
    fact = found.facts.get("dispatches")
    return found.settings.dispatch_partitions - fact.partitions if fact else 0


def _dispatches_text(found: _Found) -> str:
    topic, wanted, _ = found.plans["dispatches"]
    count = wanted - (lacking := _dispatches_lacking(found))
    more = "run `pstp topics create` to add some, or " if lacking > 0 else ""
    return f"topic `{topic}` has {count} partitions, not {wanted}: {more}set PSTP_DISPATCH_PARTITIONS={count}"


def _kept_ids(found: _Found) -> list[str]:
    """Topics that hold groups' records and are still the recorded ones."""
    recorded = found.record.topic_ids if found.record else {}
    return [
        found.plans[name].topic
        for name, fact in found.facts.items()
        if name not in ("dispatches", "control", "members") and recorded.get(name) == fact.topic_id
    ]


def _misset(found: _Found) -> Iterator[tuple[str, dict[str, str], dict[str, str]]]:
    """Topics whose settings differ from the plan: topic, planned settings, wrong ones as they are."""
    configs = found.admin.configs(found.plans[name].topic for name in found.facts)
    for name, fact in found.facts.items():
        topic, _, planned = found.plans[name]
        planned = planned | min_insync(fact.replicas)  # as many as it has, whatever this process would give it
        if wrong := {key: configs[topic][key] for key, value in planned.items() if configs[topic][key] != value}:
            yield topic, planned, wrong


def _shape_problems(found: _Found) -> Iterator[Problem]:
    """Settings and replicas that differ from the plan: nothing breaks at once."""
    for topic, _, wrong in _misset(found):
        is_now = ", ".join(f"{key}={value}" for key, value in wrong.items())
        yield Problem(topic, f"topic `{topic}` is set to {is_now}: run `pstp topics create` to set it right", False)
    wanted = found.settings.replication_factor
    for name, fact in found.facts.items():
        if fact.replicas < wanted:
            yield Problem(topic := found.plans[name].topic, (
                f"topic `{topic}` has {fact.replicas} replicas, not {wanted}: add some with Kafka's tools, "
                "or set PSTP_REPLICATION_FACTOR"
            ), False)  # fmt: skip


def _placement_problems(found: _Found) -> Iterator[Problem]:
    """Whether the newest tasks were put where murmur2 puts their groups; a forwarded one was not."""
    if "tasks" not in found.facts:
        return
    topic, count = found.plans["tasks"].topic, found.facts["tasks"].partitions
    ends = found.admin.offsets((topic, partition) for partition in range(count))
    starts = {partition: max(0, end - SAMPLED_TASKS) for (_, partition), end in ends.items() if end}
    keyed = [m for m in read_to_end(found.settings, topic, starts) if m.key()]
    if strays := sum(_is_stray(m, count) for m in keyed):
        yield Problem(topic, (
            f"{strays} of the newest {len(keyed)} tasks in `{topic}` lie outside of their groups' partitions or had to "
            "be forwarded: set the producer's partitioner to murmur2 (librdkafka: partitioner=murmur2_random)"
        ), False)  # fmt: skip


def _is_stray(message: ck.Message, partitions: int) -> bool:
    headers: Headers = message.headers() or []  # type: ignore[assignment]
    was_forwarded = bool(headers) and headers[-1][0] == ORIGIN_HEADER
    return was_forwarded or home_partition(message.key() or b"", partitions) != message.partition()


_decode_record = msgspec.json.Decoder(TopicsRecord).decode


def _read_record(settings: Settings) -> TopicsRecord | None:
    record = None
    for message in read_to_end(settings, settings.topic("members"), {0: ck.OFFSET_BEGINNING}):
        if message.key() == TOPICS_KEY:
            record = _decode_record(value) if (value := message.value()) else None
    if record and record.v > PROTOCOL:
        raise TopicsError(f"topics were set up by a newer PSTP (protocol {record.v}, ours is {PROTOCOL}): upgrade this")
    return record


def _write_record(found: _Found, known_ids: dict[TopicName, str]) -> TopicsRecord:
    settings = found.settings
    ids = {name: fact.topic_id for name, fact in found.facts.items()} | known_ids
    record = TopicsRecord(PROTOCOL, settings.partitions, settings.dispatch_partitions, ids)
    failed: list[ck.KafkaError] = []
    producer = ck.Producer(settings.kafka(acks="all"), logger=silent_logger)
    producer.produce(
        settings.topic("members"), encode(record), TOPICS_KEY, partition=0,
        on_delivery=lambda error, _: failed.append(error) if error else None,
    )  # fmt: skip
    if producer.flush(DEADLINE_S):
        raise unreachable(settings, "")
    if failed:
        raise TopicsError(
            f"cannot write to `{settings.topic('members')}` ({failed[0].str()}): mend that in the cluster"
        )
    return record
