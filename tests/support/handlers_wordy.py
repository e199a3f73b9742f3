"""Handlers that say too much."""

import time
from collections.abc import Callable
from typing import Any

from handlers import note

from consumers import Reject, Task, handler

LONG = "x" * 3_000_000


def raise_long(task: Task) -> None:
    raise ValueError(LONG)


def chain(task: Task) -> None:
    """500 exceptions, each the cause of the next."""
    error: Exception = ValueError("the first one")
    for number in range(500):
        try:
            raise RuntimeError(f"number {number} " + "y" * 10_000) from error
        except RuntimeError as caught:
            error = caught
    raise error


def return_long(task: Task) -> Any:
    return {"text": LONG}


def progress(task: Task) -> None:
    task.progress(0.5, LONG)
    time.sleep(0.3)


def reject(task: Task) -> None:
    raise Reject(LONG)


def state(task: Task) -> None:
    task.set_state(LONG)


def group(task: Task) -> None:
    raise ExceptionGroup(LONG, [ValueError(LONG) for _ in range(100)])


def type_name(task: Task) -> None:
    raise type(LONG, (Exception,), {})("an error whose very name is too long")


CASES: dict[str, Callable[[Task], Any]] = {
    "raise": raise_long, "chain": chain, "return": return_long, "progress": progress, "reject": reject,
    "state": state, "group": group, "type_name": type_name,
}  # fmt: skip


def declare(name: str, act: Callable[[Task], Any]) -> None:
    def plain(task: Task) -> Any:
        note(task, "start")
        return act(task)

    async def in_loop(task: Task) -> Any:
        note(task, "start")
        return act(task)

    handler(f"async.{name}")(in_loop)
    handler(f"thread.{name}")(plain)
    handler(f"process.{name}", process=True)(plain)


for case, function in CASES.items():
    declare(case, function)
