"""Processes killed with SIGKILL in the middle: nothing lost, nothing doubled, nothing out of order."""

from streams.protocol import TaskState
from tests.support.counting import TASKS, assert_kept, publish_counting
from tests.support.system import System, until


def test_a_scheduler_killed_in_the_middle_repeats_nothing(system: System) -> None:
    first = system.scheduler("s1")
    system.worker("w1", slots=8)
    publish_counting(system)
    system.history.wait_in_the_middle(lambda h: h.count(TaskState.SUCCEEDED) > TASKS // 4)
    first.kill()
    assert len(system.journal()) < 2 * TASKS, "in the middle"
    system.scheduler("s1")
    system.history.wait_terminal(TASKS)
    assert_kept(system, repeats_allowed=False)


def test_the_other_scheduler_takes_over_from_a_killed_one(system: System) -> None:
    first = system.scheduler("s1")
    system.scheduler("s2")
    system.worker("w1", slots=8)
    publish_counting(system)
    system.history.wait_in_the_middle(lambda h: h.count(TaskState.SUCCEEDED) > TASKS // 4)
    first.kill()
    assert len(system.journal()) < 2 * TASKS, "in the middle"
    system.history.wait_terminal(TASKS)
    assert_kept(system, repeats_allowed=False)


def test_a_killed_worker_costs_an_attempt_of_what_it_ran_and_nothing_else(system: System) -> None:
    system.scheduler()
    doomed = system.worker("w1", slots=8)
    system.worker("w2", slots=8)
    publish_counting(system)
    system.history.wait_in_the_middle(lambda h: h.count(TaskState.SUCCEEDED) > TASKS // 4)
    doomed.kill()
    system.history.wait_terminal(TASKS)
    assert_kept(system, repeats_allowed=True)
    repeated = [e for e in system.history.events if e.state is TaskState.RETRYING]
    assert {(e.reason, e.worker) for e in repeated} <= {("worker_lost", "w1")}
    assert len(repeated) <= 8


def test_sigterm_of_scheduler_and_worker_repeats_nothing(system: System) -> None:
    first = system.scheduler("s1")
    worker = system.worker("w1", slots=8)
    publish_counting(system)
    system.history.wait_in_the_middle(lambda h: h.count(TaskState.SUCCEEDED) > TASKS // 4)
    assert first.terminate() == 0
    system.scheduler("s2")
    assert worker.terminate() == 0
    system.worker("w2", slots=8)
    system.history.wait_terminal(TASKS)
    assert_kept(system, repeats_allowed=False)


def test_what_cannot_end_within_the_drain_time_is_released_and_uses_no_attempt(system: System) -> None:
    system.scheduler()
    worker = system.worker("w1", drain_s=0.5)
    system.publish("g", "sleep", 60, id="long", max_attempts=1)
    system.flush()
    system.history.wait(lambda h: TaskState.RUNNING in h.states("long"))
    assert worker.terminate() == 0
    system.history.wait(lambda h: h.states("long")[-1] is TaskState.PARKED)
    assert system.history.of["long"][-1].reason == "abandoned"
    system.worker("w2")
    again = system.history.wait(lambda h: [e for e in h.of["long"] if e.worker == "w2"])
    assert again[0].attempt == 1


def test_a_task_that_kills_its_worker_ends_as_a_dead_letter(system: System) -> None:
    system.scheduler()
    system.publish("g", "sleep", 60, id="killer", max_attempts=2)
    system.publish("g", "echo", id="next")
    system.flush()
    for attempt in (1, 2):
        worker = system.worker(f"w{attempt}")
        system.history.wait(lambda h, w=f"w{attempt}": any(e.worker == w for e in h.of["killer"]))
        worker.kill()
    system.history.wait(lambda h: h.states("killer")[-1] is TaskState.DEAD_LETTERED)
    assert system.history.of["killer"][-1].reason == "worker_lost"
    system.worker("w3")
    system.history.wait(lambda h: h.states("next")[-1:] == [TaskState.SUCCEEDED])


def test_200_000_parked_tasks_are_recovered_after_a_kill(system: System) -> None:
    count = 200_000
    scheduler = system.scheduler()
    system.publish("hot", "later", id="head")
    for number in range(count):
        system.publish("hot", "later", number)
    system.publish("cold", "echo", id="before")
    system.flush()
    until(lambda: parked(system) == count, 90, "all parked")
    scheduler.kill()
    system.scheduler()
    system.publish("fresh", "echo", id="after")
    system.flush()
    system.worker()
    system.history.wait(lambda h: TaskState.SUCCEEDED in h.states("after"), 60)
    assert parked(system) == count


def parked(system: System) -> int:
    answer = system.get("s1", "/explain?group=hot")
    return int(answer.get("parked", 0))
