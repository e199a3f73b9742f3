"""Leases: until when a claim may run, and the thread that renews them, enforces them and times executions out.

The scheduler counts a lease from when it reads `started` or a renewal; the worker counts it from the moment before
the last acknowledged one was *sent*, which is earlier.  So whatever the worker still runs, the scheduler still grants.

How often renewals are sent, and how long before its end a lease is given up, decides how long a broker may be away
without costing anything: the arithmetic is in `streams/limits.py`, `tests/unit/test_leases.py` tries it out.
"""

import threading
from collections.abc import Callable
from enum import Enum, auto
from typing import Final, Protocol

import structlog

from streams import limits
from streams.clock import mono_ns
from streams.settings import Settings

log = structlog.get_logger("worker")

_NS: Final = 1_000_000_000
_MARGIN_NS: Final = int(limits.LEASE_MARGIN_S * _NS)
_RENEWAL_NS: Final = int(limits.RENEWAL_S * _NS)


class Stop(Enum):
    """Why an execution was told to stop."""

    TIMEOUT = auto()
    DRAIN = auto()
    CANCEL = auto()  # an operator's command
    CUT_OFF = auto()  # the lease cannot be renewed


class Lease:
    """The deadline of one claim, monotonic.  Written and read by several threads; each field is one word."""

    __slots__ = ("_lease_ns", "sent_ns", "until_ns")

    def __init__(self, settings: Settings, began_ns: int) -> None:
        self._lease_ns = int(settings.silence_s * _NS)
        self.sent_ns = began_ns
        self.until_ns = began_ns + self._lease_ns

    def extend(self, sent_ns: int) -> None:
        """A report that was sent then has been acknowledged."""
        self.sent_ns = max(self.sent_ns, sent_ns)
        self.until_ns = max(self.until_ns, sent_ns + self._lease_ns)

    def may_start(self, now_ns: int) -> bool:
        """Whether something may begin to run under this lease."""
        return now_ns < self.until_ns - _MARGIN_NS

    def is_out(self, now_ns: int) -> bool:
        return now_ns >= self.until_ns

    def renewal_due(self, now_ns: int) -> bool:
        return now_ns - self.sent_ns >= _RENEWAL_NS


class Held(Protocol):
    """What the keeper looks after: a run whose lease counts."""

    lease: Lease

    def renew(self, now_ns: int) -> None:
        """Send a renewal, unless one is on its way."""

    def request_stop(self, why: Stop) -> None:
        """Stop what runs.  Called again and again until it has ended."""

    def check_time(self, now_ns: int) -> None:
        """Time out what has run for too long."""


class LeaseKeeper(threading.Thread):
    """A thread of its own, so that neither a blocked event loop nor a slow claim stops renewals.

    A claim whose lease is out while its handler has not ended ends the process: a successor may start any moment.
    After a freeze this is the first thing that happens here.
    """

    def __init__(self, settings: Settings, fence: Callable[[str], None]) -> None:
        super().__init__(name="leases", daemon=True)
        self._tick_s = min(max(settings.lease_s / 100, 0.02), limits.KEEPER_TICK_S)
        self._fence = fence
        self._held: set[Held] = set()
        self._stopping = threading.Event()
        self.looked_ns = mono_ns()
        self.each_tick: Callable[[int], None] = lambda now_ns: None

    def add(self, held: Held) -> None:
        self._held.add(held)

    def discard(self, held: Held) -> None:
        self._held.discard(held)

    def stop_all(self, why: Stop) -> None:
        for held in self._held.copy():
            held.request_stop(why)

    def stop(self) -> None:
        self._stopping.set()
        if self.ident is not None:
            self.join()

    def run(self) -> None:
        while not self._stopping.wait(self._tick_s):
            self.looked_ns = now_ns = mono_ns()
            try:
                for held in self._held.copy():
                    self._look(held, now_ns)
                self.each_tick(now_ns)
            except Exception:
                # Without this thread no lease is safe.
                log.exception("lease keeper failed")
                self._fence("the lease keeper failed")

    def _look(self, held: Held, now_ns: int) -> None:
        lease = held.lease
        if not lease.may_start(now_ns):
            held.request_stop(Stop.CUT_OFF)  # what has not begun is given back at once, and no longer held
            if lease.is_out(now_ns) and held in self._held:
                self._fence("a lease is out and its handler has not ended")
        elif lease.renewal_due(now_ns):
            held.renew(now_ns)
        held.check_time(now_ns)
