"""What the checker has to say: violations of the promise, and warnings where clocks do not allow a judgement."""

from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from enum import StrEnum
from typing import Final, NamedTuple

from msgspec import Struct

SHOWN_PER_KIND: Final = 20


class Guarantee(StrEnum):
    """The promise, point by point.  G5 (no collateral) cannot be read from a history."""

    G1 = "G1"
    G2 = "G2"
    G3 = "G3"
    G4 = "G4"
    G6 = "G6"
    G7 = "G7"
    G8 = "G8"


WORDS: Final = {
    Guarantee.G1: "one at a time",
    Guarantee.G2: "order",
    Guarantee.G3: "nothing lost",
    Guarantee.G4: "few repeats",
    Guarantee.G6: "progress",
    Guarantee.G7: "one truth",
    Guarantee.G8: "group state",
}


class Place(NamedTuple):
    """A record of `task-events`."""

    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.partition}:{self.offset}"


class Violation(Struct, frozen=True, omit_defaults=True):
    """One breach.  `text` explains it in a sentence; `records` show it, `journal` names `file:line`."""

    guarantee: Guarantee
    kind: str
    text: str
    group: str | None = None
    task_ids: tuple[str, ...] = ()
    records: tuple[Place, ...] = ()
    journal: tuple[str, ...] = ()

    def sentence(self) -> str:
        """The text, with its group in front where there is one."""
        return self.text if self.group is None else f"group {self.group!r}: {self.text}"


class Kill(Struct, frozen=True, forbid_unknown_fields=True):
    """A known fault: `instance` was dead or frozen from `at` until `until` (None: killed at that moment)."""

    instance: str
    at: datetime
    until: datetime | None = None

    def explains(self, instance: str | None, started_at: datetime | None, lost_at: datetime) -> bool:
        """Whether it can be why `instance` lost what it had started at `started_at`, as found at `lost_at`."""
        began_before = started_at is None or started_at <= (self.until or self.at)
        return instance == self.instance and self.at <= lost_at and began_before


class Findings:
    """Counts everything and keeps the first few of each kind, so that a broken history stays readable."""

    def __init__(self, shown_per_kind: int = SHOWN_PER_KIND) -> None:
        self._shown_per_kind = shown_per_kind
        self.counts: Counter[tuple[Guarantee, str]] = Counter()
        self._shown: list[Violation] = []

    def add(self, violation: Violation) -> None:
        key = (violation.guarantee, violation.kind)
        self.counts[key] += 1
        if self.counts[key] <= self._shown_per_kind:
            self._shown.append(violation)

    def extend(self, other: "Findings") -> None:
        self.counts.update(other.counts)
        self._shown.extend(other)

    def __iter__(self) -> Iterator[Violation]:
        return iter(self._shown)

    def __len__(self) -> int:
        return self.counts.total()

    def of(self, guarantee: Guarantee) -> int:
        return sum(count for (point, _), count in self.counts.items() if point is guarantee)


class Reporter:
    """Adds the violations of one partition; offsets below 0 stand for records that are not known."""

    def __init__(self, findings: Findings, partition: int) -> None:
        self._findings = findings
        self._partition = partition

    def __call__(
        self, point: Guarantee, kind: str, text: str, group: str | None, task_ids: tuple[str, ...], *offsets: int
    ) -> None:
        places = tuple(Place(self._partition, offset) for offset in offsets if offset >= 0)
        self._findings.add(Violation(point, kind, text, group, task_ids, places))
