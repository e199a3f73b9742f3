"""A worker: claims dispatches, runs their handlers and reports.  This file wires the parts and drains them."""

import asyncio
import os
import socket
import time
from collections.abc import Callable
from typing import Final

import structlog
from prometheus_client import CollectorRegistry

from consumers.control import ControlReader
from consumers.execution import GRACE_S, Executor
from consumers.faults import mask
from consumers.handlers import Handler, Registry
from consumers.leases import LeaseKeeper, Stop
from consumers.loops import LoopExecutor
from consumers.metrics import WorkerMetrics
from consumers.poller import Poller
from consumers.processes import ProcessExecutor, check_source
from consumers.reports import Reporter
from consumers.runs import Runtime
from consumers.threads import ThreadExecutor
from streams.admin import UnreachableError
from streams.clock import mono_ns, new_id
from streams.errors import InstanceTakenError, UserError
from streams.http import HttpServer
from streams.members import Announcer, MembersView
from streams.protocol import PROTOCOL, Control, Member, VersionError
from streams.settings import Settings
from streams.targets import Target
from streams.topics import verify_identity

log = structlog.get_logger("worker")

_NS: Final = 1_000_000_000
_CONNECT_S_MAX: Final = 10.0
_ANNOUNCE_S_MAX: Final = 2.0
_REPORT_S_MAX: Final = 10.0
_LIVE_S_MAX: Final = 30.0
_CHECK_INTERVAL_S: Final = 10.0


class Worker:
    """One worker process.  `run()` ends after `request_stop()`, or raises why it ended: `UserError` for exit code 2.

    `exit_process` ends the process on the spot when a lease is lost or a handler does not end; `step` is called with a
    name between the steps of a claim ("claim", "claimed", "started").  Both are there for tests.
    """

    def __init__(
        self,
        settings: Settings,
        registry: Registry,
        instance: str,
        *,
        exit_process: Callable[[int], None] = os._exit,
        step: Callable[[str], None] = lambda name: None,
    ) -> None:
        self._settings, self._registry, self._instance = settings, registry, instance
        self._boot_id = new_id()
        mask(settings.secret_texts())
        self._exit_process = exit_process
        self._metrics_registry = CollectorRegistry()
        self._metrics = WorkerMetrics(self._metrics_registry)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self._stop_requested = False
        self._failure: Exception | None = None
        self._http = ""
        self._said = 0
        for handler in registry:
            if handler.process:
                check_source(registry, handler)
        self._build(step)

    def _build(self, step: Callable[[str], None]) -> None:
        settings, instance = self._settings, self._instance
        self._view = MembersView(settings, instance, self._boot_id, on_change=self._members_changed)
        self._announcer = Announcer(settings)
        stats = self._metrics.kafka.conf("completions")
        self._reporter = Reporter(settings, instance, self._boot_id, on_fatal=self._fence, stats=stats)
        self._keeper = LeaseKeeper(settings, self._fence)
        self._loops = LoopExecutor(self._metrics)
        self._threads = ThreadExecutor()
        self._children = ProcessExecutor(self._registry)
        self._keeper.each_tick = self._loops.tick
        self._runtime = Runtime(
            settings, instance, self._registry, self._reporter, self._keeper, self._metrics, self._executor_of,
            lambda: self._poller.slots.release(), self._fence, step,
        )  # fmt: skip
        self._control = ControlReader(settings, self._take_back, self._cancel, self._fail)
        self._poller = Poller(
            settings, self._runtime, self._control, self._say, self._announced, self._announcer.silent_s, self._fail
        )
        slots = self._poller.slots
        self._metrics.slots.set(slots.total)
        self._metrics.running.set_function(lambda: slots.total - slots.free)

    def _executor_of(self, handler: Handler) -> Executor:
        if handler.process:
            return self._children
        return self._loops if handler.is_async else self._threads

    # -- life

    async def run(self) -> None:
        """Work until `request_stop()`, then drain.  Raises what made the worker stop by itself."""
        self._loop = asyncio.get_running_loop()
        if self._stop_requested:
            return
        target = Target(self._settings, "worker", self._instance)
        http = HttpServer(self._settings.http, self._metrics_registry, self._is_live, self._is_ready)
        try:
            await asyncio.to_thread(self._connect)
            self._http = await http.start()
            target.write(self._http)
            self._say(frozenset())
            for thread in (self._announcer, self._reporter, self._keeper, self._control, self._poller):
                thread.start()
            log.info("worker runs", types=self._registry.types(), slots=self._settings.slots, http=self._http)
            await self._work()
            await asyncio.to_thread(self._drain)
        finally:
            await http.stop()
            target.remove()
            self._view.stop()
        if self._failure is not None:
            raise self._failure

    async def _work(self) -> None:
        """Until asked to stop.  Topics may be changed under a running worker: then it must stop, not guess."""
        while not self._stop.is_set():
            try:
                await asyncio.wait_for(self._stop.wait(), _CHECK_INTERVAL_S)
            except TimeoutError:
                await asyncio.to_thread(self._check_topics)

    def _check_topics(self) -> None:
        try:
            verify_identity(self._settings)
        except UnreachableError:
            pass  # an outage; the leases decide how long it may last
        except UserError as error:
            self._fail(error)

    def request_stop(self) -> None:
        """Drain and end.  From any thread and from signal handlers; also before `run()`, and after it."""
        self._stop_requested = True
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._stop.set)

    def _connect(self) -> None:
        """Raises `UserError` if this worker cannot or must not run."""
        verify_identity(self._settings)
        self._view.start()
        if not self._view.wait_caught_up(_CONNECT_S_MAX):
            topic, servers = self._settings.topic("members"), self._settings.bootstrap_servers
            raise UserError(f"topic {topic} cannot be read at {servers}: look at the broker")
        self._view.ensure_unused()

    def _drain(self) -> None:
        """Claim nothing more, let run what runs, then stop it; what does not end, ends with the process."""
        self._runtime.draining = True
        self._announcer.leave(tombstone=not isinstance(self._failure, InstanceTakenError))
        self._poller.stop()  # its partitions, with what was not claimed, go to others at once
        self._control.stop()
        log.info("draining", running=self._running(), drain_s=self._settings.drain_s)
        if not self._wait_idle(self._settings.drain_s):
            log.warning("drain time is over", running=self._running())
            self._keeper.stop_all(Stop.DRAIN)
            self._wait_idle(2 * GRACE_S)
        unsaid = self._reporter.stop(_REPORT_S_MAX)
        left = self._running()
        if left or unsaid:
            # Threads and stubborn coroutines go on while the process lives; its end makes sure that they do not.
            log.error("not all has ended or been reported: the leases decide", running=left, unreported=unsaid)
            self._exit_process(2 if self._failure is not None else 0)
        self._keeper.stop()
        for executor in (self._loops, self._threads, self._children):
            executor.stop()
        log.info("worker has left")

    def _running(self) -> int:
        return self._poller.slots.total - self._poller.slots.free

    def _wait_idle(self, timeout_s: float) -> bool:
        deadline_ns = mono_ns() + int(timeout_s * _NS)
        while self._running() and mono_ns() < deadline_ns:
            time.sleep(0.02)
        return self._running() == 0

    # -- called by the parts

    def _say(self, partitions: frozenset[int]) -> None:
        """Announce that these are ours."""
        self._said = self._announcer.update(self._member(partitions))

    def _announced(self) -> bool:
        """Whether the world can know it."""
        return self._announcer.wait_said(self._said, _ANNOUNCE_S_MAX)

    def _member(self, partitions: frozenset[int]) -> Member:
        return Member(
            PROTOCOL, self._instance, self._boot_id, "worker", socket.gethostname(), os.getpid(), 0, self._http,
            tuple(sorted(partitions)), self._settings.slots, self._registry.types(),
        )  # fmt: skip

    def _members_changed(self) -> None:
        if self._view.superseded():
            self._fail(InstanceTakenError(self._instance))

    def _fail(self, error: Exception) -> None:
        """Stop because of this; the first one counts."""
        if self._failure is None:
            if isinstance(error, VersionError):
                error = UserError(f"topic {self._settings.topic('control')} holds {error}")
            if not isinstance(error, UserError):
                log.error("worker stops", exc_info=error)
            self._failure = error
            self.request_stop()

    def _fence(self, why: str) -> None:
        """End the process at once: something may still run that must not."""
        log.error("process ends at once", why=why)
        self._exit_process(1)

    def _take_back(self, control: Control) -> bool:
        """It is claimed here: what of it runs goes on, alone."""
        return self._runtime.cut(control.group, control.token)

    def _cancel(self, control: Control) -> None:
        """What runs of that group under that token is to end: asked of every worker, true for one."""
        self._runtime.cancel(control.group, control.token)

    def _is_live(self) -> tuple[bool, str]:
        """Whether polling and leases make progress."""
        now_ns = mono_ns()
        late_s = (now_ns - min(self._poller.polled_ns, self._keeper.looked_ns)) / _NS
        alive = self._poller.is_alive() and self._keeper.is_alive()
        return alive and late_s < _LIVE_S_MAX, f"polled and looked after leases {late_s:.1f} s ago"

    def _is_ready(self) -> tuple[bool, str]:
        owned = len(self._poller.owned)
        return self._poller.ready, self._poller.stopped or f"{owned} partitions of dispatches"
