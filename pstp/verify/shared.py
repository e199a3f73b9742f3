"""What the checkers of all partitions share: what was asked for, what was found, where tasks came from."""

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Final, NamedTuple

from msgspec import Struct

from pstp.verify.findings import Findings, Guarantee, Kill, Place, Violation
from pstp.verify.ledger import Ledger
from streams.murmur2 import home_partition
from streams.protocol import TaskState

SUBMITTED: Final = 1
DUPLICATE: Final = 2
IN_TASKS: Final = 4


class Options(Struct, frozen=True):
    """How strictly to judge.

    partitions: N, where it is known; then a group must also be where murmur2 puts it.  expect_drained: every task must
    have ended.  kills: all faults there were (None: unknown); a worker may then be lost only to one of them.
    stall_s: a group that could run and did not for longer is a violation (None: only reported).  clock_tolerance_s:
    by how much wall clocks of different machines may differ.  local: instances of `pstp run`; what one of them ran and
    had not committed when something in `kills` befell it is in no history.
    """

    partitions: int | None = None
    expect_drained: bool = True
    kills: tuple[Kill, ...] | None = None
    stall_s: float | None = None
    clock_tolerance_s: float = 1.0
    local: frozenset[str] = frozenset()

    def untold(self) -> frozenset[str]:
        """Instances that may have run what nothing tells of."""
        return self.local & {kill.instance for kill in self.kills or ()}


class Execution(NamedTuple):
    """One execution of a task as the events tell it; `outcome` is RUNNING when the history ends before it does."""

    group: str
    task_id: str
    token: int | None
    outcome: TaskState
    reason: str | None
    started_ns: int | None
    ended_ns: int | None
    clock_id: str | None
    place: Place
    released: str | None = None  # who gave it up though it went on, and by which command


class Shared:
    """One per history.  `on_execution` hears of each execution when it ends."""

    def __init__(self, options: Options, on_execution: Callable[[Execution], None] | None = None) -> None:
        self.options = options
        self.on_execution = on_execution
        self.violations = Findings()
        self.warnings = Findings()
        self._origins: dict[int, Ledger] = {}
        self._homes: dict[str, int] = {}

    def is_home(self, group: str, partition: int) -> bool:
        """Whether `group` may appear in `partition`: where murmur2 puts it, or else where it was first seen."""
        if self.options.partitions is not None:
            return home_partition(group.encode(), self.options.partitions) == partition
        return self._homes.setdefault(group, partition) == partition

    def explained(self, instance: str | None, started_at: datetime | None, lost_at: datetime) -> bool:
        kills = self.options.kills
        return kills is None or any(kill.explains(instance, started_at, lost_at) for kill in kills)

    def submitted(self, partition: int, offset: int) -> bool:
        """Note that a record of `tasks` became a task or was rejected; False if it already had."""
        ledger = self._origin(partition)
        known = ledger[offset]
        ledger[offset] = known | SUBMITTED
        return not known & SUBMITTED

    def duplicate(self, partition: int, offset: int) -> None:
        ledger = self._origin(partition)
        ledger[offset] |= DUPLICATE

    def compare_with_tasks(self, offsets: Iterable[tuple[int, int]], starts: dict[int, int]) -> None:
        """Compare with `tasks` itself: `offsets` of all its records, `starts` where its partitions begin by now.

        Call it after everything else was read.  Records that an instance forwarded do not belong to `offsets`: the
        record that they are copies of does.
        """
        for partition, offset in offsets:
            ledger = self._origin(partition)
            if not ledger[offset]:
                self._add("unanswered", f"record {partition}:{offset} of `tasks` appears nowhere in the history")
            ledger[offset] |= IN_TASKS
        for partition, ledger in sorted(self._origins.items()):
            for offset, seen in ledger:
                if not seen & IN_TASKS and offset >= starts.get(partition, 0):
                    self._add(
                        "invented", f"the history names record {partition}:{offset} of `tasks`, which is not there"
                    )

    def _add(self, kind: str, text: str) -> None:
        self.violations.add(Violation(Guarantee.G3, kind, text))

    def _origin(self, partition: int) -> Ledger:
        return self._origins.setdefault(partition, Ledger())
