"""Reading clocks and drawing ids: only here and in entry points.  Pure code takes `Now` as an argument."""

import time
import uuid
from functools import cache
from pathlib import Path
from typing import NamedTuple


class Now(NamedTuple):
    """One reading of both clocks, in milliseconds.  Wall time is for people and `not_before`; delays are monotonic."""

    wall_ms: int
    mono_ms: int


def now() -> Now:
    return Now(time.time_ns() // 1_000_000, time.monotonic_ns() // 1_000_000)


def new_id() -> str:
    """A boot id or claim id."""
    return uuid.uuid4().hex


@cache
def clock_id() -> str:
    """Names the domain in which monotonic clocks compare: one boot of one machine."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()[:8]
    except OSError:
        return f"{uuid.getnode():x}"


def mono_ns() -> int:
    """The monotonic clock alone, in nanoseconds: for leases, and for measuring."""
    return time.monotonic_ns()
