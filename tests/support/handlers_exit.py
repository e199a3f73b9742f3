"""A handler that always takes its process with it, beside all of `handlers.py`."""

import os

from handlers import note

from consumers import Task, handler


@handler("exit")
async def exit_process(task: Task) -> None:
    note(task, "start")
    os._exit(9)
