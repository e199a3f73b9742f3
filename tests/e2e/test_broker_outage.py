"""A broker that dies: what it acknowledged is kept, what ran goes on.  Not the run's broker: others need that one."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pstp.broker import EmbeddedBroker
from streams.protocol import TaskState
from streams.settings import Settings
from tests.support import judge
from tests.support.counting import TASKS, assert_kept, publish_counting
from tests.support.system import System, until


@contextmanager
def system_of_its_own(folder: Path, lease_s: float) -> Iterator[tuple[EmbeddedBroker, System]]:
    with EmbeddedBroker(folder / "kafka") as broker:
        settings = Settings(
            bootstrap_servers=broker.bootstrap, partitions=4, dispatch_partitions=4, lease_s=lease_s
        )  # fmt: skip
        with System(settings, folder) as system:
            yield broker, system


def test_a_broker_killed_and_restarted_on_its_data_repeats_nothing(tmp_path: Path) -> None:
    """An outage shorter than a lease."""
    with system_of_its_own(tmp_path, lease_s=20) as (broker, system):
        system.scheduler()
        system.worker("w1", slots=8)
        publish_counting(system)
        system.history.wait_in_the_middle(lambda h: h.count(TaskState.SUCCEEDED) > TASKS // 4)
        broker.kill()
        broker.start()
        system.history.wait_terminal(TASKS, 90)
        assert_kept(system, repeats_allowed=False)


@pytest.mark.parametrize("how", ["frozen", "killed"])
def test_an_outage_of_almost_a_lease_repeats_nothing(tmp_path: Path, how: str) -> None:
    """Handlers of all three kinds run right through it.  A killed broker needs some time to be back, so its lease is
    longer: what counts is the time in which it acknowledges nothing.
    """
    lease_s = {"frozen": 5.0, "killed": 20.0}[how]
    away_s = {"frozen": lease_s - 0.3, "killed": lease_s / 2}[how]
    with system_of_its_own(tmp_path, lease_s) as (broker, system):
        system.scheduler()
        worker = system.worker(slots=16)
        for kind in ("sleep", "block", "process"):
            for number in range(4):
                system.publish(f"{kind} {number}", kind, away_s + 4, id=f"{kind} {number}", max_attempts=1)
                system.publish(f"{kind} {number}", "echo", id=f"behind {kind} {number}")
        system.flush()
        system.history.wait(lambda h: h.count(TaskState.RUNNING) == 12)
        stop(broker, how, away_s)
        system.history.wait_terminal(24, 60)
        assert worker.alive(), "it has not cut itself off"
        assert {len(ids) for ids in judge.starts(system.journal()).values()} == {2}
        assert system.history.count(TaskState.RETRYING) == 0
        assert {e.attempt for e in system.history.events if e.state is TaskState.SUCCEEDED} == {1}


def stop(broker: EmbeddedBroker, how: str, away_s: float) -> None:
    assert broker.pid is not None
    back_s = time.monotonic() + away_s
    if how == "frozen":
        os.kill(broker.pid, signal.SIGSTOP)
    else:
        broker.kill()
    until(lambda: time.monotonic() >= back_s, away_s + 1)
    if how == "frozen":
        os.kill(broker.pid, signal.SIGCONT)
    else:
        broker.start()
