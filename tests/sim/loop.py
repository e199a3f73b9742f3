"""Simulated time: one queue of events, and processes that can be frozen, cut off and killed.

A call that blocks lets the world go on: `Loop.block` runs other events until its time is over, inside the call.  So the
real, blocking code runs unchanged on one thread.  Whatever waits below on the stack may be delayed by what waits above
it: to a process that is only a slow moment, which may happen to it at any time.
"""

import heapq
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

MS = 1_000  # times are in microseconds
S = 1_000_000
DEPTH_MAX = 25
STEPS_MAX = 300_000  # some 5,000 are usual
FOUND: list["Violation"] = []  # in the world that plays now: what runs in an asyncio task may swallow one


class Violation(BaseException):
    """The promise is broken.  No `Exception`, so that the code under test cannot catch it."""

    def __init__(self, guarantee: str, text: str, group: str | None = None) -> None:
        super().__init__(f"{guarantee}: {text}" + (f" (group {group})" if group else ""))
        self.guarantee, self.text, self.group = guarantee, text, group
        FOUND.append(self)


@contextmanager
def judged(what: str) -> Iterator[None]:
    """An exception that comes out of the code under test is a violation."""
    try:
        yield
    except Exception as error:
        raise Violation("errors", f"{what} raised {error!r}") from error


class Killed(BaseException):
    """The process that was running has ended here."""

    def __init__(self, process: "Process") -> None:
        super().__init__(process.name)
        self.process = process


class Fault:
    """Something that happens to a process at one of its steps: the `countdown`th from now of that name (or of any)."""

    __slots__ = ("countdown", "duration_us", "kind", "where")

    def __init__(self, kind: str, where: str, countdown: int, duration_us: int = 0) -> None:
        self.kind, self.where, self.countdown, self.duration_us = kind, where, countdown, duration_us


class Process:
    """One life of one process: an event of it runs only while it is alive and not frozen."""

    def __init__(self, loop: "Loop", name: str, boot: int, wall_offset_ms: int, mono_offset_ms: int) -> None:
        self.loop, self.name, self.boot = loop, name, boot
        self.wall_offset_ms, self.mono_offset_ms = wall_offset_ms, mono_offset_ms
        self.alive = True
        self.frozen = False
        self.thaw_us = 0
        self.thawed_us = -S
        self.cut_until_us = 0
        self.armed: list[Fault] = []
        self.trouble: list[tuple[int, int]] = []  # when it was frozen or cut off: (from, to)
        self.doubts: list[int] = []  # when something happened to its transactions
        self.on_stop: Callable[[], None] = lambda: None  # SIGTERM
        self.on_death: list[Callable[[], None]] = []
        self.on_unreachable: list[Callable[[], None]] = []
        self.waits: list[int] = []  # until when each of its waits was meant to last
        self.is_looking = False  # after its leases, right now: what holds it up then holds up that it ends them
        self._deferred: list[Callable[[], None]] = []

    def held_up(self) -> list[tuple[int, int]]:
        """(from, to now) of each wait that is over and goes on, because of what waits above it on the stack."""
        now_us = self.loop.now_us
        return [(until_us, now_us) for until_us in self.waits if until_us < now_us]

    def defer(self, call: Callable[[], None]) -> None:
        self._deferred.append(call)

    def freeze(self, duration_us: int) -> None:
        """SIGSTOP now, SIGCONT later."""
        until_us = self.loop.now_us + duration_us
        if not self.alive or (self.frozen and until_us <= self.thaw_us):
            return
        self.trouble.append((self.loop.now_us, until_us))
        self.frozen, self.thaw_us = True, until_us
        self.loop.at(duration_us, self.thaw)
        self._unreachable()

    def thaw(self, *, now: bool = False) -> None:
        if not self.alive or not self.frozen or (self.loop.now_us < self.thaw_us and not now):
            return
        self.frozen, self.thaw_us, self.thawed_us = False, self.loop.now_us, self.loop.now_us
        deferred, self._deferred = self._deferred, []
        for call in deferred:
            self.loop.at(0, call, self)

    def cut(self, duration_us: int) -> None:
        """No packet goes in or out."""
        self.trouble.append((self.loop.now_us, self.loop.now_us + duration_us))
        self.cut_until_us = max(self.cut_until_us, self.loop.now_us + duration_us)
        self._unreachable()

    def die(self) -> None:
        """SIGKILL.  The caller raises `Killed` if it runs inside this process."""
        if self.alive:
            self.alive = False
            self._deferred.clear()
            self._unreachable()
            for call in self.on_death:
                call()

    def is_reachable(self) -> bool:
        return self.alive and not self.frozen and self.cut_until_us <= self.loop.now_us

    def _unreachable(self) -> None:
        for call in self.on_unreachable:
            call()


class Loop:
    def __init__(self, seed: int) -> None:
        self.now_us = 0
        self.steps = 0
        self.chance = random.Random(seed)  # of latencies and races
        self.current: Process | None = None
        self.depth = 0
        self.jumps: list[tuple[int, int]] = []  # times that passed while nothing could happen
        self._serial = 0
        self._events: list[tuple[int, int, Process | None, Callable[[], None]]] = []

    def at(self, delay_us: int, call: Callable[[], None], process: Process | None = None) -> None:
        """Run `call` later; as something that `process` does, if it is given."""
        self._serial += 1
        heapq.heappush(self._events, (self.now_us + delay_us, self._serial, process, call))

    def run(self, until_us: int, go_on: Callable[[], bool] = lambda: True) -> None:
        """Run events up to that time, or for as long as `go_on` says."""
        events = self._events
        while events and events[0][0] <= until_us and go_on():
            self._step(*heapq.heappop(events))

    def _step(self, at_us: int, _serial: int, process: Process | None, call: Callable[[], None]) -> None:
        if at_us > self.now_us:
            self.now_us = at_us
        if process is not None:
            if not process.alive:
                return
            if process.frozen:
                process.defer(call)
                return
        outer, self.current = self.current, process
        self.steps += 1
        if self.steps > STEPS_MAX:
            raise Violation("G6", f"it does not come to rest in {STEPS_MAX} steps")
        try:
            call()
        except Killed as killed:
            if killed.process is not process:
                raise
        finally:
            self.current = outer
        if FOUND:
            raise FOUND[0]

    def block(self, delay_us: int) -> None:
        """The running process waits for this long, and the world goes on.  Raises `Killed`."""
        process = self.current
        assert process is not None
        until_us = self.now_us + delay_us
        process.waits.append(until_us)
        self._wait(process, until_us)
        while process.alive and process.frozen:
            process.waits[-1] = until_us = process.thaw_us
            self._wait(process, until_us)
        process.waits.pop()
        if self.now_us > until_us:
            if process.is_looking:
                process.thawed_us = self.now_us
            process.trouble.append((until_us, self.now_us))  # one of its threads was held up by what waits above it
        if not process.alive:
            raise Killed(process)
        self.current = process

    def _wait(self, process: Process, until_us: int) -> None:
        if self.depth < DEPTH_MAX:
            self.depth += 1
            try:
                self.run(until_us, lambda: process.alive)
            finally:
                self.depth -= 1
        else:
            self.jumps.append((self.now_us, until_us))
        if process.alive:
            self.now_us = max(self.now_us, until_us)
