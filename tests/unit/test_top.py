"""`pstp top`'s arithmetic: rates from two looks, waits from the buckets in between."""

import io

from rich.console import Console

from pstp.top.figures import Look, figures, parse
from pstp.top.run import draw

SCHEDULER = """\
pstp_build_info{{role="scheduler"}} 1
pstp_task_states_total{{partition="0",state="succeeded"}} {succeeded}
pstp_task_states_total{{partition="0",state="retrying"}} 2
pstp_tasks_parked 40
pstp_groups_ready 3
pstp_groups_blocked{{reason="internal_error"}} 1
pstp_oldest_unfinished_seconds 90.5
pstp_partitions_owned 4
pstp_wait_seconds_bucket{{type="t",le="0.1"}} {quick}
pstp_wait_seconds_bucket{{type="t",le="1"}} {all}
pstp_wait_seconds_bucket{{type="t",le="+Inf"}} {all}
"""
WORKER = """\
pstp_build_info{{role="worker"}} 1
pstp_worker_slots 8
pstp_worker_running 5
pstp_worker_partitions 2
pstp_worker_started_total{{type="t"}} {started}
"""


def look(at_ms: int, started: int, **scheduler: int) -> Look:
    said = {"s1": parse(SCHEDULER.format(**scheduler)), "w1": parse(WORKER.format(started=started))}
    return Look(at_ms, said, ("w2",))


def test_one_look_has_numbers_and_no_rates() -> None:
    found = figures(look(0, 10, succeeded=10, quick=1, all=1), None)
    assert (found.parked, found.ready, found.blocked, found.slots, found.oldest_s) == (40, 3, 1, 8, 90.5)
    assert found.ended_per_s is None and found.states == {"succeeded": 10, "retrying": 2}
    assert [(p.instance, p.role, p.owned, p.used) for p in found.processes] == [
        ("s1", "scheduler", 4, 0), ("w1", "worker", 2, 5),
    ]  # fmt: skip
    assert found.missing == ("w2",)


def test_what_is_drawn_says_it_all() -> None:
    """Also of a process whose name tries to paint."""
    before = look(0, 10, succeeded=10, quick=500, all=500)
    after = look(2_000, 30, succeeded=50, quick=590, all=600)
    after.by_instance["r[red]1\x1b[2J"] = {**after.by_instance["s1"], **after.by_instance["w1"]}
    console = Console(record=True, width=160, file=io.StringIO())
    console.print(draw(figures(after, before)))
    text = console.export_text()
    for words in ("blocked", "5 of 8", "does not answer", "≤ 100 ms", "succeeded", "w2"):
        assert words in text
    assert "r[red]1" in text and "\x1b" not in text


def test_two_looks_have_rates_and_the_waits_in_between() -> None:
    before = look(0, 10, succeeded=10, quick=500, all=500)
    found = figures(look(2_000, 30, succeeded=50, quick=590, all=600), before)
    assert found.ended_per_s == 20 == found.per_s["succeeded"] and found.per_s["retrying"] == 0
    assert (found.wait_p50_s, found.wait_p99_s) == (0.1, 1.0)
    assert [p.per_s for p in found.processes] == [20, 10]


def test_a_process_that_began_again_has_no_negative_rate() -> None:
    found = figures(look(1_000, 0, succeeded=0, quick=0, all=0), look(0, 10, succeeded=10, quick=5, all=5))
    assert found.ended_per_s == 0 and [p.per_s for p in found.processes] == [0, 0]
