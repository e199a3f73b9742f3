"""A broker that dies: what it acknowledged is kept, and what ran goes on."""

from pathlib import Path

from pstp.broker import EmbeddedBroker
from streams.protocol import TaskState
from streams.settings import Settings
from tests.support.counting import TASKS, assert_kept, publish_counting
from tests.support.system import System


def test_a_broker_killed_and_restarted_on_its_data_repeats_nothing(tmp_path: Path) -> None:
    """An outage shorter than a lease.  Not the run's broker: others need that one."""
    with EmbeddedBroker(tmp_path / "kafka") as broker:
        settings = Settings(bootstrap_servers=broker.bootstrap, partitions=4, dispatch_partitions=4, lease_s=20)
        with System(settings, tmp_path) as system:
            system.scheduler()
            system.worker("w1", slots=8)
            publish_counting(system)
            system.history.wait(lambda h: h.count(TaskState.SUCCEEDED) > TASKS // 4)
            broker.kill()
            broker.start()
            system.history.wait_terminal(TASKS, 90)
            assert_kept(system, repeats_allowed=False)
