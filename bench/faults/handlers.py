"""Handlers that go on until they are cancelled, each in its way, and one that fails once."""

import asyncio
import time

from consumers import Task, handler


@handler("endless.async", timeout_s=600)
async def endless(task: Task) -> None:
    await asyncio.Event().wait()


@handler("endless.thread", timeout_s=600)
def endless_thread(task: Task) -> None:
    while not task.cancelled:
        time.sleep(0.01)
    raise RuntimeError("told to stop")


@handler("endless.process", timeout_s=600, process=True)
def endless_process(task: Task) -> None:
    time.sleep(600)


@handler("fails.once", backoff_base_s=0.5, jitter=False)
async def fails_once(task: Task) -> None:
    if task.attempt == 1:
        raise ValueError("once")
