"""How the groups of a partition stand, counted as they change: a scrape takes numbers and does not walk over groups.

Groups that have moved are gathered and counted together, when they are many or somebody looks.  Pure.
"""

import heapq
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

from streams.group import Phase

if TYPE_CHECKING:
    from streams.engine import Engine
    from streams.partition import Entry

# (phase, label of the head's type or "" without one, why it is blocked, whether it is paused, whether it has a state)
Standing = tuple[Phase, str, str | None, bool, bool]
TICK_MS: Final = 100  # times of acceptance are told apart by so much
_SLACK: Final = 1_000


class Tally:
    """Counts of groups by how they stand, and of heads by when they were accepted."""

    __slots__ = ("_heads", "_heap", "_live", "groups")

    def __init__(self) -> None:
        self.groups: Counter[Standing] = Counter()
        self._heads: dict[int, int] = {}  # tick -> heads accepted in it; holds what the heap holds, also with 0 heads
        self._heap: list[int] = []
        self._live = 0  # ticks with heads

    def note(self, entry: "Entry", has_state: bool, label: Callable[[str], str]) -> None:
        """Count a group as it stands now, in place of how it stood."""
        group, head = entry.group, entry.group.head
        phase, task_type, tick = Phase.IDLE, "", None
        if head is not None:
            assert entry.task is not None
            phase, task_type, tick = head.phase, label(entry.task.type), entry.accepted_ms // TICK_MS
        standing = (phase, task_type, group.blocked, group.pause is not None, has_state)
        if standing != entry.standing:
            self._move(entry.standing, standing)
            entry.standing = standing
        if tick != entry.tick:
            self._begin(tick)
            self._end(entry.tick)
            entry.tick = tick

    def forget(self, entry: "Entry") -> None:
        """It is idle: nothing is kept of it."""
        if entry.standing is not None:
            self._move(entry.standing, None)
            self._end(entry.tick)
            entry.standing = entry.tick = None

    def oldest_ms(self) -> int | None:
        """When the oldest head was accepted, to `TICK_MS`; None without heads."""
        self._trim()
        return self._heap[0] * TICK_MS if self._heap else None

    def _move(self, before: Standing | None, after: Standing | None) -> None:
        groups = self.groups
        if after is not None:
            groups[after] += 1
        if before is not None:
            groups[before] -= 1
            if not groups[before]:
                del groups[before]

    def _begin(self, tick: int | None) -> None:
        if tick is None:
            return
        heads = self._heads.get(tick)
        if heads is None:
            heapq.heappush(self._heap, tick)
        if not heads:
            self._live += 1
        self._heads[tick] = (heads or 0) + 1

    def _end(self, tick: int | None) -> None:
        if tick is None:
            return
        self._heads[tick] -= 1
        if not self._heads[tick]:
            self._live -= 1
            if len(self._heap) > 2 * self._live + _SLACK:  # an old head keeps what came after it in the heap
                self._heads = {tick: heads for tick, heads in self._heads.items() if heads}
                self._heap = sorted(self._heads)

    def _trim(self) -> None:
        while self._heap and not self._heads[self._heap[0]]:
            del self._heads[heapq.heappop(self._heap)]


class Look(NamedTuple):
    """All partitions of an engine.  Groups in the express lane are ready or running."""

    phases: dict[Phase, int]
    heads: dict[tuple[str, str], int]  # (phase, type)
    blocked: Counter[str]
    paused: int
    parked: int
    oldest_ms: int | None


def look(engine: "Engine") -> Look:
    """What the tallies say; takes as long with a million groups as with some thousands."""
    engine.count_standings()
    partitions, lane = list(engine.partitions.values()), engine.express
    phases, heads, blocked, paused = dict.fromkeys(Phase, 0), Counter[tuple[str, str]](), Counter[str](), 0
    for partition in partitions:
        phases[Phase.IDLE] += len(partition.states)
        for (phase, task_type, why, is_paused, has_state), count in partition.tally.groups.items():
            phases[phase] += count
            if has_state:
                phases[Phase.IDLE] -= count  # counted above
            if task_type:
                heads[phase, task_type] += count
            if why is not None:
                blocked[why] += count
            paused += count if is_paused else 0
    parked = sum(partition.tasks for partition in partitions) - heads.total()
    times = [ms for partition in partitions if (ms := partition.tally.oldest_ms()) is not None]
    if lane is not None:
        # These are few: intake pauses above a few hundred.
        lines = sum(len(partition.lines) for partition in partitions)
        running = sum(not item.over for item in lane.running)
        phases[Phase.IDLE] -= sum(key in partition.states for partition in partitions for key in partition.lines)
        phases[Phase.READY] += lines - running
        phases[Phase.RUNNING] += running
        parked -= lines
        if (accepted_ms := lane.oldest_ms()) is not None:
            times.append(accepted_ms)
    return Look(phases, dict(heads), blocked, paused, max(0, parked), min(times, default=None))
