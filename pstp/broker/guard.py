"""The process between us and the JVM: starts it, and kills it when we are gone, even by SIGKILL.

Run by file path (standard library only, so it is up in about 20 ms): guard.py PARENT_PID KEEP_FD COMMAND...

It prints the JVM's process id as one line on its standard output, then obeys lines on its standard input: `term`
sends SIGTERM to the JVM, `kill` sends SIGKILL. It ends when the JVM has ended. With `detached` in place of the
parent's id it ends at once and leaves the JVM running. KEEP_FD is a descriptor that the JVM inherits (the lock of
the data folder).

Three things end the JVM: end of file on standard input (the parent's end of the pipe closed with the parent), a
change of parent (children forked by the parent may still hold its end of that pipe), and, on Linux, the death of the
guard itself (PR_SET_PDEATHSIG). The last is tied to the thread that forks; the guard has only one, which is why the
signal is set here and not in the parent.
"""

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable

_PARENT_CHECK_INTERVAL_S = 0.5
_PR_SET_PDEATHSIG = 1


def main(parent: str, keep_fd: int, command: list[str]) -> int:
    """Run the command until it ends; returns 0 (the JVM's own log tells how it ended)."""
    detached = parent == "detached"
    jvm = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,  # our standard output is the channel to the parent, so both go to the parent's log file
        stderr=sys.stderr,
        pass_fds=[keep_fd],
        preexec_fn=None if detached else _die_with_parent(),
    )
    os.close(keep_fd)
    with contextlib.suppress(BrokenPipeError):  # the parent is gone already: _watch notices and ends the JVM
        print(jvm.pid, flush=True)
    if not detached:
        _watch(jvm, int(parent))
    return 0


def _die_with_parent() -> Callable[[], None] | None:
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl  # looked up before the fork, so that the child only calls it
    return lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _watch(jvm: "subprocess.Popen[bytes]", parent_pid: int) -> None:
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write)
    signal.signal(signal.SIGCHLD, lambda *_: None)  # a handler is needed for the wake-up byte
    while jvm.poll() is None:
        ready, _, _ = select.select([0, wake_read], [], [], _PARENT_CHECK_INTERVAL_S)
        if wake_read in ready:
            os.read(wake_read, 4096)
        orders = os.read(0, 4096) if 0 in ready else None
        parent_gone = orders == b"" or os.getppid() != parent_pid
        if parent_gone or (orders and b"kill" in orders):
            jvm.kill()
            jvm.wait()
        elif orders and b"term" in orders:
            jvm.terminate()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), sys.argv[3:]))
