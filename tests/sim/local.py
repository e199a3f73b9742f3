"""A scheduler process that also runs handlers: the real `Scheduler.run`, `LocalRunner`, `Drivers` and `Driver`, in an
asyncio loop of simulated time (`eventloop.py`).

Modelled are, after `transport.py`, the polling thread and what Faust makes of rebalances and batches (`App`), and what
`parts.py` holds.
"""

import asyncio
from typing import Any

from faust.types import TP

from consumers.handlers import Registry
from consumers.leases import Stop
from consumers.local import LocalRunner
from consumers.outcomes import Reject, Retry, Snooze
from consumers.task import Task
from streams.admin import UnreachableError
from streams.engine import Output
from streams.errors import UserError
from streams.partition import INPUTS
from streams.protocol import ReportKind
from streams.scheduler import Scheduler
from streams.settings import Settings
from tests.sim import memory, parts
from tests.sim.client import kafka_error
from tests.sim.eventloop import EventLoop, run_in
from tests.sim.loop import MS, Killed, Process, S, Violation
from tests.sim.scenario import Behaviour, Scenario
from tests.sim.scheduler import Batch, Pump, SchedulerLife
from tests.sim.stage import STAGE

KafkaException = type(kafka_error(0))


class LocalScheduler(Scheduler):
    """Looked at before each commit: memory says then what the log will say."""

    life: "LocalLife"
    slow_until_us = 0  # answers of look-ups take seconds

    async def _commit(self, outputs: list[Output], offsets: Any, group: Any) -> None:
        if not STAGE.truth.is_blind:
            memory.check_cut(STAGE.truth, self.engine, outputs)
        await super()._commit(outputs, offsets, group)

    async def _in_thread(self, thread: str, function: Any, *args: Any) -> Any:
        result = await super()._in_thread(thread, function, *args)
        if thread == "lookups" and self.slow_until_us > STAGE.loop.now_us:
            await asyncio.sleep(STAGE.loop.chance.random() * 3)
        return result


class App:
    """What Faust does for a scheduler."""

    def __init__(self, scheduler: LocalScheduler) -> None:
        self._life = scheduler.life

    async def start(self) -> None:
        self._life.subscribe()
        await self._life.assigned.wait()

    async def stop(self) -> None:
        self._life.unsubscribe()


class LocalPump(Pump):
    """One batch at a time is in hand."""

    in_hand = False

    def new_epoch(self) -> None:
        super().new_epoch()
        self.in_hand = False

    suspend = new_epoch

    def release(self, epoch: int) -> None:
        if epoch == self.epoch:
            self.in_hand = False
            if self.has_more():
                self._life.turn_soon()


class LocalLife(SchedulerLife):
    """One process, from its start to its end."""

    def __init__(self, process: Process, settings: Settings, name: str, scenario: Scenario) -> None:
        self.process = process
        self.loop = EventLoop(process)
        self.runner = LocalRunner(settings, registry(scenario, play), name, self._exit_process)
        self.scheduler: LocalScheduler = LocalScheduler(settings, name, self.runner)  # type: ignore[assignment]
        self.scheduler.life = self
        self.pump = LocalPump(self, settings.scheduler_group, name)
        self.assigned = asyncio.Event()
        self._busy = self._again = False
        self._timer = 0
        self._batches: asyncio.Queue[Batch] = asyncio.Queue()
        self._rebalances = asyncio.Lock()
        self._batch = None
        self._in_callback = self._gone = False
        STAGE.boots[self.scheduler.boot_id] = process
        STAGE.runners[process] = self.runner

    def start(self) -> None:
        run_in(self.loop, self.scheduler.run()).add_done_callback(self._ran)

    def stop(self) -> None:
        """SIGTERM."""
        self.loop.call_soon_threadsafe(self.scheduler.request_stop)

    def _exit_process(self, code: int) -> None:
        STAGE.wire.note(f"{self.process.name}: exits with {code}")
        self.process.die()
        raise Killed(self.process)

    def _ran(self, task: "asyncio.Task[None]") -> None:
        error = task.exception()
        if error is not None and not isinstance(error, UserError | KafkaException | UnreachableError):
            raise Violation("errors", f"scheduler {self.process.name} stopped: {error!r}") from error
        self._exit_process(0 if error is None else 2)

    # -- what Faust and the pump do

    def subscribe(self) -> None:
        self.scheduler.pump = self.pump  # type: ignore[assignment]
        self.loop.create_task(self._agent())
        self.pump.membership.join()
        self.turn_soon()

    def unsubscribe(self) -> None:
        self._gone = True
        self.pump.new_epoch()
        self.pump.membership.leave()

    async def _agent(self) -> None:
        while True:
            batch = await self._batches.get()
            if not batch.is_stale and self.pump.assigned:
                await self.scheduler.handle(batch)  # type: ignore[arg-type]

    def _has_more(self) -> bool:
        if self._in_callback or self.pump.in_hand:
            return False
        return super()._has_more()

    def _work(self) -> None:
        scheduler, pump = self.scheduler, self.pump
        scheduler._members.listen()
        if self._gone or self._in_callback:
            return
        if pump.wants_to_rejoin:
            self._call("revoke", set(), pump.rejoin_now)
        elif pump.membership.callbacks:
            kind, numbers = pump.membership.take()
            self._call(kind, numbers, lambda: pump.membership.done(kind, numbers))
        elif pump.flowing and not pump.in_hand:
            pump.in_hand = True
            self.loop.call_soon_threadsafe(self._batches.put_nowait, pump.fetch())

    def _call(self, kind: str, numbers: set[int], done: Any) -> None:
        pump = self.pump
        STAGE.wire.note(f"{self.process.name}: {kind} {sorted(numbers)} of generation {pump.membership.generation}")
        pump.new_epoch()
        if kind == "assign":
            pump.assigned = frozenset(TP(topic, n) for topic in INPUTS for n in sorted(numbers))
            pump.group = pump.membership.metadata
            run_in(self.loop, self._assigned(pump.assigned, pump.epoch))
            done()
            return
        gone, pump.assigned = pump.assigned, frozenset()
        self._in_callback = True
        run_in(self.loop, self._revoked(gone, kind == "lost", done))

    async def _assigned(self, assigned: frozenset[TP], epoch: int) -> None:
        self.scheduler.interrupt_loading()
        async with self._rebalances:
            if epoch != self.pump.epoch:
                return
            await self.scheduler.take_over(set(assigned))
            self.pump.start_flow(epoch)
            self.assigned.set()
            self.turn_soon()

    async def _revoked(self, gone: frozenset[TP], lost: bool, done: Any) -> None:
        self.scheduler.interrupt_loading()
        async with self._rebalances:
            self.scheduler.lost = lost
            await self.scheduler.let_go(set(gone))
        self._in_callback = False
        if not self._gone:
            if done == self.pump.rejoin_now:
                self.pump.wants_to_rejoin = False
            done()
            self.turn_soon()


# -- handlers


def registry(scenario: Scenario, in_loop: Any) -> Registry:
    """Handlers for all types, as the scenario declares them."""
    handlers = Registry()
    for plan in scenario.handlers:
        function = in_loop if plan.in_loop else play_in_thread
        handlers.handler(plan.type, timeout_s=plan.timeout_s, placement=plan.placement)(function)  # type: ignore[arg-type]
    return handlers


def play_in_thread(task: Any) -> None:
    raise AssertionError("the executor plays the handlers")


async def play(task: Task) -> Any:
    """A handler in the loop of its scheduler; what it does is in the scenario."""
    process = STAGE.wire.process()
    runner = STAGE.runners[process]
    behaviour = STAGE.truth.begin(process, task, runner.lease)
    await _point(process, "running")
    try:
        await _spend(task, behaviour)
        if behaviour.kind == "die":
            STAGE.wire.note(f"{process.name}: a handler ends the process")
            await _die(process)
        await _point(process, "ended")
    except asyncio.CancelledError:
        _end(runner, task, ReportKind.ABANDONED)
        raise
    parts.set_state(task, behaviour)
    match behaviour.kind:
        case "fail" | "retry":
            _end(runner, task, ReportKind.FAILED)
            raise ValueError("no") if behaviour.kind == "fail" else Retry(behaviour.after_s)
        case "snooze":
            _end(runner, task, ReportKind.SNOOZED)
            raise Snooze(behaviour.after_s)
        case "reject":
            _end(runner, task, ReportKind.REJECTED)
            raise Reject("never")
    STAGE.truth.end(task, ReportKind.SUCCEEDED, None, state_set=task.new_state is not None)
    return {"n": task.id} if behaviour.ms % 2 else None


async def _spend(task: Task, behaviour: Behaviour) -> None:
    """Its time.  A stubborn handler does not listen when it is told to stop."""
    ends_us = STAGE.loop.now_us + behaviour.ms * MS
    if behaviour.kind == "hang":
        ends_us += parts.STUBBORN_US if behaviour.stubborn else 1_000 * S
    if behaviour.progress:
        await asyncio.sleep(behaviour.ms / 2_000)
        task.progress(0.5, "half way")
    while (left_us := ends_us - STAGE.loop.now_us) > 0:
        try:
            await asyncio.sleep(left_us / S)
        except asyncio.CancelledError:
            if not behaviour.stubborn:
                raise


def _end(runner: LocalRunner, task: Task, kind: Any) -> None:
    """It ends with an exception; told to stop, that says nothing of the task."""
    stop = next((run.execution.stop for run in runner.running if run.execution.task is task), None)
    if stop is not None:
        kind = ReportKind.FAILED if stop is Stop.TIMEOUT else ReportKind.ABANDONED
    STAGE.truth.end(task, kind, stop, state_set=False)


async def _point(process: Process, name: str) -> None:
    """A place where the process may be killed or frozen, as `Wire.step` is where nothing is awaited."""
    fault = STAGE.wire.fault_at(process, name) if process.armed else None
    if fault is None:
        return
    match fault.kind:
        case "kill":
            await _die(process)
        case "freeze":
            process.freeze(fault.duration_us)
            await asyncio.sleep(0)
        case "cut":
            process.cut(fault.duration_us)
        case "drain":
            process.on_stop()


async def _die(process: Process) -> None:
    process.die()
    await asyncio.get_running_loop().create_future()
