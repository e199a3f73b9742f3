"""What a history amounts to: counts, waiting times, throughput."""

from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime

from msgspec import Struct

from streams.protocol import TaskState


class PartitionFigures:
    """Counted by the checker while it reads one partition.  Times in seconds, four bytes for each."""

    def __init__(self) -> None:
        self.records = 0
        self.events = 0
        self.tasks = 0
        self.rejected = 0
        self.groups = 0
        self.executions = 0
        self.repeats: Counter[str] = Counter()
        self.ends: Counter[TaskState] = Counter()
        self.unfinished = 0
        self.state_updates = 0
        self.stale_reports = 0
        self.duplicates = 0
        self.waits_s = array("f")
        self.gaps_s = array("f")
        self.longest_stall_s = 0.0
        self.longest_stall_group: str | None = None
        self.first_at: datetime | None = None
        self.last_at: datetime | None = None
        self.parked = 0
        self.parked_high = 0
        self.parked_by_second: dict[int, int] = {}

    def close_second(self, at: datetime) -> None:
        """Another second of the log begins at `at`: keep the highest number of parked tasks of the one before."""
        if self.last_at is None:
            self.first_at = at
        else:
            self._keep(int(self.last_at.timestamp()), self.parked_high)
        self.parked_high = self.parked

    def close(self) -> None:
        """The log ends: after its last second, what is parked stays parked."""
        if self.last_at is not None:
            final = int(self.last_at.timestamp())
            self._keep(final, self.parked_high)
            self.parked_by_second[final + 1] = self.parked

    def _keep(self, second: int, high: int) -> None:
        self.parked_by_second[second] = max(high, self.parked_by_second.get(second, 0))


class Quantiles(Struct, frozen=True):
    """Of a number of measurements, in seconds."""

    count: int
    p50_s: float
    p99_s: float
    max_s: float


class Figures(Struct, frozen=True):
    """Of the whole history.

    wait: from a task's first event to its first start, by the scheduler's clock.  gap: from the end of an execution to
    the start of the group's next task, if that was already there, by the workers' clocks.  longest_stall_s: a group
    with a task that could run did not run it, whether for lack of a slot or by a fault.
    """

    records: int
    events: int
    tasks: int
    rejected: int
    groups: int
    executions: int
    repeats: dict[str, int]
    ends: dict[str, int]
    unfinished: int
    state_updates: int
    stale_reports: int
    duplicates: int
    wait: Quantiles | None
    gap: Quantiles | None
    longest_stall_s: float
    longest_stall_group: str | None
    span_s: float
    tasks_per_s: float
    peak_parked: int


def total(partitions: Sequence[PartitionFigures]) -> Figures:
    firsts = [p.first_at for p in partitions if p.first_at is not None]
    lasts = [p.last_at for p in partitions if p.last_at is not None]
    span_s = (max(lasts) - min(firsts)).total_seconds() if lasts else 0.0
    ends = sum((p.ends for p in partitions), Counter[TaskState]())
    stall = max(partitions, key=lambda p: p.longest_stall_s, default=PartitionFigures())
    return Figures(
        records=sum(p.records for p in partitions),
        events=sum(p.events for p in partitions),
        tasks=sum(p.tasks for p in partitions),
        rejected=sum(p.rejected for p in partitions),
        groups=sum(p.groups for p in partitions),
        executions=sum(p.executions for p in partitions),
        repeats=dict(sum((p.repeats for p in partitions), Counter[str]()).most_common()),
        ends={str(state): count for state, count in ends.most_common()},
        unfinished=sum(p.unfinished for p in partitions),
        state_updates=sum(p.state_updates for p in partitions),
        stale_reports=sum(p.stale_reports for p in partitions),
        duplicates=sum(p.duplicates for p in partitions),
        wait=quantiles(p.waits_s for p in partitions),
        gap=quantiles(p.gaps_s for p in partitions),
        longest_stall_s=stall.longest_stall_s,
        longest_stall_group=stall.longest_stall_group,
        span_s=span_s,
        tasks_per_s=ends.total() / span_s if span_s else 0.0,
        peak_parked=peak_parked(partitions),
    )


def quantiles(measurements: Iterable["array[float]"]) -> Quantiles | None:
    """Exact (nearest rank); None without measurements."""
    values = array("f")
    for part in measurements:
        values.extend(part)
    if not values:
        return None
    ordered = sorted(values)
    last = len(ordered) - 1
    return Quantiles(len(ordered), ordered[round(last * 0.5)], ordered[round(last * 0.99)], ordered[last])


def peak_parked(partitions: Sequence[PartitionFigures]) -> int:
    """The highest sum over all partitions of what each held at most within a second."""
    changes: dict[int, list[tuple[int, int]]] = {}
    for index, partition in enumerate(partitions):
        for second, high in partition.parked_by_second.items():
            changes.setdefault(second, []).append((index, high))
    now = [0] * len(partitions)
    peak = 0
    for second in sorted(changes):
        for index, high in changes[second]:
            now[index] = high
        peak = max(peak, sum(now))
    return peak
