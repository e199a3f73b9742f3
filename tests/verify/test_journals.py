"""Handlers' own journals as a second witness: judged alone, and against the events."""

import json
from pathlib import Path
from typing import Any

import pytest
from histories import Log, T

from pstp.verify import Options, Violation, check_dump
from pstp.verify.journal import Journals
from streams.errors import UserError
from streams.protocol import Reason, encode


class Journal:
    """Writes the lines of one handler process."""

    def __init__(self, path: Path, clock: str = "boot-a") -> None:
        self.path, self.clock, self.lines = path, clock, list[dict[str, Any]]()

    def run(self, task: T, start_ms: float, end_ms: float | None) -> None:
        about = {"group": task.group, "task_id": task.task_id, "token": task.token, "attempt": task.attempt}
        about |= {"clock_id": self.clock, "pid": 7}
        self.lines.append(about | {"start_mono_ns": int(start_ms * 1e6)})
        if end_ms is not None:
            self.lines.append(about | {"end_mono_ns": int(end_ms * 1e6)})

    def write(self) -> Path:
        self.path.write_text("".join(json.dumps(line) + "\n" for line in self.lines))
        return self.path


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "handlers.jsonl")


def alone(*journals: Journal) -> set[str]:
    found = Journals()
    for journal in journals:
        found.read(journal.write())
    found.judge(with_events=False)
    return {f"{v.guarantee} {v.kind}" for v in found.violations}


def against(log: Log, journal: Journal, **options: Any) -> set[str]:
    dump = journal.path.with_name("events.jsonl")
    lines = [
        b'{"partition":%d,"offset":%d,"value":%s}\n' % (log.partition, offset, encode(event))
        for offset, event in enumerate(log.events)
    ]
    dump.write_bytes(b"".join(lines))
    found = check_dump(dump, Options(**options), journals=[journal.write()]).by_kind
    by_partition = check_dump(dump, Options(**options, partitions=1), journals=[journal.path]).by_kind
    assert by_partition == found, "whether one partition is in memory at a time or all"
    return set(found)


def task(token: int, group: str = "g") -> T:
    return T(group, f"0-{token}", token, token=token)


def test_one_after_the_other_is_good(journal: Journal) -> None:
    journal.run(task(1), 10, 20)
    journal.run(task(2), 20, 30)
    journal.run(task(3, "h"), 5, 50)
    assert alone(journal) == set()


def test_overlap(journal: Journal) -> None:
    journal.run(task(1), 10, 20)
    journal.run(task(2), 19, 30)
    assert alone(journal) == {"G1 overlap_in_journal"}


def test_overlap_of_two_processes_on_one_machine(tmp_path: Path) -> None:
    one, other = Journal(tmp_path / "one"), Journal(tmp_path / "other")
    one.run(task(1), 10, 40)
    other.run(task(2), 20, 30)
    assert alone(one, other) == {"G1 overlap_in_journal"}


def test_clocks_of_two_machines_do_not_compare(tmp_path: Path) -> None:
    one, other = Journal(tmp_path / "one", "boot-a"), Journal(tmp_path / "other", "boot-b")
    one.run(task(1), 10, 40)
    other.run(task(2), 20, 30)
    assert alone(one, other) == set()


def test_an_execution_without_an_end_overlaps_with_nothing(journal: Journal) -> None:
    journal.run(task(1), 10, None)
    journal.run(task(2), 20, 30)
    assert alone(journal) == set()


def test_a_start_under_an_older_token(journal: Journal) -> None:
    journal.run(task(2), 10, 20)
    journal.run(task(1), 30, 40)
    assert alone(journal) == {"G2 stale_start"}


def test_a_token_that_ran_twice(journal: Journal) -> None:
    journal.run(task(1), 10, 20)
    journal.run(task(1), 30, 40)
    assert alone(journal) == {"G4 token_ran_twice"}


def test_an_end_without_a_start(journal: Journal) -> None:
    journal.run(task(1), 10, 20)
    del journal.lines[0]
    assert alone(journal) == {"G7 end_without_start"}


def run(log: Log, journal: Journal, group: str = "g") -> T:
    """A task that succeeds, and whose handler says so too."""
    parked = log.park(group)
    log.run(parked)
    journal.run(parked, parked.started_ms + 1, parked.started_ms + 9)
    return parked


def test_events_and_journal_agree(journal: Journal) -> None:
    log = Log()
    for _ in range(3):
        run(log, journal)
    assert against(log, journal) == set()


def test_a_success_that_no_handler_knows(journal: Journal) -> None:
    log = Log()
    run(log, journal)
    log.run(log.park("g"))
    assert against(log, journal) == {"G3 success_without_run"}


def test_a_success_before_the_handler_ended(journal: Journal) -> None:
    log = Log()
    run(log, journal)
    journal.lines.pop()
    assert against(log, journal) == {"G3 success_without_end"}


def test_a_run_that_the_events_do_not_know(journal: Journal) -> None:
    log = Log()
    run(log, journal)
    journal.run(task(5, "unheard"), 10, 20)
    assert against(log, journal) == {"G1 unseen_run"}


@pytest.mark.parametrize("reason", [Reason.WORKER_LOST, Reason.FAILED])
def test_what_was_begun_behind_a_lost_task_of_the_same_dispatch_is_no_surprise(
    journal: Journal, reason: Reason
) -> None:
    log = Log()
    first, second, third = (log.park("g") for _ in range(3))
    log.dispatch(first)
    log.start(first)
    began_ms = first.started_ms + 1
    second.token, third.token = first.token + 1, first.token + 2
    log.counter += 2
    journal.run(first, began_ms, began_ms + 1)
    journal.run(second, began_ms + 2, began_ms + 3)
    journal.run(third, began_ms + 4, None)
    log.retry(first, reason)
    for parked in (first, second, third):
        log.run(parked)
        journal.run(parked, parked.started_ms + 1, parked.started_ms + 9)
    found = against(log, journal)
    assert found == (set() if reason is Reason.WORKER_LOST else {"G1 unseen_run"})


def test_a_returned_task_whose_handler_ran(journal: Journal) -> None:
    log = Log()
    parked = log.park("g")
    log.dispatch(parked)
    log.start(parked)
    journal.run(parked, parked.started_ms + 1, parked.started_ms + 2)
    log.come_back(parked, Reason.RETURNED, worker="w1")
    log.run(parked)
    journal.run(parked, parked.started_ms + 1, parked.started_ms + 9)
    assert against(log, journal) == {"G4 returned_but_ran"}


def test_times_that_disagree(journal: Journal) -> None:
    log = Log()
    parked = run(log, journal)
    journal.lines[0]["start_mono_ns"] = int((parked.started_ms - 1) * 1e6)
    assert against(log, journal) == {"G7 times_disagree"}


def test_a_zombie_is_the_one_exception(journal: Journal) -> None:
    log = Log()
    parked = log.park("g")
    log.dispatch(parked)
    log.start(parked)
    journal.run(parked, parked.started_ms, 60_000)  # frozen, and woken long after
    log.ms += 20_000
    log.retry(parked, Reason.WORKER_LOST)
    log.dispatch(parked)
    log.start(parked, worker="w2")
    log.succeed(parked)
    journal.run(parked, parked.started_ms + 1, parked.started_ms + 9)
    assert against(log, journal) == set()
    assert alone(journal) == {"G1 overlap_in_journal"}, "without the events nobody knows that it was a zombie"


def goes_on(log: Log, journal: Journal, until_ms: float) -> T:
    """A thread whose time is over: its worker cannot end it, and it goes on until then."""
    parked = log.park("g")
    log.dispatch(parked)
    log.start(parked)
    journal.run(parked, parked.started_ms + 1, until_ms)
    log.ms += 1_000
    return parked


def test_what_ran_beside_a_released_execution_is_named_and_no_violation(journal: Journal) -> None:
    log = Log()
    parked = goes_on(log, journal, 60_000)
    log.release(parked)
    log.dispatch(parked)
    log.start(parked, worker="w2")
    log.succeed(parked)
    journal.run(parked, parked.started_ms + 1, parked.started_ms + 9)
    other = run(log, journal)
    assert against(log, journal) == set()
    found = warnings(journal)
    assert [w.kind for w in found] == ["released_by_operator", "ran_beside_released", "ran_beside_released"]
    assert {w.group for w in found} == {"g"}
    assert found[2].task_ids == (parked.task_id, other.task_id)
    assert all("released by ada (command c1: harmless)" in w.text for w in found)


def test_a_release_excuses_nothing_else(journal: Journal) -> None:
    log = Log()
    parked = goes_on(log, journal, 60_000)
    log.release(parked)
    log.dispatch(parked)
    log.start(parked, worker="w2")
    log.succeed(parked)
    journal.run(parked, parked.started_ms + 1, parked.started_ms + 90_000)  # it never ended in time
    run(log, journal)
    assert "G1 overlap_in_journal" in against(log, journal)


def test_the_same_overlap_without_a_release_is_a_violation(journal: Journal) -> None:
    log = Log()
    parked = goes_on(log, journal, 60_000)
    log.retry(parked, Reason.FAILED)
    log.dispatch(parked)
    log.start(parked, worker="w2")
    log.succeed(parked)
    journal.run(parked, parked.started_ms + 1, parked.started_ms + 9)
    assert "G1 overlap_in_journal" in against(log, journal)
    assert warnings(journal) == []


def warnings(journal: Journal) -> list[Violation]:
    """Of what `against` has judged."""
    dump = journal.path.with_name("events.jsonl")
    return list(check_dump(dump, Options(), journals=[journal.path]).warnings)


def test_a_task_that_runs_at_the_end_of_the_history(journal: Journal) -> None:
    log = Log()
    parked = log.park("g")
    log.dispatch(parked)
    log.start(parked)
    journal.run(parked, parked.started_ms + 1, None)
    assert against(log, journal, expect_drained=False) == set()


def test_a_last_line_cut_by_a_kill_is_passed_over(journal: Journal) -> None:
    journal.run(task(1), 10, 20)
    path = journal.write()
    path.write_bytes(path.read_bytes()[:-30])
    found = Journals()
    found.read(path)
    found.judge(with_events=False)
    assert len(found.violations) == 0


def test_what_is_no_journal(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("dear diary\nit rained\n")
    with pytest.raises(UserError, match="line 1 of"):
        Journals().read(path)
    with pytest.raises(UserError, match="cannot read"):
        Journals().read(tmp_path / "absent")
