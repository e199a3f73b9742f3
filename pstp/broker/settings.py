"""The configuration of a broker: server.properties for a development cluster on this machine, and the JVM's flags."""

import base64
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pstp.broker.ports import HOST

# Both inside the data folder, and relative to it: no character in its name can upset Kafka's configuration.
STORAGE_FOLDER = "kafka"
LOG_FOLDER = "logs"

_MIB = 1024 * 1024
_LOG4J_CONFIG = Path(__file__).with_name("log4j2.xml")


@dataclass(frozen=True, slots=True)
class Quorum:
    """One node's place in a cluster; every node gets the same voters and cluster id.

    voters maps the id of each node (all are broker and controller) to its controller port on the loopback address.
    """

    node_id: int
    voters: Mapping[int, int]
    cluster_id: str


def new_cluster_id() -> str:
    """A random cluster id in Kafka's form: 16 bytes in URL-safe base64."""
    while (cluster_id := base64.urlsafe_b64encode(uuid.uuid4().bytes)[:22].decode()).startswith("-"):
        pass  # Kafka's tools would take it for an option
    return cluster_id


def server_properties(port: int, quorum: Quorum, extra: Mapping[str, str]) -> str:
    """The text of server.properties for one node that runs inside its data folder; settings in `extra` win."""
    settings = {**_node(port, quorum), **_replication(len(quorum.voters)), **_DEVELOPMENT, **extra}
    return "".join(f"{key}={value}\n" for key, value in settings.items())


def jvm_flags(heap_mb: int) -> list[str]:
    """Flags of a JVM that runs inside the broker's data folder."""
    return [
        f"-Xmx{heap_mb}m",
        # Without the second compiler a broker starts 0.4 s sooner, is 30 MB smaller and, on two cores, does more
        # transactions a second in its first minutes, when compiling would take the processor from working.
        "-XX:TieredStopAtLevel=1",
        "-XX:+UseSerialGC",
        "-XX:+ExitOnOutOfMemoryError",
        "-Djava.awt.headless=true",
        f"-Dpstp.log.dir={LOG_FOLDER}",
        f"-Dlog4j2.configurationFile={_LOG4J_CONFIG.as_uri()}",
    ]


def _node(port: int, quorum: Quorum) -> dict[str, str]:
    controller_port = quorum.voters[quorum.node_id]
    return {
        "process.roles": "broker,controller",
        "node.id": str(quorum.node_id),
        "controller.quorum.voters": ",".join(
            f"{node}@{HOST}:{voter_port}" for node, voter_port in quorum.voters.items()
        ),
        "controller.listener.names": "CONTROLLER",
        "listeners": f"PLAINTEXT://{HOST}:{port},CONTROLLER://{HOST}:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://{HOST}:{port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": STORAGE_FOLDER,
    }


def _replication(nodes: int) -> dict[str, str]:
    factor = str(min(3, nodes))
    in_sync = "2" if nodes >= 3 else "1"
    return {
        "default.replication.factor": factor,
        "min.insync.replicas": in_sync,
        "offsets.topic.replication.factor": factor,
        "transaction.state.log.replication.factor": factor,
        "transaction.state.log.min.isr": in_sync,
        "share.coordinator.state.topic.replication.factor": factor,
        "share.coordinator.state.topic.min.isr": in_sync,
    }


_DEVELOPMENT = {
    "auto.create.topics.enable": "false",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.num.partitions": "1",
    # A broker killed by SIGKILL may register again only when its old session is over: 9 s by default.  Much shorter,
    # and a machine under load fences its one broker, which leaves every partition without a leader for a while.
    "broker.session.timeout.ms": "6000",
    "broker.heartbeat.interval.ms": "500",
    # Groups form at once, and short sessions are allowed to clients that ask for them.
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    "group.consumer.min.session.timeout.ms": "1000",
    "group.consumer.min.heartbeat.interval.ms": "500",
    "message.max.bytes": str(2 * _MIB),
    "replica.fetch.max.bytes": str(2 * _MIB),
    "log.retention.hours": "168",
    "log.segment.bytes": str(128 * _MIB),
    "log.cleaner.enable": "true",
    # Allocated at start; the default of 128 MB is more than all else that the broker needs.
    "log.cleaner.dedupe.buffer.size": str(8 * _MIB),
    "num.network.threads": "2",
    "num.io.threads": "4",
}
