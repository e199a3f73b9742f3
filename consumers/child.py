"""The child process of `process=True` handlers: `python -m consumers.child SOURCE IN OUT PARENT`.

Frames are a length (4 bytes, big-endian) and JSON.  The child ends when its parent does, whichever of the two ways
notices first: the kernel's signal (Linux) or the end of the pipe.
"""

import asyncio
import ctypes
import os
import queue
import signal
import sys
import threading
from types import FrameType
from typing import Any, Final, TypeVar

import msgspec
from msgspec import Struct

from consumers import outcomes
from consumers.handlers import Handler, Registry, load_handlers
from consumers.outcomes import Outcome
from consumers.task import Task
from streams.errors import UserError
from streams.protocol import DispatchedTask, MaybeRaw

_PR_SET_PDEATHSIG: Final = 1


class Work(Struct, frozen=True, omit_defaults=True):
    """Parent to child: execute this."""

    group: str
    task: DispatchedTask
    state: MaybeRaw = None


class Said(Struct, frozen=True, omit_defaults=True):
    """Child to parent: progress, or how it ended."""

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
    works: queue.SimpleQueue[Work] = queue.SimpleQueue()
    threading.Thread(target=_read_works, args=(in_fd, works), daemon=True).start()
    try:
        registry = load_handlers(source)
    except UserError as error:
        sys.exit(str(error))
    while True:
        transmit(out_fd, Said(outcome=_execute(registry, works.get(), out_fd)))


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when the thread that started it is gone."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


def _read_works(fd: int, works: "queue.SimpleQueue[Work]") -> None:
    try:
        while True:
            works.put(receive(fd, Work))
    except (EOFError, OSError):
        os.killpg(os.getpid(), signal.SIGKILL)  # the parent is gone: whatever runs here must not go on


def _leave(_number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + signal.SIGTERM)  # `finally` blocks of the handler run


def _execute(registry: Registry, work: Work, out_fd: int) -> Outcome:
    def progress(fraction: float | None, note: str | None) -> None:
        transmit(out_fd, Said(fraction, note))

    task = Task(work.task, work.group, work.state, progress)
    handler = registry.get(work.task.type)
    try:
        if handler is None:
            raise LookupError(f"the child process found no handler for {work.task.type!r}")
        value = _call(handler, task)
    except BaseException as error:
        return outcomes.raised(error)
    return outcomes.returned(value, task.new_state)


def _call(handler: Handler, task: Task) -> Any:
    arguments = handler.arguments(task)
    if handler.is_async:
        return asyncio.run(handler.fn(*arguments))
    return handler.fn(*arguments)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
