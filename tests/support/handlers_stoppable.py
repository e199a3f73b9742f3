"""Handlers that fail, and handlers that go on until they are told to stop."""

import asyncio
import time

from consumers import Task, handler


@handler("fails", max_attempts=50, backoff_base_s=60, backoff_cap_s=60, jitter=False)
async def fails(task: Task) -> None:
    raise ValueError("never")


@handler("succeeds")
async def succeeds(task: Task) -> None:
    return None


@handler("waits.async")
async def waits_async(task: Task) -> None:
    await asyncio.sleep(600)


@handler("waits.thread")
def waits_thread(task: Task) -> None:
    while not task.cancelled:
        time.sleep(0.02)
    raise RuntimeError("cancelled")


@handler("waits.process", process=True)
def waits_process(task: Task) -> None:
    time.sleep(600)
