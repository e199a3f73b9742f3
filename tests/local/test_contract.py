"""One contract for both ways of dispatching: through workers, and in the scheduler's own process."""

from collections.abc import Callable

import pytest

from streams.protocol import EventKind, TaskState
from tests.support.counting import TASKS, assert_kept, publish_counting
from tests.support.judge import first_starts, overlaps
from tests.support.system import System

Begin = Callable[[], None]


@pytest.fixture(params=["workers", "local"])
def begin(request: pytest.FixtureRequest, system: System) -> Begin:
    def workers() -> None:
        system.scheduler()
        system.worker()

    def local() -> None:
        system.run_here()

    return workers if request.param == "workers" else local


def test_order_state_and_every_kind_of_handler(system: System, begin: Begin) -> None:
    begin()
    for n in range(3):
        for group in ("a", "b", "c"):
            for task_type in ("echo", "block", "process", "count"):
                system.publish(group, task_type, 0.01, id=f"{group}-{n}-{task_type}")
    system.flush()
    system.history.wait_terminal(36)
    assert system.history.count(TaskState.SUCCEEDED) == 36
    assert not overlaps(system.journal())
    for group, ids in first_starts(system.journal()).items():
        assert ids == [f"{group}-{n}-{t}" for n in range(3) for t in ("echo", "block", "process", "count")]
    counted = [e.result for e in system.history.events if e.type == "count" and e.state is TaskState.SUCCEEDED]
    assert sorted(bytes(r or b"") for r in counted) == sorted([b"0", b"1", b"2"] * 3)


def test_failures_retries_rejections_and_snoozes(system: System, begin: Begin) -> None:
    begin()
    system.publish("r", "fail", 2, id="twice")
    system.publish("r", "fail", 9, id="spent", max_attempts=2)
    system.publish("r", "outcome", {"do": "reject"}, id="rejected")
    system.publish("s", "outcome", {"do": "retry", "times": 1, "after_s": 0.1}, id="retried")
    system.publish("s", "outcome", {"do": "snooze", "until_s": 0, "after_s": 0.1}, id="snoozed")
    system.publish("s", "echo", 1, id="last")
    system.flush()
    system.history.wait_terminal(6)
    ends = {task: system.history.states(task)[-1] for task in ("twice", "spent", "rejected", "retried", "last")}
    assert ends == {
        "twice": TaskState.SUCCEEDED, "spent": TaskState.DEAD_LETTERED, "rejected": TaskState.DEAD_LETTERED,
        "retried": TaskState.SUCCEEDED, "last": TaskState.SUCCEEDED,
    }  # fmt: skip
    assert system.history.states("twice").count(TaskState.RUNNING) == 3
    assert {e.attempt for e in system.history.of["spent"] if e.state is TaskState.RUNNING} == {1, 2}
    assert len(system.dead_letters()) == 2


def test_a_task_that_takes_too_long_is_stopped(system: System, begin: Begin) -> None:
    begin()
    system.publish("g", "sleep", 60, id="long", timeout_s=0.3, max_attempts=1)
    system.publish("g", "echo", 1, id="next")
    system.flush()
    system.history.wait_terminal(2)
    end = system.history.of["long"][-1]
    assert end.state is TaskState.DEAD_LETTERED and end.error is not None and end.error.type == "timeout"
    assert system.history.states("next")[-1] is TaskState.SUCCEEDED


def test_counting_is_exactly_once_and_no_report_is_refused(system: System, begin: Begin) -> None:
    begin()
    publish_counting(system)
    system.history.wait_terminal(TASKS)
    assert_kept(system, repeats_allowed=False)
    assert not [e for e in system.history.events if e.kind is EventKind.STALE_REPORT]
