"""Advisory file locks (flock): released by the system when the last process that inherited them ends."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_POLL_INTERVAL_S = 0.05


def try_lock(path: Path) -> int | None:
    """Lock the file (made if absent) and return its descriptor, or None while another holds it.

    The lock belongs to the open file, not to the process: a child that inherits the descriptor keeps it.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def lock_within(path: Path, timeout_s: float) -> int | None:
    """Like try_lock, but wait up to timeout_s seconds for the holder to let go."""
    deadline = time.monotonic() + timeout_s
    while (descriptor := try_lock(path)) is None and time.monotonic() < deadline:
        time.sleep(_POLL_INTERVAL_S)
    return descriptor


def is_locked(path: Path) -> bool:
    """Whether some process holds the lock of this file."""
    if not path.exists():
        return False
    descriptor = try_lock(path)
    if descriptor is None:
        return True
    os.close(descriptor)
    return False


def is_locked_by_record(path: Path) -> bool:
    """Whether some process holds a record lock (fcntl) on this file, as Java's `FileChannel.lock` takes: flock does not
    see those.
    """
    try:
        with path.open("rb+") as file:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


@contextmanager
def held(path: Path, timeout_s: float) -> Iterator[None]:
    """Hold the lock inside the with block; raises TimeoutError when it is not free within timeout_s seconds."""
    descriptor = lock_within(path, timeout_s)
    if descriptor is None:
        raise TimeoutError(f"{path} stayed locked for {timeout_s:g} s")
    try:
        yield
    finally:
        os.close(descriptor)
