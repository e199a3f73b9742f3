"""An asyncio event loop in simulated time: what a process does in its loop, and in the threads behind it.

Its turns are events of its process.  Before each callback the process may be killed or frozen (`turn`), so it may be at
any `await`.  Nothing in it blocks: what does, runs in a `Thread`, and there the world goes on meanwhile.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any

from tests.sim.loop import MS, Killed, Process, S, Violation
from tests.sim.stage import STAGE

# Times in microseconds until a thread begins a call, for which it is busy with it, and until the loop hears of it:
# usually so long, and one time in ten so long.
DELAYS_US = {
    "transaction": ((3 * MS, 40 * MS), (3 * MS, 20 * MS)),
    "loading": ((2 * MS, 30 * MS), (2 * MS, 30 * MS)),
    "lookups": ((MS, 100 * MS), (10 * MS, 3 * S)),
}
BUSY_US = 30 * MS  # a turn is late by up to so much, now and then: somebody's handler does not let go of the loop


class Thread:
    """An executor with one thread, in the place of `ThreadPoolExecutor`."""

    def __init__(self, _workers: int, name: str) -> None:
        self._name = name
        self._calls: deque[tuple[asyncio.Future[Any], Callable[..., Any], tuple[Any, ...]]] = deque()
        self._busy = False

    def put(self, future: "asyncio.Future[Any]", function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self._calls.append((future, function, args))
        self._begin_soon()

    def shutdown(self, wait: bool = True) -> None:
        pass

    def _begin_soon(self) -> None:
        if self._calls and not self._busy:
            self._busy = True
            STAGE.loop.at(self._delay_us(0), self._begin, STAGE.wire.process())

    def _delay_us(self, which: int) -> int:
        chance = STAGE.loop.chance
        usual_us, long_us = DELAYS_US[self._name][which]
        return chance.randrange(long_us if chance.random() < 0.1 else usual_us)

    def _begin(self) -> None:
        future, function, args = self._calls.popleft()
        result: Any = None
        failed: Exception | None = None
        try:
            result = function(*args)
        except Exception as error:
            failed = error
        STAGE.loop.at(self._delay_us(1), lambda: self._answer(future, result, failed), STAGE.wire.process())

    def _answer(self, future: "asyncio.Future[Any]", result: Any, failed: Exception | None) -> None:
        self._busy = False
        self._begin_soon()
        future.get_loop().call_soon_threadsafe(_settle, future, result, failed)


def _settle(future: "asyncio.Future[Any]", result: Any, failed: Exception | None) -> None:
    if future.done():
        return
    if failed is None:
        future.set_result(result)
    else:
        future.set_exception(failed)


class EventLoop(asyncio.AbstractEventLoop):
    """Of one process."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._ready: deque[asyncio.Handle] = deque()
        self._busy = self._due = False
        self._tasks: dict[asyncio.Task[Any], None] = {}  # so that none is thrown away while the world plays
        STAGE.loops.append(self)

    # -- what asyncio asks for

    def time(self) -> float:
        return STAGE.loop.now_us / S

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def create_future(self) -> "asyncio.Future[Any]":
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, *, name: Any = None, context: Context | None = None) -> Any:
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=self, name=name, context=context)
        self._tasks[task] = None
        task.add_done_callback(self._ended)
        return task

    def call_soon(self, callback: Any, *args: Any, context: Context | None = None) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        if self._process.alive:
            self._ready.append(handle)
            if not self._due and not self._busy:
                self._turn_soon()
        return handle

    call_soon_threadsafe = call_soon

    def call_later(
        self, delay: float, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(self, when: float, callback: Any, *args: Any, context: Context | None = None) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        delay_us = max(0, round(when * S) - STAGE.loop.now_us)
        STAGE.loop.at(delay_us, lambda: self._timer(handle), self._process)
        return handle

    def _timer(self, handle: asyncio.TimerHandle) -> None:
        if not handle.cancelled():
            self._ready.append(handle)
            if not self._due and not self._busy:
                self._turn_soon()

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        pass

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> "asyncio.Future[Any]":
        future = self.create_future()
        executor.put(future, func, args)
        return future

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Of tasks nobody has waited for: `_ended` has judged them."""

    # -- turns

    def _turn_soon(self) -> None:
        self._due = True
        chance = STAGE.loop.chance
        delay_us = chance.randrange(BUSY_US) if chance.random() < 0.005 else chance.randrange(20, 200)
        STAGE.loop.at(delay_us, self._turn, self._process)

    def _turn(self) -> None:
        """All callbacks that are there when it begins, as asyncio does."""
        self._due = False
        if self._busy:  # frozen in the midst of it, and woken
            return
        self._busy = True
        try:
            for _ in range(len(self._ready)):
                if self._process.armed:
                    STAGE.wire.step("turn")
                self._run(self._ready.popleft())
                if not self._process.alive:
                    raise Killed(self._process)
                if self._process.frozen:
                    STAGE.loop.block(0)
        finally:
            self._busy = False
        if self._ready and not self._due:
            self._turn_soon()

    def _run(self, handle: asyncio.Handle) -> None:
        if handle.cancelled():
            return
        STAGE.loop.steps += 1
        before = asyncio._get_running_loop()
        asyncio._set_running_loop(self)
        try:
            handle._context.run(handle._callback, *handle._args)  # type: ignore[attr-defined]
        finally:
            asyncio._set_running_loop(before)

    def _ended(self, task: "asyncio.Task[Any]") -> None:
        self._tasks.pop(task, None)
        if task.cancelled() or not self._process.alive:
            return
        error = task.exception()
        if isinstance(error, Killed):
            raise error
        names = ("Driver.run", "execute_async", "_agent")
        if isinstance(error, Exception) and getattr(task.get_coro(), "__qualname__", "").endswith(names):
            raise Violation("errors", f"{task.get_coro()} of {self._process.name} raised {error!r}") from error

    def bury(self) -> None:
        """The world is over: what is still under way ends without a word."""
        self._process.alive = False
        self._ready.clear()
        for task in list(self._tasks):
            coroutine: Any = task.get_coro()
            try:
                coroutine.close()
            except BaseException:
                continue
        self._tasks.clear()


def run_in(loop: EventLoop, coroutine: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
    """From outside of it."""
    task: asyncio.Task[Any] = loop.create_task(coroutine)
    return task
