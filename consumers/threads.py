"""Plain `def` handlers: a pool of daemon threads, so that one that hangs cannot keep the process from ending."""

import threading
from collections.abc import Callable
from queue import SimpleQueue

import structlog

from consumers.execution import Execution

# Executes in the thread that calls it, from `begin()` to `end()`.
Call = Callable[[Execution], None]


class ThreadExecutor:
    """As many threads as there were executions at once, at most one for each slot.

    Each thread executes with a `Call` of its own, made by `make_call` in that thread.
    """

    def __init__(self, name: str = "handlers", make_call: Callable[[], Call] | None = None) -> None:
        self._name, self._make_call = name, make_call
        self._queue: SimpleQueue[Execution | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._idle = self._threads = 0

    def submit(self, execution: Execution) -> None:
        with self._lock:
            if self._idle > 0:
                self._idle -= 1  # that thread is for this execution
            else:
                self._threads += 1
                threading.Thread(target=self._work, name=f"{self._name}-{self._threads}", daemon=True).start()
        self._queue.put(execution)

    def cancel(self, execution: Execution) -> None:
        """A thread cannot be stopped; `task.cancelled` asks the handler to."""

    def kill(self, execution: Execution) -> bool:
        return False

    def lease_extended(self, execution: Execution) -> None:
        """The lease keeper guards it."""

    def stalled_ns(self, execution: Execution) -> int:
        return 0

    def stop(self) -> None:
        """End the threads that are idle, or will be."""
        for _ in range(self._threads):
            self._queue.put(None)

    def _work(self) -> None:
        call = execute if self._make_call is None else self._make_call()
        while (execution := self._queue.get()) is not None:
            with structlog.contextvars.bound_contextvars(**execution.log_fields()):
                call(execution)
            del execution
            with self._lock:
                self._idle += 1


def execute(execution: Execution) -> None:
    """Execute a plain handler in this thread."""
    if not execution.begin():
        return
    try:
        value = execution.handler.fn(*execution.handler.arguments(execution.task))
    except BaseException as error:  # SystemExit and the like end the handler, not the worker
        outcome = execution.outcome_of_error(error)
    else:
        outcome = execution.outcome_of_value(value)
    execution.end(outcome)
