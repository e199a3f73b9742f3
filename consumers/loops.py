"""`async def` handlers: an event loop in a thread of its own, and a fresh one when a handler blocks it.

A handler that blocks its loop delays those that already run there: their leases are renewed all the same and the time
they stood still is not counted against their timeouts.  Whatever begins from then on begins in the fresh loop.
"""

import asyncio
import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

import structlog

from consumers.execution import Execution
from consumers.metrics import WorkerMetrics
from streams.clock import mono_ns

if sys.platform == "win32":
    from asyncio import new_event_loop
else:
    from uvloop import new_event_loop

log = structlog.get_logger("worker")

_NS: Final = 1_000_000_000
_BLOCKED_NS: Final = _NS  # a loop that did nothing for this long is given up
_STALLED_NS: Final = _NS // 5  # stalls shorter than this are not counted


class _Handle(NamedTuple):
    """Where an execution lives."""

    loop: "HandlerLoop"
    task: "asyncio.Task[None]"
    stalled_ns: int  # the loop's figure when it began


class HandlerLoop(threading.Thread):
    """One event loop.  Lives until it is stopped, or retired and empty."""

    def __init__(self, number: int) -> None:
        super().__init__(name=f"handler-loop-{number}", daemon=True)
        self.loop = new_event_loop()
        self.inbox: deque[Execution] = deque()
        self.culprits: set[Execution] = set()
        self.retired = False
        self._waking = False
        self._executions: dict[asyncio.Task[None], Execution] = {}
        self._beat_sent_ns = 0  # 0: none on its way
        self._stalled_ns = 0
        self.start()

    def run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()
        self.loop.close()

    def submit(self, execution: Execution) -> None:
        self.inbox.append(execution)
        if not self._waking:
            self._waking = True
            self._soon(self._take)

    def cancel(self, task: "asyncio.Task[None]") -> None:
        self._soon(task.cancel)

    def stop(self) -> None:
        self._soon(self.loop.stop)

    def retire(self) -> None:
        """Take nothing new; end when what runs here has ended."""
        self.retired = True
        self._soon(self._stop_if_over)

    def _soon(self, call: Callable[[], object]) -> None:
        try:
            self.loop.call_soon_threadsafe(call)
        except RuntimeError:  # it is closed: nothing runs there any more
            return

    # -- in the loop

    def _take(self) -> None:
        self._waking = False
        while True:
            try:
                execution = self.inbox.popleft()
            except IndexError:
                return
            task = self.loop.create_task(execute_async(execution))
            execution.handle = _Handle(self, task, self._stalled_ns)
            self._executions[task] = execution
            task.add_done_callback(self._done)

    def _done(self, task: "asyncio.Task[None]") -> None:
        self.culprits.discard(self._executions.pop(task))
        self._stop_if_over()

    def _stop_if_over(self) -> None:
        if self.retired and not self._executions:
            self.loop.stop()

    def _beat(self) -> None:
        took_ns = mono_ns() - self._beat_sent_ns
        if took_ns > _STALLED_NS:
            self._stalled_ns += took_ns
        self._beat_sent_ns = 0

    # -- in the lease keeper's thread

    def look(self, now_ns: int) -> bool:
        """Send the next beat.  False if the loop is blocked."""
        if self._beat_sent_ns == 0:
            self._beat_sent_ns = now_ns
            self._soon(self._beat)
            return True
        late_ns = now_ns - self._beat_sent_ns
        if late_ns > _STALLED_NS and (culprit := self._current()) is not None:
            self.culprits.add(culprit)
        return late_ns < _BLOCKED_NS

    def _current(self) -> Execution | None:
        """Whose code runs in this loop right now."""
        current = asyncio.current_task(self.loop)
        return None if current is None else self._executions.get(current)

    def stalled_ns(self, now_ns: int) -> int:
        sent_ns = self._beat_sent_ns
        late_ns = now_ns - sent_ns if sent_ns else 0
        return self._stalled_ns + (late_ns if late_ns > _STALLED_NS else 0)


class LoopExecutor:
    """Gives each execution to the current loop."""

    def __init__(self, metrics: WorkerMetrics) -> None:
        self._metrics = metrics
        self._number = 1
        self._current = HandlerLoop(1)
        self._loops = {self._current}
        self._lock = threading.Lock()

    def submit(self, execution: Execution) -> None:
        with self._lock:
            self._current.submit(execution)

    def cancel(self, execution: Execution) -> None:
        if isinstance(handle := execution.handle, _Handle):
            handle.loop.cancel(handle.task)

    def kill(self, execution: Execution) -> bool:
        return False

    def lease_extended(self, execution: Execution) -> None:
        """The lease keeper guards it."""

    def stalled_ns(self, execution: Execution) -> int:
        handle = execution.handle
        if not isinstance(handle, _Handle) or execution in handle.loop.culprits:
            return 0
        return handle.loop.stalled_ns(mono_ns()) - handle.stalled_ns

    def tick(self, now_ns: int) -> None:
        """Look after the loops: called by the lease keeper, often."""
        for loop in list(self._loops):
            if not loop.is_alive():
                self._loops.discard(loop)
            elif not loop.look(now_ns) and loop is self._current:
                self._replace(loop)

    def stop(self) -> None:
        for loop in self._loops:
            loop.stop()

    def _replace(self, blocked: HandlerLoop) -> None:
        self._number += 1
        self._metrics.loops_blocked.inc()
        culprits = [execution.log_fields() for execution in blocked.culprits]
        log.warning("a handler blocks its event loop: new tasks run in a fresh one", culprits=culprits)
        fresh = HandlerLoop(self._number)
        with self._lock:
            self._loops.add(fresh)
            self._current = fresh
            while blocked.inbox:
                try:
                    fresh.submit(blocked.inbox.popleft())
                except IndexError:  # it has woken up and takes them itself
                    break
        blocked.retire()


async def execute_async(execution: Execution) -> None:
    """Execute an `async def` handler in this loop."""
    if not execution.begin():
        return
    structlog.contextvars.bind_contextvars(**execution.log_fields())
    try:
        value = await execution.handler.fn(*execution.handler.arguments(execution.task))
    except BaseException as error:  # SystemExit would end the loop, and with it everybody else
        outcome = execution.outcome_of_error(error)
    else:
        outcome = execution.outcome_of_value(value)
    execution.end(outcome)
