"""Handlers in the scheduler's own process: the other side of `streams.local`.

`async def` handlers run in the scheduler's event loop, the others as in a worker.  There is one lease for all of them:
the scheduler's latest proof of membership.
"""

import asyncio
from collections.abc import Callable
from typing import Final

import structlog

from consumers import faults
from consumers.execution import GRACE_S, Execution, Executor, moment
from consumers.express import Drivers
from consumers.handlers import Handler, Registry
from consumers.leases import Lease, LeaseKeeper, Stop
from consumers.loops import execute_async
from consumers.metrics import LocalMetrics
from consumers.outcomes import Outcome
from consumers.processes import ProcessExecutor, check_source
from consumers.reports import Claim
from consumers.runs import report_of
from consumers.task import Task
from consumers.threads import ThreadExecutor
from streams.clock import mono_ns
from streams.engine import Engine
from streams.express import SETTLE_MS
from streams.local import LaneMoved, Reported
from streams.placement import Here, Start
from streams.protocol import PROTOCOL, Dispatch, Moment, Reason, Report, ReportKind
from streams.settings import Settings

log = structlog.get_logger("local")

# Handlers with at most this timeout run here unless they say otherwise: a rebalance waits for what runs.
QUICK_S: Final = 5.0
_NS: Final = 1_000_000_000


class LocalRunner:
    """Implements `streams.local.Runner`.  `exit_process` ends the process on the spot; it is there for tests."""

    def __init__(
        self, settings: Settings, registry: Registry, instance: str, exit_process: Callable[[int], None]
    ) -> None:
        self._settings, self.registry, self.instance = settings, registry, instance
        self._drivers: Drivers | None = None
        self._exit_process = exit_process
        faults.mask(settings.secret_texts())
        self.metrics = LocalMetrics()
        self.lease = Lease(settings, mono_ns() - int(settings.silence_s * _NS))  # out: nothing is proven yet
        self.running: dict[LocalRun, None] = {}  # in the order in which they began
        self._keeper = LeaseKeeper(settings, self._fence)
        self._threads, self._children = ThreadExecutor(), ProcessExecutor(registry)
        self._loop_executor = LoopHere()
        self._empty = asyncio.Event()
        self._empty.set()
        for handler in registry:
            if handler.process:
                check_source(registry, handler)

    def placement(self, boot_id: str) -> Here:
        handlers = [h for h in self.registry if h.placement != "workers"]
        only = frozenset(h.task_type for h in handlers if h.placement == "local")
        quick = frozenset(h.task_type for h in handlers if h.timeout_s is not None and h.timeout_s <= QUICK_S)
        # Before its time is over, the lease keeper must have it in hand.
        express = frozenset(
            h.task_type for h in handlers
            if h.is_async and not h.process and (h.timeout_s is None or h.timeout_s * 1000 >= SETTLE_MS)
        )  # fmt: skip
        return Here(
            boot_id, self._settings.local_slots, {h.task_type: h.policy for h in handlers}, moment,
            first=only | quick, only=only, spare=frozenset(h.task_type for h in handlers), express=express,
        )  # fmt: skip

    def attach(self, report: Reported, engine: Engine, lane_moved: LaneMoved) -> None:
        self.loop = asyncio.get_running_loop()
        self.report, self.lane_moved = report, lane_moved
        if engine.express is not None and engine.here is not None:
            self._drivers = Drivers(self, engine, engine.express, engine.here)
        self._keeper.start()

    def drive(self) -> None:
        if self._drivers is not None:
            self._drivers.look()

    async def room(self) -> bool:
        return self._drivers is None or await self._drivers.room()

    def begin(self, start: Start) -> None:
        run = LocalRun(self, start)
        self.running[run] = None
        self._empty.clear()
        self._keeper.add(run)
        run.begin()

    # -- what drivers of the express lane call

    def adopt(self, start: Start, started: Moment, task: Task, handle: "asyncio.Task[None]") -> "LocalRun":
        """What a driver runs has left the lane."""
        run = LocalRun(self, start)
        run.execution.adopt(started, task, handle)
        self.running[run] = None
        self._empty.clear()
        self._keeper.add(run)
        return run

    def lane_changed(self) -> None:
        """A driver began or ended."""
        assert self._drivers is not None
        if self._drivers.active:
            self._empty.clear()
            self._keeper.add(self._drivers)
            return
        self._keeper.discard(self._drivers)
        if not self.running:
            self._empty.set()

    def fence_late(self) -> None:
        self._fence("membership was last proven a lease ago, and a handler has ended only now")

    def cancel(self, key: bytes, token: int) -> None:
        for run in [r for r in self.running if r.start.task.token == token and r.start.entry.key == key]:
            run.request_stop(Stop.CANCEL)

    def proven(self, began_ns: int) -> None:
        self.lease.extend(began_ns)

    def proof_due(self) -> bool:
        now_ns = mono_ns()
        if self.running or (self._drivers is not None and self._drivers.active):
            return self.lease.renewal_due(now_ns)
        return now_ns - self.lease.sent_ns >= int(self._settings.lease_s / 3 * _NS)

    def may_begin(self) -> bool:
        return self.lease.may_start(mono_ns())

    async def finish(self) -> None:
        """What has no time-out, or a longer one, gets the drain time."""
        if self._drivers is not None:
            self._drivers.hand_over_all()
        if self.running:
            longest_s = max(run.time_left_s(self._settings.drain_s) for run in self.running)
            log.info("waiting for what runs", running=len(self.running), up_to_s=round(longest_s, 1))
            if not await self._ended_within(longest_s):
                await self._stop_all(Stop.DRAIN)

    async def stop_all(self) -> None:
        await self._stop_all(Stop.CUT_OFF)

    def close(self) -> None:
        if self._keeper.ident is not None:
            self._keeper.stop()
        self._threads.stop()
        self._children.stop()

    async def _stop_all(self, why: Stop) -> None:
        if self._drivers is not None:
            self._drivers.hand_over_all()
        for run in list(self.running):
            run.request_stop(why)
        if not await self._ended_within(2 * GRACE_S):
            self._fence("handlers do not end, and their partitions go to another scheduler")

    async def _ended_within(self, time_s: float) -> bool:
        try:
            await asyncio.wait_for(self._empty.wait(), time_s)
        except TimeoutError:
            return False
        return True

    def executor_of(self, handler: Handler) -> Executor:
        if handler.process:
            return self._children
        return self._loop_executor if handler.is_async else self._threads

    def handler(self, task_type: str) -> Handler:
        handler = self.registry.get(task_type)
        assert handler is not None  # else it would not have been placed here
        return handler

    def ended(self, run: "LocalRun", reports: tuple[Report, ...]) -> None:
        """From any thread."""
        if self._in_loop():
            self._note_end(run, reports)
        else:
            self.loop.call_soon_threadsafe(self._note_end, run, reports)

    def said(self, run: "LocalRun", report: Report) -> None:
        """From any thread."""
        if self._in_loop():
            self.report(run.start, (report,), False)
        else:
            self.loop.call_soon_threadsafe(self.report, run.start, (report,), False)

    def _in_loop(self) -> bool:
        return asyncio._get_running_loop() is self.loop

    def _note_end(self, run: "LocalRun", reports: tuple[Report, ...]) -> None:
        if run not in self.running:
            return
        del self.running[run]
        self._keeper.discard(run)
        if not self.running and (self._drivers is None or not self._drivers.active):
            self._empty.set()
        self.report(run.start, reports, True)
        self.drive()

    def _fence(self, why: str) -> None:
        log.error("process ends at once", why=why)
        self._exit_process(1)


class LocalRun:
    """One local execution, in the shape of a worker's `Run`: to executors and the lease keeper it is the same."""

    def __init__(self, runtime: LocalRunner, start: Start) -> None:
        self.runtime, self.start, self.lease = runtime, start, runtime.lease
        dispatch = Dispatch(PROTOCOL, start.entry.name, start.partition.number, runtime.instance, (start.task,))
        self.claim = Claim(dispatch, -1, -1, "", 0)
        handler = runtime.handler(start.task.type)
        self.execution = Execution(self, start.task, handler, start.state, runtime.executor_of(handler))

    def begin(self) -> None:
        self.execution.executor.submit(self.execution)

    def time_left_s(self, default_s: float) -> float:
        execution = self.execution
        if execution.timeout_s is None or execution.started is None:
            return default_s
        ran_s = (mono_ns() - execution.started.mono_ns) / _NS
        return min(max(execution.timeout_s - ran_s, 0.0) + GRACE_S, max(default_s, QUICK_S + GRACE_S))

    # -- what executors call

    def ended(self, execution: Execution, outcome: Outcome, at: Moment) -> None:
        if self.lease.is_out(mono_ns()):
            self.runtime.fence_late()
            return
        reports = (*execution.unsent_progress(), report_of(execution.wire, outcome, execution.started, at))
        execution.log_failure(outcome)
        self.runtime.ended(self, reports)

    def give_back(self, reason: Reason) -> None:
        """It has not begun and will not."""
        task = self.start.task
        self.runtime.ended(self, (Report(ReportKind.RETURNED, task.sequence, task.token, reason=reason),))

    def let_go(self) -> None:
        """Its outcome could not be told: nobody would ever end it."""
        self.runtime._fence("an outcome could not be reported")

    def report_progress(self, execution: Execution, report: Report) -> None:
        self.runtime.said(self, report)

    # -- what the lease keeper calls

    def renew(self, now_ns: int) -> None:
        """The scheduler's transactions do."""

    def request_stop(self, why: Stop) -> None:
        self.execution.request_stop(why)

    def check_time(self, now_ns: int) -> None:
        self.execution.check_time(now_ns)


class LoopHere:
    """Runs `async def` handlers in the scheduler's loop."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def submit(self, execution: Execution) -> None:
        loop = asyncio.get_running_loop()
        task = loop.create_task(execute_async(execution))
        execution.handle = task
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def cancel(self, execution: Execution) -> None:
        task = execution.handle
        if isinstance(task, asyncio.Task):
            task.get_loop().call_soon_threadsafe(task.cancel)

    def kill(self, execution: Execution) -> bool:
        return False

    def lease_extended(self, execution: Execution) -> None:
        """There is one lease for all."""

    def stalled_ns(self, execution: Execution) -> int:
        return 0
