"""Which tasks this process runs itself, and how many at once.  Pure.

To the state machine a local execution is a dispatch that was claimed in the same moment: granted, started, reported.
No dispatch, claim or completion goes through Kafka.  What makes it safe is the process's membership in the group of
schedulers: see `streams.local`.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from streams.protocol import DispatchedTask, HandlerPolicy, MaybeRaw, Moment

if TYPE_CHECKING:
    from streams.partition import Entry, Partition

LOCAL: Final = -1  # stands where a dispatch partition would
CLAIM_PREFIX: Final = "local-"


class Start(NamedTuple):
    """One execution to begin here.  `careful`: only when it is committed that it begins."""

    partition: "Partition"
    entry: "Entry"
    task: DispatchedTask
    state: MaybeRaw
    careful: bool


class Workers(Protocol):
    def handles(self, task_type: str) -> bool:
        """Whether any live worker has a handler for this type."""


class Here:
    """The slots of this process.  `first`: types that run here; `only`: those of them that run nowhere else;
    `spare`: types that run here while no worker handles them; `express`: types whose tasks may take the express lane.
    """

    def __init__(
        self, boot_id: str, slots: int, policies: Mapping[str, HandlerPolicy], moment: Callable[[], Moment], *,
        first: frozenset[str], only: frozenset[str], spare: frozenset[str], express: frozenset[str] = frozenset(),
    ) -> None:  # fmt: skip
        self.claim_id = CLAIM_PREFIX + boot_id
        self.slots = self.free = slots
        self.policies, self.moment = policies, moment
        self.first, self.only, self.spare, self.express = first, only, spare, express & first
        self.open = False  # whether anything may begin: membership is proven, nothing is being let go
        self.workers: Workers | None = None
        self.allowed: dict[str, int] = {}  # types whose breaker lets only so many begin

    def handles(self, task_type: str) -> bool:
        """Whether a task of this type would run here now, given a free slot."""
        if task_type in self.first:
            return True
        return task_type in self.spare and not (self.workers is not None and self.workers.handles(task_type))

    def take(self, task_type: str) -> int | None:
        """`LOCAL`, and a slot is taken; None if there is none for this type."""
        if not self.open or self.free <= 0 or not self.handles(task_type):
            return None
        if task_type in self.allowed:
            if self.allowed[task_type] <= 0:
                return None
            self.allowed[task_type] -= 1
        self.free -= 1
        return LOCAL
