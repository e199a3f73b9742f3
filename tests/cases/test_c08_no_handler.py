"""C-08: a task reached a worker that did not know its type, and was gone.

Elsewhere the worker logged it and threw the message away (safe-global/safe-transaction-service #1263,
celery/celery #8165).
"""

from streams.protocol import TaskState
from tests.support import judge
from tests.support.system import HANDLERS, System, until

TASKS, PROBES, ROUNDS = 20, 20, 5
NEW = HANDLERS.with_name("handlers_new_kind.py")


def test_a_type_that_no_worker_handles_waits_says_so_and_runs_in_order_when_one_comes(system: System) -> None:
    system.scheduler()
    system.worker("old")
    for number in range(TASKS):
        system.publish("new", "new.kind", number, id=f"new-{number}")
    for number in range(ROUNDS * PROBES):
        system.publish(f"probe-{number % PROBES}", "echo", id=f"probe-{number}")
    system.flush()
    system.history.wait_terminal(ROUNDS * PROBES)

    assert system.history.states("new-0") == [TaskState.PARKED]
    answer = system.get("s1", "/explain?group=new")
    assert (answer["blocker"], answer["limiter"], answer["parked"]) == ("no_handler", "new.kind", TASKS - 1)
    assert "no worker handles type 'new.kind'" in answer["text"]

    system.worker("new", handlers=NEW)
    system.history.wait_terminal(ROUNDS * PROBES + TASKS)
    assert_ran_in_order_with_one_attempt_each(system)
    assert {e.worker for e in system.history.of["new-0"] if e.worker} == {"new"}


def assert_ran_in_order_with_one_attempt_each(system: System) -> None:
    journal = system.journal()
    assert judge.overlaps(journal) == []
    assert judge.starts(journal)["new"] == [f"new-{n}" for n in range(TASKS)]
    for number in range(TASKS):
        events = system.history.of[f"new-{number}"]
        assert {e.attempt for e in events} == {1}
        assert events[-1].state is TaskState.SUCCEEDED


def test_a_fleet_of_old_and_new_workers_loses_nothing_and_uses_no_attempt_on_those_who_do_not_know(
    system: System,
) -> None:
    """In the middle of a deploy: the new worker goes, the old ones stay, another new one comes."""
    system.scheduler()
    system.worker("old")
    first = system.worker("new-1", handlers=NEW)
    for number in range(TASKS):
        system.publish("new", "new.kind", 0.1, id=f"new-{number}")
    system.flush()
    system.history.wait(lambda h: TaskState.SUCCEEDED in h.states("new-3"))
    assert first.terminate() == 0
    for number in range(PROBES):
        system.publish(f"probe-{number}", "echo", id=f"probe-{number}")
    system.flush()
    system.history.wait(lambda h: all(TaskState.SUCCEEDED in h.states(f"probe-{n}") for n in range(PROBES)))
    until(lambda: system.get("s1", "/explain?group=new").get("blocker") == "no_handler", what="explained")
    assert system.history.terminal() < TASKS + PROBES

    system.worker("new-2", handlers=NEW)
    system.history.wait_terminal(TASKS + PROBES)
    assert_ran_in_order_with_one_attempt_each(system)
