"""Limits on what waits, on a real broker: intake pauses, says so, and goes on where it was."""

from streams.protocol import TaskState
from tests.support import judge
from tests.support.system import System, until

TASKS, ROOM = 300, 20
LARGE = "x" * 5_000  # so that a fetch holds few of them


def test_intake_pauses_while_a_group_is_full_and_goes_on_in_order(system: System) -> None:
    scheduler = system.scheduler(group_parked_max=ROOM, when_full="pause")
    for number in range(TASKS):
        system.publish("full", "echo", LARGE, id=f"full-{number}")
    other = next(f"other-{n}" for n in range(100) if system.home(f"other-{n}") != system.home("full"))
    system.publish(other, "echo", id="other")
    system.flush()
    until(lambda: system.metric("s1", "pstp_intake_paused") == 1, what="the metric says so")
    found = system.get("s1", "/explain?group=full")
    assert found["parked"] == ROOM and f"{ROOM} tasks are parked in this group" in found["text"]
    assert found["intake_paused"]["of_group"] == found["intake_paused"]["records"] < TASKS, "the rest is not even read"
    until(lambda: system.metric("s1", "pstp_lag_records") > 0, what="lag shows what was not read")
    assert "intake of tasks pauses, the partition is full" in scheduler.log()
    system.worker()
    system.history.wait_terminal(TASKS + 1, 120)
    assert system.history.count(TaskState.SUCCEEDED) == TASKS + 1
    assert judge.starts(system.journal())["full"] == [f"full-{n}" for n in range(TASKS)]
    assert max(parked_at_once(system)) <= ROOM + 1, "a head, and no more than the limit behind it"
    until(lambda: system.metric("s1", "pstp_intake_paused") == 0 == system.metric("s1", "pstp_lag_records"))
    until(lambda: "intake of tasks goes on" in scheduler.log())


def test_beyond_the_limit_tasks_are_turned_away_and_metrics_log_and_explain_say_so(system: System) -> None:
    scheduler = system.scheduler(group_parked_max=2)
    for number in range(5):
        system.publish("full", "echo", id=f"full-{number}")
    system.flush()
    system.history.wait(lambda h: h.count(TaskState.DEAD_LETTERED) == 2)
    assert system.metric("s1", "pstp_tasks_turned_away_total") == 2
    assert (
        "no room: 2 tasks are parked in this group, the limit is 2" in system.get("s1", "/explain?group=full")["text"]
    )
    until(lambda: "no room: the newest tasks become dead letters" in scheduler.log())
    system.worker()
    system.history.wait_terminal(5)
    redriven = system.run("redrive", "--group", "full", "--reason", "group_full", "--yes")
    assert "redriven: 2 of 2" in redriven.stdout
    system.history.wait_terminal(7)
    assert system.history.started_order("full") == [f"full-{n}" for n in range(5)]


def parked_at_once(system: System) -> list[int]:
    """How many tasks of the group were open after each event of its history."""
    counts, count = [], 0
    for event in system.history.events:
        if event.group == "full" and event.state is TaskState.PARKED and event.reason is None:
            count += 1
        elif event.group == "full" and event.state is TaskState.SUCCEEDED:
            count -= 1
        counts.append(count)
    return counts
