"""Wall clocks that jump: libfaketime before everything else in a process, the monotonic clock left alone."""

import platform
from pathlib import Path
from typing import Final

LIBRARY: Final = Path(f"/usr/lib/{platform.machine()}-linux-gnu/faketime/libfaketimeMT.so.1")
STEP_S: Final = 60.0  # longer than lease, session and whatever else is counted in seconds


def environment(folder: Path) -> dict[str, str]:
    """For the processes whose clocks `turn` is to set (INSTANCE stands for their name); empty without the library."""
    if not LIBRARY.exists():
        return {}
    return {
        "LD_PRELOAD": str(LIBRARY), "FAKETIME_DONT_FAKE_MONOTONIC": "1", "DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_TIMESTAMP_FILE": str(_file(folder, "INSTANCE")), "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DISABLE_SHM": "1",
    }  # fmt: skip


def turn(folder: Path, instance: str, by_s: float) -> None:
    """Set the wall clock of that instance so far from the true time, within a second; 0 is the true time."""
    path = _file(folder, instance)
    new = path.with_suffix(".new")
    new.write_text(f"{by_s:+g}\n")
    new.replace(path)


def _file(folder: Path, instance: str) -> Path:
    return folder / f"clock-{instance}"
