"""A short set of worlds; `python -m tests.sim --seeds 200` plays many.  A failure prints its seed and a shrunk trace."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_thirty_worlds_with_faults_keep_the_promise_and_drain() -> None:
    """In a process of its own: a seed plays the same only with a fixed hash seed."""
    command = [sys.executable, "-m", "tests.sim", "--seeds", "30"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=170, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert "30 seeds" in done.stdout
