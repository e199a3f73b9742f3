"""`python -m tests.support.clock_set ARGUMENTS`: the CLI on a machine whose wall clock somebody sets.

$CLOCK_OFFSET names a file with the seconds by which the wall clock is wrong from now on; the monotonic clock, which no
one can set, is left alone.
"""

import os
import time
from pathlib import Path

OFFSET = Path(os.environ["CLOCK_OFFSET"])
_time, _time_ns = time.time, time.time_ns


def offset_s() -> int:
    try:
        return int(OFFSET.read_text() or 0)
    except (OSError, ValueError):
        return 0


def main() -> None:
    time.time = lambda: _time() + offset_s()
    time.time_ns = lambda: _time_ns() + offset_s() * 1_000_000_000
    from pstp.cli import main as cli

    cli()


if __name__ == "__main__":
    main()
