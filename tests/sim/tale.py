"""What the independent model keeps of executions, tasks and groups."""

from typing import Any

from consumers import Task as Job
from consumers.leases import Lease, Stop
from streams.protocol import FailurePolicy, ReportKind, TaskState
from tests.sim.broker import Message
from tests.sim.loop import Process
from tests.sim.scenario import Behaviour, TaskPlan

BEGUN = (TaskState.DISPATCHED, TaskState.RUNNING)


class Run:
    """One execution.  `job`: what its handler was given; `lease`: what it runs under; `told`: that it began."""

    __slots__ = (
        "began_us",
        "behaviour",
        "ended_us",
        "job",
        "kind",
        "lease",
        "new_state",
        "process",
        "stop",
        "task",
        "token",
        "told",
    )  # fmt: skip

    def __init__(
        self, task: "Task", process: Process, job: Job, lease: Lease, behaviour: Behaviour, now_us: int
    ) -> None:  # fmt: skip
        self.task, self.process, self.job, self.lease, self.behaviour = task, process, job, lease, behaviour
        self.token = job.fencing_token
        self.told = False
        self.began_us, self.ended_us = now_us, -1
        self.kind: ReportKind | None = None
        self.stop: Stop | None = None
        self.new_state: Any = None

    @property
    def is_live(self) -> bool:
        return self.ended_us < 0 and self.process.alive


class Task:
    """A record of `tasks`, under the place where its publisher put it."""

    __slots__ = (
        "expected", "message", "payload", "plan", "published_us", "runs", "sequence", "submissions", "terminals",
    )  # fmt: skip

    def __init__(self, plan: TaskPlan, message: Message, now_us: int) -> None:
        self.plan, self.message, self.published_us = plan, message, now_us
        self.expected = False  # its publication was acknowledged
        self.sequence = -1
        self.submissions = 1  # a redrive is another
        self.terminals = 0
        self.runs: list[Run] = []
        self.payload: Any = {"n": plan.number}

    @property
    def id(self) -> str:
        return f"{self.message.partition()}-{self.message.offset()}"


class Tale:
    """A group, by what is committed.  `order`: its tasks as they stand in its partition, of which so many were
    accepted; `queue`: those that wait or run, as they must go, the head first.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.order: list[Task] = []
        self.accepted = 0
        self.queue: list[Task] = []
        self.last_token = 0
        self.state: Any = None
        self.owes: Run | None = None  # its state has still to be told
        self.moved_us = 0
        self.live: list[Run] = []
        self.latest: Run | None = None
        self.untold: list[Run] = []  # in schedulers that run handlers: nothing of them is committed yet
        self.doomed: list[Task] = []  # taken along by the failure of the one before them
        # What operators have brought about.
        self.paused = False
        self.is_still = False  # the pause was answered
        self.still_token = 0  # of what ran at that moment
        self.blocked = False
        self.goes_on = 0  # token of what its worker could not end
        self.released: set[int] = set()  # tokens of what an operator lets go on at his own risk
        self.displaced = False  # the head has just made room
        self.operating: str | None = None  # id of a command of the time after the last fault
        self.next()

    def next(self) -> None:
        """What is told of the head begins anew."""
        self.phase = TaskState.PARKED
        self.token = 0  # of its latest dispatch
        self.unrun = False  # which came back, and it waits for its first attempt again
        self.attempt = 1
        self.attempts_before = 0  # they do not count: an operator let it start anew
        self.one_more = False  # an operator let it run once more
        self.due_us = 0  # it must not begin sooner
        self.stopping = False

    def head(self) -> Task | None:
        return self.queue[0] if self.queue else None

    def has_begun(self) -> bool:
        """Whether the head has been on its way at least once, and did not come back unrun from its first one."""
        return self.token > 0 and not self.unrun

    def back(self, task: Task) -> None:
        """Redriven to the head: under its own number among all that has not begun."""
        first = 1 if self.queue and self.has_begun() else 0
        place = next((i for i in range(first, len(self.queue)) if self.queue[i].sequence > task.sequence), None)
        self.queue.insert(len(self.queue) if place is None else place, task)


def policy(task: Task, default: FailurePolicy) -> FailurePolicy:
    return FailurePolicy(task.plan.on_failure) if task.plan.on_failure else default
