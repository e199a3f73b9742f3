"""Circuit breakers: when a type fails too often, its groups wait instead of spending their attempts.  Pure.

One breaker per type and scheduler: each judges by the outcomes of its own partitions, and lets at most one probe out at
a time.  It is memory, not state: whoever takes a partition over starts with closed breakers and judges for himself.

closed --(of the last `window` outcomes at least `rate` failed)--> open --(`open_s` later)--> half open: one probe
half open --(the probe succeeded)--> closed;  --(it failed)--> open again
"""

from collections import deque
from collections.abc import Iterator
from enum import StrEnum
from typing import Final

from msgspec import Struct


class BreakerSettings(Struct, frozen=True):
    """`rate` 0: no breakers."""

    rate: float = 0.0
    window: int = 20
    open_s: float = 30.0


class BreakerState(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Breaker:
    """Of one type.  `probe`: the fencing token of the one task that is out while it is half open."""

    def __init__(self, settings: BreakerSettings) -> None:
        self._settings = settings
        self._outcomes: deque[bool] = deque(maxlen=settings.window)
        self.state = BreakerState.CLOSED
        self.until_mono_ms = 0
        self.probe: int | None = None

    def ended(self, token: int, succeeded: bool, mono_ms: int) -> bool:
        """An execution has ended; whether the state changed.  What began before it opened says nothing new."""
        if self.state is BreakerState.CLOSED:
            self._outcomes.append(succeeded)
            failed = self._outcomes.count(False)
            if len(self._outcomes) == self._settings.window and failed >= self._settings.rate * len(self._outcomes):
                self._open(mono_ms)
                return True
        elif token == self.probe:
            self.probe = None
            if succeeded:
                self.state = BreakerState.CLOSED
                self._outcomes.clear()
            else:
                self._open(mono_ms)
            return True
        return False

    def came_back(self, token: int) -> None:
        """That task did not end, but it is no longer out: another may be the probe."""
        if token == self.probe:
            self.probe = None

    def allows(self, mono_ms: int) -> int | None:
        """How many may go out now; None: as many as there are."""
        if self.state is BreakerState.CLOSED:
            return None
        if self.state is BreakerState.OPEN:
            if mono_ms < self.until_mono_ms:
                return 0
            self.state = BreakerState.HALF_OPEN
        return 0 if self.probe is not None else 1

    def _open(self, mono_ms: int) -> None:
        self.state = BreakerState.OPEN
        self.until_mono_ms = mono_ms + int(self._settings.open_s * 1000)
        self._outcomes.clear()


class Breakers:
    """All of one scheduler, by type; types that never failed have none."""

    def __init__(self, settings: BreakerSettings) -> None:
        self.settings: Final = settings
        self._by_type: dict[str, Breaker] = {}

    def get(self, task_type: str) -> Breaker | None:
        return self._by_type.get(task_type)

    def ended(self, task_type: str, token: int, succeeded: bool, mono_ms: int) -> BreakerState | None:
        """The new state of the type's breaker, if this execution changed it."""
        if not self.settings.rate:
            return None
        breaker = self._by_type.get(task_type)
        if breaker is None:
            if succeeded:
                return None
            breaker = self._by_type[task_type] = Breaker(self.settings)
        return breaker.state if breaker.ended(token, succeeded, mono_ms) else None

    def came_back(self, task_type: str, token: int) -> None:
        if breaker := self._by_type.get(task_type):
            breaker.came_back(token)

    def sent(self, task_type: str, token: int) -> None:
        """A task went out: the probe, if its type's breaker is half open."""
        breaker = self._by_type.get(task_type)
        if breaker is not None and breaker.state is BreakerState.HALF_OPEN:
            breaker.probe = token

    def limits(self, mono_ms: int) -> Iterator[tuple[str, int]]:
        """Types whose breaker is not closed, and how many of each may go out now."""
        for task_type, breaker in self._by_type.items():
            allowed = breaker.allows(mono_ms)
            if allowed is not None:
                yield task_type, allowed

    def states(self) -> dict[str, Breaker]:
        return dict(self._by_type)
