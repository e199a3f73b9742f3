"""The handlers of deploy/compose.yaml: put your own module in their place."""

import asyncio

from consumers import Task, handler


@handler("echo")
async def echo(task: Task) -> object:
    await asyncio.sleep(0.1)
    return task.payload
