"""Handlers that fail until an operator helps, and one that does not stop when it is told to."""

import os
import time
from pathlib import Path
from typing import Any

from consumers import Task, handler

FOLDER = Path(os.environ["JOURNAL"]).parent


@handler("ok")
async def ok(task: Task) -> Any:
    return task.payload


@handler("picky", max_attempts=1)
async def picky(task: Task) -> None:
    """Wants {"ok": true}; what it says otherwise holds a secret."""
    if not (isinstance(task.payload, dict) and task.payload.get("ok")):
        password = "s3cr3t-word"
        raise ValueError(f"login with {password} refused")


@handler("picky.process", process=True, max_attempts=5, retry_on=(KeyError,))
def picky_process(task: Task) -> None:
    raise ValueError("login with s3cr3t-word refused")


@handler("down", max_attempts=1)
async def down(task: Task) -> None:
    raise OSError("connection refused")


@handler("keeps", max_attempts=1)
async def keeps(task: Task) -> None:
    task.set_state({"cursor": task.payload})


@handler("stubborn")
def stubborn(task: Task) -> None:
    """Goes on until the file `let-go` is there."""
    while not (FOLDER / "let-go").exists():
        time.sleep(0.02)
