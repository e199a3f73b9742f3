"""One execution of one task: from its handler's first step to its outcome, however it is run and stopped."""

import threading
from typing import TYPE_CHECKING, Final, Protocol

import structlog

from consumers import outcomes
from consumers.handlers import Handler
from consumers.leases import Stop
from consumers.outcomes import Outcome
from consumers.task import Task
from streams.clock import clock_id, mono_ns, now
from streams.protocol import DispatchedTask, MaybeRaw, Moment, Reason, Report, ReportKind, utc

if TYPE_CHECKING:
    from consumers.local import LocalRun
    from consumers.runs import Run

log = structlog.get_logger("worker")

_NS: Final = 1_000_000_000
# What was told to stop has this long before it is called stubborn (async, thread) or killed (process).
GRACE_S: Final = 1.0
_PROGRESS_INTERVAL_NS: Final = _NS // 10
# Why it should have ended, as its worker says of what does not.
_STUBBORN: Final = {Stop.TIMEOUT: (Reason.TIMEOUT, "timed out"), Stop.CANCEL: (Reason.BY_COMMAND, "cancelled")}


class Executor(Protocol):
    """Runs executions: calls `begin()`, the handler, and `end()` exactly once unless `begin()` says no."""

    def submit(self, execution: "Execution") -> None:
        """Run it as soon as possible; never blocks."""

    def cancel(self, execution: "Execution") -> None:
        """Make it end, as far as that can be done.  From any thread, also when it has ended or not begun."""

    def kill(self, execution: "Execution") -> bool:
        """Make it end now; False where that cannot be done."""

    def lease_extended(self, execution: "Execution") -> None:
        """Its run may go on for longer; for executors that guard the lease elsewhere."""

    def stalled_ns(self, execution: "Execution") -> int:
        """For how long, in all, someone else's handler has kept its event loop from running it."""


def moment() -> Moment:
    return Moment(now().wall_ms, mono_ns(), clock_id())


class Execution:
    """Shared by the thread that runs the handler and the lease keeper; `_lock` decides: begun, or withdrawn."""

    def __init__(
        self, run: "Run | LocalRun", wire: DispatchedTask, handler: Handler, state: MaybeRaw, executor: Executor
    ) -> None:
        self.run, self.wire, self.handler, self.executor = run, wire, handler, executor
        self.task = Task(wire, run.claim.dispatch.group, state, self.progress)
        self.state = state
        self.timeout_s = wire.timeout_s if wire.timeout_s is not None else handler.timeout_s
        self.started: Moment | None = None
        self.stop: Stop | None = None
        self.stopped_ns = 0
        self.handle: object = None  # the executor's own
        self._lock = threading.Lock()
        self._withdrawn = self._stubborn = False
        self._progress_ns = 0
        self._unsent: Report | None = None

    def adopt(self, started: Moment, task: Task, handle: object) -> None:
        """It runs already, elsewhere."""
        self.started, self.task, self.handle = started, task, handle

    def log_fields(self) -> dict[str, object]:
        wire = self.wire
        return {"group": self.task.group, "task": wire.task_id, "attempt": wire.attempt, "token": wire.token}

    def log_failure(self, outcome: Outcome) -> None:
        """A word in the log about an outcome that is a failure."""
        if outcome.kind in (ReportKind.FAILED, ReportKind.REJECTED):
            error = outcome.error.message[:300] if outcome.error is not None else ""
            log.warning(
                f"task {outcome.kind.value}", type=self.wire.type, reason=outcome.reason, error=error,
                **self.log_fields(),
            )  # fmt: skip

    # -- in the thread that runs the handler

    def begin(self) -> bool:
        """Whether the handler may be called now.  If not, the run has been given back, or the process is ending."""
        with self._lock:
            if self._withdrawn:
                return False
            if self.run.lease.may_start(mono_ns()):
                self.started = moment()
                return True
            self._withdrawn = True
        self.run.give_back(Reason.LOST_BEFORE_START)
        return False

    def outcome_of_value(self, value: object) -> Outcome:
        """The handler returned.  What succeeded counts, also if it was told to stop and did not."""
        return outcomes.returned(value, self.task.new_state)

    def outcome_of_error(self, error: BaseException) -> Outcome:
        """The handler raised."""
        if self.stop is Stop.TIMEOUT:
            return outcomes.timed_out(self.timeout_s or 0.0, error)
        if self.stop is not None:
            return outcomes.ABANDONED
        return self.handler.judge(outcomes.raised(error), error)

    def end(self, outcome: Outcome) -> None:
        """The handler has ended."""
        try:
            self.run.ended(self, outcome, moment())
        except Exception:
            log.exception("outcome not reported: its lease will run out", **self.log_fields())
            self.run.let_go()

    # -- in the lease keeper's thread

    def request_stop(self, why: Stop) -> None:
        """Tell it to end; what has not begun is given back.  The first reason counts."""
        with self._lock:
            if self._withdrawn:
                return
            if self.started is None:
                self._withdrawn = True
            elif self.stop is None:
                self.stop, self.stopped_ns = why, mono_ns()
                self.task.cancelled = True
            else:
                return
        if self._withdrawn:
            self.run.give_back(Reason.LOST_BEFORE_START if why is Stop.CUT_OFF else Reason.RETURNED)
        else:
            self.executor.cancel(self)

    def check_time(self, now_ns: int) -> None:
        started = self.started
        if started is None:
            return
        self._send_late_progress(now_ns)
        if self.stop is not None:
            if now_ns - self.stopped_ns >= GRACE_S * _NS and not self.executor.kill(self):
                self._say_stubborn()
        elif self.timeout_s is not None:
            ran_ns = now_ns - started.mono_ns - self.executor.stalled_ns(self)
            if ran_ns >= self.timeout_s * _NS:
                self.run.runtime.metrics.timed_out.labels(self.wire.type).inc()
                log.warning("timed out", type=self.wire.type, timeout_s=self.timeout_s, **self.log_fields())
                self.request_stop(Stop.TIMEOUT)

    def _say_stubborn(self) -> None:
        """It goes on though it should have ended: it stays running, since one at a time goes before progress.  Said
        once; from then on an operator may release it.
        """
        if self._stubborn or self.stop not in _STUBBORN or self.started is None:
            return
        self._stubborn = True
        wire = self.wire
        since = f"{utc(self.started.wall_ms):%Y-%m-%dT%H:%M:%SZ}"
        reason, words = _STUBBORN[self.stop]
        note = f"{words}, still running on {self.run.runtime.instance} since {since}"
        log.warning(note, type=wire.type, **self.log_fields())
        self.run.report_progress(self, Report(ReportKind.PROGRESS, wire.sequence, wire.token, reason=reason, note=note))

    # -- progress: the first at once, then the newest, ten times a second

    def progress(self, fraction: float | None, note: str | None) -> None:
        report = Report(ReportKind.PROGRESS, self.wire.sequence, self.wire.token, fraction=fraction, note=note)
        now_ns = mono_ns()
        if now_ns - self._progress_ns >= _PROGRESS_INTERVAL_NS:
            self._progress_ns, self._unsent = now_ns, None
            self.run.report_progress(self, report)
        else:
            self._unsent = report

    def _send_late_progress(self, now_ns: int) -> None:
        report = self._unsent
        if report is not None and now_ns - self._progress_ns >= _PROGRESS_INTERVAL_NS:
            self._progress_ns, self._unsent = now_ns, None
            self.run.report_progress(self, report)

    def unsent_progress(self) -> tuple[Report, ...]:
        report, self._unsent = self._unsent, None
        return () if report is None else (report,)
