"""Handlers that misbehave: each fails its own task and nothing else.

All faults happen in one worker, at the same time as thirty well-behaved tasks of the same worker.
"""

import json
import uuid
from collections.abc import Iterator

import pytest

from streams.protocol import Event, Reason, TaskState
from streams.settings import Settings
from tests.support import judge
from tests.support.system import HANDLERS, System, until

FAULTY = HANDLERS.with_name("handlers_faulty.py")
KINDS = ("async", "thread", "process")
SPENT, BLOCKED_S = Reason.ATTEMPTS_SPENT, 6
# fault -> why its dead letter was written, and the type of error that it names
RAISED = {
    "no_json": (Reason.INVALID_RESULT, "invalid result"),
    "no_number": (Reason.INVALID_RESULT, "invalid result"),
    "holds_itself": (Reason.INVALID_RESULT, "invalid result"),
    "half_a_character": (Reason.INVALID_RESULT, "invalid result"),
    "base_exception": (SPENT, "handlers_faulty.Own"),
    "exit": (SPENT, "SystemExit"),
    "interrupt": (SPENT, "KeyboardInterrupt"),
    "generator_exit": (SPENT, "GeneratorExit"),
    "cancelled": (SPENT, "asyncio.exceptions.CancelledError"),
    "unprintable": (SPENT, "handlers_faulty.Unprintable"),
    "state_no_json": (SPENT, "consumers.outcomes.NotJsonError"),
    "state_no_number": (SPENT, "consumers.outcomes.NotJsonError"),
    "state_too_large": (Reason.STATE_TOO_LARGE, "consumers.outcomes.StateTooLargeError"),
}
ENDS = {f"{kind}.{fault}": end for fault, end in RAISED.items() for kind in KINDS} | {
    "process.gone": (SPENT, "child process"),
    "process.killed": (SPENT, "child process"),
    "process.never": (SPENT, "timeout"),
    "async.never": (SPENT, "timeout"),
    "async.blocks": (SPENT, "timeout"),
}
ENDLESS = ("thread.never", "async.stubborn")
NEIGHBOURS = 30


@pytest.fixture(scope="module")
def system(bootstrap: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    settings = Settings(
        app=f"faults-{uuid.uuid4().hex[:8]}", bootstrap_servers=bootstrap, partitions=4, dispatch_partitions=4
    )
    with System(settings, tmp_path_factory.mktemp("faults")) as system:
        system.scheduler()
        system.worker(handlers=FAULTY, slots=100, drain_s=0.5)
        for number in range(NEIGHBOURS):
            kind = ("sleep", "block", "process")[number % 3] if number < 12 else "sleep"
            system.publish(f"neighbour {number}", kind, 3, id=f"n{number}", max_attempts=1)
        for fault in (*ENDS, *ENDLESS):
            payload = BLOCKED_S if fault == "async.blocks" else None
            system.publish(fault, fault, payload, id=fault, max_attempts=1)
            system.publish(fault, "echo", id=f"behind {fault}")
        system.flush()
        system.history.wait_terminal(NEIGHBOURS + 2 * len(ENDS), 90)
        yield system


@pytest.mark.parametrize("fault", ENDS)
def test_a_fault_fails_its_own_task_with_its_reason_and_releases_the_next(system: System, fault: str) -> None:
    last = system.history.of[fault][-1]
    reason, error_type = ENDS[fault]
    assert last.error is not None
    assert (last.state, last.reason, last.error.type) == (TaskState.DEAD_LETTERED, reason, error_type)
    assert last.worker == "w1"
    assert judge.starts(system.journal())[fault] == [fault, f"behind {fault}"]
    assert system.history.states(f"behind {fault}")[-1] is TaskState.SUCCEEDED
    parked, _, running, _ = states = system.history.of[f"behind {fault}"]
    assert parked.state is TaskState.PARKED
    assert at(system, running) > at(system, last), states


def at(system: System, event: Event) -> int:
    """Its place among all events; those of one group come in their order."""
    return system.history.events.index(event)


def test_neighbours_run_once_and_in_peace(system: System) -> None:
    for number in range(NEIGHBOURS):
        events = system.history.of[f"n{number}"]
        told = [(e.state, e.reason) for e in events]
        assert told[2:] == [(TaskState.RUNNING, None), (TaskState.SUCCEEDED, None)], number
        assert {e.attempt for e in events} == {1}, number
    journal = [line for line in system.journal() if line["group"].startswith("neighbour")]
    assert judge.starts(journal) == {f"neighbour {number}": [f"n{number}"] for number in range(NEIGHBOURS)}
    assert len([line for line in journal if line["what"] == "end"]) == NEIGHBOURS


def test_a_task_that_began_while_the_loop_was_blocked_did_not_wait_for_it(system: System) -> None:
    lines = [line for line in system.journal() if line["what"] == "start"]
    blocked_ns = next(line["mono_ns"] for line in lines if line["id"] == "async.blocks")
    meanwhile = [line for line in lines if 1 < (line["mono_ns"] - blocked_ns) / 1e9 < BLOCKED_S]
    assert any(line["id"].startswith("behind") for line in meanwhile)


@pytest.mark.parametrize("fault", ENDLESS)
def test_what_cannot_be_stopped_stays_running_holds_its_group_alone_and_is_explained(
    system: System, fault: str
) -> None:
    assert system.history.states(fault)[-1] is TaskState.RUNNING
    assert system.history.states(f"behind {fault}") == [TaskState.PARKED]
    answer = until(lambda: explained(system, fault), what=f"explain says that {fault} goes on after its time")
    assert (answer["blocker"], answer["parked"]) == ("running", 1)
    assert "still running on w1 since" in str(answer["text"])


def explained(system: System, group: str) -> dict[str, object] | None:
    answer = system.get("s1", f"/explain?group={group}")
    return answer if "timed out" in answer["text"] else None


def test_the_worker_is_well_and_its_polling_was_never_given_up(system: System) -> None:
    assert all(process.alive() for process in system.processes)
    assert "polled" in system.get("w1", "/livez")
    assert "owns" in system.get("s1", "/readyz")
    rebalances = [line for line in system.processes[1].log().splitlines() if '"partitions of dispatches"' in line]
    assert [json.loads(line)["owned"] for line in rebalances] == [[0, 1, 2, 3]]
    assert not [e for e in system.history.events if e.reason == Reason.WORKER_LOST]


def test_the_worker_ends_in_time_though_handlers_go_on(system: System) -> None:
    """The last of this module: what cannot be stopped ends with the process."""
    assert system.processes[1].terminate(30) == 0
