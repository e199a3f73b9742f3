"""A run: the tasks of one claimed dispatch, executed one after the other under one lease.

Why a task may begin:
- The first: its `started` is in the log, and less than a lease (less the margin) has passed since the claim's commit
  began.  So no `started`, never ran; and a scheduler that finds no `started` a lease after it saw the claim knows that
  there will be none that ran.
- The later ones: their `started` goes out in one record with the completion before it, and they begin at once, without
  waiting for it.  Until that record is read the scheduler believes the task before to be running, and waits for the
  claim's lease: it starts nothing in this group.  And this worker stops whatever runs under the claim before that same
  lease is out, counted from the last *acknowledged* report.  So nothing can overlap.

A `started` that is in the log but must not run any more (this process was frozen, or the log was slow) is reported
`returned` at once: nothing ran, so no attempt is used, and nobody has to wait for the lease.  If the scheduler has
given the task to another by then, the token is stale and the report is refused.
"""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import structlog

from consumers.execution import Execution, Executor, moment
from consumers.handlers import Handler, Registry
from consumers.leases import Lease, LeaseKeeper, Stop
from consumers.metrics import WorkerMetrics
from consumers.outcomes import Outcome
from consumers.reports import Claim, Reporter
from streams.clock import mono_ns
from streams.protocol import DispatchedTask, MaybeRaw, Moment, Reason, Report, ReportKind
from streams.settings import Settings

log = structlog.get_logger("worker")

_NS = 1_000_000_000


@dataclass
class Runtime:
    """What every run of a worker shares."""

    settings: Settings
    instance: str
    registry: Registry
    reporter: Reporter
    keeper: LeaseKeeper
    metrics: WorkerMetrics
    executor_of: Callable[[Handler], Executor]
    release_slot: Callable[[], None]
    fence: Callable[[str], None]  # ends the process
    step: Callable[[str], None]  # test seam: named points between the steps of a claim
    draining: bool = False
    # By group and the fencing token of each of their tasks: partitions count their tokens for themselves.
    runs: "dict[tuple[str, int], Run]" = field(default_factory=dict)

    def cut(self, group: str, token: int) -> bool:
        """The dispatch is wanted back: what of it runs goes on, and the rest is given back.  False: it is not here.
        From any thread.
        """
        run = self.runs.get((group, token), None)
        if run is not None:
            run.cut()
        return run is not None

    def cancel(self, group: str, token: int) -> None:
        """A command cancels that task.  From any thread; one that is not here any more has ended."""
        if (run := self.runs.get((group, token))) is not None:
            run.cancel(token)


class Run:
    """From the claim's `started` to its last report.  Holds one slot."""

    def __init__(self, runtime: Runtime, claim: Claim) -> None:
        self.runtime, self.claim = runtime, claim
        self.lease = Lease(runtime.settings, claim.began_ns)
        self._tasks = claim.dispatch.tasks
        self._index = 0
        self._state: MaybeRaw = claim.dispatch.state
        self._execution: Execution | None = None
        self._renewing = False
        self._cancelled: set[int] = set()
        self._over = threading.Lock()  # taken once, by whoever ends the run
        self._next = threading.Lock()  # held by whoever takes the next task, or what stands behind the one that runs
        self._is_announced = self._is_wanted_back = False

    # -- beginning

    def announce(self) -> None:
        """Say `started`; the first task begins when that is in the log.  Called in the polling thread."""
        sent_ns = mono_ns()
        self.runtime.runs |= dict.fromkeys(self._names(), self)

        def acknowledged(error: str | None) -> None:
            self.runtime.step("started")
            if error is not None or not self.lease.may_start(mono_ns()):
                self.give_back(Reason.LOST_BEFORE_START)
                return
            if self.runtime.draining:
                self.give_back(Reason.RETURNED)
                return
            self.lease.extend(sent_ns)
            self.runtime.keeper.add(self)
            try:
                self._execute()
            except Exception:
                log.exception("task not begun", group=self.claim.dispatch.group)
                self.give_back(Reason.RETURNED)

        self.runtime.reporter.send(self.claim, (self._started_report(),), acknowledged)
        with self._next:
            self._is_announced = True
        if self._is_wanted_back:
            self.cut()

    def _started_report(self) -> Report:
        wire = self._tasks[self._index]
        handler = self._handler(wire)
        policy = handler.policy if handler is not None else None
        return Report(ReportKind.STARTED, wire.sequence, wire.token, started=moment(), policy=policy)

    def _handler(self, wire: DispatchedTask) -> Handler | None:
        return self.runtime.registry.get(wire.type)

    def _execute(self) -> None:
        wire = self._tasks[self._index]
        handler = self._handler(wire)
        assert handler is not None  # looked up before the claim, and before going on
        executor = self.runtime.executor_of(handler)
        self._execution = execution = Execution(self, wire, handler, self._state, executor)
        if wire.token in self._cancelled:
            execution.request_stop(Stop.CANCEL)  # nothing ran yet: it is given back
            return
        self.runtime.metrics.started.labels(wire.type).inc()
        executor.submit(execution)

    def cancel(self, token: int) -> None:
        """Stop that task, whether it runs or is about to.  From any thread."""
        self._cancelled.add(token)
        execution = self._execution
        if execution is not None and execution.wire.token == token:
            execution.request_stop(Stop.CANCEL)

    def cut(self) -> None:
        """Give back what stands behind the task that runs, or is about to.  From any thread."""
        with self._next:
            if not self._is_announced:  # what comes back is told after the start of what stands before it
                self._is_wanted_back = True
                return
            rest, self._tasks = self._tasks[self._index + 1 :], self._tasks[: self._index + 1]
        self._give_back(rest, (), Reason.TAKEN_BACK)

    # -- ending

    def ended(self, execution: Execution, outcome: Outcome, at: Moment) -> None:
        """Report the outcome and go on with the next task, or give back what is left."""
        if self.lease.is_out(mono_ns()):
            self.runtime.fence("a lease ran out before its handler ended")
            return
        wire = execution.wire
        reports = (*execution.unsent_progress(), report_of(wire, outcome, execution.started, at))
        self._count(wire, outcome, execution.started, at)
        execution.log_failure(outcome)
        with self._next:
            self._index += 1
            goes_on = outcome.kind is ReportKind.SUCCEEDED and self._index < len(self._tasks) and self._may_go_on()
        if not goes_on:
            self._close(reports)
            return
        if outcome.state_set:
            self._state = None if bytes(outcome.state or b"") == b"null" else outcome.state
        sent_ns = mono_ns()
        self.runtime.reporter.send(
            self.claim, (*reports, self._started_report()), lambda error: self._acknowledged(error, sent_ns)
        )
        self._execute()

    def _may_go_on(self) -> bool:
        return (
            not self.runtime.draining
            and self.lease.may_start(mono_ns())
            and self._handler(self._tasks[self._index]) is not None
        )

    def give_back(self, reason: Reason) -> None:
        """Nothing of what is left will run here."""
        self._close((), reason)

    def _close(self, reports: tuple[Report, ...], reason: Reason = Reason.RETURNED) -> None:
        if not self._over.acquire(blocking=False):
            return
        with self._next:
            rest, self._tasks = self._tasks[self._index :], self._tasks[: self._index]
        self._forget()
        self._execution = None
        if rest and reason is Reason.RETURNED and self._handler(rest[0]) is None:
            reason = Reason.NO_HANDLER
        self._give_back(rest, reports, reason)
        self.runtime.release_slot()

    def _give_back(self, rest: tuple[DispatchedTask, ...], reports: tuple[Report, ...], reason: Reason) -> None:
        for wire in rest:
            self.runtime.metrics.ended.labels(wire.type, "returned").inc()
        if rest or reports:
            self.runtime.reporter.send(self.claim, (*reports, *returned(rest, reason)))

    def let_go(self) -> None:
        """Say nothing more: the lease runs out, and the schedulers take the task for lost."""
        self._forget()
        if self._over.acquire(blocking=False):
            self._execution = None
            self.runtime.release_slot()

    def _forget(self) -> None:
        self.runtime.keeper.discard(self)
        for name in self._names():
            self.runtime.runs.pop(name, None)

    def _names(self) -> Iterator[tuple[str, int]]:
        return ((self.claim.dispatch.group, wire.token) for wire in self.claim.dispatch.tasks)

    # -- the lease

    def renew(self, now_ns: int) -> None:
        execution = self._execution
        if self._renewing or execution is None:
            return
        self._renewing = True
        wire = execution.wire

        def acknowledged(error: str | None) -> None:
            self._renewing = False
            self._acknowledged(error, now_ns)

        self.runtime.reporter.send(self.claim, (Report(ReportKind.RENEWED, wire.sequence, wire.token),), acknowledged)

    def _acknowledged(self, error: str | None, sent_ns: int) -> None:
        """A lease that is out stays out: a process frozen between deciding to renew and sending would else revive it,
        with a report that no scheduler believes any more.
        """
        if error is None and not self.lease.is_out(mono_ns()):
            self.lease.extend(sent_ns)
            if (execution := self._execution) is not None:
                execution.executor.lease_extended(execution)

    def request_stop(self, why: Stop) -> None:
        if (execution := self._execution) is not None:
            execution.request_stop(why)

    def check_time(self, now_ns: int) -> None:
        if (execution := self._execution) is not None:
            execution.check_time(now_ns)

    # -- what people see

    def report_progress(self, execution: Execution, report: Report) -> None:
        if self._execution is execution:
            self.runtime.reporter.send(self.claim, (report,))

    def _count(self, wire: DispatchedTask, outcome: Outcome, started: Moment | None, at: Moment) -> None:
        metrics = self.runtime.metrics
        metrics.ended.labels(wire.type, outcome.kind.value).inc()
        if started is not None:
            metrics.handler_s.labels(wire.type).observe((at.mono_ns - started.mono_ns) / _NS)


def returned(tasks: tuple[DispatchedTask, ...], reason: Reason) -> tuple[Report, ...]:
    """Reports that none of these ran."""
    return tuple(Report(ReportKind.RETURNED, wire.sequence, wire.token, reason=reason) for wire in tasks)


def report_of(wire: DispatchedTask, outcome: Outcome, started: Moment | None, ended: Moment) -> Report:
    return Report(
        outcome.kind, wire.sequence, wire.token, started=started, ended=ended, error=outcome.error,
        reason=outcome.reason, delay_s=outcome.delay_s, result=outcome.result, result_cut=outcome.result_cut,
        state=outcome.state, state_set=outcome.state_set, retryable=outcome.retryable,
    )  # fmt: skip
