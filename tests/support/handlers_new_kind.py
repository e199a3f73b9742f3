"""What a new version's worker knows: all of `handlers.py` and one type more."""

import asyncio

from handlers import note

from consumers import Task, handler


@handler("new.kind")
async def new_kind(task: Task) -> None:
    note(task, "start")
    await asyncio.sleep(float(task.payload) % 1)
    note(task, "end")
