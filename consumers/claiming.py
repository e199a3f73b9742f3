"""Claiming what was read: from a free slot to a run that has been announced, or a dispatch that has been given back."""

import threading
from collections.abc import Callable, Set
from typing import Final, NamedTuple

import confluent_kafka as ck
import structlog

from consumers.claims import Attempt, Pick, Position, Read, ReadAhead, Verdict, commit_claim, is_among, read_back
from consumers.control import ControlReader
from consumers.reports import Claim
from consumers.runs import Run, Runtime, returned
from streams import limits
from streams.clock import mono_ns, new_id
from streams.protocol import Reason
from streams.settings import Settings

log = structlog.get_logger("worker")

_NS: Final = 1_000_000_000
_CATCH_UP_S_MAX: Final = 5.0


class _Doubt(NamedTuple):
    """A claim of which nobody knows yet whether it holds."""

    attempt: Attempt
    picks: dict[int, list[Pick]]
    partitions: set[int]


class Slots:
    """How many runs there may be at once."""

    def __init__(self, total: int, on_free: Callable[[], None]) -> None:
        self._free, self._lock, self._on_free = total, threading.Lock(), on_free
        self.total = total

    @property
    def free(self) -> int:
        return self._free

    def take(self) -> None:
        with self._lock:
            self._free -= 1

    def release(self) -> None:
        with self._lock:
            self._free += 1
        self._on_free()


class Claims:
    """What was read and not claimed, and the steps of a claim.  Used by the polling thread only.

    `silent_s`: the longest time for which this worker was not announced, since that was asked last.
    """

    def __init__(
        self, settings: Settings, runtime: Runtime, control: ControlReader, slots: Slots, silent_s: Callable[[], float]
    ) -> None:
        self._runtime, self._metrics = runtime, runtime.metrics
        self._control, self._slots, self._silent_s = control, slots, silent_s
        self._topic = settings.topic("dispatches")
        self._may_start_ns = int((settings.silence_s - limits.LEASE_MARGIN_S) * _NS)
        self.ahead = ReadAhead(lambda name: runtime.registry.get(name) is not None, control.tokens)
        self._floor: dict[int, int] = {}  # of each partition: claimed up to here
        self._doubts: list[_Doubt] = []
        self._is_behind = False  # `control` has to be read to its end before anything begins

    @property
    def in_doubt(self) -> bool:
        return bool(self._doubts)

    def begin(self, partition: int, position: Position) -> None:
        """Claims of a partition that is new to this worker begin there."""
        self._floor[partition] = position.next_offset
        self.ahead.begin(partition, position)

    def add(self, read: Read) -> None:
        if read.offset < self._floor.get(read.partition, 0):
            # Read again, such as after a reset of the position: claimed is claimed, an offset must not go back.
            log.warning("dispatch passed over: it was claimed before", partition=read.partition, offset=read.offset)
        else:
            self.ahead.add(read)

    def forget(self, partitions: Set[int]) -> None:
        """They were revoked."""
        for partition in partitions:
            self.ahead.forget(partition)
            self._floor.pop(partition, None)
        self._doubts = [
            doubt._replace(partitions=doubt.partitions - partitions)
            for doubt in self._doubts
            if doubt.partitions - partitions
        ]

    def claim(self, consumer: ck.Consumer, closed: Set[int]) -> bool:
        """Claim what there is a slot for, or what needs none, except from `closed` partitions.  False: refused."""
        doubtful = {partition for doubt in self._doubts for partition in doubt.partitions}
        picks = self.ahead.pick(self._slots.free, closed | doubtful)
        self._metrics.read_ahead.set(len(self.ahead))
        if not picks:
            return True
        step = self._runtime.step
        ends = {partition: prefix[-1].read.offset + 1 for partition, prefix in picks.items()}
        step("claim")
        attempt = Attempt(new_id(), ends, consumer.memberid(), mono_ns())
        verdict = commit_claim(consumer, self._topic, attempt)
        step("claimed")
        self._metrics.claim_s.observe((mono_ns() - attempt.began_ns) / _NS)
        self._settle(_Doubt(attempt, picks, set(ends)), verdict)
        if not verdict.claimed:
            self._metrics.claim_failures.labels("refused").inc()
        return bool(verdict.claimed)

    def settle_doubts(self, consumer: ck.Consumer) -> None:
        """Ask again what became of claims whose outcome is not known."""
        doubts, self._doubts = self._doubts, []
        for doubt in doubts:
            self._settle(doubt, read_back(consumer, self._topic, doubt.attempt, doubt.partitions))

    def _settle(self, doubt: _Doubt, verdict: Verdict) -> None:
        """Go on with what is claimed; ask again for what is not known; the rest stays in the read-ahead."""
        if verdict.unknown:
            self._metrics.claim_failures.labels("unknown").inc()
            self._doubts.append(doubt._replace(partitions=verdict.unknown))
        if not verdict.claimed:
            return
        for partition in verdict.claimed:
            self._floor[partition] = doubt.attempt.next_offsets[partition]
            self.ahead.remove(partition, len(doubt.picks[partition]))
        if not verdict.proven:
            self._metrics.claim_failures.labels("other_member").inc()
            log.warning("claim dropped: the group has let this worker go", claim_id=doubt.attempt.claim_id)
            return
        self._begin(doubt, verdict.claimed)

    def _begin(self, doubt: _Doubt, partitions: set[int]) -> None:
        known = self._control_is_known()
        for partition in sorted(partitions):
            for pick in doubt.picks[partition]:
                self._begin_one(doubt.attempt, pick, known)

    def _begin_one(self, attempt: Attempt, pick: Pick, control_known: bool) -> None:
        read, dispatch = pick.read, pick.read.dispatch
        if dispatch is None:
            return
        self._metrics.claimed.inc()
        claim = Claim(dispatch, read.partition, read.offset, attempt.claim_id, attempt.began_ns)
        back = pick.back
        if is_among(dispatch, self._control.tokens(read.partition)):
            back = Reason.TAKEN_BACK
        elif back is None and (not control_known or mono_ns() - attempt.began_ns >= self._may_start_ns):
            back = Reason.LOST_BEFORE_START
        if back is None:
            self._slots.take()
            run = Run(self._runtime, claim)
            run.announce()
            if is_among(dispatch, self._control.tokens(read.partition)):  # since the look above
                run.cut()
        for task in dispatch.tasks:
            self._control.met(read.partition, dispatch.group, task.token)
        if back is None:
            return
        for task in dispatch.tasks:
            self._metrics.ended.labels(task.type, "returned").inc()
        self._runtime.reporter.send(claim, returned(dispatch.tasks, back))

    def _control_is_known(self) -> bool:
        """Whether the schedulers cannot have written us off before the claim: else read `control` once more.

        A worker that was frozen is silent on `members` and may be taken for dead, its dispatches taken back for good,
        while its session still stands and lets it claim them: also after it has been heard again.
        """
        if self._silent_s() >= limits.MEMBER_SILENT_S - limits.ANNOUNCE_INTERVAL_S:
            self._is_behind = True
        if self._is_behind:
            self._is_behind = not self._control.catch_up(_CATCH_UP_S_MAX)
        return not self._is_behind
