"""What is out, and what to conclude from silence.  Pure: times are monotonic milliseconds, look-ups are answered later.

A *running* task is watched by its lease.  When the lease runs out, the end of `completions` is looked up, and only when
everything up to there has been read is the worker taken for lost: lag never expires a lease.

A *dispatched* task that nobody started for a lease's time: the workers' claims are looked up.  Unclaimed: it keeps its
token and is watched anew.  Claimed: its claimant may begin only within a lease of its commit, so after one more lease
from the look, and everything read again, it cannot begin any more.

Deadlines are not stored: a new owner watches everything from the beginning.
"""

from collections import OrderedDict
from collections.abc import Iterator
from enum import Enum, auto
from typing import NamedTuple

from streams import limits


class Out(NamedTuple):
    """A group that has something out: (input partition, key)."""

    partition: int
    key: bytes


class Stage(Enum):
    DISPATCHED = auto()  # sent; nobody has said that it started
    CLAIMED = auto()  # the claims say that somebody took it; one more lease
    RUNNING = auto()


class _Item(NamedTuple):
    token: int
    stage: Stage
    dispatch_partition: int
    since_ms: int
    serial: int = 0  # two items are the same only if nothing was heard in between


class Silent(NamedTuple):
    """A dispatch that nobody has started for a lease's time."""

    out: Out
    token: int


class Expired(NamedTuple):
    """A conclusion: `running` or, if not, claimed and lost before it started."""

    out: Out
    token: int
    running: bool


class Watch:
    """Everything that is out, ordered by deadline (all deadlines are one lease after an item was set)."""

    def __init__(self, lease_ms: int) -> None:
        self._lease_ms = lease_ms
        self._items: OrderedDict[Out, _Item] = OrderedDict()
        self._fresh: OrderedDict[Out, tuple[int, int]] = (
            OrderedDict()
        )  # dispatched: (token, when to look for take-back)
        self._ask_end: set[int] = set()
        self._ask_claims: dict[int, set[Silent]] = {}
        self._looked_for: set[Silent] = set()  # somebody waits for what the claims say of them
        self._unclaimed: list[Silent] = []
        self._await_end: dict[int, list[tuple[Out, _Item]]] = {}
        self._await_offset: dict[int, list[tuple[int, Out, _Item]]] = {}
        self._serial = 0

    def __len__(self) -> int:
        return len(self._items)

    def dispatched(self, out: Out, token: int, dispatch_partition: int, now_ms: int) -> None:
        self._put(out, _Item(token, Stage.DISPATCHED, dispatch_partition, now_ms))
        self._fresh.pop(out, None)
        self._fresh[out] = token, now_ms + int(limits.UNCLAIMED_S * 1000)

    def claimed(self, out: Out, token: int, dispatch_partition: int, now_ms: int) -> None:
        """The claimant has ended the task before it in its run, and is to start this one or to give it back."""
        self._fresh.pop(out, None)
        self._put(out, _Item(token, Stage.CLAIMED, dispatch_partition, now_ms))

    def running(self, out: Out, token: int, now_ms: int) -> None:
        """It started, or renewed its lease."""
        self._fresh.pop(out, None)
        self._put(out, _Item(token, Stage.RUNNING, -1, now_ms))

    def forget(self, out: Out) -> None:
        self._items.pop(out, None)
        self._fresh.pop(out, None)

    def forget_partition(self, partition: int) -> None:
        for out in [o for o in self._items if o.partition == partition]:
            self.forget(out)
        self._ask_end.discard(partition)
        self._await_end.pop(partition, None)
        self._await_offset.pop(partition, None)
        self._looked_for = {silent for silent in self._looked_for if silent.out.partition != partition}

    def unclaimed_for_long(self, now_ms: int) -> Iterator[tuple[Out, int]]:
        """Dispatches, with their tokens, that wait for a claim for UNCLAIMED_S; each is named again after as long."""
        while self._fresh:
            out, (token, at_ms) = next(iter(self._fresh.items()))
            if at_ms > now_ms:
                return
            del self._fresh[out]
            self._fresh[out] = token, now_ms + int(limits.UNCLAIMED_S * 1000)
            yield out, token

    def tick(self, now_ms: int) -> None:
        """Note whose time is over; `ends_wanted` and `claims_wanted` then say what must be looked up."""
        while self._items:
            out, item = next(iter(self._items.items()))
            if item.since_ms + self._lease_ms > now_ms:
                return
            self._put(out, item._replace(since_ms=now_ms))  # asks again, should the look-up come to nothing
            if item.stage is Stage.DISPATCHED:
                self._ask_claims.setdefault(item.dispatch_partition, set()).add(Silent(out, item.token))
            else:
                self._await_end.setdefault(out.partition, []).append((out, self._items[out]))
                self._ask_end.add(out.partition)

    def ends_wanted(self) -> dict[int, int]:
        """Partitions of `completions` whose end must be looked up from now on, each with a number for `end_found`.
        Asking empties the list; a look-up that comes to nothing is asked for again after a lease.
        """
        wanted, self._ask_end = self._ask_end, set()
        return dict.fromkeys(wanted, self._serial)

    def end_found(self, partition: int, asked: int, end_offset: int) -> None:
        """The end of `completions`, looked up after `ends_wanted` gave the number `asked`.

        Answers may overlap, or come after the partition was let go and taken over again: an end says nothing about
        suspects noted after its look-up was asked for.
        """
        waiting = self._await_end.pop(partition, [])
        if later := [w for w in waiting if w[1].serial > asked]:
            self._await_end[partition] = later
        found = self._await_offset.setdefault(partition, [])
        found.extend((end_offset, *w) for w in waiting if w[1].serial <= asked)

    def claims_wanted(self) -> dict[int, set[Silent]]:
        """Dispatch partition -> what was sent there and is silent.  Asking empties the list."""
        wanted, self._ask_claims = self._ask_claims, {}
        return wanted

    def look(self, out: Out, token: int, dispatch_partition: int) -> None:
        """Look that dispatch up, however long it has been out; `found_unclaimed` names it if nobody has claimed it."""
        silent = Silent(out, token)
        self._ask_claims.setdefault(dispatch_partition, set()).add(silent)
        self._looked_for.add(silent)

    def found_unclaimed(self) -> list[Silent]:
        """Of those looked for: what stood unclaimed.  Asking empties the list."""
        found, self._unclaimed = self._unclaimed, []
        return found

    def claims_found(self, asked: set[Silent], unclaimed: set[tuple[int, int]], now_ms: int) -> None:
        """What stood unclaimed in that dispatch partition, as (partition, token), at a look that has ended before
        `now_ms`.

        What was dispatched anew since the question, the look cannot have seen.
        """
        for silent in asked:
            out, token = silent
            was_looked_for = silent in self._looked_for
            self._looked_for.discard(silent)
            item = self._items.get(out)
            if item is None or item.stage is not Stage.DISPATCHED or item.token != token:
                continue
            if (out.partition, token) not in unclaimed:
                self._fresh.pop(out, None)
                self._put(out, item._replace(stage=Stage.CLAIMED, since_ms=now_ms))
            elif was_looked_for:
                self._unclaimed.append(silent)

    def read_up_to(self, partition: int, next_offset: int) -> Iterator[Expired]:
        """What is certain now that `completions` has been read up to `next_offset`."""
        waiting = self._await_offset.get(partition)
        if not waiting:
            return
        self._await_offset[partition] = [w for w in waiting if w[0] > next_offset]
        for end_offset, out, item in waiting:
            if end_offset <= next_offset and self._items.get(out) == item:
                self.forget(out)
                yield Expired(out, item.token, item.stage is Stage.RUNNING)

    def _put(self, out: Out, item: _Item) -> None:
        self._serial += 1
        self._items.pop(out, None)
        self._items[out] = item._replace(serial=self._serial)
