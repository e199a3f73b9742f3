"""Puts the simulated clocks, Kafka, threads and outer parts in the place of the real ones, in this process for good."""

import asyncio
import logging
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any, NoReturn

import structlog

import consumers.express
import consumers.local
import consumers.worker
import streams.clock
import streams.express
import streams.limits
import streams.lookups
import streams.members
import streams.scheduler
import streams.store
from streams.clock import Now
from streams.partition import INPUTS
from streams.protocol import Member
from tests.sim import client, eventloop, local, parts
from tests.sim.loop import MS, S, Violation
from tests.sim.stage import STAGE


def now() -> Now:
    process, now_us = STAGE.wire.process(), STAGE.loop.now_us
    wall_ms = STAGE.wall_epoch_ms + now_us // MS + process.wall_offset_ms
    if wall_ms > STAGE.wall_ms_max:
        STAGE.wall_ms_max = wall_ms
    return Now(wall_ms, now_us // MS + process.mono_offset_ms)


def mono_ns() -> int:
    return STAGE.loop.now_us * 1000 + STAGE.wire.process().mono_offset_ms * 1_000_000


def clock_id() -> str:
    return f"clock-{STAGE.wire.process().mono_offset_ms}"


def _new_id() -> str:
    STAGE.ids += 1
    return f"{STAGE.ids:032x}"


def _sleep(seconds: float) -> None:
    STAGE.loop.block(max(1, int(seconds * S)))


class Condition:
    """Nothing else runs while its lock is held.  `on_notify` hears of each notification."""

    def __init__(self) -> None:
        self.on_notify: Callable[[], None] = lambda: None

    def __enter__(self) -> "Condition":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def notify(self) -> None:
        self.on_notify()

    notify_all = notify

    def wait(self, timeout: float) -> None:
        _sleep(timeout)

    def wait_for(self, predicate: Callable[[], bool], timeout: float) -> bool:
        until_us = STAGE.loop.now_us + int(timeout * S)
        while not predicate():
            if STAGE.loop.now_us >= until_us:
                return False
            STAGE.loop.block(10 * MS)
        return True


class Event:
    """Waiting for it lets the world go on."""

    def __init__(self) -> None:
        self._is_set = False

    def set(self) -> None:
        self._is_set = True

    def clear(self) -> None:
        self._is_set = False

    def is_set(self) -> bool:
        return self._is_set

    def wait(self, timeout: float) -> bool:
        if not self._is_set:
            _sleep(timeout)
        return self._is_set


class Thread:
    """Runs its target as an event of the process that started it."""

    def __init__(self, target: Callable[..., None], args: tuple[Any, ...] = (), **_: Any) -> None:
        self._call = lambda: target(*args)

    def start(self) -> None:
        STAGE.loop.at(STAGE.loop.chance.randrange(3 * MS), self._call, STAGE.wire.process())


class EventLoop:
    """What of an event loop the scheduler uses; threads are calls."""

    def call_later(self, delay_s: float, call: Callable[[], None]) -> None:
        STAGE.loop.at(int(delay_s * S), call, STAGE.wire.process())

    def run_in_executor(self, _thread: Any, function: Callable[..., Any], *args: Any) -> "Future[Any]":
        future: Future[Any] = Future()
        future.began_us = STAGE.loop.now_us  # type: ignore[attr-defined]
        try:
            future.set_result(function(*args))
        except Exception as error:
            future.set_exception(error)
        return future


def _running_loop() -> Any:
    """The one of a scheduler that runs handlers; others have none."""
    return asyncio._get_running_loop() or EventLoop()


async def _wait(futures: set[Any], timeout: float | None = None, **more: Any) -> tuple[set[Any], set[Any]]:
    """What has taken too long may not have been noticed to be done."""
    if asyncio._get_running_loop() is not None:
        return await asyncio.wait(futures, timeout=timeout, **more)
    assert timeout is not None
    late = {f for f in futures if STAGE.loop.now_us - f.began_us > timeout * S and STAGE.loop.chance.random() < 0.5}
    return futures - late, late


class _Null:
    """Takes the place of metrics and servers: any call is fine and does nothing."""

    def keys(self) -> tuple[str, ...]:
        """No settings to add."""
        return ()

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __getattr__(self, _name: str) -> "_Null":
        return self

    def __call__(self, *_: Any, **__: Any) -> "_Null":
        return self


class _Http(_Null):
    async def start(self) -> str:
        return ""

    async def stop(self) -> None:
        pass


def _is_dead(member: Member) -> bool:
    """Whoever shares a monotonic clock shares a host, and sees who is gone."""
    process = STAGE.boots.get(member.boot_id)
    if process is None or process.alive:
        return False
    return process.mono_offset_ms == STAGE.wire.process().mono_offset_ms


def _judge_log(_logger: Any, _method: str, event: dict[str, Any]) -> NoReturn:
    """The code under test logs at level error what must not happen; some of it the scenarios bring about."""
    current = STAGE.loop.current
    if current is not None and current.alive and not str(event["event"]).startswith(EXPECTED_ERRORS):
        error = event.get("exc_info")
        raise Violation("errors", f"{event['event']}: {error or {k: v for k, v in event.items() if k != 'event'}}")
    raise structlog.DropEvent


EXPECTED_ERRORS = (
    "process ends at once", "not all has ended or been reported", "another process uses instance id", "stopping",
    "a transaction hangs", "a transaction stays open",
)  # fmt: skip


class _Topics:
    topic_ids = dict.fromkeys(INPUTS, "id")


def _nothing(_settings: Any) -> _Topics:
    """The topics are as they should be."""
    return _Topics()


def install() -> None:
    """Once; more often does nothing."""
    if STAGE.is_set:
        return
    STAGE.is_set = True
    structlog.configure(
        processors=[structlog.processors.ExceptionRenderer(), _judge_log],
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR),
        cache_logger_on_first_use=False,
    )
    clocks = {"now": now, "mono_ns": mono_ns, "clock_id": clock_id, "new_id": _new_id}
    kafka = client.Kafka(lambda: STAGE.wire)
    threads = SimpleNamespace(**(vars(threading) | {"Condition": Condition, "Event": Event, "Thread": Thread}))
    for name, module in list(sys.modules.items()):
        if not name.startswith(("streams.", "consumers.")):
            continue
        if hasattr(module, "ck"):
            module.ck = kafka
        if name in ("consumers.poller", "consumers.control", "streams.members", "streams.store"):
            module.threading = threads  # type: ignore[attr-defined]
        for clock, function in clocks.items():
            if getattr(module, clock, None) is getattr(streams.clock, clock) and module is not streams.clock:
                setattr(module, clock, function)
    real = vars(asyncio) | {"get_running_loop": _running_loop, "wait": _wait}
    _replace(streams.scheduler, asyncio=SimpleNamespace(**real), SchedulerMetrics=_Null, HttpServer=_Http, Target=_Null, CollectorRegistry=_Null,
             ThreadPoolExecutor=eventloop.Thread, verify_identity=_nothing, trim_topics=lambda *_: None,
             MembersView=parts.View, Announcer=parts.Announcer, new_app=local.App, is_dead=_is_dead,
             BUSY=(2, 3), PART_RECORDS=3)  # fmt: skip
    _replace(streams.express, LINE_MAX=4)
    _replace(consumers.express, _LINES_MAX=4, _LANE_MAX=8, _IN_A_ROW=3, _BURST_MAX=4)
    _replace(consumers.local, LocalMetrics=_Null, LeaseKeeper=parts.Keeper,
             ThreadExecutor=parts.Executor, ProcessExecutor=parts.Executor)  # fmt: skip
    _replace(consumers.worker, WorkerMetrics=_Null, HttpServer=_Null, Target=_Null, CollectorRegistry=_Null,
             verify_identity=lambda _: None, MembersView=parts.View, Announcer=parts.Announcer,
             Reporter=parts.Reporter, LeaseKeeper=parts.Keeper, LoopExecutor=parts.Executor,
             ThreadExecutor=parts.Executor, ProcessExecutor=_Null, time=SimpleNamespace(sleep=_sleep))  # fmt: skip
    _replace(streams.members, is_dead=_is_dead)
    _replace(streams.limits, SWEPT_PER_STEP=2)  # so that a backlog leaves in several steps
    monotonic = SimpleNamespace(monotonic=lambda: mono_ns() / 1e9)
    _replace(streams.store, AdminClient=lambda conf, logger=None: client.AdminClient(STAGE.wire), time=monotonic)
    _replace(streams.lookups, AdminClient=lambda conf, logger=None: client.AdminClient(STAGE.wire))


def _replace(module: Any, **names: Any) -> None:
    for name, value in names.items():
        assert hasattr(module, name), f"{module.__name__} has no {name} any more"
        setattr(module, name, value)
