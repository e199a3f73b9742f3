"""Leases, timeouts, and handlers that are in each other's way."""

import asyncio
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from consumers import Registry, Task
from consumers.reports import Reporter
from streams import limits
from streams.protocol import Reason, Report, ReportKind
from tests.support.system import until
from tests.worker.kit import Gate, Rig
from tests.worker.process import WorkerProcess


def test_a_lease_is_renewed_while_a_handler_runs(rig: Rig, gate: Gate) -> None:
    handlers = Registry()

    @handlers.handler("wait")
    def wait(task: Task) -> None:
        gate.pass_blocking(task.id)

    rig.worker(handlers, lease_s=1)
    [token] = rig.dispatch("g", "wait")
    until(lambda: rig.kinds(token).count("renewed") >= 6, 20, "six renewals: longer than a lease")
    gate.opened.set()
    rig.end(token)
    assert rig.kinds(token)[-1] == "succeeded"


def test_a_short_task_needs_no_renewal(rig: Rig) -> None:
    handlers = Registry()

    @handlers.handler("ok")
    async def ok(task: Task) -> None:
        pass

    rig.worker(handlers)
    tokens = [rig.dispatch(f"g{i}")[0] for i in range(50)]
    rig.ends(*tokens)
    assert "renewed" not in rig.kinds()


@pytest.fixture
def cut(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """While set, renewals get lost on their way."""
    cut = threading.Event()
    send = Reporter.send

    def lossy(self: Reporter, claim: Any, reports: tuple[Report, ...], acknowledged: Any = None) -> None:
        if not (cut.is_set() and reports[0].kind is ReportKind.RENEWED):
            send(self, claim, reports, acknowledged)

    monkeypatch.setattr(Reporter, "send", lossy)
    return cut


def test_a_worker_that_cannot_renew_stops_its_handlers_before_the_lease_is_out(
    rig: Rig, gate: Gate, cut: threading.Event
) -> None:
    handlers = Registry()

    @handlers.handler("async")
    async def wait(task: Task) -> None:
        await gate.pass_async(task.id)

    running = rig.worker(handlers, lease_s=2)
    cut.set()
    [token] = rig.dispatch("g", "async")
    end = rig.end(token)
    assert end.kind is ReportKind.ABANDONED
    assert end.started and end.ended
    silence_ns = running.worker._settings.silence_s * 1e9
    assert silence_ns - 0.5e9 < end.ended.mono_ns - end.started.mono_ns < silence_ns
    assert running.exits == []


def test_a_frozen_worker_that_wakes_behind_its_lease_ends_and_reports_nothing(rig: Rig, tmp_path: Path) -> None:
    """Its handler would have ended during the freeze: what it would say now is not said."""
    with WorkerProcess(rig.settings, tmp_path, lease_s=1.5) as worker:
        tokens = [rig.dispatch("g", "sleep", b"0.7")[0], rig.dispatch("h", "block", b"0.7")[0]]
        for token in tokens:
            rig.wait_kind(token, ReportKind.STARTED)
        worker.popen.send_signal(signal.SIGSTOP)
        wakes = time.monotonic() + 1.5 + limits.GRACE_S
        until(lambda: time.monotonic() > wakes, what="the lease is out")
        worker.wake()
        assert worker.popen.wait(10) == 1
    assert set(rig.kinds(*tokens)) <= {"started", "renewed"}


def test_a_freeze_longer_than_the_session_and_shorter_than_the_lease_costs_only_the_partitions(
    rig: Rig, tmp_path: Path
) -> None:
    with WorkerProcess(rig.settings, tmp_path, lease_s=20) as worker:
        [token] = rig.dispatch("g", "sleep", b"9")
        rig.wait_kind(token, ReportKind.STARTED)
        worker.popen.send_signal(signal.SIGSTOP)
        with WorkerProcess(rig.settings, tmp_path, "w2"):
            assert rig.end(rig.dispatch("h", "echo")[0]).kind is ReportKind.SUCCEEDED
            worker.wake()
            assert rig.end(token, 30).kind is ReportKind.SUCCEEDED
    assert rig.kinds(token).count("started") == 1
    assert {c.worker for c in rig.completions for r in c.reports if r.token == token} == {"w1"}


def test_what_has_not_ended_when_the_lease_is_out_ends_with_the_process(
    rig: Rig, gate: Gate, cut: threading.Event
) -> None:
    handlers = Registry()

    @handlers.handler("thread")
    def block(task: Task) -> None:
        gate.pass_blocking(task.id)

    running = rig.worker(handlers, lease_s=2, drain_s=0)
    cut.set()
    [token] = rig.dispatch("g", "thread")
    until(lambda: running.exits, what="the process would end")
    assert running.exits[0] == 1
    gate.opened.set()
    running.stop()
    assert "succeeded" not in rig.kinds(token)


def test_a_run_stops_going_on_when_its_lease_cannot_be_extended(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Later tasks of a run begin under the claim's lease: with no acknowledgement it is soon out."""
    handlers, ran = Registry(), []
    send = Reporter.send

    def unacknowledged(self: Reporter, claim: Any, reports: tuple[Report, ...], acknowledged: Any = None) -> None:
        first = reports[0].kind is ReportKind.STARTED
        send(self, claim, reports, acknowledged if first else None)

    monkeypatch.setattr(Reporter, "send", unacknowledged)

    @handlers.handler("half a second")
    async def half_a_second(task: Task) -> None:
        ran.append(task.id)
        await asyncio.sleep(0.5)

    rig.worker(handlers, lease_s=1)
    tokens = rig.dispatch("g", "half a second", run=10)
    ends = rig.ends(*tokens)
    assert 1 <= len(ran) <= 5
    assert {r.kind for r in ends[len(ran) :]} == {ReportKind.RETURNED}


def test_a_timeout_stops_what_can_be_stopped_and_says_of_the_rest_that_it_goes_on(rig: Rig, gate: Gate) -> None:
    handlers = Registry()

    @handlers.handler("async", timeout_s=0.3)
    async def wait(task: Task) -> None:
        await asyncio.Event().wait()

    @handlers.handler("thread", timeout_s=60)
    def block(task: Task) -> str:
        gate.pass_blocking(task.id)
        return "late"

    rig.worker(handlers)
    stopped, goes_on = rig.dispatch("g", "async")[0], rig.dispatch("h", "thread", timeout_s=0.3)[0]
    end = rig.end(stopped)
    assert (end.kind, end.reason) == (ReportKind.FAILED, Reason.TIMEOUT)
    assert end.error is not None and end.error.message == "timed out after 0.3 s"
    note = rig.wait_kind(goes_on, ReportKind.PROGRESS).note or ""
    assert note.startswith("timed out, still running on w1 since 20")
    until(lambda: "renewed" in rig.kinds(goes_on), what="its lease is renewed all the same")
    gate.opened.set()
    assert rig.end(goes_on).kind is ReportKind.SUCCEEDED
    assert rig.kinds(goes_on).count("progress") == 1


def test_c09_async_handler_blocks_its_loop(rig: Rig) -> None:
    """The neighbours in its loop are delayed and not timed out, later tasks are not even delayed, all run once."""
    handlers = Registry()
    began = threading.Event()

    @handlers.handler("rude", timeout_s=0.5)
    async def rude(task: Task) -> None:
        began.set()
        time.sleep(5)
        await asyncio.sleep(60)

    @handlers.handler("neighbour", timeout_s=3)
    async def neighbour(task: Task) -> None:
        await asyncio.sleep(1)

    running = rig.worker(handlers, lease_s=3)
    neighbours = [rig.dispatch(f"n{i}", "neighbour", partition=i % 4)[0] for i in range(10)]
    for token in neighbours:
        rig.wait_kind(token, ReportKind.STARTED)
    [rude_token] = rig.dispatch("rude", "rude")
    assert began.wait(20)
    later = [rig.dispatch(f"l{i}", "neighbour", partition=i % 4)[0] for i in range(10)]
    rig.ends(*later)
    assert "failed" not in rig.kinds(rude_token)
    end = rig.end(rude_token)
    assert (end.kind, end.reason) == (ReportKind.FAILED, Reason.TIMEOUT)
    assert "still running on w1" in (rig.wait_kind(rude_token, ReportKind.PROGRESS).note or "")
    assert {r.kind for r in rig.ends(*neighbours, *later)} == {ReportKind.SUCCEEDED}
    assert rig.kinds(*neighbours, *later).count("started") == 20
    assert running.exits == []
    assert sorted(running.worker._poller.owned) == [0, 1, 2, 3]
