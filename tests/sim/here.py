"""The part of the independent model that is about schedulers that run handlers themselves.

There a handler may begin before anything says so, and end before it is told that it began.  So what is committed is held
against what handlers did when it is told, and what begins against what its process may know: which of the tasks before
it have left, or may have, in this process and since it took over.
"""

from typing import TYPE_CHECKING

from consumers import Task as Job
from streams import limits
from streams.limits import EPOCH_SHIFT
from streams.protocol import CommandKind, Event, FailurePolicy, ReportKind, TaskState
from tests.sim.loop import Process, S, Violation
from tests.sim.scenario import Scenario
from tests.sim.stage import STAGE
from tests.sim.tale import BEGUN, Run, Tale, Task, policy

if TYPE_CHECKING:
    from tests.sim.truth import Truth

K, STATE = CommandKind, TaskState
MAX_ATTEMPTS = 5
LEAVE = (ReportKind.SUCCEEDED, ReportKind.REJECTED)
# Silent for longer than this, a scheduler may be fenced by others: what it runs then has to stop.
SILENT_US = int((limits.MEMBER_SILENT_S - 1.0) * S)


class Here:
    """`told`: (home, token) of what is committed to be running."""

    def __init__(self, truth: "Truth", scenario: Scenario) -> None:
        self._truth, self._scenario = truth, scenario
        self._limited = any(name.endswith("_max") for name, _ in scenario.settings)
        slots = dict(scenario.settings).get("local_slots", 1_000)
        self.slots = dict.fromkeys(scenario.locals, slots)
        self._placement = {plan.type: plan.placement for plan in scenario.handlers}
        self.told: set[tuple[int, int]] = set()
        self.begun: dict[str, str] = {}  # groups in this transaction with a start here that is not told -> task

    def is_here(self, process: Process) -> bool:
        return process.name in self.slots

    # -- what begins

    def judge_place(self, task: Task, process: Process) -> None:
        placement = self._placement.get(task.plan.type, "auto")
        if placement == ("workers" if self.is_here(process) else "local"):
            raise Violation("limits", f"task {task.id} runs on {process.name}, its place is {placement}")

    def judge_repeat(self, tale: Tale, task: Task, job: Job, *, is_told: bool) -> None:
        """G4: what was begun and never told is begun again only where its process was hit, and then carefully."""
        for run in task.runs:
            if run.told or not self.is_here(run.process) or self._is_known(run, job):
                continue
            if not self.is_disturbed(run.process):
                words = f"begins again though {run.process.name}, where it ran, was well"
                raise Violation("G4", f"task {job.id} {words}", tale.name)
            if not is_told:
                raise Violation("G4", f"task {job.id} may have begun before, and begins untold", tale.name)

    def _is_known(self, run: Run, job: Job) -> bool:
        """Whether it is in the memory in which this one begins."""
        return run.token >> EPOCH_SHIFT == job.fencing_token >> EPOCH_SHIFT

    def judge_begin(self, tale: Tale, task: Task, job: Job) -> None:
        """G2 and G4, by what this process may know of its group."""
        self._truth.read_home(self._truth.home(tale.name))
        known = {run.task: run for run in tale.untold if self._is_known(run, job)}
        waiting = [*tale.queue, *tale.order[tale.accepted :]]
        pending = self._pending(tale)
        for before in waiting:
            if before is task:
                break
            if not (pending or self._may_have_left(tale, before, known)):
                raise Violation("G2", f"task {job.id} begins before {before.id}", tale.name)
        else:
            if not pending:
                raise Violation("G2", f"task {job.id} begins and does not wait", tale.name)
        if not pending and job.attempt not in self._attempts(tale, task, known.get(task)):
            raise Violation("G4", f"task {job.id} begins as attempt {job.attempt}", tale.name)

    def _pending(self, tale: Tale) -> bool:
        """Whether an operator has asked for something that may have been done, and is not told yet."""
        orders = self._truth.orders.of_group.get(tale.name, ())
        return any(order.answered < order.sent for order in orders) or bool(tale.doomed)

    def may_go_on(self, tale: Tale) -> bool:
        """Whether its pause may be over, and that is not told yet."""
        orders = self._truth.orders.of_group.get(tale.name, ())
        return any(
            order.plan.pause_ms is not None or (order.kind is K.RESUME_GROUP and order.answered < order.sent)
            for order in orders
        )

    def may_be_released(self, tale: Tale) -> bool:
        """Whether somebody may have given up what runs, and that is not told yet."""
        orders = self._truth.orders.of_group.get(tale.name, ())
        return any(order.kind is K.RELEASE and order.answered < order.sent for order in orders)

    def _may_have_left(self, tale: Tale, task: Task, known: dict[Task, Run]) -> bool:
        run = known.get(task) or self._told_run(tale, task)
        if task.plan.idempotency_key is not None or (run is None and self._limited):
            return True  # a duplicate, or there was no room for it
        is_lost = task is tale.head() and tale.phase in BEGUN and (run is None or self._is_hit(run.process))
        if not is_lost and (run is None or run.ended_us < 0):
            return False
        if task is tale.head() and tale.stopping:
            return True
        kind = ReportKind.FAILED if run is None else run.kind
        if kind in LEAVE:
            return True
        if kind is not ReportKind.FAILED and not is_lost:
            return False
        how = policy(task, self._truth.orders.default_policy)
        if how is FailurePolicy.BLOCK:
            return False
        if how is FailurePolicy.CASCADE:
            return True
        spent = (tale.attempt if run is None else run.job.attempt) - (
            tale.attempts_before if task is tale.head() else 0
        )
        return spent >= (task.plan.max_attempts or MAX_ATTEMPTS) or (task is tale.head() and tale.one_more)

    def _is_hit(self, process: Process) -> bool:
        return not process.alive or self._truth.was_troubled(process) or self.is_disturbed(process)

    def _told_run(self, tale: Tale, task: Task) -> Run | None:
        """What ran of it under its latest dispatch, here or on a worker."""
        if task is not tale.head() or tale.phase not in BEGUN:
            return None
        return self._truth.runs.get((self._truth.home(tale.name), tale.token))

    def _attempts(self, tale: Tale, task: Task, known: Run | None) -> set[int]:
        """Which attempt it may be."""
        run = known or self._told_run(tale, task)
        if run is not None and run.ended_us >= 0 and run.process.alive and self.is_here(run.process):
            return {run.job.attempt + (run.kind is ReportKind.FAILED)}
        if task is not tale.head():
            return {1}
        return {tale.attempt, tale.attempt + 1} if tale.phase in BEGUN else {tale.attempt}

    # -- what is told

    def dispatched(self, tale: Tale, event: Event, instance: str) -> None:
        """No dispatch is in any log: it must have begun where it is told."""
        if instance not in self.slots:
            raise Violation("G7", f"{event.task_id} is told to be dispatched, and is in no log", tale.name)
        self.begun[tale.name] = event.task_id or ""

    def check_begun(self) -> None:
        for group, task_id in self.begun.items():
            raise Violation("G7", f"{task_id} is told to be dispatched, and neither begun nor in any log", group)

    def hear_running(self, partition: int, tale: Tale, task: Task, run: Run | None, event: Event) -> None:
        begun = self.begun.pop(tale.name, None)
        token = event.fencing_token or 0
        self.told.add((partition, token))
        if begun is None:
            return
        self._truth.claimants[partition, token] = STAGE.boots[event.boot_id or ""]
        if run is None:
            return  # it begins now that this is told
        if run.process is not STAGE.boots[event.boot_id or ""] or run.task is not task:
            raise Violation("G7", f"{event.task_id} is told to run on {event.worker}, and does not", tale.name)
        if run.job.attempt != event.attempt:
            raise Violation("G7", f"{event.task_id} ran as attempt {run.job.attempt}, not {event.attempt}", tale.name)
        for other in tale.untold:
            if other is run:
                break
            if self._is_known(other, run.job):
                raise Violation("G2", f"{event.task_id} is told before {other.job.id}, which ran before", tale.name)
        run.told = True
        tale.untold.remove(run)
        self._truth.judge_given(tale, task, run.job, run.began_us, tale.due_us, tale.state)

    # -- troubles

    def is_disturbed(self, process: Process | None) -> bool:
        """Whether what it ran may have been lost: it died, was cut off, or something befell its transactions."""
        if process is None or not self.is_here(process):
            return False
        since_us = self._truth.loop.now_us - int(3 * self._scenario.lease_s * S) - 6 * S
        if not process.alive or any(at_us >= since_us for at_us in process.doubts):
            return True
        spans = [*process.trouble, *process.held_up(), *self._truth.loop.jumps]
        total_us = sum(max(0, b - max(a, since_us)) for a, b in spans)
        return total_us >= SILENT_US or self._truth.was_troubled(process)
