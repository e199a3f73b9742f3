"""Handlers for tests.  Each writes an fsynced line to $JOURNAL as it begins and as it ends."""

import asyncio
import json
import os
import time
from typing import Any

from consumers import Reject, Retry, Snooze, Task, handler

JOURNAL = os.open(os.environ["JOURNAL"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)


def note(task: Task, what: str, **more: Any) -> None:
    line = {
        "what": what, "group": task.group, "id": task.id, "attempt": task.attempt, "token": task.fencing_token,
        "pid": os.getpid(), "mono_ns": time.monotonic_ns(), **more,
    }  # fmt: skip
    os.write(JOURNAL, json.dumps(line).encode() + b"\n")
    os.fsync(JOURNAL)


@handler("echo")
async def echo(task: Task) -> Any:
    note(task, "start")
    note(task, "end")
    return task.payload


@handler("sleep")
async def sleep(task: Task) -> None:
    note(task, "start")
    await asyncio.sleep(task.payload)
    note(task, "end")


@handler("block")
def block(task: Task) -> None:
    """In a thread."""
    note(task, "start")
    time.sleep(task.payload)
    note(task, "end")


@handler("process", process=True)
def in_process(task: Task) -> None:
    note(task, "start")
    time.sleep(task.payload)
    note(task, "end")


@handler("fail", backoff_base_s=0.05)
async def fail(task: Task) -> None:
    """Fails as often as the payload says, then succeeds."""
    note(task, "start")
    if task.attempt <= task.payload:
        note(task, "end", failed=True)
        raise ValueError(f"attempt {task.attempt} fails")
    note(task, "end")


@handler("count")
async def count(task: Task) -> int:
    """Group state: how many tasks of this group came before."""
    note(task, "start", state=task.state)
    before = (task.state or {"n": 0})["n"]
    await asyncio.sleep(task.payload or 0)
    task.set_state({"n": before + 1})
    note(task, "end")
    return int(before)


@handler("outcome")
async def outcome(task: Task) -> Any:
    """Retries so many times, rejects, or snoozes until a time; otherwise succeeds."""
    note(task, "start")
    wanted = task.payload
    match wanted["do"]:
        case "retry" if task.attempt <= wanted["times"]:
            raise Retry(after_s=wanted["after_s"])
        case "reject":
            raise Reject("as asked")
        case "snooze" if time.time() < wanted["until_s"]:
            raise Snooze(wanted["after_s"])
    note(task, "end")
    return None
