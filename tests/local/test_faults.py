"""Local execution under faults: killed between run and commit, frozen, revoked; judged by what handlers wrote."""

import json
import signal
from pathlib import Path

import pytest

from streams.protocol import Reason, TaskState
from tests.support.counting import TASKS, assert_kept, publish_counting
from tests.support.system import HANDLERS, History, Process, System, until

EXIT: Path = HANDLERS.with_name("handlers_exit.py")


def wait_ended(system: System, count: int) -> None:
    """In the handlers' own words, which are read at once: reading the history could go on until all is over."""
    until(lambda: sum(line["what"] == "end" for line in system.journal()) >= count, 60)
    assert len(system.journal()) < 2 * TASKS, "too late: nothing is left to disturb"


def test_killed_in_the_middle_and_started_again(system: System) -> None:
    first = system.run_here("r1", local_slots=2)
    publish_counting(system)
    wait_ended(system, TASKS // 4)
    first.kill()
    system.run_here("r1", local_slots=2)
    system.history.wait_terminal(TASKS)
    assert_kept(system, repeats_allowed=True)
    assert system.run("verify").returncode == 0


@pytest.mark.long
def test_the_other_takes_over_from_a_killed_one(system: System) -> None:
    first = system.run_here("r1", local_slots=2)
    system.run_here("r2", local_slots=2)
    publish_counting(system)
    wait_ended(system, TASKS // 4)
    first.kill()
    system.history.wait_terminal(TASKS)
    assert_kept(system, repeats_allowed=True)


def test_sigterm_and_a_rebalance_repeat_nothing(system: System) -> None:
    first = system.run_here("r1", local_slots=2)
    publish_counting(system)
    wait_ended(system, TASKS // 8)
    system.run_here("r2", local_slots=2)
    wait_ended(system, TASKS // 2)
    assert first.terminate() == 0
    system.history.wait_terminal(TASKS)
    assert_kept(system, repeats_allowed=False)


@pytest.mark.long
def test_a_task_that_kills_its_process_runs_out_of_attempts(system: System) -> None:
    """The first time no row tells that it began; from then on its start is committed before it begins."""
    system.publish("g", "exit", 0, id="deadly", max_attempts=2)
    system.publish("g", "echo", 1, id="next")
    system.flush()
    deaths, process = 0, system.run_here("r1", EXIT)
    while system.history.wait(lambda h: _is_over(h, process), 60) == "died" and deaths < 6:  # noqa: B023
        deaths, process = deaths + 1, system.run_here("r1", EXIT)
    assert deaths <= 3
    assert system.history.of["deadly"][-1].reason == Reason.WORKER_LOST
    assert system.history.states("next")[-1] is TaskState.SUCCEEDED


@pytest.mark.long
def test_frozen_past_its_session(system: System) -> None:
    """It wakes up as a zombie and ends itself; nothing that it ran is counted twice."""
    frozen = system.run_here("r1", local_slots=2)
    publish_counting(system)
    wait_ended(system, TASKS // 8)
    frozen.send(signal.SIGSTOP)
    system.run_here("r2", local_slots=2)
    system.history.wait_terminal(TASKS)
    frozen.send(signal.SIGCONT)
    until(lambda: not frozen.alive() or "joining again" in frozen.log() or "process ends" in frozen.log())
    assert system.history.count(TaskState.SUCCEEDED) == TASKS
    for group in range(20):
        results = [
            json.loads(bytes(e.result)) for e in system.history.events
            if e.group == f"g{group}" and e.state is TaskState.SUCCEEDED and e.result
        ]  # fmt: skip
        assert results == list(range(TASKS // 20))


def _is_over(history: History, process: Process) -> str:
    if history.terminal() == 2:
        return "ended"
    return "" if process.alive() else "died"
