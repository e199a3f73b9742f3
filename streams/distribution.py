"""A histogram that costs a binary search and two additions per value: the scheduler's loop feeds it for every task."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import repeat


class Distribution:
    """Counts of values by `bounds` (ascending, inclusive upper ends) and their sum.  One thread writes, any reads."""

    __slots__ = ("_bounds", "_counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self.total += value

    def add_all(self, values: Sequence[float]) -> None:
        """The same at a third of the cost: the loop is not Python's."""
        for place, count in Counter(map(bisect_left, repeat(self._bounds), values)).items():
            self._counts[place] += count
        self.total += sum(values)

    def buckets(self) -> list[tuple[str, float]]:
        """Prometheus' form: (upper end, how many values are at most that), with "+Inf" last."""
        return list(self._cumulative(list(self._counts)))

    def _cumulative(self, counts: list[int]) -> Iterator[tuple[str, float]]:
        seen = 0
        for bound, count in zip((*map(str, self._bounds), "+Inf"), counts, strict=True):
            seen += count
            yield bound, seen


def of(times: dict[str, Distribution], label: str, bounds: tuple[float, ...]) -> Distribution:
    """The one with this label, made at the first look."""
    found = times.get(label)
    if found is None:
        found = times[label] = Distribution(bounds)
    return found
