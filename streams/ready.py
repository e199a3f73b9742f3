"""The ready set, and where a head may go: waiting happens here, where it can be ordered and explained.  Pure.

Order: by age, among the types that have a free slot somewhere.  A dispatch goes to the live worker with the most free
slots that handles the type; it is put into the lowest dispatch partition that this worker owns, so that a transaction
touches few partitions.
"""

import heapq
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from typing import NamedTuple, Protocol

from streams.protocol import Member


class Ready(NamedTuple):
    """A group whose head may run.  `number` rises with each entry into the set."""

    number: int
    partition: int
    key: bytes


class Slots(Protocol):
    def take(self, task_type: str) -> int | None:
        """A place with a free slot for this type, and the slot is taken; None if there is none."""


class ReadySet:
    """Groups with a ready head, oldest first per type.  A group is in it at most once; leaving early is lazy."""

    def __init__(self) -> None:
        self._by_type: dict[str, deque[Ready]] = {}
        self._number_of: dict[tuple[int, bytes], tuple[int, str]] = {}
        self._counts: Counter[str] = Counter()
        self._next_number = 0

    def __len__(self) -> int:
        return len(self._number_of)

    def __contains__(self, group: tuple[int, bytes]) -> bool:
        return group in self._number_of

    def add(self, partition: int, key: bytes, task_type: str) -> None:
        """Put a group at the end.  Raises `ValueError` if it is in already."""
        if (partition, key) in self._number_of:
            raise ValueError("group is ready already")
        self._next_number += 1
        self._number_of[partition, key] = self._next_number, task_type
        self._counts[task_type] += 1
        self._by_type.setdefault(task_type, deque()).append(Ready(self._next_number, partition, key))

    def discard(self, partition: int, key: bytes) -> None:
        found = self._number_of.pop((partition, key), None)
        if found is not None:
            self._uncount(found[1])

    def drop_partition(self, partition: int) -> None:
        for group in [g for g in self._number_of if g[0] == partition]:
            self.discard(*group)

    def position(self, partition: int, key: bytes) -> int | None:
        """How many groups of the same type became ready before this one; None if it is not in."""
        found = self._number_of.get((partition, key))
        if found is None:
            return None
        return sum(ready.number < found[0] and self._is_live(ready) for ready in self._by_type[found[1]])

    def types(self) -> dict[str, int]:
        """How many are ready, per type."""
        return dict(self._counts)

    def drain(self, capacity: Slots) -> Iterable[tuple[Ready, int]]:
        """Take out what can go now: (group, dispatch partition), each slot taken from `capacity` as it is given out."""
        heads = [(q[0].number, t) for t, q in self._by_type.items() if self._skip_dead(q)]
        heapq.heapify(heads)
        while heads:
            _, task_type = heads[0]
            partition = capacity.take(task_type)
            queue = self._by_type[task_type]
            if partition is None:
                heapq.heappop(heads)
                continue
            ready = queue.popleft()
            self.discard(ready.partition, ready.key)
            if self._skip_dead(queue):
                heapq.heapreplace(heads, (queue[0].number, task_type))
            else:
                heapq.heappop(heads)
            yield ready, partition
        for task_type in [t for t, q in self._by_type.items() if not q]:
            del self._by_type[task_type]

    def _is_live(self, ready: Ready) -> bool:
        found = self._number_of.get((ready.partition, ready.key))
        return found is not None and found[0] == ready.number

    def _uncount(self, task_type: str) -> None:
        self._counts[task_type] -= 1
        if not self._counts[task_type]:
            del self._counts[task_type]

    def _skip_dead(self, queue: deque[Ready]) -> bool:
        """Whether a live entry stands in front now."""
        while queue and not self._is_live(queue[0]):
            queue.popleft()
        return bool(queue)


class Capacity:
    """Free slots of the live workers, as this scheduler knows them: what they announced, less what is outstanding.

    `unclaimed` (dispatch partition -> dispatches nobody has started) and `running` (worker -> tasks) are those of all
    schedulers together.
    """

    def __init__(self, workers: Iterable[Member], unclaimed: Mapping[int, int], running: Mapping[str, int]) -> None:
        self._inbox: dict[str, int] = {}
        self._free: dict[str, int] = {}
        self._by_type: dict[str, list[str]] = {}
        self._slots: dict[str, int] = {}
        self._budget: dict[str, int] = {}
        self.owner_of: dict[int, str] = {}
        self.never: frozenset[str] = frozenset()  # types that do not go to workers
        for worker in workers:
            for partition in worker.partitions:
                self.owner_of[partition] = worker.instance
            if not worker.partitions:
                continue
            taken = running.get(worker.instance, 0) + sum(unclaimed.get(p, 0) for p in worker.partitions)
            self._inbox[worker.instance] = min(worker.partitions)
            self._free[worker.instance] = worker.slots - taken
            self._slots[worker.instance] = worker.slots
            for task_type in worker.types:
                self._by_type.setdefault(task_type, []).append(worker.instance)

    def handles(self, task_type: str) -> bool:
        """Whether any live worker has a handler for this type."""
        return task_type in self._by_type

    def free(self, task_type: str, but: str | None = None) -> bool:
        """Whether a worker that handles this type, other than `but`, has a free slot."""
        return any(self._free[w] > 0 for w in self._by_type.get(task_type, ()) if w != but)

    def share(self, mine: Mapping[str, tuple[int, int]], others: Iterable[Mapping[str, tuple[int, int]]]) -> None:
        """Leave other schedulers their part of the slots of each type for which they have ready heads.

        `mine` and each of `others`: type -> (ready, out).  Who hears of a completion first would else take every slot
        that comes free.  A part is in proportion to the demand, ready and out; above it, only freed slots that nobody
        else wants are taken.
        """
        wanted: Counter[str] = Counter()
        demand: Counter[str] = Counter()
        for other in others:
            for task_type, (ready, out) in other.items():
                wanted[task_type] += ready
                demand[task_type] += ready + out
        for task_type, (ready, out) in mine.items():
            if wanted[task_type]:
                slots = sum(self._slots[w] for w in self._by_type.get(task_type, ()))
                part = -(-slots * (ready + out) // (ready + out + demand[task_type])) if ready + out else 0
                self._budget[task_type] = max(0, part - out)

    def bound(self, task_type: str, most: int) -> None:
        """Give out at most so many slots for this type."""
        self._budget[task_type] = min(most, self._budget.get(task_type, most))

    def take(self, task_type: str) -> int | None:
        """A dispatch partition with a free slot for this type, and the slot is taken; None if there is none."""
        workers = self._by_type.get(task_type)
        if not workers or task_type in self.never or self._budget.get(task_type, 1) <= 0:
            return None
        worker = max(workers, key=self._free.__getitem__)
        if self._free[worker] <= 0:
            return None
        self._free[worker] -= 1
        if task_type in self._budget:
            self._budget[task_type] -= 1
        return self._inbox[worker]
