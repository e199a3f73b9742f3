"""Stepping a process's wall clock leaves its monotonic clock alone."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.chaos import clock

READ = """
import sys, time
for _ in sys.stdin:
    print(time.time(), time.monotonic(), flush=True)
"""


@pytest.mark.skipif(clock.missing() is not None, reason=f"clock steps: {clock.missing()}")
@pytest.mark.parametrize("step_s", [-3600, 3600])
def test_a_clock_step_moves_the_wall_clock_only(tmp_path: Path, step_s: int) -> None:
    clock.turn(tmp_path, "x", 0)
    env = {key: value.replace("INSTANCE", "x") for key, value in clock.environment(tmp_path).items()}
    with subprocess.Popen(
        [sys.executable, "-c", READ], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None and process.stdout is not None

        def read() -> tuple[float, float]:
            process.stdin.write("\n")  # type: ignore[union-attr]
            process.stdin.flush()  # type: ignore[union-attr]
            wall, mono = process.stdout.readline().split()  # type: ignore[union-attr]
            return float(wall), float(mono)

        wall, mono = first = read()
        clock.turn(tmp_path, "x", step_s)
        while abs(wall - first[0]) < abs(step_s) / 2:  # it is read at each look at the clock
            wall, mono = read()
        assert abs((wall - first[0]) - step_s) < 60
        assert 0 <= mono - first[1] < 60
        process.stdin.close()
