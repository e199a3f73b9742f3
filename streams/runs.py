"""How many tasks of a group go out in one dispatch.  Pure.

A round trip through Kafka per task bounds what one group can do to some hundred tasks a second, however quick its
handlers are.  So a group with a backlog sends several tasks at once while its handlers are quick: about so much work as
fits into `PSTP_RUN_MS`.  What it costs: a command to the group waits until the run is cut, and a slot is taken for as
long as the run lasts.
"""

from collections import deque

from streams import limits
from streams.clock import Now
from streams.partition import Entry, Following, read_row


def length(run_ms: float | None, work_ms: int) -> int:
    """How many tasks of a type go out together.  `run_ms`: how long its handlers ran lately; None: nobody knows."""
    if run_ms is None or not work_ms:
        return 1
    return max(1, min(limits.RUN_TASKS_MAX, int(work_ms / (run_ms + limits.RUN_TASK_MS))))


def behind(entry: Entry, run_ms: dict[str, float], work_ms: int, now: Now) -> deque[Following] | tuple[()]:
    """What goes out with the head: the next parked tasks that are of its type and may start.

    A head that has failed before goes alone, since what stands behind it would likely come back; and so does each task
    of a run that was lost.
    """
    head, task = entry.group.head, entry.task
    if not entry.parked or head is None or task is None or head.attempt > 1 or head.sequence <= entry.alone_to:
        return ()
    most = length(run_ms.get(task.type), work_ms) - 1
    if most < 1:
        return ()
    found: deque[Following] = deque()
    left_bytes = limits.RUN_BYTES_MAX - len(entry.row)
    for sequence, value in entry.backlog():
        left_bytes -= len(value)
        if len(found) >= most or left_bytes < 0:
            break
        row, following = read_row(value)
        if following.type != task.type or (following.not_before_ms or 0) > now.wall_ms:
            break
        found.append(Following(sequence, following, row.accepted_ms))
    return found or ()
