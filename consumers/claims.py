"""Claims: which dispatches to take next, and taking them by a fenced commit.

`ReadAhead` is pure.  `commit_claim` speaks to the group coordinator: the commit is refused unless this member is in
the group's current generation, so of all workers only the owner of a partition can claim there, and only once: the
next claim starts behind it.
"""

import re
from collections import deque
from collections.abc import Callable, Collection, Mapping, Set
from typing import Final, NamedTuple

import confluent_kafka as ck
import structlog

from consumers.control import GroupToken
from streams.clock import new_id
from streams.protocol import Dispatch, Reason

log = structlog.get_logger("worker")

_READ_BACK_S_MAX: Final = 5.0
_CLAIM_ID: Final = re.compile(r"[0-9a-f]{32}")


class Read(NamedTuple):
    """A dispatch that was read and not claimed.  `dispatch` is None if it cannot be decoded."""

    partition: int
    offset: int
    dispatch: Dispatch | None


class Pick(NamedTuple):
    """What to do with a dispatch once it is claimed: run it (`back` None), or report it returned."""

    read: Read
    back: Reason | None


class Position(NamedTuple):
    """Where the next claim of a partition begins, and below which offset everything is to be given back, not run."""

    next_offset: int
    give_back_below: int


def is_among(dispatch: Dispatch, taken_back: Collection[GroupToken]) -> bool:
    """Whether any task of it was taken back."""
    return any((dispatch.group, task.token) in taken_back for task in dispatch.tasks)


class ReadAhead:
    """Dispatches per partition, in order of offset.  They are claimed from the front, since offsets are prefixes."""

    def __init__(self, handles: Callable[[str], bool], taken_back: Callable[[int], Collection[GroupToken]]) -> None:
        self._handles = handles  # type -> is there a handler
        self._taken_back = taken_back  # partition -> groups and their tokens
        self._waiting: dict[int, deque[Read]] = {}
        self._give_back_below: dict[int, int] = {}
        self._turn = 0

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def count(self, partition: int) -> int:
        return len(self._waiting.get(partition, ()))

    def add(self, read: Read) -> None:
        waiting = self._waiting.setdefault(read.partition, deque())
        if not waiting or waiting[-1].offset < read.offset:
            waiting.append(read)

    def begin(self, partition: int, position: Position) -> None:
        """Claims begin there: what stands before it was claimed by somebody."""
        self._give_back_below[partition] = position.give_back_below
        offset = position.next_offset
        waiting = self._waiting.get(partition)
        while waiting and waiting[0].offset < offset:
            waiting.popleft()
        if waiting is not None and not waiting:
            del self._waiting[partition]

    def forget(self, partition: int) -> None:
        """The partition was revoked: what was not claimed is its next owner's."""
        self._waiting.pop(partition, None)
        self._give_back_below.pop(partition, None)

    def pick(self, free_slots: int, closed: Set[int] = frozenset()) -> dict[int, list[Pick]]:
        """What to claim now, per partition: a prefix of what waits there.  Nothing is removed.

        `free_slots` bounds what is to run.  What was taken back, has no handler or cannot be read needs no slot; and
        what stands before a taken-back one goes back with it when there is no slot.  `closed`: partitions not yet to
        be claimed from.  Each call begins with another partition, so that none is starved.
        """
        picks: dict[int, list[Pick]] = {}
        partitions = sorted(self._waiting.keys() - closed)
        self._turn += 1
        for i in range(len(partitions)):
            partition = partitions[(i + self._turn) % len(partitions)]
            prefix, free_slots = self._prefix(self._waiting[partition], free_slots)
            if prefix:
                picks[partition] = prefix
        return picks

    def _prefix(self, waiting: deque[Read], free_slots: int) -> tuple[list[Pick], int]:
        prefix: list[Pick] = []
        give_back_below = self._give_back_below.get(waiting[0].partition, 0)
        taken_back = self._which_are_taken_back(waiting)
        last_taken_back = max(taken_back, default=-1)
        for i, read in enumerate(waiting):
            if read.dispatch is None or read.offset < give_back_below:
                prefix.append(Pick(read, Reason.RETURNED))
            elif i in taken_back:
                prefix.append(Pick(read, Reason.TAKEN_BACK))
            elif not self._handles(read.dispatch.tasks[0].type):
                prefix.append(Pick(read, Reason.NO_HANDLER))
            elif free_slots > 0:
                free_slots -= 1
                prefix.append(Pick(read, None))
            elif i < last_taken_back:
                prefix.append(Pick(read, Reason.TAKEN_BACK))
            else:
                break
        return prefix, free_slots

    def _which_are_taken_back(self, waiting: deque[Read]) -> Set[int]:
        """Places in `waiting`."""
        tokens = self._taken_back(waiting[0].partition)
        if not tokens:
            return frozenset()
        return {i for i, read in enumerate(waiting) if read.dispatch is not None and is_among(read.dispatch, tokens)}

    def remove(self, partition: int, count: int) -> None:
        """The first `count` are claimed."""
        waiting = self._waiting[partition]
        for _ in range(count):
            waiting.popleft()
        if not waiting:
            del self._waiting[partition]


class Attempt(NamedTuple):
    """One commit: the next offset per partition, under one claim id."""

    claim_id: str
    next_offsets: Mapping[int, int]
    member: str  # who we are in the group; empty: nobody
    began_ns: int


class Verdict(NamedTuple):
    """Partitions by what became of them; those in neither set are not claimed.

    `claimed` and not `proven`: this worker was thrown out of the group in the middle.  An empty group accepts anybody's
    commit, so the claim may be one of two: nothing must run, and nothing be said; schedulers find out by themselves.
    """

    claimed: set[int]
    unknown: set[int]  # must be asked for again
    proven: bool = True


def commit_claim(consumer: ck.Consumer, topic: str, attempt: Attempt) -> Verdict:
    """Commit, and find out for each partition whether that was this claim.  Runs in the polling thread.

    Whatever is not a plain yes is read back: an error may hide a commit that was applied before the answer was lost.
    """
    wanted = [
        ck.TopicPartition(topic, partition, offset, attempt.claim_id)
        for partition, offset in attempt.next_offsets.items()
    ]
    try:
        answers = consumer.commit(offsets=wanted, asynchronous=False)
    except ck.KafkaException as error:
        log.info("claim refused", error=error.args[0].str(), partitions=sorted(attempt.next_offsets))
        return read_back(consumer, topic, attempt, set(attempt.next_offsets))
    proven = _is_member(consumer, attempt)
    claimed = {answer.partition for answer in answers if answer.error is None}
    if doubtful := set(attempt.next_offsets) - claimed:
        log.info("claim refused", partitions=sorted(doubtful))
        more = read_back(consumer, topic, attempt, doubtful)
        return Verdict(claimed | more.claimed, more.unknown, proven and more.proven)
    return Verdict(claimed, set(), proven)


def _is_member(consumer: ck.Consumer, attempt: Attempt) -> bool:
    """Whether this worker is still the member that it was when the attempt began; a lost id never comes back."""
    return bool(attempt.member) and consumer.memberid() == attempt.member


def read_back(consumer: ck.Consumer, topic: str, attempt: Attempt, partitions: set[int]) -> Verdict:
    """Whether the group's committed offsets carry this claim's id."""
    try:
        found = consumer.committed([ck.TopicPartition(topic, p) for p in partitions], timeout=_READ_BACK_S_MAX)
    except ck.KafkaException as error:
        log.warning("claim cannot be read back", error=error.args[0].str(), partitions=sorted(partitions))
        return Verdict(set(), set(partitions))
    unknown = {answer.partition for answer in found if answer.error is not None}
    claimed = {
        answer.partition
        for answer in found
        if answer.error is None
        and answer.metadata == attempt.claim_id
        and answer.offset == attempt.next_offsets[answer.partition]
    }
    return Verdict(claimed, unknown, _is_member(consumer, attempt))


def positions(consumer: ck.Consumer, topic: str, partitions: Set[int]) -> dict[int, Position]:
    """Of partitions that are new to this worker.  Raises `KafkaException`.

    A position that no claim has written proves nothing: offsets expire and can be reset, and what stands there may have
    run long ago.  Such dispatches are claimed and given back.  For schedulers most of these reports are stale; what is
    current they dispatch anew.  Where nothing stands there, that is written down for whoever owns the partition next.
    """
    found: dict[int, Position] = {}
    empty: list[ck.TopicPartition] = []
    for answer in consumer.committed([ck.TopicPartition(topic, p) for p in partitions], timeout=_READ_BACK_S_MAX):
        if answer.error is not None:
            raise ck.KafkaException(answer.error)
        place = ck.TopicPartition(topic, answer.partition)
        first, end = consumer.get_watermark_offsets(place, timeout=_READ_BACK_S_MAX)
        proven = answer.offset <= end and _CLAIM_ID.fullmatch(answer.metadata or "")
        next_offset = answer.offset if 0 <= answer.offset <= end else first
        found[answer.partition] = Position(next_offset, 0 if proven else end)
        if not proven and next_offset == end:
            empty.append(ck.TopicPartition(topic, answer.partition, end, new_id()))
    if empty:
        for answer in consumer.commit(offsets=empty, asynchronous=False):
            if answer.error is not None:
                raise ck.KafkaException(answer.error)
    return found
