"""The demo's one handler: enters a flight into its plane's logbook."""

from consumers import Task, handler
from pstp.demo.data import TASK_TYPE
from pstp.demo.logbook import add_flight


@handler(TASK_TYPE, timeout_s=30)
async def log_flight(task: Task) -> None:
    task.set_state(add_flight(task.state, task.payload))
