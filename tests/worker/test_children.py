"""Handlers in child processes: they end with their worker, and before their lease."""

import json
import os
import signal
from pathlib import Path
from typing import Any

from streams.protocol import Reason, ReportKind
from tests.support.system import until
from tests.worker.kit import Rig
from tests.worker.process import WorkerProcess


def child_of(folder: Path) -> int:
    """The process in which the handler runs."""
    path = folder / "journal.jsonl"
    until(lambda: path.exists() and path.read_text().endswith("\n"), 30, "the handler runs")
    line: dict[str, Any] = json.loads(path.read_text().splitlines()[-1])
    assert line["what"] == "start"
    return int(line["pid"])


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_a_child_does_not_outlive_a_worker_that_is_killed(rig: Rig, tmp_path: Path) -> None:
    with WorkerProcess(rig.settings, tmp_path) as worker:
        rig.dispatch("g", "process", b"60")
        child = child_of(tmp_path)
        assert child != worker.popen.pid
        worker.popen.kill()
        worker.popen.wait(10)
    until(lambda: is_gone(child), 5, "the child has ended")


def test_a_child_of_a_frozen_worker_ends_when_the_lease_is_out(rig: Rig, tmp_path: Path) -> None:
    with WorkerProcess(rig.settings, tmp_path, lease_s=2) as worker:
        [token] = rig.dispatch("g", "process", b"60")
        child = child_of(tmp_path)
        until(lambda: rig.kinds(token).count("renewed") > 4, 20, "it lives longer than one lease")
        assert not is_gone(child)
        worker.popen.send_signal(signal.SIGSTOP)
        until(lambda: is_gone(child), 5, "the child has ended")
        worker.wake()
        assert worker.popen.wait(10) == 1


def test_a_child_is_stopped_at_its_timeout_and_the_next_task_gets_a_new_one(rig: Rig, tmp_path: Path) -> None:
    with WorkerProcess(rig.settings, tmp_path):
        [token] = rig.dispatch("g", "process", b"60", timeout_s=1)
        child = child_of(tmp_path)
        end = rig.end(token)
        assert (end.kind, end.reason) == (ReportKind.FAILED, Reason.TIMEOUT)
        assert is_gone(child)
        assert rig.end(rig.dispatch("g", "process", b"0")[0]).kind is ReportKind.SUCCEEDED


def test_a_child_that_is_killed_fails_its_task(rig: Rig, tmp_path: Path) -> None:
    with WorkerProcess(rig.settings, tmp_path):
        [token] = rig.dispatch("g", "process", b"60")
        os.kill(child_of(tmp_path), signal.SIGKILL)
        end = rig.end(token)
        assert (end.kind, end.reason) == (ReportKind.FAILED, Reason.FAILED)
        assert end.error is not None and "signal 9" in end.error.message


def test_a_drain_stops_a_child_and_reports_it_released(rig: Rig, tmp_path: Path) -> None:
    with WorkerProcess(rig.settings, tmp_path, drain_s=0) as worker:
        [token] = rig.dispatch("g", "process", b"60")
        child = child_of(tmp_path)
        worker.popen.send_signal(signal.SIGTERM)
        assert rig.end(token).kind is ReportKind.ABANDONED
        assert worker.popen.wait(10) == 0
        assert is_gone(child)
