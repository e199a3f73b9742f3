"""C-12: after the first failure in an ordered batch the rest counted as done, and was gone.

Elsewhere only the failed message was reported, and the untouched ones behind it were deleted
(aws/aws-dotnet-messaging #174, powertools-lambda-java #1140).
"""

from itertools import groupby

from streams.protocol import TaskState
from tests.support import judge
from tests.support.system import HANDLERS, System

TASKS = 120
FIRST, MIDDLE, LAST = 0, TASKS // 2, TASKS - 1
# group -> the task that does not simply succeed
ODD = {"fails first": FIRST, "fails": MIDDLE, "fails last": LAST, "snoozes": MIDDLE, "rejects": MIDDLE, "kills": MIDDLE}


def test_a_failure_in_the_middle_repeats_that_task_alone_and_loses_none(system: System) -> None:
    system.scheduler()
    for name in ("w1", "w2"):
        system.worker(name, handlers=HANDLERS.with_name("handlers_deadly.py"))
    for number in range(TASKS):
        for group, odd in ODD.items():
            publish(system, group, number, group.split()[0] if number == odd else "")
    system.flush()
    system.history.wait_terminal(TASKS * len(ODD), 90)

    check_journal(system)
    for group, odd in ODD.items():
        ends = {e.task_id: e.state for e in system.history.events if e.group == group and e.state is not None}
        expected = {f"{group}-{n}": TaskState.SUCCEEDED for n in range(TASKS)}
        if group == "rejects":
            expected[f"{group}-{odd}"] = TaskState.DEAD_LETTERED
        assert ends == expected, group
    assert system.history.terminal() == TASKS * len(ODD), "one terminal state each"


def publish(system: System, group: str, number: int, odd: str) -> None:
    system.publish(group, "odd" if odd else "echo", odd or number, id=f"{group}-{number}")


def check_journal(system: System) -> None:
    journal = system.journal()
    dead = {line["pid"] for line in journal if line["id"] == f"kills-{MIDDLE}" and line["attempt"] == 1}
    assert judge.overlaps(judge.without_the_dead(journal, dead)) == []
    started_by_the_dead = {line["id"] for line in journal if line["pid"] in dead and line["what"] == "start"}
    for group, ids in judge.starts(journal).items():
        odd = f"{group}-{ODD[group]}"
        runs = [(task, len(list(same))) for task, same in groupby(ids)]
        assert [task for task, _ in runs] == [f"{group}-{n}" for n in range(TASKS)], f"{group}: strictly in order"
        repeated = {task: times for task, times in runs if times > 1}
        assert repeated.keys() <= {odd} | started_by_the_dead, group
        assert all(times == 2 for task, times in repeated.items() if task != odd), group
        assert_repeats_of_the_odd_one(group, dict(runs)[odd], odd in started_by_the_dead)


def assert_repeats_of_the_odd_one(group: str, times: int, started_by_the_dead: bool) -> None:
    """A start in the worker that was killed may have come to nothing."""
    expected = {"fails": {3}, "snoozes": {2, 3}, "rejects": {1}, "kills": {1}}[group.split()[0]]
    assert times in expected | ({n + 1 for n in expected} if started_by_the_dead else set()), group
