"""C-11: the last thing in a partition was a transaction's marker, so "read to the end" never came true.

Elsewhere lag stayed at 1 and readiness never came (apache/druid #16689, spring-projects/spring-kafka #1587,
Banno/kafka4s #684).
"""

import re
import urllib.error
from collections.abc import Iterable

import confluent_kafka as ck

from streams.admin import Admin
from streams.protocol import TaskState
from tests.support.system import System, until

ABORTED, INPUTS = 10, ("tasks", "completions", "commands")


class Strangers:
    """A transactional producer to `tasks`."""

    def __init__(self, system: System) -> None:
        self._system = system
        self.producer = ck.Producer(system.settings.kafka(**{
            "transactional.id": f"{system.settings.app}-stranger", "partitioner": "murmur2_random"
        }))  # fmt: skip
        self.producer.init_transactions(30)

    def begin(self, names: Iterable[str]) -> None:
        """Open a transaction with a task of each name in every partition."""
        self.producer.begin_transaction()
        topic = self._system.settings.topic("tasks")
        for name in names:
            for partition in range(self._system.settings.partitions):
                value = f'{{"type":"echo","id":"{name} {partition}"}}'
                self.producer.produce(topic, value.encode(), group_in(self._system, partition, name).encode())
        assert self.producer.flush(30) == 0


def group_in(system: System, partition: int, name: str) -> str:
    return next(g for n in range(1000) if system.home(g := f"{name}{n}") == partition)


def test_what_ends_with_a_transaction_marker_is_read_to_its_end(system: System) -> None:
    scheduler = system.scheduler()
    system.worker()
    strangers, partitions = Strangers(system), system.settings.partitions
    strangers.begin(["committed"])
    strangers.producer.commit_transaction()
    assert_at_the_end(system, partitions)

    strangers.begin(f"aborted-{number}" for number in range(ABORTED))
    strangers.producer.abort_transaction()
    assert_at_the_end(system, partitions)

    scheduler.kill()  # with nothing but aborted tasks behind what it has read
    strangers.begin(["aborted, unread"])
    strangers.producer.abort_transaction()
    restarted = system.scheduler()
    assert_at_the_end(system, partitions)
    system.publish("after", "echo", id="after")
    system.flush()
    system.history.wait_terminal(partitions + 1)
    assert_at_the_end(system, partitions + 1)

    assert restarted.terminate() == 0
    assert system.history.count(TaskState.SUCCEEDED) == partitions + 1
    assert not [e for e in system.history.events if "abort" in f"{e.task_id}{e.group}"], "they appear nowhere"
    assert system.dead_letters() == []


def assert_at_the_end(system: System, terminal: int) -> None:
    """Ready, no lag by our own figures, and none as Kafka's own tools see it."""
    system.history.wait_terminal(terminal)
    until(lambda: is_ready(system), what="/readyz turns ready")
    until(lambda: set(lag(system).values()) == {0}, what="lag is 0 by /metrics")
    assert lag(system).keys() == set(INPUTS)
    until(lambda: not group_lag(system), what="lag is 0 by committed offsets")


def is_ready(system: System) -> bool:
    try:
        return "owns" in system.get("s1", "/readyz")
    except (urllib.error.URLError, OSError):  # 503, or its latest address is that of the life before
        return False


def lag(system: System) -> dict[str, int]:
    found = re.findall(r'^pstp_lag_records\{topic="([a-z-]+)"\} ([0-9.]+)', system.get("s1", "/metrics"), re.MULTILINE)
    return {topic: int(float(records)) for topic, records in found}


def group_lag(system: System) -> dict[tuple[str, int], int]:
    """Partitions with records, or markers, behind the schedulers' committed offsets."""
    admin, settings = Admin(system.settings), system.settings
    committed = admin.committed(settings.scheduler_group)
    places = [(settings.topic("tasks"), partition) for partition in range(settings.partitions)]
    return {p: left for p, end in admin.offsets(places).items() if (left := end - committed.get(p, 0))}
