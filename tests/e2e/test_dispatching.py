"""Where dispatches go, and what becomes of those that nobody starts."""

import os
import socket

import confluent_kafka as ck

from streams.clock import new_id
from streams.members import Announcer
from streams.protocol import PROTOCOL, Member, TaskState, decode_dispatch
from streams.settings import Settings
from tests.support import judge
from tests.support.system import System, until


class Claimant:
    """A worker that owns dispatch partitions and claims, or does not, and never starts anything."""

    def __init__(self, settings: Settings, name: str, slots: int) -> None:
        self._settings, self._name, self._slots, self._boot_id = settings, name, slots, new_id()
        self._announcer = Announcer(settings)
        self.owned: set[int] = set()
        self._consumer = ck.Consumer(settings.kafka(**{
            "group.id": settings.worker_group, "enable.auto.commit": False, "isolation.level": "read_committed",
            "auto.offset.reset": "earliest", "partition.assignment.strategy": "cooperative-sticky",
            "session.timeout.ms": 6000, "fetch.queue.backoff.ms": 5,
        }))  # fmt: skip
        self._consumer.subscribe([settings.topic("dispatches")], on_assign=self._assigned)
        self._announcer.start()

    def _assigned(self, consumer: ck.Consumer, partitions: list[ck.TopicPartition]) -> None:
        self.owned |= {p.partition for p in partitions}
        self._announcer.update(Member(
            PROTOCOL, self._name, self._boot_id, "worker", socket.gethostname(), os.getpid(), 0,
            partitions=tuple(sorted(self.owned)), slots=self._slots, types=("echo",),
        ))  # fmt: skip

    def take(self) -> ck.Message:
        """The next dispatch, unclaimed as yet."""

        def polled() -> ck.Message | None:
            message = self._consumer.poll(0.1)
            return message if message is not None and message.error() is None else None

        return until(polled, what="a dispatch arrives")

    def join(self) -> None:
        until(lambda: self._consumer.poll(0.1) or self.owned, what="partitions are assigned")
        topic = self._settings.topic("dispatches")  # as workers do where nothing stands before them
        places = [ck.TopicPartition(topic, partition, 0, new_id()) for partition in self.owned]
        self._consumer.commit(offsets=places, asynchronous=False)

    def claim(self, message: ck.Message) -> None:
        place = ck.TopicPartition(message.topic(), message.partition(), message.offset() + 1, new_id())
        (result,) = self._consumer.commit(offsets=[place], asynchronous=False)
        assert result.error is None

    def die(self) -> None:
        """Without a word on `members`; leaving the group at once only spares the test the session timeout."""
        self._announcer.leave(tombstone=False)
        self._consumer.close()


def test_a_dispatch_claimed_but_never_started_runs_again_after_two_leases_and_uses_no_attempt(system: System) -> None:
    claimant = Claimant(system.settings, "ghost", slots=5)
    claimant.join()
    system.scheduler()
    system.publish("g", id="a")
    system.publish("g", id="b")
    system.flush()
    claimant.claim(claimant.take())
    claimant.die()
    system.worker()
    system.history.wait_terminal(2)
    reasons = [e.reason for e in system.history.of["a"]]
    assert "lost_before_start" in reasons
    started = [e for e in system.history.of["a"] if e.state is TaskState.RUNNING]
    assert [e.attempt for e in started] == [1]
    assert judge.starts(system.journal()) == {"g": ["a", "b"]}


def test_an_unclaimed_dispatch_keeps_its_token_for_the_next_owner_of_its_partition(system: System) -> None:
    claimant = Claimant(system.settings, "ghost", slots=5)
    claimant.join()
    system.scheduler()
    system.publish("g", id="a")
    system.flush()
    message = claimant.take()
    token = decode_dispatch(message.value() or b"").tasks[0].token
    claimant.die()
    # Two looks at the claims, a lease apart: silence alone must not give out a second token.
    until(lambda: system.metric("s1", "pstp_claims_looked_up_total") >= 2)
    system.worker()
    system.history.wait_terminal(1)
    started = [e for e in system.history.of["a"] if e.state is TaskState.RUNNING]
    assert [(e.attempt, e.fencing_token) for e in started] == [(1, token)]


def test_quick_groups_pass_while_long_tasks_hold_all_but_one_slot_of_three_workers(system: System) -> None:
    """Two schedulers count each other's dispatches; what went to a busy worker is taken back when another is free."""
    system.scheduler("s1")
    system.scheduler("s2")
    for name in ("w1", "w2", "w3"):
        system.worker(name, slots=1)
    for number in range(2):
        system.publish(f"long{number}", "sleep", 60)
    system.flush()
    system.history.wait(lambda h: h.count(TaskState.RUNNING) == 2)
    for number in range(50):
        system.publish(f"quick{number}", "echo")
    system.flush()
    system.history.wait_terminal(50, 60)
    system.history.wait(lambda h: h.count(TaskState.RUNNING) == 52)


def test_more_long_groups_than_slots_still_run_one_after_the_other_with_quick_ones_between(system: System) -> None:
    system.scheduler("s1")
    system.scheduler("s2")
    for name in ("w1", "w2", "w3"):
        system.worker(name, slots=1)
    for number in range(5):
        system.publish(f"long{number}", "sleep", 4)
    for number in range(50):
        system.publish(f"quick{number}", "echo")
    system.flush()
    system.history.wait_terminal(55, 90)
    assert system.history.count(TaskState.RETRYING) == 0
    assert judge.overlaps(system.journal()) == []
    assert all(len(ids) == 1 for ids in judge.starts(system.journal()).values())
