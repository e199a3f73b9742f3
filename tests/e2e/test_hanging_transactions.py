"""A transaction that Kafka has forgotten to end in some partition.  Made on purpose here: the data that a broker had
while the transaction was open is put back after the coordinator has ended it.
"""

import shutil
from pathlib import Path

import confluent_kafka as ck
from confluent_kafka.admin import AdminClient

from pstp.broker.settings import STORAGE_FOLDER
from streams.ends import log_ends
from streams.partition import INPUTS
from streams.protocol import TaskState
from streams.settings import Settings
from streams.transaction import OUTPUTS
from tests.e2e.test_broker_outage import system_of_its_own

COORDINATOR = "__transaction_state-"


def test_a_transaction_that_hangs_in_every_partition_stops_nobody_and_is_never_brought_to_life(tmp_path: Path) -> None:
    """Of a scheduler that was killed; another one takes over from it."""
    with system_of_its_own(tmp_path, lease_s=5) as (broker, system):
        first = system.scheduler("s1")
        system.worker("w1", slots=8)
        for number in range(8):
            system.publish(f"g{number}", "echo", id=f"before {number}")
        system.flush()
        system.history.wait_terminal(8)
        first.kill()
        _open_a_transaction(system.settings, owner := system.settings.transactional_id("s1"))
        broker.kill()
        logs, kept = tmp_path / "kafka" / STORAGE_FOLDER, tmp_path / "kept"
        shutil.copytree(logs, kept)
        broker.start()
        _producer(system.settings, owner).init_transactions(30)  # and so it is over, says the coordinator
        broker.kill()
        for folder in kept.iterdir():
            if folder.is_dir() and not folder.name.startswith((COORDINATOR, "__cluster_metadata")):
                shutil.rmtree(logs / folder.name)
                shutil.copytree(folder, logs / folder.name)
        broker.start()
        assert _open_partitions(system.settings) == set(range(system.settings.partitions)), "it hangs"

        system.scheduler("s2")
        for number in range(8):
            system.publish(f"g{number}", "echo", id=f"after {number}")
        system.flush()
        system.history.wait_terminal(16, 60)
        assert system.history.count(TaskState.SUCCEEDED) == 16
        assert _open_partitions(system.settings) == set()
        assert not [m for m in system.read_all("changelog", system.settings.partitions) if m.value() == b"forgotten"]


def _producer(settings: Settings, transactional_id: str) -> ck.Producer:
    return ck.Producer(settings.kafka(**{"transactional.id": transactional_id, "transaction.timeout.ms": 60_000}))


def _open_a_transaction(settings: Settings, transactional_id: str) -> None:
    """One that has written everywhere, input offsets too, and is neither committed nor aborted."""
    producer = _producer(settings, transactional_id)
    producer.init_transactions(30)
    producer.begin_transaction()
    for topic in OUTPUTS:
        count = 1 if topic == "control" else settings.partitions
        for partition in range(count):
            producer.produce(settings.topic(topic), b"forgotten", b"key", partition)
    assert producer.flush(30) == 0
    outsider = ck.Consumer(settings.kafka(**{"group.id": settings.scheduler_group}))
    offsets = [ck.TopicPartition(settings.topic(t), p, 1) for t in INPUTS for p in range(settings.partitions)]
    producer.send_offsets_to_transaction(offsets, outsider.consumer_group_metadata(), 30)
    outsider.close()


def _open_partitions(settings: Settings) -> set[int]:
    """Of the changelog: those with a transaction that is not over."""
    admin = AdminClient(settings.kafka())
    numbers = range(settings.partitions)
    ends = log_ends(admin, settings.topic("changelog"), numbers)
    stable = log_ends(admin, settings.topic("changelog"), numbers, committed=True)
    return {number for number in numbers if stable[number] < ends[number]}
