"""Flow control, and dispatches whose fate somebody waits for.  Pure."""

from collections.abc import Iterator
from typing import Final, Literal

from msgspec import Struct

from streams.watch import Out

LOOK_MS: Final = 1_000


class Flow(Struct, frozen=True):
    """How many tasks may wait; 0: no limit.  `when_full`: the newest becomes a dead letter, or intake pauses."""

    group_max: int = 0  # parked behind the head of one group
    partition_max: int = 0  # in all groups of one partition together
    when_full: Literal["dead_letter", "pause"] = "dead_letter"

    @property
    def pauses(self) -> bool:
        return self.when_full == "pause" and bool(self.group_max or self.partition_max)

    def full(self, in_group: int, in_partition: int) -> str | None:
        """Which limit one more task would exceed, in words."""
        if self.group_max and in_group >= self.group_max:
            return f"{in_group} tasks are parked in this group, the limit is {self.group_max}"
        if self.partition_max and in_partition >= self.partition_max:
            return f"{in_partition} tasks wait in this partition, the limit is {self.partition_max}"
        return None


class _Asked:
    __slots__ = ("committed_ms", "looked_ms", "sent", "token")

    def __init__(self, token: int) -> None:
        self.token = token
        self.sent = False
        self.committed_ms: int | None = None
        self.looked_ms: int | None = None


class Asking:
    """Dispatches that were asked back on behalf of a command: `unsent` -> sent in one step -> committed by the next."""

    def __init__(self) -> None:
        self._asked: dict[Out, _Asked] = {}

    def __len__(self) -> int:
        return len(self._asked)

    def add(self, out: Out, token: int) -> None:
        self._asked[out] = _Asked(token)

    def forget(self, out: Out) -> None:
        self._asked.pop(out, None)

    def drop_partition(self, partition: int) -> None:
        self._asked = {out: asked for out, asked in self._asked.items() if out.partition != partition}

    def unsent(self, wall_ms: int) -> Iterator[tuple[Out, int]]:
        """Those to be asked for in this step; those of the step before are committed by now."""
        for out, asked in list(self._asked.items()):
            if not asked.sent:
                asked.sent = True
                yield out, asked.token
            elif asked.committed_ms is None:
                asked.committed_ms = wall_ms

    def announced(self, mine_ms: int, mono_ms: int) -> Iterator[tuple[Out, int]]:
        """Those whose request was committed before our own announcement of that time was made; each again after a
        second, since a look at the claims may come to nothing.
        """
        for out, asked in list(self._asked.items()):
            if asked.committed_ms is None or mine_ms <= asked.committed_ms:
                continue
            if asked.looked_ms is None or mono_ms - asked.looked_ms >= LOOK_MS:
                asked.looked_ms = mono_ms
                yield out, asked.token
