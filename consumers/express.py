"""Runs the tasks of the express lane (see `streams.express`), many of them in one asyncio task.

A driver holds a slot and takes one waiting task after the other.  As long as handlers end without waiting for anything,
one driver does all of them; each that waits keeps its driver, and others are started.

What is not a plain success is handed over: from then on it is a `LocalRun` like any other, and the driver ends with it.
So does a driver in whose context a handler left something behind: the next task begins in a fresh one.
"""

import asyncio
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Final

from structlog.contextvars import bind_contextvars

from consumers import outcomes
from consumers.execution import Execution, moment
from consumers.leases import Stop
from consumers.task import Task
from streams.engine import Engine
from streams.express import Express, Item
from streams.placement import Here, Start
from streams.protocol import ReportKind

if TYPE_CHECKING:
    from consumers.local import LocalRun, LocalRunner

# A driver lets the event loop go on after so many tasks.
_IN_A_ROW: Final = 64
# Intake pauses above so many groups or tasks in the lane until half of them have left, or for a moment: what is taken
# in long before it can end costs a row, and one slow group must not hold up others.
_LINES_MAX: Final = 250
_LANE_MAX: Final = 2_000
_ROOM_S: Final = 0.05
_BURST_MAX: Final = 64


class Drivers:
    """All drivers of a process.  To the lease keeper: one that holds the lease of all of them."""

    def __init__(self, runner: "LocalRunner", engine: Engine, lane: Express, here: Here) -> None:
        self.runner, self.engine, self.lane, self._here = runner, engine, lane, here
        self.lease = runner.lease
        self.active: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._burst = 0
        self._room = asyncio.Event()
        lane.on_room = self._room.set

    def look(self) -> None:
        """Start a driver if tasks wait, and hand over what has settled."""
        for item, start in self.lane.take_handed():
            assert isinstance(item.runs, Driver)
            item.runs.hand_over(start)
        if not self._burst:
            self._start_some()

    def _start_some(self) -> None:
        """One driver, and if tasks still wait after its first turn two more, and so on."""
        lane, here = self.lane, self._here
        if not lane.waiting or not here.open or here.free <= 0:
            self._burst = 0
            return
        self._burst = min(_BURST_MAX, 2 * self._burst or 1)
        for _ in range(min(self._burst, here.free, len(lane.waiting))):
            here.free -= 1
            task = self._loop.create_task(Driver(self).run())
            self.active.add(task)
        self.runner.lane_changed()
        self._loop.call_soon(self._start_some)

    def ended(self, driver: "asyncio.Task[None]", *, slot_is_free: bool) -> None:
        self.active.discard(driver)
        self.runner.lane_changed()
        if slot_is_free:
            self.runner.lane_moved(True)
            self.look()

    async def room(self) -> bool:
        lane = self.lane
        if not lane.holds(_LINES_MAX, _LANE_MAX):
            return True
        self._room.clear()
        lane.want_room(_LINES_MAX // 2, _LANE_MAX // 2)
        try:
            await asyncio.wait_for(self._room.wait(), _ROOM_S)
        except TimeoutError:
            return False
        return True

    def hand_over_all(self) -> None:
        self.lane.hand_over_all()
        self.look()

    # -- what the lease keeper calls

    def renew(self, now_ns: int) -> None:
        """The scheduler's transactions do."""

    def request_stop(self, why: Stop) -> None:
        self._loop.call_soon_threadsafe(self.hand_over_all)  # then each is told to stop by itself

    def check_time(self, now_ns: int) -> None:
        """Whatever takes a second is handed over before its time can be over."""


class Driver:
    """One asyncio task, one slot."""

    def __init__(self, drivers: Drivers) -> None:
        self._drivers = drivers
        self._item: Item | None = None
        self._task: Task | None = None
        self._run: LocalRun | None = None
        self._handle: asyncio.Task[None] | None = None

    async def run(self) -> None:
        self._handle = handle = asyncio.current_task()
        assert handle is not None
        try:
            await self._take_turns()
        finally:
            self._drivers.ended(handle, slot_is_free=self._run is None)

    async def _take_turns(self) -> None:
        drivers = self._drivers
        lane, lease, registry, engine = drivers.lane, drivers.lease, drivers.runner.registry, drivers.engine
        moved, count = drivers.runner.lane_moved, 0
        while not engine.heads_wait():
            began = moment()
            item = lane.begin(began) if lease.may_start(began.mono_ns) else None
            if item is None:
                return
            wire = item.wire()
            handler = registry.get(wire.type)
            assert handler is not None  # else it would not have been placed here
            group = item.task.group
            task = Task(wire, group, lane.state_of(item), partial(self._progress, item))
            self._item, self._task, item.runs = item, task, self
            bind_contextvars(group=group, task=wire.task_id, attempt=1, token=wire.token)
            context = copy_context()
            try:
                value = await handler.fn(*handler.arguments(task))
            except BaseException as error:  # SystemExit would end the loop, and with it everybody else
                execution = self._execution(item)
                execution.end(execution.outcome_of_error(error))
                return
            if value is None and task.new_state is None and self._run is None:
                ended = moment()
                if lease.is_out(ended.mono_ns):
                    drivers.runner.fence_late()
                    return
                lane.succeeded(item, ended)
                moved(False)
            elif not self._ended(item, task, value):
                return
            if copy_context() != context:
                return
            count += 1
            if not count % _IN_A_ROW:
                await asyncio.sleep(0)

    def _ended(self, item: Item, task: Task, value: object) -> bool:
        """It returned something, or had been handed over.  Whether the driver may go on."""
        ended = moment()
        outcome = outcomes.returned(value, task.new_state)
        if self._run is None and outcome.kind is ReportKind.SUCCEEDED and not outcome.state_set:
            if not self._drivers.lease.is_out(ended.mono_ns):
                self._drivers.lane.succeeded(item, ended, outcome.result, outcome.result_cut)
                self._drivers.runner.lane_moved(False)
                return True
            self._drivers.runner.fence_late()
            return False
        self._execution(item).end(outcome)
        return False

    def _execution(self, item: Item) -> Execution:
        """Of what runs, which is handed over if it was not yet."""
        if self._run is None:
            start = self._drivers.lane.hand_over(item)
            assert start is not None
            self.hand_over(start)
            self._drivers.look()
        assert self._run is not None
        return self._run.execution

    def hand_over(self, start: Start) -> None:
        item, task, handle = self._item, self._task, self._handle
        assert item is not None and task is not None and handle is not None
        self._run = self._drivers.runner.adopt(start, item.started, task, handle)

    def _progress(self, item: Item, fraction: float | None, note: str | None) -> None:
        """From any thread.  What has ended says nothing more."""
        loop = self._drivers.runner.loop
        if asyncio._get_running_loop() is not loop:
            loop.call_soon_threadsafe(self._progress, item, fraction, note)
        elif self._item is item and (self._run is not None or not item.over):
            self._execution(item).progress(fraction, note)
