"""The child process of `process=True` handlers: `python -m consumers.child SOURCE IN OUT PARENT`.

Frames are a length (4 bytes, big-endian) and JSON.  The child ends when its parent does, whichever of the two ways
notices first: the kernel's signal (Linux) or the end of the pipe.
"""

import asyncio
import ctypes
import os
import queue
import select
import signal
import sys
import threading
from types import FrameType
from typing import Any, Final, TypeVar

import msgspec
from msgspec import Struct

from consumers import faults, outcomes
from consumers.handlers import Handler, Registry, load_handlers
from consumers.outcomes import Outcome
from consumers.task import Task
from streams.clock import mono_ns
from streams.errors import UserError
from streams.protocol import DispatchedTask, MaybeRaw

_PR_SET_PDEATHSIG: Final = 1


class Work(Struct, frozen=True, omit_defaults=True):
    """Parent to child: execute this task, if there is one; its lease is out at `until_ns` on the monotonic clock."""

    until_ns: int
    group: str = ""
    task: DispatchedTask | None = None
    state: MaybeRaw = None
    secrets: tuple[str, ...] = ()  # not to be shown in errors


class Said(Struct, frozen=True, omit_defaults=True):
    """Child to parent: progress, or how it ended.  The first one is empty: ready to execute."""

    fraction: float | None = None
    note: str | None = None
    outcome: Outcome | None = None


M = TypeVar("M", Work, Said)


def transmit(fd: int, message: Work | Said) -> None:
    """Raises `OSError` when the other side is gone."""
    data = msgspec.json.encode(message)
    rest = memoryview(len(data).to_bytes(4, "big") + data)
    while rest:
        rest = rest[os.write(fd, rest) :]


def receive(fd: int, model: type[M]) -> M:
    """Raises `EOFError` when the other side is gone."""
    return msgspec.json.decode(_read(fd, int.from_bytes(_read(fd, 4), "big")), type=model)


def _read(fd: int, size: int) -> bytes:
    parts: list[bytes] = []
    while size:
        part = os.read(fd, size)
        if not part:
            raise EOFError
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def main(source: str, in_fd: int, out_fd: int, parent: int) -> None:
    die_with_parent(parent)
    signal.signal(signal.SIGTERM, _leave)
    line = Line(in_fd)
    line.start()
    try:
        registry = load_handlers(source)
    except UserError as error:
        sys.exit(str(error))
    transmit(out_fd, Said())
    while True:
        outcome = _execute(registry, line.works.get(), out_fd)
        line.rest()
        transmit(out_fd, Said(outcome=outcome))


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when the thread that started it is gone."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


class Line(threading.Thread):
    """Reads what the parent says, and ends this process when the parent is gone or the lease is out.

    A parent that is frozen cannot stop its children.  What has been said is read before the clock is asked: a handler
    may have kept this thread from running for longer than a lease that was renewed meanwhile.
    """

    def __init__(self, fd: int) -> None:
        super().__init__(name="line", daemon=True)
        self.works: queue.SimpleQueue[Work] = queue.SimpleQueue()
        self._fd = fd
        self._lock = threading.Lock()
        self._until_ns: int | None = None  # None: nothing is executed

    def rest(self) -> None:
        """The execution has ended."""
        with self._lock:
            self._until_ns = None

    def run(self) -> None:
        readable = select.poll()
        readable.register(self._fd, select.POLLIN)
        try:
            while True:
                until_ns = self._until_ns
                left_ms = None if until_ns is None else max(0, (until_ns - mono_ns()) // 1_000_000 + 1)
                if readable.poll(left_ms):
                    self._take(receive(self._fd, Work))
                elif self._is_out():
                    break
        except (EOFError, OSError):
            pass
        os.killpg(os.getpid(), signal.SIGKILL)  # and what the handler has started

    def _take(self, work: Work) -> None:
        with self._lock:
            if work.task is not None:
                self._until_ns = work.until_ns
                self.works.put(work)
            elif self._until_ns is not None:
                self._until_ns = max(self._until_ns, work.until_ns)

    def _is_out(self) -> bool:
        with self._lock:
            return self._until_ns is not None and mono_ns() >= self._until_ns


def _leave(_number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + signal.SIGTERM)  # `finally` blocks of the handler run


def _execute(registry: Registry, work: Work, out_fd: int) -> Outcome:
    def progress(fraction: float | None, note: str | None) -> None:
        transmit(out_fd, Said(fraction, note))

    assert work.task is not None  # only those are queued
    faults.mask(work.secrets)
    task = Task(work.task, work.group, work.state, progress)
    handler = registry.get(work.task.type)
    try:
        if handler is None:
            raise LookupError(f"the child process found no handler for {work.task.type!r}")
        value = _call(handler, task)
    except BaseException as error:
        outcome = outcomes.raised(error)
        return outcome if handler is None else handler.judge(outcome, error)
    return outcomes.returned(value, task.new_state)


def _call(handler: Handler, task: Task) -> Any:
    arguments = handler.arguments(task)
    if handler.is_async:
        return asyncio.run(handler.fn(*arguments))
    return handler.fn(*arguments)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
