"""Every alert fires for real, by a fault done to a live system, and none in an hour in which all is well.

An hour passes in a minute: the rules are the same, with all their times so much shorter (see `faster`).  What takes
long is done by the long form; a test holds that the two leave no alert out.
"""

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import confluent_kafka as ck
import pytest

from streams.protocol import TaskState
from tests.deploy.prometheus import RULES, Prometheus, faster, open_transaction
from tests.support.system import HANDLERS, System, until

ALERTS: Final = set(re.findall(r"alert: (\w+)", RULES.read_text()))
QUICK: Final = {
    "PstpDeadLetters", "PstpGroupsBlocked", "PstpInputHeld", "PstpLoopsBlocked", "PstpNoFreeSlot", "PstpNoScheduler",
    "PstpProcessDown", "PstpTypeWithoutHandler", "PstpWorkersLost",
}  # fmt: skip
SLOW: Final = {
    "PstpInputLags", "PstpPartitionsWithoutOwner", "PstpTasksStartLate", "PstpTasksStartLateSlowly",
    "PstpTransactionsFail",
}  # fmt: skip
HOUR_S: Final = 60
LATE_S: Final = 10  # stands for a minute in the long form


def test_no_alert_is_left_out() -> None:
    assert QUICK | SLOW == ALERTS


class Watched:
    """A system, and the Prometheus that watches it."""

    def __init__(self, system: System, prometheus: Prometheus) -> None:
        self.system, self.prometheus = system, prometheus
        self._published = 0

    def load(self, count: int, seconds: float = 0.005) -> None:
        """So many tasks of twenty groups; every tenth fails once."""
        for number in range(self._published, self._published + count):
            self.system.publish(f"g{number % 20}", *(("fail", 1) if number % 10 == 0 else ("sleep", seconds)))
        self._published += count
        self.system.flush()

    def calm(self) -> None:
        owned = "sum(pstp_partitions_owned) == 4"
        until(lambda: self.prometheus.query(owned) and not self.prometheus.firing(), 90, "all is calm")

    def well(self, seconds: int, succeeded: int) -> None:
        """Work goes through for at least so long, and nothing fires."""
        deadline_s = time.monotonic() + seconds

        def over() -> bool:
            self.load(20)
            self.system.history.read()
            assert self.prometheus.firing() == set()
            done = self.system.history.count(TaskState.SUCCEEDED) > succeeded
            return done and time.monotonic() > deadline_s

        until(over, 90 + seconds)
        assert not any(map(self.prometheus.has_fired, ALERTS - {"PstpNoScheduler"}))  # that was before it began

    def fires(self, *names: str) -> None:
        """While records that are no tasks arrive, as they do all the time somewhere."""

        def all_have() -> bool:
            self.system.publish_raw("g1", b"{")
            self.system.flush()
            return all(map(self.prometheus.has_fired, names))

        until(all_have, 90, f"{names} fire")

    def clears(self, name: str) -> None:
        until(lambda: name not in self.prometheus.firing(), 90, f"{name} is over")


@pytest.fixture
def watched(request: pytest.FixtureRequest, system: System, tmp_path: Path) -> Iterator[Watched]:
    rules = faster(RULES.read_text(), late_s=LATE_S if "slow" in request.node.name else 60)
    with Prometheus(tmp_path / "prometheus", system.folder / "targets", rules) as prometheus:
        until(lambda: "PstpNoScheduler" in prometheus.firing(), what="nobody is there yet")
        yield Watched(system, prometheus)


def test_alerts_fire_when_something_breaks_and_not_before(watched: Watched) -> None:
    system = watched.system
    scheduler = system.scheduler("s1")
    # More slots than tasks are ever on their way at once, until all are taken below.
    worker = system.worker("w1", handlers=HANDLERS.with_name("handlers_faulty.py"), slots=30)
    watched.calm()
    watched.well(10, 500)

    system.publish("unhandled", "nobody")
    system.publish("stands", "fail", 9, max_attempts=1, on_failure="block")
    system.publish("rude", "async.blocks", 3)
    for number in range(40):
        system.publish(f"busy{number}", "sleep", 60)
    with open_transaction(system, "tasks"):
        watched.fires(
            "PstpTypeWithoutHandler", "PstpNoFreeSlot", "PstpDeadLetters", "PstpGroupsBlocked", "PstpLoopsBlocked",
            "PstpInputHeld",
        )  # fmt: skip
    worker.kill()
    watched.fires("PstpProcessDown", "PstpWorkersLost")
    scheduler.kill()
    until(lambda: "PstpNoScheduler" in watched.prometheus.firing(), 60)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_slow_alerts_fire_and_an_hour_without_trouble_raises_none(watched: Watched) -> None:
    system = watched.system
    scheduler = system.scheduler("s1")
    system.worker("w1", slots=30)
    watched.calm()
    watched.well(HOUR_S + 10, 1000)

    # Thirty slots, and a hundred groups that each want one for six seconds.
    def late() -> bool:
        system.history.read()
        waiting = len(system.history.of) - system.history.terminal()
        for number in range(max(0, 100 - waiting)):
            system.publish(f"late{number}", "sleep", 6)
        system.flush()
        return all(map(watched.prometheus.has_fired, ("PstpTasksStartLate", "PstpTasksStartLateSlowly")))

    until(late, 120, "late starts burn the budget")

    # Far more than it can read at once.
    def lags() -> bool:
        for number in range(50_000):
            system.publish(f"flood{number % 100}", "nobody")
        system.flush()
        return watched.prometheus.has_fired("PstpInputLags")

    until(lags, 120, "input lags")

    # Somebody uses its transactional id.
    own = system.settings.kafka(**{"transactional.id": system.settings.transactional_id("s1")})

    def fenced() -> bool:
        ck.Producer(own).init_transactions(10)
        watched.load(5)
        return watched.prometheus.has_fired("PstpTransactionsFail")

    until(fenced, 120, "transactions fail")
    watched.clears("PstpTransactionsFail")

    # It cannot load what it owns while somebody's transaction hides the end of it.
    assert scheduler.terminate() == 0
    with open_transaction(system, "changelog"):
        system.scheduler("s1")
        watched.fires("PstpPartitionsWithoutOwner")
    watched.clears("PstpPartitionsWithoutOwner")
