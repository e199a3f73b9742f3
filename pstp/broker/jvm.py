"""A running JVM: one that ends with us (behind the guard), or a detached one that outlives us."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Protocol

from pstp.broker.errors import BrokerError
from pstp.broker.filelock import is_locked

_GUARD = Path(__file__).with_name("guard.py")
_POLL_INTERVAL_S = 0.02


class Jvm(Protocol):
    """What the broker needs of its process, whoever watches over it."""

    pid: int

    def running(self) -> bool: ...

    def terminate(self) -> None:
        """Send SIGTERM; nothing happens if it has ended."""

    def kill(self) -> None:
        """Send SIGKILL; nothing happens if it has ended."""


class GuardedJvm:
    """A JVM that is killed when this process ends, however it ends; see guard.py."""

    def __init__(self, command: list[str], lock_fd: int, folder: Path, output: Path) -> None:
        self._guard = _start_guard(str(os.getpid()), command, lock_fd, folder, output)
        self.pid = _read_pid(self._guard, output)

    def running(self) -> bool:
        if self._guard.poll() is None:
            return True
        assert self._guard.stdin is not None
        self._guard.stdin.close()
        return False

    def terminate(self) -> None:
        self._order(b"term\n")

    def kill(self) -> None:
        self._order(b"kill\n")

    def _order(self, line: bytes) -> None:
        if self.running():
            assert self._guard.stdin is not None
            with contextlib.suppress(BrokenPipeError):  # the guard ends only after the JVM
                self._guard.stdin.write(line)


class DetachedJvm:
    """A JVM that lives on its own; it holds the lock of its data folder as long as it lives, which is how we know."""

    def __init__(self, pid: int, lock_path: Path) -> None:
        self.pid = pid
        self._lock_path = lock_path

    @classmethod
    def start(cls, command: list[str], lock_fd: int, lock_path: Path, output: Path) -> "DetachedJvm":
        guard = _start_guard("detached", command, lock_fd, lock_path.parent, output)
        pid = _read_pid(guard, output)
        assert guard.stdin is not None
        guard.stdin.close()
        guard.wait()
        return cls(pid, lock_path)

    def running(self) -> bool:
        return is_locked(self._lock_path)

    def terminate(self) -> None:
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if self.running():  # so the id cannot be another process's by now
            os.kill(self.pid, number)


def wait_ended(jvm: Jvm, timeout_s: float) -> bool:
    """Wait up to timeout_s seconds for the JVM to end; returns whether it has."""
    deadline = time.monotonic() + timeout_s
    while jvm.running():
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL_INTERVAL_S)
    return True


def _start_guard(
    parent: str, command: list[str], lock_fd: int, folder: Path, output: Path
) -> "subprocess.Popen[bytes]":
    with output.open("wb") as sink:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", str(_GUARD), parent, str(lock_fd), *command],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=sink,
            cwd=folder,
            pass_fds=[lock_fd],
            start_new_session=True,  # Ctrl-C in the terminal is for us; we stop the broker when we no longer need it
        )


def _read_pid(guard: "subprocess.Popen[bytes]", output: Path) -> int:
    assert guard.stdout is not None
    line = guard.stdout.readline()
    guard.stdout.close()
    if not line:
        guard.wait()
        raise BrokerError(f"The process of the broker could not be started: see the end of {output}.")
    return int(line)
