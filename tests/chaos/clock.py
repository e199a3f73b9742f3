"""Wall clocks that jump: `clock.c`, compiled and loaded before everything else, steps CLOCK_REALTIME of one process.

Not libfaketime: with the monotonic clock left alone, `time.sleep` fails under it (EINVAL), child processes do (EBADF),
and waits until a wall-clock time become relative ones: it cannot show what librdkafka does when the clock steps.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

STEP_S: Final = 60  # longer than lease, session and whatever else is counted in seconds
_SOURCE: Final = Path(__file__).with_name("clock.c")


def missing() -> str | None:
    """Why clocks cannot be stepped here."""
    if sys.platform != "linux":
        return "steps of the wall clock need Linux"
    return None if shutil.which("cc") else "no C compiler `cc` is there: install Debian's package `gcc`"


def environment(folder: Path) -> dict[str, str]:
    """For the processes whose clocks `turn` is to set (INSTANCE stands for their name); empty if it cannot be done."""
    if missing():
        return {}
    library = folder / "clock.so"
    subprocess.run(["cc", "-O1", "-fPIC", "-shared", "-o", str(library), str(_SOURCE), "-ldl"], check=True)
    return {"LD_PRELOAD": str(library), "CHAOS_CLOCK": str(_file(folder, "INSTANCE"))}


def turn(folder: Path, instance: str, by_s: int) -> None:
    """Set the wall clock of that instance so far from the true time; 0 is the true time."""
    descriptor = os.open(_file(folder, instance), os.O_WRONLY | os.O_CREAT, 0o644)
    os.pwrite(descriptor, f"{by_s:+015d}\n".encode(), 0)
    os.close(descriptor)


def _file(folder: Path, instance: str) -> Path:
    return folder / f"clock-{instance}"
