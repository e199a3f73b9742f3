"""What was done to the system, when, and to whom: the record by which repeats are explained."""

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from pstp.verify import Kill

EVERYBODY: Final = "*"
_GOING: Final = timedelta(seconds=1)  # from the handler's last word until its process is gone


@dataclass
class Fault:
    """`targets` (instances, or everybody) were hit from `at` to `until`; still, while `until` is None."""

    nemesis: str
    targets: tuple[str, ...]
    at: datetime
    until: datetime | None = None
    frozen: bool = False  # its processes stood still: what they had begun may be a zombie
    drains: bool = False  # it was asked to stop, and may give back what cannot end in time
    loses: bool = True  # workers among the targets may lose what they run

    def explains(self, worker: str, lost_at: datetime, patience: timedelta) -> bool:
        """Whether it can be why this worker lost a task, found out at `lost_at`."""
        hit = worker in self.targets or EVERYBODY in self.targets
        return hit and self.at <= lost_at <= (self.until or lost_at) + patience

    def hits(self, began: datetime, ended: datetime, patience: timedelta) -> bool:
        """Whether some of that time is in its shadow."""
        return self.at <= ended and began <= (self.until or ended) + patience


@dataclass
class Faults:
    folder: Path
    told: list[Fault] = field(default_factory=list)

    def note(
        self, nemesis: str, *targets: str, frozen: bool = False, drains: bool = False, loses: bool = True
    ) -> Fault:
        fault = Fault(nemesis, targets, utc_now(), frozen=frozen, drains=drains, loses=loses)
        self.told.append(fault)
        return fault

    def over(self, fault: Fault) -> None:
        fault.until = utc_now()

    def note_end(self, instance: str, ago_s: float) -> None:
        """A `pstp run` ended so long ago by itself: a handler did not, and its partitions went to others."""
        at = utc_now() - timedelta(seconds=ago_s)
        self.told.append(Fault("ended with a handler", (instance,), at - _GOING, at))

    def of_handlers(self) -> list[Fault]:
        """Handlers that took their worker with them say so before."""
        path = self.folder / "exits.jsonl"
        if not path.exists():
            return []
        lines = [json.loads(text) for text in path.read_text().splitlines()]
        return [
            Fault(line["why"], (line["instance"],), at := datetime.fromtimestamp(line["at_s"], UTC), at + _GOING)
            for line in lines
        ]  # fmt: skip

    def all(self) -> list[Fault]:
        return sorted([*self.told, *self.of_handlers()], key=lambda fault: fault.at)

    def kills(self, workers: set[str], slack: timedelta) -> tuple[Kill, ...]:
        """For `pstp verify`: what may have made workers lose tasks.  `slack`: by how much clocks were set."""
        return tuple(
            Kill(worker, fault.at - slack, (fault.until or fault.at) + slack)
            for fault in self.all() if fault.loses
            for worker in sorted(workers) if worker in fault.targets or EVERYBODY in fault.targets
        )  # fmt: skip


def utc_now() -> datetime:
    return datetime.now(UTC)
