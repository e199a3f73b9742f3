"""A handler that fails in every way there is, killing its worker included, beside all of `handlers.py`."""

import os
import signal

from handlers import note

from consumers import Reject, Snooze, Task, handler

SNOOZED: set[str] = set()  # in this worker


@handler("odd", backoff_base_s=0.05)
async def odd(task: Task) -> None:
    """Says that it has ended however it ends, unless it takes its worker with it."""
    note(task, "start")
    try:
        act(task)
    finally:
        note(task, "end")


def act(task: Task) -> None:
    match task.payload:
        case "fails" if task.attempt <= 2:
            raise ValueError(f"attempt {task.attempt} fails")
        case "snoozes" if task.id not in SNOOZED:
            SNOOZED.add(task.id)
            raise Snooze(0.3)
        case "rejects":
            raise Reject("as asked")
        case "kills" if task.attempt == 1:
            os.kill(os.getpid(), signal.SIGKILL)
