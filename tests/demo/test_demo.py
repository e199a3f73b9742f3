"""The whole demo, as a user runs it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pstp.demo.children import STOP_S

COMMAND = (sys.executable, "-m", "pstp", "demo")
# Workers, schedulers and the web process are given `STOP_S` each before they are killed; then the broker is stopped.
ENDS_WITHIN_S = 3 * STOP_S + 30


def test_a_short_demo(tmp_path: Path) -> None:
    command = [*COMMAND, "--rows", "4000", "--no-wait", "--data-dir", str(tmp_path / "demo")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=170, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    shown = done.stdout
    assert "kill -9 worker-" in shown and "kill -9 scheduler-" in shown
    assert "0 violations in" in shown and "5 busiest of" in shown and "completion to next start: p50" in shown
    assert "the web UI counts the same" in shown
    assert shown.count("✓") == 6 and "✗" not in shown
    assert len((tmp_path / "demo" / "kills.jsonl").read_text().splitlines()) == 2
    assert left_behind(tmp_path) == []


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_ctrl_c_leaves_nothing_behind(tmp_path: Path) -> None:
    log = tmp_path / "output.txt"
    with log.open("wb") as out:
        # What runs in the background, as this may, begins with SIGINT ignored.
        demo = subprocess.Popen(
            [*COMMAND, "--data-dir", str(tmp_path / "demo")], stdout=out, stderr=out,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip
    try:
        logs = tmp_path / "demo" / "logs"
        wait_for(lambda: (logs / "worker-3.log").exists() and len(left_behind(tmp_path)) > 5, demo)
        demo.send_signal(signal.SIGINT)
        assert demo.wait(ENDS_WITHIN_S) == 130, log.read_text()
    finally:
        demo.kill()
        demo.wait()
    assert left_behind(tmp_path) == []
    assert log.read_text().endswith("stopped, with everything that the demo had started\n")


def wait_for(condition: object, demo: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 90
    while not condition():  # type: ignore[operator]
        assert demo.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)


def left_behind(folder: Path) -> list[str]:
    """Processes that name this folder in their command or their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
        except OSError:
            continue
        if os.fsencode(folder) in words and process.name != str(os.getpid()):
            found.append(process.name)
    return found
