"""What the checker remembers while it reads: open tasks in full, of a group only its last steps."""

from collections.abc import Iterator
from datetime import datetime

from streams.protocol import TERMINAL, TaskState


class Group:
    """A group: its open tasks as a list linked in order of sequence, and the end of what has finished."""

    __slots__ = (
        "clock_id", "end_ns", "ended_at", "forwarded", "free_at", "head", "last_id", "last_offset", "last_state",
        "last_state_set", "last_token", "name", "origin_offset", "other_clocks", "run_id", "run_offset", "start_ns",
        "tail", "timed", "token",
    )  # fmt: skip

    def __init__(self, name: str) -> None:
        self.name = name
        self.head: Task | None = None
        self.tail: Task | None = None
        self.token = -1  # of its latest dispatch
        # Origin offsets of its newest task; of forwarded ones per partition that they came from.
        self.origin_offset = -1
        self.forwarded: dict[int, int] | None = None
        # The task that became terminal last.
        self.last_id: str | None = None
        self.last_token: int | None = None
        self.last_state: TaskState | None = None
        self.last_state_set = False
        self.last_offset = -1
        self.free_at: datetime | None = None
        # The latest execution in its worker's own times.  Without a known end, `end_ns` is its start.
        self.clock_id: str | None = None
        self.start_ns = 0
        self.end_ns = 0
        self.ended_at: datetime | None = None
        self.run_id = ""
        self.run_offset = -1
        self.other_clocks: dict[str, tuple[int, int]] | None = None
        self.timed = False  # the next task was waiting when that execution ended

    def open_tasks(self) -> Iterator["Task"]:
        task = self.head
        while task is not None:
            yield task
            task = task.next

    def append(self, task: "Task") -> None:
        if self.tail is None:
            self.head = self.tail = task
        elif self.tail.sequence < task.sequence:
            self.tail.next = self.tail = task
        else:
            self._insert(task)

    def _insert(self, task: "Task") -> None:
        """Redriven tasks, and what broken histories or those without a beginning hold.  What has begun stays first."""
        before = self.head if self.head is not None and self.head.has_begun() else None
        other = self.head if before is None else before.next
        while other is not None and other.sequence <= task.sequence:
            before, other = other, other.next
        if before is None:
            task.next, self.head = self.head, task
        else:
            task.next, before.next = before.next, task
        if task.next is None:
            self.tail = task

    def drop_finished(self) -> None:
        """Move the head past terminal tasks."""
        head = self.head
        while head is not None and head.state in TERMINAL:
            head = head.next
        self.head = head
        if head is None:
            self.tail = None


class Task:
    """A task that is not terminal, or is and waits in its group's list for those before it."""

    __slots__ = (
        "at", "attempt", "boot_id", "due", "executions", "group", "next", "offset", "ready_at", "released", "sequence",
        "started_at", "started_ns", "state", "state_set", "task_id", "token", "why", "worker",
    )  # fmt: skip

    def __init__(self, group: Group, sequence: int, task_id: str, state: TaskState, at: datetime, offset: int) -> None:
        self.group = group
        self.sequence = sequence
        self.task_id = task_id
        self.state = state
        self.at = at  # its first event
        self.offset = offset  # of its latest record
        self.ready_at = at  # it could have run from here on, as far as it alone is concerned
        self.due: datetime | None = None
        self.attempt = 1
        self.token: int | None = None
        self.executions = 0
        self.why: str | None = None  # it was given out again
        self.next: Task | None = None
        # The execution under way.
        self.worker: str | None = None
        self.boot_id: str | None = None
        self.started_at: datetime | None = None
        self.started_ns: int | None = None
        self.state_set = False
        self.released: str | None = None  # by whom, though it went on

    def has_begun(self) -> bool:
        """Whether it is out at the workers, or was."""
        return self.token is not None
