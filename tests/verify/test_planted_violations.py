"""Histories that break the promise, one fault each: every one must be found, and named for what it is."""

from collections.abc import Callable

import msgspec
import pytest
from histories import Log, S, kinds, verdict

from pstp.verify import Guarantee, History, Kill, Options
from streams.protocol import EventKind, Reason

Plant = Callable[[Log], None]
PLANTS: list[tuple[str, Plant]] = []


def plant(found: str) -> Callable[[Plant], Plant]:
    def keep(function: Plant) -> Plant:
        PLANTS.append((found, function))
        return function

    return keep


@plant("G1 double_release")
def two_tasks_of_a_group_out_at_once(log: Log) -> None:
    first, second = log.park("g"), log.park("g")
    log.dispatch(first)
    log.dispatch(second)
    log.start(first)
    log.succeed(first)
    log.start(second)
    log.succeed(second)


@plant("G1 overlap")
def two_tasks_of_a_group_running_at_once(log: Log) -> None:
    first, second = log.park("g"), log.park("g")
    log.dispatch(first)
    log.start(first)
    log.dispatch(second)
    log.start(second)
    log.succeed(first)
    log.succeed(second)


@plant("G1 overlap_by_worker_clock")
def the_log_is_in_order_and_the_workers_clock_is_not(log: Log) -> None:
    log.run(log.park("g"))
    log.run(log.park("g"))
    ended_ns = log.events[log.where(S.SUCCEEDED)].ended_mono_ns or 0
    log.change(log.where(S.RUNNING, 1), started_mono_ns=ended_ns - 1)
    log.change(log.where(S.SUCCEEDED, 1), started_mono_ns=ended_ns - 1)


@plant("G1 overlap_by_worker_clock")
def overlap_on_a_clock_that_another_one_interrupted(log: Log) -> None:
    log.run(log.park("g"))
    log.clock = "boot-b"
    log.run(log.park("g"))
    log.clock = "boot-a"
    log.run(log.park("g"))
    ended_ns = log.events[log.where(S.SUCCEEDED)].ended_mono_ns or 0
    log.change(log.where(S.RUNNING, 2), started_mono_ns=ended_ns - 1)


@plant("G2 order_by_worker_clock")
def the_workers_ran_them_the_other_way_round(log: Log) -> None:
    log.ms = 1_000
    log.run(log.park("g"))
    log.run(log.park("g"))
    log.change(log.where(S.RUNNING, 1), started_mono_ns=1)
    log.change(log.where(S.SUCCEEDED, 1), started_mono_ns=1, ended_mono_ns=2)


@plant("G1 started_undispatched")
def a_start_without_a_dispatch(log: Log) -> None:
    task = log.park("g")
    log.run(task)
    log.drop(log.where(S.DISPATCHED))


@plant("G1 double_release")
def a_dispatch_repeated_before_it_came_back(log: Log) -> None:
    task = log.park("g")
    log.dispatch(task)
    log.run(task)


@plant("G1 stale_token")
def the_report_of_a_stale_token_is_believed(log: Log) -> None:
    task = log.park("g")
    log.dispatch(task)
    log.start(task)
    stale = task.token
    log.retry(task, Reason.WORKER_LOST)
    log.dispatch(task)
    log.start(task, worker="w2")
    log.succeed(task, fencing_token=stale)


@plant("G1 other_worker")
def an_outcome_from_a_worker_that_did_not_start_it(log: Log) -> None:
    task = log.park("g")
    log.dispatch(task)
    log.start(task, worker="w1")
    log.succeed(task, worker="w2", boot_id="w2")


@plant("G1 other_worker")
def an_outcome_from_another_life_of_the_worker(log: Log) -> None:
    task = log.park("g")
    log.dispatch(task)
    log.start(task)
    log.succeed(task, boot_id="restarted")


@plant("G1 other_execution")
def an_outcome_of_an_earlier_execution(log: Log) -> None:
    task = log.park("g")
    log.dispatch(task)
    log.start(task)
    log.succeed(task, started_mono_ns=1)


@plant("G1 ends_before_start")
def an_execution_that_ends_before_it_starts(log: Log) -> None:
    task = log.park("g")
    log.dispatch(task)
    log.start(task)
    log.succeed(task, ended_mono_ns=1)


@plant("G2 overtaken")
def a_task_overtakes(log: Log) -> None:
    first, second = log.park("g"), log.park("g")
    log.run(second)
    log.run(first)


@plant("G2 overtaken")
def a_task_passes_one_that_waits_for_its_retry(log: Log) -> None:
    first, second = log.park("g"), log.park("g")
    log.dispatch(first)
    log.start(first)
    log.retry(first, delay_ms=1_000)
    log.run(second)
    log.run(first)


@plant("G2 token_not_rising")
def a_token_given_twice(log: Log) -> None:
    log.run(log.park("g"))
    log.run(log.park("g"))
    token = log.events[log.where(S.DISPATCHED)].fencing_token
    for state in (S.DISPATCHED, S.RUNNING, S.SUCCEEDED):
        log.change(log.where(state, 1), fencing_token=token)


@plant("G2 sequence_not_rising")
def sequences_that_go_back(log: Log) -> None:
    log.run(log.park("g"))
    log.counter = 1 << 20
    task = log.park("h")
    log.run(task)


@plant("G2 sequence_reused")
def one_sequence_for_two_tasks(log: Log) -> None:
    first = log.park("g")
    log.counter -= 1
    log.park("h")
    log.run(first)


@plant("G2 not_in_log_order")
def a_group_in_another_order_than_its_log(log: Log) -> None:
    for task in [log.park("g", origin=(0, 8)), log.park("g", origin=(0, 5))]:
        log.run(task)


@plant("G2 not_in_log_order")
def forwarded_tasks_in_another_order(log: Log) -> None:
    for task in [log.park("g", origin=(4, 8)), log.park("g", origin=(4, 5))]:
        log.run(task)


@plant("G3 lost")
def a_task_without_an_end(log: Log) -> None:
    task = log.park("g")
    log.dispatch(task)
    log.start(task)


@plant("G3 lost")
def a_task_that_stays_parked(log: Log) -> None:
    log.park("g")


@plant("G3 doubled")
def a_task_that_ends_twice(log: Log) -> None:
    log.run(log.park("g"))
    log.repeat(log.where(S.SUCCEEDED))


@plant("G3 doubled")
def a_dead_letter_that_had_succeeded(log: Log) -> None:
    task = log.run(log.park("g"))
    log.bury(task)


@plant("G3 after_end")
def a_finished_task_that_goes_on(log: Log) -> None:
    task = log.run(log.park("g"))
    log.dispatch(task)


@plant("G3 never_parked")
def a_task_that_nobody_accepted(log: Log) -> None:
    log.run(log.park("g"))
    log.drop(log.where(S.PARKED))


@plant("G3 ended_unstarted")
def a_success_that_never_started(log: Log) -> None:
    task = log.park("g")
    log.dispatch(task)
    log.succeed(task)


@plant("G3 illegal_transition")
def a_step_that_does_not_exist(log: Log) -> None:
    task = log.park("g")
    log.come_back(task)
    log.run(task)


@plant("G3 submitted_twice")
def a_record_taken_in_twice(log: Log) -> None:
    log.run(log.park("g", origin=(0, 4)))
    log.run(log.park("g", origin=(0, 4)))


@plant("G3 submitted_twice")
def a_record_accepted_and_rejected(log: Log) -> None:
    log.run(log.park("g"))
    log.offset -= 1
    log.reject(Reason.BAD_JSON)


@plant("G4 unexplained_repeat")
def a_task_that_runs_again_without_a_word(log: Log) -> None:
    task = log.park("g")
    log.dispatch(task)
    log.start(task)
    log.run(task)


@plant("G4 unexplained_repeat")
def a_repeat_for_no_valid_reason(log: Log) -> None:
    task = log.park("g")
    log.dispatch(task)
    log.start(task)
    log.retry(task, "rebalance")
    log.run(task)


@plant("G4 unexplained_repeat")
def a_started_task_put_back_as_if_it_had_not_been(log: Log) -> None:
    task = log.park("g")
    log.dispatch(task)
    log.start(task)
    log.come_back(task, Reason.LOST_BEFORE_START)
    log.run(task)


@plant("G4 unexplained_return")
def a_dispatch_that_comes_back_for_no_reason(log: Log) -> None:
    task = log.park("g")
    log.dispatch(task)
    log.come_back(task, "rebalance")
    log.run(task)


@plant("G4 wrong_attempt")
def a_drain_that_uses_an_attempt(log: Log) -> None:
    task = log.park("g")
    log.dispatch(task)
    log.start(task)
    log.come_back(task, Reason.ABANDONED)
    task.attempt += 1
    log.run(task)


@plant("G4 wrong_attempt")
def a_lost_worker_that_uses_none(log: Log) -> None:
    task = log.park("g")
    log.dispatch(task)
    log.start(task)
    log.retry(task, Reason.WORKER_LOST)
    task.attempt -= 1
    log.run(task)


@plant("G7 incomplete_event")
def an_event_without_a_sequence(log: Log) -> None:
    log.run(log.park("g"))
    log.change(log.where(S.DISPATCHED), sequence=None)


@plant("G8 state_applied_twice")
def group_state_applied_twice(log: Log) -> None:
    task = log.run(log.park("g"))
    log.set_state(task)
    log.set_state(task)


@plant("G8 state_without_success")
def the_state_of_a_failed_attempt(log: Log) -> None:
    task = log.park("g")
    log.dispatch(task)
    log.start(task)
    log.set_state(task)
    log.retry(task)
    log.run(task)


@plant("G8 state_without_success")
def the_state_of_a_dead_letter(log: Log) -> None:
    task = log.park("g")
    log.dispatch(task)
    log.start(task)
    log.bury(task)
    log.set_state(task)


@plant("G8 stale_state")
def state_under_a_stale_token(log: Log) -> None:
    task = log.park("g")
    log.dispatch(task)
    log.start(task)
    stale = task.token
    log.retry(task, Reason.WORKER_LOST)
    log.run(task)
    task.token = stale
    log.set_state(task)


@plant("G8 stale_state")
def state_that_comes_after_the_next_task_was_sent_off(log: Log) -> None:
    first, second = log.park("g"), log.park("g")
    log.run(first)
    log.dispatch(second)
    log.set_state(first)
    log.start(second)
    log.succeed(second)


@plant("G8 stale_state")
def state_of_a_group_that_never_ran(log: Log) -> None:
    log.add(EventKind.GROUP_STATE, group="g", task_id="0-0", fencing_token=7, group_state=msgspec.Raw(b"1"))


@pytest.mark.parametrize(("found", "write"), PLANTS, ids=[function.__name__ for _, function in PLANTS])
def test_it_is_found(found: str, write: Plant) -> None:
    log = Log()
    log.run(log.park("bystander"))
    write(log)
    log.run(log.park("bystander"))
    report = verdict(log)
    assert found in report.by_kind
    violation = next(v for v in report.violations if f"{v.guarantee} {v.kind}" == found)
    assert violation.text and violation.records
    assert violation.group != "bystander"


def test_enough_kinds_are_planted() -> None:
    assert len({found for found, _ in PLANTS}) >= 15


def test_a_fault_is_found_in_each_record_that_shows_it() -> None:
    log = Log()
    first, second = log.park("g"), log.park("g")
    log.dispatch(first)
    log.dispatch(second)
    (violation,) = (v for v in verdict(log).violations if v.guarantee is Guarantee.G1)
    assert violation.records == ((0, 2), (0, 3))
    assert violation.task_ids == (first.task_id, second.task_id)
    assert first.task_id in violation.text and second.task_id in violation.text


def test_a_group_in_two_partitions() -> None:
    one, other = Log(0), Log(1)
    for log in (one, other):
        log.run(log.park("g"))
    assert kinds(one, other) == {"G1 split_group"}
    assert kinds(one, other, partitions=2) == {"G1 split_group"}


def test_a_worker_lost_though_nothing_happened_to_it() -> None:
    log = Log()
    task = log.park("g")
    log.dispatch(task)
    log.start(task, worker="w1")
    log.retry(task, Reason.WORKER_LOST)
    log.run(task)
    killed_at = log.at(log.ms)
    assert kinds(log) == set(), "without a list of kills nobody can tell"
    assert kinds(log, kills=()) == {"G4 lost_without_kill"}
    assert kinds(log, kills=(Kill("w2", log.at(0), killed_at),)) == {"G4 lost_without_kill"}
    assert kinds(log, kills=(Kill("w1", killed_at),)) == {"G4 lost_without_kill"}, "killed only after it was lost"


def test_a_stall() -> None:
    log = Log()
    first, second = log.park("g"), log.park("g")
    log.run(first)
    log.ms += 40_000
    log.run(second)
    assert kinds(log) == set()
    assert kinds(log, stall_s=30) == {"G6 stall"}
    assert kinds(log, stall_s=60) == set()
    assert verdict(log).figures.longest_stall_s == pytest.approx(40.02)


def test_waiting_for_a_due_time_is_no_stall() -> None:
    log = Log()
    task = log.park("g", not_before=log.at(3_600_000))
    log.ms = 3_600_000
    log.dispatch(task)
    log.start(task)
    log.retry(task, delay_ms=60_000)
    log.ms += 60_000
    log.run(task)
    assert kinds(log, stall_s=1) == set()


@pytest.mark.parametrize(
    "value", [b"", b"{", b'{"v":1}', b'{"v":1,"kind":"no_such","at":"2031-05-01T08:00:00Z"}', None]
)
def test_a_record_that_cannot_be_read(value: bytes | None) -> None:
    history = History(Options())
    history.record(0, 5, value)
    history.close()
    report = history.verdict()
    assert report.by_kind == {"G7 unreadable_record": 1}
    assert report.violations[0].records == ((0, 5),)


def test_records_of_tasks_that_the_history_does_not_answer() -> None:
    log = Log()
    log.run(log.park("g"))  # 0:0
    log.reject()  # 0:1
    log.run(log.park("g"))  # 0:2
    history = History(Options())
    for offset, event in enumerate(log.events):
        history.record(0, offset, msgspec.json.encode(event))
    history.close()
    history.shared.compare_with_tasks([(0, 0), (0, 1), (0, 3)], {0: 0})
    report = history.verdict()
    assert report.by_kind == {"G3 unanswered": 1, "G3 invented": 1}
    assert "0:3" in report.violations[0].text and "0:2" in report.violations[1].text


def test_a_broken_history_stays_readable() -> None:
    log = Log()
    for number in range(500):
        log.park(f"g{number}")
    report = verdict(log)
    assert report.by_kind == {"G3 lost": 500}
    assert len(report.violations) == 20
