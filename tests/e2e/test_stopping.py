"""A scheduler that must end, ends: whatever it was waiting for."""

import signal
import subprocess
import sys

from tests.support.system import System, until

CRASH_AT_ASSIGNMENT = """
from pstp.cli import main
from streams.transport import Pump

def crash(*_):
    raise TypeError("planted")

Pump._assign = crash
main()
"""


def test_sigterm_before_the_first_assignment_ends_it(system: System) -> None:
    """The group cannot assign while another member is frozen."""
    frozen = system.scheduler("s1")
    until(lambda: "assigned" in frozen.log())
    frozen.send(signal.SIGSTOP)
    waiting = system.scheduler("s2")
    until(lambda: '"started"' in waiting.log())
    assert waiting.terminate() == 0


def test_a_crash_of_its_poll_thread_ends_it(system: System) -> None:
    """Or else it would stay, own nothing and look alive, and nobody would start another."""
    ended = subprocess.run(
        [sys.executable, "-c", CRASH_AT_ASSIGNMENT, "scheduler"], env=system.env("s1"),
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ended.returncode == 1
    assert "TypeError: planted" in ended.stderr
