"""C-10: a handler that ran for longer than the poll interval was run again, and again.

Elsewhere the consumer was expelled after five minutes, another took the same message, and the pair looped for ever
(aio-libs/aiokafka #848, confluent-kafka-javascript #472).
"""

import itertools
import time

import pytest

from streams.protocol import TaskState
from tests.support import judge
from tests.support.system import Process, System, until

LONG = {"block": "thread", "process": "process"}


def test_a_long_handler_runs_once_whoever_joins_or_leaves(system: System) -> None:
    """Four leases and four sessions long."""
    check(system, handler_s=25, churn_s=3)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_handler_of_six_minutes_runs_once_whoever_joins_or_leaves(system: System) -> None:
    """Longer than the poll interval, with the lease that is usual."""
    check(system, handler_s=360, churn_s=15, lease_s=10)


def check(system: System, *, handler_s: float, churn_s: float, lease_s: float = 6) -> None:
    schedulers = [system.scheduler("s1", lease_s=lease_s), system.scheduler("s2", lease_s=lease_s)]
    system.worker("w1", lease_s=lease_s)
    for kind in LONG:
        system.publish(kind, kind, handler_s, id=f"long {kind}", max_attempts=1)
        system.publish(kind, "echo", id=f"behind {kind}")
    system.flush()
    system.history.wait(lambda h: all(TaskState.RUNNING in h.states(f"long {kind}") for kind in LONG), 60)
    probes = churn(system, schedulers, churn_s, lease_s)
    system.history.wait_terminal(2 * len(LONG) + probes, handler_s + 60)

    journal = system.journal()
    starts = judge.starts(journal)
    for kind, name in LONG.items():
        events = system.history.of[f"long {kind}"]
        assert [(e.state, e.reason) for e in events] == [
            (TaskState.PARKED, None), (TaskState.DISPATCHED, None), (TaskState.RUNNING, None),
            (TaskState.SUCCEEDED, None),
        ], name  # fmt: skip
        assert starts[kind] == [f"long {kind}", f"behind {kind}"], f"{name}: started once, and in order"
        assert {e.attempt for e in events} == {1} and len({e.fencing_token for e in events[1:]}) == 1
        behind = next(e for e in system.history.of[f"behind {kind}"] if e.state is TaskState.RUNNING)
        assert (behind.at - events[-1].at).total_seconds() < 5, f"{name}: the next one starts at once"
    assert judge.overlaps(journal) == []
    assert all(len(starts[f"probe {n}"]) == 1 for n in range(probes)), "nor does anything short run twice"


def churn(system: System, schedulers: list[Process], churn_s: float, lease_s: float) -> int:
    """Let workers join and leave and schedulers restart while the long ones run.  How many probes were sent."""
    leaving: Process | None = None
    for turn in itertools.count():
        due_s = time.monotonic() + churn_s
        joining = system.worker(f"w{2 + turn}", lease_s=lease_s)
        system.publish(f"probe {turn}", "echo", id=f"probe {turn}")
        system.flush()
        if turn % 4 == 1:
            old = schedulers.pop(0)
            assert old.terminate() == 0
            schedulers.append(system.scheduler(old.name, lease_s=lease_s))
        until(lambda w=joining: owns_partitions(w), 60, "the new worker owns partitions")  # type: ignore[misc]
        if leaving is not None:
            assert leaving.terminate() == 0
        leaving = joining
        until(lambda at=due_s: time.monotonic() > at, churn_s + 1)  # type: ignore[misc]
        ended = {line["id"] for line in system.journal() if line["what"] == "end"}
        if {f"long {kind}" for kind in LONG} <= ended:
            assert turn >= 2, "this test is about joining and leaving"
            return turn + 1
    raise AssertionError("not reached")


def owns_partitions(worker: Process) -> bool:
    assert worker.alive()
    return any('"owned": [' in line and '"owned": []' not in line for line in worker.log().splitlines())
