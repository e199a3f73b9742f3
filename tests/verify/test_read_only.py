"""On somebody's own cluster: a user that may read two topics, and nothing else, can verify; with less it is told so."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import confluent_kafka as ck
import pytest
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)
from histories import Log
from pydantic import SecretStr

from pstp.broker import EmbeddedBroker
from pstp.broker.ports import HOST, free_port
from pstp.broker.settings import Quorum, new_cluster_id
from pstp.verify import Options, check_cluster, run
from streams.errors import UserError
from streams.protocol import encode
from streams.settings import Settings

TOPICS = ("tasks", "task-events")


class Guarded(NamedTuple):
    """A cluster with an authorizer: `owner` may do everything, `reader` only what an ACL allows."""

    owner: AdminClient
    reader: Settings


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    port, users_port, controller_port = (free_port() for _ in range(3))
    listeners = f"PLAINTEXT://{HOST}:{port},USERS://{HOST}:{users_port}"
    login = "org.apache.kafka.common.security.plain.PlainLoginModule"
    properties = {
        "listeners": f"{listeners},CONTROLLER://{HOST}:{controller_port}", "advertised.listeners": listeners,
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,USERS:SASL_PLAINTEXT",
        "sasl.enabled.mechanisms": "PLAIN",
        "listener.name.users.plain.sasl.jaas.config": f'{login} required user_auditor="only for this test";',
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
    }  # fmt: skip
    quorum = Quorum(1, {1: controller_port}, new_cluster_id())
    folder: Path = tmp_path_factory.mktemp("guarded")
    with EmbeddedBroker(folder, port=port, properties=properties, quorum=quorum) as broker:
        owner = AdminClient({"bootstrap.servers": broker.bootstrap})
        for made in owner.create_topics([NewTopic(topic, 2, 1) for topic in TOPICS]).values():
            made.result()
        write_history(broker.bootstrap)
        yield Guarded(owner, Settings(
            bootstrap_servers=f"{HOST}:{users_port}", security_protocol="sasl_plaintext", sasl_mechanism="PLAIN",
            sasl_username="auditor", sasl_password=SecretStr("only for this test"),
        ))  # fmt: skip


def write_history(bootstrap: str) -> None:
    producer = ck.Producer({"bootstrap.servers": bootstrap})
    log = Log(1)
    for offset in range(3):
        producer.produce("tasks", b"{}", b"g", partition=1)
        log.run(log.park("g2", origin=(1, offset)))
    for event in log.events:
        producer.produce("task-events", encode(event), b"g2", partition=1)
    assert producer.flush(10) == 0


def acl(topic: str, operation: AclOperation) -> AclBinding:
    return AclBinding(
        ResourceType.TOPIC, topic, ResourcePatternType.LITERAL, "User:auditor", "*", operation, AclPermissionType.ALLOW
    )


@pytest.fixture
def allow(cluster: Guarded) -> Iterator[list[AclBinding]]:
    """ACLs that are put in force with `grant`, and go after the test."""
    granted: list[AclBinding] = []
    yield granted
    anything = AclBindingFilter(
        ResourceType.ANY, None, ResourcePatternType.ANY, None, None, AclOperation.ANY, AclPermissionType.ANY
    )  # fmt: skip
    for gone in cluster.owner.delete_acls([anything]).values():
        gone.result()


def grant(cluster: Guarded, *acls: AclBinding) -> None:
    for made in cluster.owner.create_acls([*acls]).values():
        made.result()


@pytest.mark.usefixtures("allow")
def test_reading_two_topics_is_all_that_it_needs(cluster: Guarded, capsys: pytest.CaptureFixture[str]) -> None:
    grant(cluster, *(acl(topic, AclOperation.READ) for topic in TOPICS))
    assert run(cluster.reader) == 0
    assert "3 in 1 groups" in capsys.readouterr().out


@pytest.mark.usefixtures("allow")
def test_without_tasks_it_checks_a_history_that_still_runs(cluster: Guarded) -> None:
    """Unless it must hold `tasks` against the history, it does not need it."""
    grant(cluster, acl("task-events", AclOperation.READ))
    assert check_cluster(cluster.reader, Options(expect_drained=False)).ok
    with pytest.raises(UserError, match=r"may not read topic 'tasks': .*docs/verify\.md"):
        run(cluster.reader)


@pytest.mark.usefixtures("allow")
def test_to_see_a_topic_is_not_to_read_it(cluster: Guarded) -> None:
    grant(cluster, *(acl(topic, AclOperation.DESCRIBE) for topic in TOPICS))
    with pytest.raises(UserError, match=r"may not read topic 'task-events': .*docs/verify\.md"):
        run(cluster.reader)
