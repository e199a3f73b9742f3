"""`process=True` handlers: child processes, each serving one execution at a time over a pair of pipes.

A child is started and served by one thread that lives as long as the child: on Linux the kernel kills the child when
that very thread is gone, and with it this process (PR_SET_PDEATHSIG); elsewhere the child watches its pipe.
"""

import os
import select
import signal
import subprocess
import sys
import threading
from typing import Final

import structlog

from consumers import faults, outcomes
from consumers.child import Said, Work, receive, transmit
from consumers.execution import Execution
from consumers.handlers import Handler, Registry
from consumers.leases import Stop
from consumers.outcomes import Outcome
from consumers.threads import ThreadExecutor
from streams.errors import UserError
from streams.protocol import ErrorInfo, Reason, ReportKind

log = structlog.get_logger("worker")

# A child imports what the worker has imported; one that takes longer than this hangs.
_READY_S_MAX: Final = 60.0


class Child:
    """A child process.  Raises `OSError` or `EOFError` when it is gone."""

    def __init__(self, source: str) -> None:
        their_in, our_out = os.pipe()
        our_in, their_out = os.pipe()
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        command = [sys.executable, "-m", "consumers.child", source, str(their_in), str(their_out), str(os.getpid())]
        try:
            # A session of its own: Ctrl-C in a terminal is for the worker to handle, and a kill reaches grandchildren.
            self._process = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, pass_fds=(their_in, their_out),
                start_new_session=True,
            )  # fmt: skip
        except BaseException:
            os.close(our_out)
            os.close(our_in)
            raise
        finally:
            os.close(their_in)
            os.close(their_out)
        self._out, self._in = our_out, our_in
        self._sending = threading.Lock()
        self._writable = select.poll()
        self._writable.register(our_out, select.POLLOUT)
        self.spent = False  # was told to end

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def wait_ready(self) -> bool:
        """Whether it has imported the handlers and can execute.  False: it is gone, or hangs."""
        said = select.poll()
        said.register(self._in, select.POLLIN)
        try:
            return bool(said.poll(_READY_S_MAX * 1000)) and receive(self._in, Said) == Said()
        except (OSError, EOFError):
            return False

    def serve(self, execution: Execution) -> Outcome:
        """Have it execute; progress is passed on meanwhile."""
        until_ns, group = execution.run.lease.until_ns, execution.task.group
        work = Work(until_ns, group, execution.wire, execution.state, faults.secrets())
        with self._sending:
            transmit(self._out, work)
        while True:
            said = receive(self._in, Said)
            if said.outcome is not None:
                return said.outcome
            execution.task.progress(said.fraction, said.note)

    def extend(self, until_ns: int) -> None:
        """Its lease has been renewed.  Never blocks: a child that does not read is told at the next renewal."""
        if not self._sending.acquire(blocking=False):
            return
        try:
            if self._writable.poll(0):
                transmit(self._out, Work(until_ns))
        except OSError:
            pass  # it is gone: whoever serves it notices
        finally:
            self._sending.release()

    def signal(self, number: int) -> None:
        self.spent = True
        try:
            os.killpg(self._process.pid, number)
        except ProcessLookupError:
            return

    def end(self) -> str:
        """Kill it if need be; how it ended, in words."""
        os.close(self._out)
        os.close(self._in)
        try:
            code = self._process.wait(0.2)
        except subprocess.TimeoutExpired:
            self.signal(signal.SIGKILL)
            code = self._process.wait()
        return f"signal {-code}" if code < 0 else f"exit code {code}"


class ProcessExecutor(ThreadExecutor):
    """Children are kept for the next execution, unless one was told to end."""

    def __init__(self, registry: Registry) -> None:
        super().__init__("children", lambda: _Keeper(registry).execute)

    def cancel(self, execution: Execution) -> None:
        _signal(execution, signal.SIGTERM)

    def kill(self, execution: Execution) -> bool:
        _signal(execution, signal.SIGKILL)
        return True

    def lease_extended(self, execution: Execution) -> None:
        """Children watch the lease themselves: they go on when this process is frozen."""
        with _handles:
            if isinstance(child := execution.handle, Child):
                child.extend(execution.run.lease.until_ns)


def check_source(registry: Registry, handler: Handler) -> str:
    """What a child imports to find this handler.  Raises `UserError` if it could not."""
    source = registry.source or handler.fn.__module__
    if source == "__main__":
        raise UserError(
            f"handler {handler.task_type!r} has process=True: put it into a module that a child process can import"
        )
    return source


def _signal(execution: Execution, number: int) -> None:
    with _handles:
        if isinstance(child := execution.handle, Child):
            child.signal(number)


# Guards `execution.handle`: no signal for an execution that its child has finished.
_handles = threading.Lock()


class _Keeper:
    """One thread's child."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._child: Child | None = None

    def execute(self, execution: Execution) -> None:
        problem: BaseException | None = None
        try:  # before `begin`: what a child needs to start is not the handler's time
            self._start(execution.handler)
        except BaseException as error:
            problem = error
        if not execution.begin():
            return
        try:
            if problem is not None:
                raise problem
            outcome = self._serve(execution)
        except BaseException as error:
            outcome = execution.outcome_of_error(error)
        execution.end(outcome)

    def _start(self, handler: Handler) -> None:
        """Have a child that is ready.  Raises `ChildProcessError` if it ended or hangs while it starts."""
        if self._child is not None and self._child.is_alive():
            return
        if self._child is not None:  # somebody killed it while it had nothing to do
            self._child.end()
            self._child = None
        child = Child(check_source(self._registry, handler))
        if not child.wait_ready():
            raise ChildProcessError(f"the handler's process does not start: {child.end()}")
        self._child = child

    def _serve(self, execution: Execution) -> Outcome:
        child = self._child
        assert child is not None
        with _handles:
            execution.handle = child
        if execution.stop is not None:  # it came before there was a child to signal
            child.signal(signal.SIGTERM)
        ended: str | None = None
        try:
            outcome: Outcome | None = child.serve(execution)
        except (OSError, EOFError):
            outcome = None
        finally:
            with _handles:
                execution.handle = None
            if child.spent or outcome is None:
                ended = child.end()
                self._child = None
        return _judge(execution, outcome, ended)


def _judge(execution: Execution, outcome: Outcome | None, ended: str | None) -> Outcome:
    if execution.stop is Stop.TIMEOUT:
        return outcomes.timed_out(execution.timeout_s or 0.0)
    if outcome is not None and (execution.stop is None or outcome.kind is ReportKind.SUCCEEDED):
        return outcome
    if execution.stop is not None:
        return outcomes.ABANDONED
    return Outcome(
        ReportKind.FAILED, Reason.FAILED, ErrorInfo("child process", f"the handler's process ended: {ended}")
    )
