"""Histories that keep the promise must pass, and their figures must be right."""

import msgspec
import pytest
from histories import Log, S, kinds, verdict

from pstp.verify import History, Kill, Options
from streams.murmur2 import home_partition
from streams.protocol import PROTOCOL, EventKind, Events, Reason, encode


def test_an_empty_history_is_good() -> None:
    assert verdict(Log()).ok


@pytest.mark.parametrize(
    "reason", [Reason.FAILED, Reason.TIMEOUT, Reason.INVALID_RESULT, Reason.WORKER_LOST, Reason.SNOOZED]
)
def test_a_task_may_run_again_for_a_reason(reason: Reason) -> None:
    log = Log()
    first, second = log.park("g"), log.park("g")
    log.dispatch(first)
    log.start(first)
    log.retry(first, reason)
    log.run(first)
    log.run(second)
    found = verdict(log)
    assert found.by_kind == {}
    assert found.figures.repeats == {reason: 1}


@pytest.mark.parametrize("reason", [Reason.RETURNED, Reason.TAKEN_BACK, Reason.NO_HANDLER, Reason.LOST_BEFORE_START])
def test_a_dispatch_may_come_back_unstarted(reason: Reason) -> None:
    log = Log()
    task = log.park("g")
    log.dispatch(task)
    log.come_back(task, reason)
    log.run(task)
    found = verdict(log)
    assert found.by_kind == {}
    assert found.figures.repeats == {}


@pytest.mark.parametrize("reason", [Reason.RETURNED, Reason.LOST_BEFORE_START])
def test_a_worker_may_announce_a_start_and_then_not_run_it(reason: Reason) -> None:
    log = Log()
    task = log.park("g")
    log.dispatch(task)
    log.start(task, worker="w1")
    log.come_back(task, reason, worker="w1")
    log.run(task)
    figures = verdict(log).figures
    assert kinds(log) == set()
    assert (figures.executions, figures.repeats) == (1, {})
    assert figures.wait is not None and figures.wait.count == 1


def test_a_drained_worker_gives_back_what_it_had_started() -> None:
    log = Log()
    task = log.park("g")
    log.dispatch(task)
    log.start(task)
    log.come_back(task, Reason.ABANDONED)
    log.run(task)
    found = verdict(log)
    assert found.by_kind == {}
    assert found.figures.repeats == {"abandoned": 1}


def test_ends_of_all_kinds() -> None:
    log = Log()
    buried, cancelled, cascaded, cancelled_late, last = (log.park("g") for _ in range(5))
    log.dispatch(buried)
    log.start(buried)
    log.add(group="g", task_id=cancelled.task_id, state=S.CANCELLED, sequence=cancelled.sequence)
    log.bury(buried)
    log.add(group="g", task_id=cascaded.task_id, state=S.DEAD_LETTERED, sequence=cascaded.sequence, reason="cascade")
    log.dispatch(cancelled_late)
    log.start(cancelled_late)
    log._about(cancelled_late, S.CANCELLING)
    log._end(cancelled_late, S.CANCELLED)
    log.run(last)
    log.reject()
    found = verdict(log)
    assert found.by_kind == {}
    assert found.figures.ends == {"dead_lettered": 2, "cancelled": 2, "succeeded": 1}
    assert found.figures.rejected == 1


def test_one_redriven_while_another_runs_stands_between_it_and_what_comes_later() -> None:
    log = Log()
    dead, runs = log.park("g"), log.park("g")
    log.dispatch(dead)
    log.start(dead)
    log.bury(dead)
    log.dispatch(runs)
    log.start(runs)
    dead.token = 0
    log._about(dead, S.PARKED, reason=Reason.REDRIVEN_HEAD)
    last = log.park("g")
    log.succeed(runs)
    log.run(dead)
    log.run(last)
    assert kinds(log) == set()


def test_one_redriven_stands_before_what_was_out_and_has_come_back_unrun() -> None:
    log = Log()
    dead, waits = log.park("g"), log.park("g")
    log.dispatch(dead)
    log.start(dead)
    log.bury(dead)
    log.dispatch(waits)
    log.come_back(waits, Reason.TAKEN_BACK)
    log._about(waits, S.PARKED, reason=Reason.DISPLACED)
    dead.token = 0
    log._about(dead, S.PARKED, reason=Reason.REDRIVEN_HEAD)
    log.run(dead)
    log.run(waits)
    assert kinds(log) == set()


def test_groups_run_side_by_side_and_set_state() -> None:
    log = Log()
    one, other = log.park("one"), log.park("other")
    for task in (one, other):
        log.dispatch(task)
        log.start(task, worker=task.group)
    for task in (other, one):
        log.succeed(task)
        log.set_state(task)
    assert kinds(log) == set()
    assert verdict(log).figures.state_updates == 2


def test_state_may_come_with_or_right_before_its_success() -> None:
    log = Log()
    task = log.park("g")
    log.dispatch(task)
    log.start(task)
    log.set_state(task)
    log.succeed(task)
    assert kinds(log) == set()


def test_forwarded_tasks_stand_in_the_order_of_their_arrival() -> None:
    log = Log()
    for task in [log.park("g"), log.park("g", origin=(3, 70)), log.park("g"), log.park("g", origin=(3, 71))]:
        log.run(task)
    assert kinds(log) == set()


def test_clocks_of_two_machines() -> None:
    log = Log()
    for clock in ("boot-a", "boot-b", "boot-a"):
        log.clock = clock
        log.run(log.park("g"))
    found = verdict(log)
    assert (found.by_kind, found.warning_count) == ({}, 0)


def test_wall_clocks_that_disagree_are_only_a_warning() -> None:
    log = Log()
    log.run(log.park("g"))
    log.clock = "boot-b"
    log.run(log.park("g"))
    log.change(log.where(S.RUNNING, 1), started_at=log.at(-5_000), started_mono_ns=1)
    found = verdict(log)
    assert found.by_kind == {}
    assert [warning.kind for warning in found.warnings] == ["overlap_by_wall_clock"]


def test_a_lost_worker_that_was_killed() -> None:
    log = Log()
    task = log.park("g")
    log.dispatch(task)
    log.start(task, worker="w7")
    killed_at = log.at(log.ms + 10)
    log.ms += 10_000
    log.retry(task, Reason.WORKER_LOST)
    log.run(task)
    assert kinds(log, kills=(Kill("w7", killed_at),)) == set()


def test_events_that_say_nothing_about_the_promise_are_passed_over() -> None:
    log = Log()
    task = log.park("g")
    log.dispatch(task)
    log.start(task)
    log.add(EventKind.PROGRESS, group="g", task_id=task.task_id, progress=0.5)
    log.add(EventKind.STALE_REPORT, group="g", fencing_token=1, reason="stale_token")
    log.add(EventKind.COMMAND, group="g", note="paused")
    log.succeed(task)
    log.add(EventKind.DUPLICATE, group="g", task_id="again", origin_partition=0, origin_offset=7)
    found = verdict(log)
    assert found.by_kind == {}
    assert (found.figures.stale_reports, found.figures.duplicates) == (1, 1)


def test_several_events_in_one_record() -> None:
    log = Log()
    log.run(log.park("g"))
    history = History(Options())
    history.record(0, 0, encode(Events(PROTOCOL, tuple(log.events))))
    history.close()
    found = history.verdict()
    assert found.ok
    assert (found.figures.records, found.figures.events, found.figures.tasks) == (1, 4, 1)


def test_an_undrained_history_may_end_anywhere() -> None:
    log = Log()
    log.run(log.park("g"))
    task = log.park("g")
    log.dispatch(task)
    found = verdict(log, expect_drained=False)
    assert found.by_kind == {}
    assert found.figures.unfinished == 1


def test_a_history_without_its_beginning() -> None:
    log = Log()
    for task in [log.park("g"), log.park("g"), log.park("h")]:
        log.run(task)
        log.set_state(task)
    for lost in range(1, len(log.events)):
        rest = Log(events=log.events[lost:])
        assert verdict(rest, truncated=(0,)).by_kind == {}, f"without its first {lost} events"


def test_groups_at_home() -> None:
    groups = [f"g{number}" for number in range(20)]
    logs = [Log(partition) for partition in range(4)]
    for group in groups:
        log = logs[home_partition(group.encode(), 4)]
        log.run(log.park(group))
    assert kinds(*logs, partitions=4) == set()
    assert verdict(*logs, partitions=4).figures.groups == 20


def test_figures() -> None:
    log = Log()
    first, second = log.park("g"), log.park("g")  # at 10 and 20 ms
    log.run(first)  # dispatched, running, succeeded at 30, 40, 50 ms; the worker says 35 to 45
    log.run(second)  # 60, 70, 80; 65 to 75
    figures = verdict(log).figures
    assert (figures.tasks, figures.groups, figures.executions, figures.peak_parked) == (2, 1, 2, 2)
    assert figures.wait is not None and figures.gap is not None
    assert (figures.wait.count, round(figures.wait.max_s, 6)) == (2, 0.05)
    assert (figures.gap.count, round(figures.gap.p50_s, 6)) == (1, 0.02)
    assert figures.longest_stall_s == pytest.approx(0.03)  # the first: parked at 10, running at 40
    assert figures.tasks_per_s == pytest.approx(2 / 0.07)


def test_peak_parked_is_summed_over_partitions_in_time() -> None:
    early, late = Log(0), Log(1)
    for log, start_ms in ((early, 0), (late, 60_000)):
        log.ms = start_ms
        for task in [log.park(f"g{log.partition}") for _ in range(3)]:
            log.run(task)
    assert verdict(early, late).figures.peak_parked == 3
    late.ms = 0
    both = Log(1)
    for task in [both.park("h") for _ in range(3)]:
        both.run(task)
    assert verdict(early, both).figures.peak_parked == 6


def test_the_report_is_json() -> None:
    log = Log()
    log.park("g")
    data = msgspec.json.decode(verdict(log).to_json())
    assert data["ok"] is False
    assert data["counts"]["G3"] == 1
    assert data["violations"][0]["records"] == [[0, 0]]
