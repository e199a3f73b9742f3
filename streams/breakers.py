"""Circuit breakers: when a type fails too often, its groups wait instead of spending their attempts.  Pure.

One breaker per type and scheduler: each judges by the outcomes of its own partitions, and lets at most one probe out at
a time.  It is memory, not state: whoever takes a partition over starts with closed breakers and judges for himself.

closed --(of the last `window` outcomes at least `rate` failed)--> open --(`open_s` later)--> half open: one probe
half open --(the probe succeeded)--> closed;  --(it failed)--> open again
"""

from collections import deque
from collections.abc import Iterator
from enum import StrEnum
from typing import Final, NamedTuple

from msgspec import Struct


class BreakerSettings(Struct, frozen=True):
    """`rate` 0: no breakers."""

    rate: float = 0.0
    window: int = 20
    open_s: float = 30.0


class Place(NamedTuple):
    """One execution: tokens count for their partition only."""

    partition: int
    token: int


class BreakerState(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Breaker:
    """Of one type.  `probe`: the one execution that is out while it is half open."""

    def __init__(self, settings: BreakerSettings) -> None:
        self._settings = settings
        self._outcomes: deque[bool] = deque(maxlen=settings.window)
        self._failed = 0  # of these
        self.state = BreakerState.CLOSED
        self.until_mono_ms = 0
        self.probe: Place | None = None
        self._away: Place | None = None  # a probe whose partition was let go

    def ended(self, place: Place, succeeded: bool, mono_ms: int) -> bool:
        """An execution has ended; whether the state changed.  What began before it opened says nothing new."""
        if self.state is BreakerState.CLOSED:
            window = self._settings.window
            if len(self._outcomes) == window:
                self._failed -= not self._outcomes[0]
            self._outcomes.append(succeeded)
            self._failed += not succeeded
            if len(self._outcomes) == window and self._failed >= self._settings.rate * window:
                self._open(mono_ms)
                return True
        elif place == self.probe:
            self.probe = None
            if succeeded:
                self.state, self._away = BreakerState.CLOSED, None
            else:
                self._open(mono_ms)
            return True
        return False

    def let_go(self, partition: int) -> None:
        """What is out of that partition tells its next owner; that may be us again."""
        if self.probe is not None and self.probe.partition == partition:
            self.probe, self._away = None, self.probe

    def still_out(self, place: Place) -> None:
        """That execution's partition is ours (again); if it was the probe, and no other has taken its place, it is."""
        if self.probe is None and place == self._away:
            self.probe, self._away = place, None

    def came_back(self, place: Place) -> None:
        """That task did not end, but it is no longer out: another may be the probe."""
        if place == self.probe:
            self.probe = None

    def half_open(self, mono_ms: int) -> bool:
        """Whether it has been open for its time just now."""
        if self.state is not BreakerState.OPEN or mono_ms < self.until_mono_ms:
            return False
        self.state = BreakerState.HALF_OPEN
        return True

    @property
    def allows(self) -> int | None:
        """How many may go out now; None: as many as there are."""
        if self.state is BreakerState.CLOSED:
            return None
        return 1 if self.state is BreakerState.HALF_OPEN and self.probe is None else 0

    def _open(self, mono_ms: int) -> None:
        self.state, self._away = BreakerState.OPEN, None
        self.until_mono_ms = mono_ms + int(self._settings.open_s * 1000)
        self._outcomes.clear()
        self._failed = 0


class Breakers:
    """All of one scheduler, by type; one that has not ended yet has none."""

    def __init__(self, settings: BreakerSettings) -> None:
        self.settings: Final = settings
        self._by_type: dict[str, Breaker] = {}

    def get(self, task_type: str) -> Breaker | None:
        return self._by_type.get(task_type)

    def ended(self, task_type: str, place: Place, succeeded: bool, mono_ms: int) -> BreakerState | None:
        """The new state of the type's breaker, if this execution changed it."""
        if not self.settings.rate:
            return None
        breaker = self._by_type.get(task_type)
        if breaker is None:
            breaker = self._by_type[task_type] = Breaker(self.settings)
        return breaker.state if breaker.ended(place, succeeded, mono_ms) else None

    def came_back(self, task_type: str, place: Place) -> None:
        if breaker := self._by_type.get(task_type):
            breaker.came_back(place)

    def sent(self, task_type: str, place: Place) -> None:
        """A task went out: the probe, if its type's breaker is half open."""
        breaker = self._by_type.get(task_type)
        if breaker is not None and breaker.state is BreakerState.HALF_OPEN:
            breaker.probe = place

    def still_out(self, task_type: str, place: Place) -> None:
        """A partition was taken over in which this execution is under way."""
        if breaker := self._by_type.get(task_type):
            breaker.still_out(place)

    def drop_partition(self, number: int) -> None:
        """What is out of that partition will tell its next owner."""
        for breaker in self._by_type.values():
            breaker.let_go(number)

    def half_open(self, mono_ms: int) -> list[str]:
        """Types whose breaker has been open for its time just now."""
        return [task_type for task_type, breaker in self._by_type.items() if breaker.half_open(mono_ms)]

    def limits(self) -> Iterator[tuple[str, int]]:
        """Types whose breaker is not closed, and how many of each may go out now."""
        for task_type, breaker in self._by_type.items():
            if (allowed := breaker.allows) is not None:
                yield task_type, allowed

    def states(self) -> dict[str, Breaker]:
        return dict(self._by_type)
