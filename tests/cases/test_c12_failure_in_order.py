"""C-12: after the first failure in an ordered batch the rest counted as done, and was gone.

Elsewhere only the failed message was reported, and the untouched ones behind it were deleted
(aws/aws-dotnet-messaging #174, powertools-lambda-java #1140).

All tasks are published before the scheduler starts, so that after the first one, which tells how quick they are, each
group goes out in one run up to its end, or up to the task that does not simply succeed.
"""

from collections import Counter
from itertools import pairwise
from typing import Any

from streams.protocol import Reason, TaskState, decode_dispatch
from tests.support import judge
from tests.support.system import HANDLERS, History, Process, System

TASKS = 120
FIRST, MIDDLE, LAST = 1, TASKS // 2, TASKS - 1  # of the run behind the first task
# group -> the task that does not simply succeed
ODD = {
    "fails first": FIRST, "fails": MIDDLE, "fails last": LAST, "snoozes": MIDDLE, "rejects": MIDDLE,
    "kills first": FIRST, "kills": MIDDLE, "kills last": LAST,
}  # fmt: skip
WORKERS = 2


def test_a_failure_in_the_middle_repeats_that_task_alone_and_loses_none(system: System) -> None:
    for number in range(TASKS):
        for group, odd in ODD.items():
            system.publish(group, "odd", group.split()[0] if number == odd else number, id=f"{group}-{number}")
    system.flush()
    system.scheduler(run_ms=10_000)
    keep_working(system)

    check_ends(system)
    check_journal(system)
    check_that_there_were_runs(system)


def keep_working(system: System) -> None:
    """Until all has ended; another worker comes for each one that is killed."""
    workers: list[Process] = []

    def is_done(history: History) -> bool:
        while sum(worker.alive() for worker in workers) < WORKERS:
            handlers = HANDLERS.with_name("handlers_deadly.py")
            workers.append(system.worker(f"w{len(workers)}", handlers=handlers))
        return history.terminal() == TASKS * len(ODD)

    system.history.wait(is_done, 120, "all ends")


def check_ends(system: System) -> None:
    for group, odd in ODD.items():
        ends = {e.task_id: e.state for e in system.history.events if e.group == group and e.state is not None}
        expected = {f"{group}-{n}": TaskState.SUCCEEDED for n in range(TASKS)}
        if group == "rejects":
            expected[f"{group}-{odd}"] = TaskState.DEAD_LETTERED
        assert ends == expected, group
    assert system.history.terminal() == TASKS * len(ODD), "one terminal state each"


def check_journal(system: System) -> None:
    """Strict order; only the odd ones repeat, and what a killed worker had begun without being able to tell of it."""
    journal = sorted(system.journal(), key=lambda line: line["mono_ns"])
    dead = {line["pid"] for line in journal if is_killed(line)}
    assert judge.overlaps(judge.without_the_dead(journal, dead)) == []
    for group, odd in ODD.items():
        lines = [line for line in journal if line["group"] == group and line["what"] == "start"]
        numbers = [int(line["id"].rpartition("-")[2]) for line in lines]
        assert sorted(set(numbers)) == list(range(TASKS)), f"{group}: none is missing"
        for (before, first), (after, _) in pairwise(zip(numbers, lines, strict=True)):
            goes_back = first["pid"] in dead or before == odd
            assert after == before + 1 or (after <= before and goes_back), f"{group}: {after} begins after {before}"
        again = Counter(numbers) - Counter(n for n, line in zip(numbers, lines, strict=True) if line["pid"] in dead)
        assert all(times == 1 for number, times in again.items() if number != odd), group
        assert again[odd] <= (3 if group.split()[0] in ("fails", "snoozes") else 1), group


def is_killed(line: dict[str, Any]) -> bool:
    """The handler that began here has killed its worker."""
    group = line["group"]
    return group.startswith("kills") and line["id"] == f"{group}-{ODD[group]}" and line["attempt"] == 1


def check_that_there_were_runs(system: System) -> None:
    messages = system.read_all("dispatches", system.settings.dispatch_partitions)
    found = [decode_dispatch(message.value() or b"") for message in messages]
    sizes = {group: [len(dispatch.tasks) for dispatch in found if dispatch.group == group] for group in ODD}
    assert all(TASKS - 1 in of_group for of_group in sizes.values()), sizes
    lost = [e for e in system.history.events if e.reason == Reason.WORKER_LOST]
    assert lost and all((e.attempt or 0) <= 3 for e in lost), "nothing loops"
