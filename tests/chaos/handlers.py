"""Handlers of the chaos runs.  Each writes fsynced lines to its process's own journal as it begins and as it ends.

All of them count in the state of their group, so each task that is lost, doubled or out of order shows there, too.
"""

import asyncio
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from consumers import Reject, Retry, Task, handler
from streams.clock import clock_id

INSTANCE = os.environ.get("PSTP_INSTANCE", "")
FOLDER = Path(os.environ["CHAOS_FOLDER"])
JOURNAL = os.open(
    FOLDER / f"journal-{INSTANCE}-{os.getpid()}-{time.monotonic_ns()}.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT
)
# Chaos takes attempts: no task may run out of them by it.
LOSSES = {"max_attempts": 200, "backoff_base_s": 0.05, "backoff_cap_s": 0.5}


def write(task: Task, **what: Any) -> None:
    line = {
        "group": task.group, "task_id": task.id, "token": task.fencing_token, "attempt": task.attempt,
        "clock_id": clock_id(), "pid": os.getpid(), "ppid": os.getppid(), "instance": INSTANCE, "type": task.type,
        **what,
    }  # fmt: skip
    os.write(JOURNAL, json.dumps(line).encode() + b"\n")
    os.fsync(JOURNAL)


@contextmanager
def journal(task: Task) -> Iterator[None]:
    write(task, start_mono_ns=time.monotonic_ns())
    try:
        yield
    finally:
        write(task, end_mono_ns=time.monotonic_ns())


def count(task: Task) -> int:
    n = int((task.state or {"n": 0})["n"]) + 1
    task.set_state({"n": n})
    return n


def declare(name: str, **options: Any) -> Callable[[Callable[..., Any]], Any]:
    where = {"placement": os.environ.get("CHAOS_PLACEMENT", "auto")}
    return handler(f"chaos.{name}", **(LOSSES | {"timeout_s": 60} | where | options))


@declare("quick")
async def quick(task: Task) -> int:
    with journal(task):
        await asyncio.sleep(task.payload["s"])
        return count(task)


@declare("thread")
def thread(task: Task) -> int:
    with journal(task):
        time.sleep(task.payload["s"])
        return count(task)


@declare("process", process=True)
def process(task: Task) -> int:
    with journal(task):
        time.sleep(task.payload["s"])
        return count(task)


@declare("fails")
async def fails(task: Task) -> int:
    with journal(task):
        if task.attempt <= 2:
            raise Retry(after_s=0.1) if task.attempt == 1 else ValueError("as asked")
        return count(task)


@declare("rejects")
async def rejects(task: Task) -> None:
    with journal(task):
        raise Reject("as asked")


@declare("hangs", timeout_s=1)
async def hangs(task: Task) -> int:
    with journal(task):
        if task.attempt == 1:
            await asyncio.Event().wait()
        return count(task)


@declare("hangs_thread", timeout_s=1)
def hangs_thread(task: Task) -> int:
    """Longer than its timeout: a thread cannot be stopped, so its group waits."""
    with journal(task):
        if task.attempt == 1:
            time.sleep(4)
        return count(task)


@declare("hangs_process", timeout_s=1, process=True)
def hangs_process(task: Task) -> int:
    with journal(task):
        if task.attempt == 1:
            time.sleep(600)
        return count(task)


@declare("endless", timeout_s=600)
async def endless(task: Task) -> None:
    """Until it is cancelled, like the next two."""
    with journal(task):
        await asyncio.Event().wait()


@declare("endless_thread", timeout_s=600)
def endless_thread(task: Task) -> None:
    with journal(task):
        while not task.cancelled:
            time.sleep(0.01)
        raise RuntimeError("told to stop")


@declare("endless_process", timeout_s=600, process=True)
def endless_process(task: Task) -> None:
    with journal(task):
        time.sleep(600)


@declare("breaks")
async def breaks(task: Task) -> int:
    """Until somebody edits it."""
    with journal(task):
        if not task.payload["ok"]:
            raise ValueError("as asked")
        return count(task)


@declare("stubborn", timeout_s=1)
def stubborn(task: Task) -> int:
    """Goes on after its time: its group waits, unless an operator releases it."""
    with journal(task):
        if task.attempt == 1:
            time.sleep(task.payload["s"])
        return count(task)


@declare("depends")
async def depends(task: Task) -> int:
    with journal(task):
        if (FOLDER / "dependency-down").exists():
            raise ConnectionError("as asked")
        return count(task)


@declare("leaks")
def leaks(task: Task) -> int:
    with journal(task):
        for _ in range(5):
            threading.Thread(target=threading.Event().wait, daemon=True).start()
        return count(task)


@declare("exits")
async def exits(task: Task) -> int:
    """Takes its worker with it the first time."""
    with journal(task):
        if task.attempt == 1:
            leave("handler exits its worker")
        return count(task)


@declare("exits_child", process=True)
def exits_child(task: Task) -> int:
    """Takes the child with it the first time."""
    with journal(task):
        if task.attempt == 1:
            os._exit(3)
        return count(task)


def leave(why: str) -> None:
    line = {"instance": INSTANCE, "at_s": time.time(), "why": why}
    with (FOLDER / "exits.jsonl").open("ab", buffering=0) as file:
        file.write(json.dumps(line).encode() + b"\n")
        os.fsync(file.fileno())
    os._exit(3)
