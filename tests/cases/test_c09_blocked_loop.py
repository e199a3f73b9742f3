"""C-09: an async handler that blocks its event loop ignored its timeout, and took its neighbours' leases with it.

Elsewhere a blocking sleep ran on past its timeout, and the other jobs of that process were taken for stalled and run
twice (python-arq/arq #230, taskforcesh/bullmq #2857, #3183).
"""

import json

import pytest

from streams.protocol import Event, EventKind, Reason, TaskState
from tests.support import judge
from tests.support.system import HANDLERS, System, until

NEIGHBOURS = 10


def test_a_handler_that_blocks_its_loop_costs_itself_and_not_its_neighbours(system: System) -> None:
    check(system, blocked_s=12, timeout_s=2, neighbour_s=5)


@pytest.mark.long
def test_a_handler_that_spins_in_its_loop_costs_itself_and_not_its_neighbours(system: System) -> None:
    check(system, blocked_s=12, timeout_s=2, neighbour_s=5, rude="async.spins")


@pytest.mark.long
def test_a_handler_that_blocks_its_loop_for_a_minute(system: System) -> None:
    check(system, blocked_s=60, timeout_s=5, neighbour_s=20, lease_s=10)


def check(
    system: System, *, blocked_s: float, timeout_s: float, neighbour_s: float, lease_s: float = 5,
    rude: str = "async.blocks",
) -> None:  # fmt: skip
    """The block lasts for more than two leases, and is longer than the neighbours may run."""
    system.scheduler(lease_s=lease_s)
    worker = system.worker(handlers=HANDLERS.with_name("handlers_faulty.py"), lease_s=lease_s)
    for number in range(NEIGHBOURS):
        system.publish(
            f"neighbour {number}", "sleep", neighbour_s, id=f"n{number}", max_attempts=1, timeout_s=neighbour_s * 2
        )
    system.flush()
    system.history.wait(lambda h: h.count(TaskState.RUNNING) == NEIGHBOURS)  # in the very loop that gets blocked
    system.publish("rude", rude, blocked_s, id="rude", max_attempts=1, timeout_s=timeout_s)
    system.publish("rude", "echo", id="behind rude")
    system.flush()
    system.history.wait(lambda h: TaskState.RUNNING in h.states("rude"))

    answer = until(lambda: overdue(system), timeout_s + 30, "explain says why the rude group waits")
    assert (answer["blocker"], answer["parked"]) == ("running", 1)
    system.publish("late", "echo", id="late")  # begins in a loop that is not blocked
    system.flush()
    system.history.wait(lambda h: TaskState.SUCCEEDED in h.states("late"))
    assert system.history.states("rude")[-1] is TaskState.RUNNING, "nothing waits for the rude one"

    system.history.wait_terminal(NEIGHBOURS + 3, blocked_s + 60)
    history, journal = system.history, system.journal()
    for number in range(NEIGHBOURS):
        events = history.of[f"n{number}"]
        told = [(e.state, e.reason) for e in events]
        assert told[2:] == [(TaskState.RUNNING, None), (TaskState.SUCCEEDED, None)], number
        assert {e.attempt for e in events} == {1}
    assert judge.starts(journal) == {f"neighbour {n}": [f"n{n}"] for n in range(NEIGHBOURS)} | {
        "rude": ["rude", "behind rude"], "late": ["late"]
    }  # fmt: skip
    check_rude(history.of["rude"], history.events, blocked_s)
    owned = [json.loads(line)["owned"] for line in worker.log().splitlines() if '"partitions of dispatches"' in line]
    assert owned == [[0, 1, 2, 3]], "polling went on: no rebalance"
    assert "a handler blocks its event loop" in worker.log()


def overdue(system: System) -> dict[str, object] | None:
    answer: dict[str, object] = system.get("s1", "/explain?group=rude")
    return answer if "timed out, still running on w1 since" in str(answer["text"]) else None


def check_rude(events: list[Event], history: list[Event], blocked_s: float) -> None:
    last = events[-1]
    assert last.error is not None
    assert (last.state, last.error.type) == (TaskState.DEAD_LETTERED, "timeout")
    assert last.started_mono_ns is not None and last.ended_mono_ns is not None
    assert (last.ended_mono_ns - last.started_mono_ns) / 1e9 >= blocked_s, "it held its group until it had ended"
    told = [e for e in history if e.kind is EventKind.PROGRESS and e.task_id == "rude"]
    assert [(e.reason, (e.note or "")[:24]) for e in told] == [(Reason.TIMEOUT, "timed out, still running")]
