"""Asking the cluster about topics and changing them; every failure is one sentence that says what to do.

librdkafka would print its own lines as well: they go to a logger that nobody listens to, and the last of its errors
into our sentence.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from typing import Any, Final, NamedTuple, NoReturn

import confluent_kafka as ck
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # it marks no re-exports
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    OffsetSpec,
    ResourceType,
)

from streams.clock import now
from streams.errors import UserError
from streams.settings import Settings
from streams.topic_plan import TopicPlan

DEADLINE_S: Final = 10.0
# What a broker says of a partition that it is to lead and does not know of yet.
_NOT_YET: Final = frozenset({
    ck.KafkaError.NOT_LEADER_FOR_PARTITION, ck.KafkaError.LEADER_NOT_AVAILABLE, ck.KafkaError.UNKNOWN_TOPIC_OR_PART,
})  # fmt: skip

silent_logger = logging.getLogger("pstp.kafka.silent")
silent_logger.addHandler(logging.NullHandler())
silent_logger.propagate = False


class TopicsError(UserError):
    """The cluster or its topics are not as PSTP needs them."""


class UnreachableError(TopicsError):
    """Kafka does not answer; it may again."""


class TopicFacts(NamedTuple):
    """A topic as it is."""

    topic_id: str
    partitions: int
    replicas: int  # of the partition with the fewest


class Admin:
    """One connection for questions about topics.  Each method raises `TopicsError` after `DEADLINE_S` at the latest."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._cause = ""
        conf = settings.kafka(error_cb=self._note, **{"socket.timeout.ms": int(DEADLINE_S * 1000)})
        try:
            self._client = AdminClient(conf, logger=silent_logger)
        except ck.KafkaException as error:
            raise TopicsError(f"Kafka's settings make no sense ({error.args[0].str()}): correct PSTP_…") from None

    def describe(self, topics: Iterable[str]) -> dict[str, TopicFacts | None]:
        """Facts by topic; None for one that does not exist."""
        found: dict[str, TopicFacts | None] = {}
        futures = self._client.describe_topics(ck.TopicCollection(list(topics)), request_timeout=DEADLINE_S)
        for topic, future in futures.items():
            try:
                description = future.result()
            except ck.KafkaException as error:
                if error.args[0].code() != ck.KafkaError.UNKNOWN_TOPIC_OR_PART:
                    self._explain(error, f"look at topic `{topic}`")
                found[topic] = None
            else:
                replicas = min((len(p.replicas) for p in description.partitions), default=0)
                found[topic] = TopicFacts(str(description.topic_id), len(description.partitions), replicas)
        return found

    def create(self, plans: Iterable[TopicPlan]) -> list[str]:
        """Create the topics and wait until they are there; returns those that did not exist."""
        replicas = self._settings.replication_factor
        topics = [NewTopic(p.topic, p.partitions, replicas, config=p.config) for p in plans]
        created = []
        for topic, future in (self._client.create_topics(topics) if topics else {}).items():
            try:
                future.result()
                created.append(topic)
            except ck.KafkaException as error:
                if error.args[0].code() != ck.KafkaError.TOPIC_ALREADY_EXISTS:
                    self._explain(error, f"create topic `{topic}`")
        names = [topic.topic for topic in topics]  # whoever created them
        self._wait(lambda: self._serves(names), "new topics")
        return created

    def _serves(self, topics: list[str]) -> bool:
        """Whether all partitions of these topics have a broker that leads them, and knows it."""
        facts = self.describe(topics)
        if None in facts.values():
            return False
        places = [(topic, n) for topic, found in facts.items() if found is not None for n in range(found.partitions)]
        try:
            self._read_offsets(places, None)
        except ck.KafkaException as error:
            if error.args[0].code() in _NOT_YET:
                return False
            self._explain(error, "read offsets of new topics")
        return True

    def _wait(self, shows: Callable[[], bool], what: str) -> None:
        """A broker hears of what was changed a little later than the controller, which has said that it is done."""
        deadline_ms = now().mono_ms + DEADLINE_S * 1000
        while not shows():
            if now().mono_ms > deadline_ms:
                raise TopicsError(f"{what} do not show up on the brokers: look at the cluster's health, try again")
            self._client.poll(0.05)

    def add_partitions(self, topic: str, partitions: int) -> None:
        """Raise a topic's number of partitions to this."""
        for future in self._client.create_partitions([NewPartitions(topic, partitions)]).values():
            self._await(future, f"add partitions to `{topic}`")

    def configs(self, topics: Iterable[str]) -> dict[str, dict[str, str]]:
        """Every setting of each topic, defaults included."""
        resources = [ConfigResource(ResourceType.TOPIC, topic) for topic in topics]
        futures = self._client.describe_configs(resources, request_timeout=DEADLINE_S) if resources else {}
        return {
            resource.name: {name: entry.value for name, entry in self._await(future, "read topics' settings").items()}
            for resource, future in futures.items()
        }

    def set_configs(self, configs: Mapping[str, Mapping[str, str]]) -> None:
        """Change topics' settings and wait until they are so."""
        resources = [
            ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[
                ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
                for name, value in config.items()
            ])
            for topic, config in configs.items()
        ]  # fmt: skip
        if not resources:
            return
        for future in self._client.incremental_alter_configs(resources, request_timeout=DEADLINE_S).values():
            self._await(future, "change topics' settings")

        def shows() -> bool:
            are = self.configs(configs)
            return all(config.items() <= are[topic].items() for topic, config in configs.items())

        self._wait(shows, "changed settings of topics")

    def committed(self, group: str) -> dict[tuple[str, int], int]:
        """What a consumer group has committed, by topic and partition; empty if it never did."""
        asked = [ck.ConsumerGroupTopicPartitions(group)]
        futures = self._client.list_consumer_group_offsets(asked, request_timeout=DEADLINE_S)
        result = self._await(futures[group], f"read offsets of group `{group}`")
        return {(p.topic, p.partition): p.offset for p in result.topic_partitions if p.offset >= 0}

    def offsets(self, partitions: Iterable[tuple[str, int]], at_ms: int | None = None) -> dict[tuple[str, int], int]:
        """The end of each partition; with `at_ms` (wall time) its first offset of that time or later, -1 if none."""
        places = list(partitions)
        try:
            return self._read_offsets(places, at_ms)
        except ck.KafkaException as error:
            self._explain(error, f"read offsets of `{'`, `'.join(sorted({topic for topic, _ in places}))}`")

    def _read_offsets(self, places: list[tuple[str, int]], at_ms: int | None) -> dict[tuple[str, int], int]:
        """Raises `KafkaException`."""
        spec = OffsetSpec.latest() if at_ms is None else OffsetSpec(at_ms)  # type: ignore[no-untyped-call, abstract]
        asked = {ck.TopicPartition(*place): spec for place in places}
        futures = self._client.list_offsets(asked, request_timeout=DEADLINE_S) if asked else {}
        return {(p.topic, p.partition): future.result().offset for p, future in futures.items()}

    def delete_before(self, offsets: Mapping[tuple[str, int], int]) -> None:
        asked = [ck.TopicPartition(*partition, offset) for partition, offset in offsets.items()]
        for p, future in (self._client.delete_records(asked, request_timeout=DEADLINE_S) if asked else {}).items():
            self._await(future, f"trim topic `{p.topic}`")

    def _await(self, future: "Future[Any]", doing: str) -> Any:
        try:
            return future.result()
        except ck.KafkaException as error:
            self._explain(error, doing)

    def _note(self, error: ck.KafkaError) -> None:
        if error.code() != ck.KafkaError._ALL_BROKERS_DOWN:
            self._cause = error.str().rpartition("/bootstrap: ")[2].partition(" (after ")[0]

    def _explain(self, error: ck.KafkaException, doing: str) -> NoReturn:
        kafka_error: ck.KafkaError = error.args[0]
        if kafka_error.code() in (ck.KafkaError._TIMED_OUT, ck.KafkaError._TRANSPORT, ck.KafkaError._ALL_BROKERS_DOWN):
            self._client.poll(0)  # fills in the cause
            raise unreachable(self._settings, self._cause) from None
        raise TopicsError(f"cannot {doing} ({kafka_error.str()}): mend that in the cluster or in PSTP_…") from None


def unreachable(settings: Settings, cause: str) -> UnreachableError:
    because = f" ({cause})" if cause else ""
    return UnreachableError(
        f"Kafka does not answer at {settings.bootstrap_servers}{because}: "
        "start one with `pstp broker`, or set PSTP_BOOTSTRAP_SERVERS to yours"
    )
