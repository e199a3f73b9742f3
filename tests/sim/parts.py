"""Parts of the processes that are modelled: what threads with clients of their own do in `members.py` (Announcer and the
loop of MembersView), `reports.py` (Reporter), `leases.py` (the loop of LeaseKeeper), `loops.py` and `threads.py`.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec

from consumers import leases
from consumers.execution import Execution
from consumers.leases import Held, LeaseKeeper
from consumers.outcomes import Outcome, Reject, Retry, Snooze
from consumers.reports import Acknowledged, Claim
from consumers.task import Task
from streams import limits, members
from streams.members import MembersView
from streams.protocol import PROTOCOL, Completion, Member, Report, encode
from streams.settings import Settings
from tests.sim.loop import MS, Killed, S, Violation
from tests.sim.scenario import Behaviour
from tests.sim.stage import STAGE

LISTEN_MS = 500
STUBBORN_US = 15 * S  # what hangs and does not listen ends some day


class View(MembersView):
    """The real one; its thread's loop is `listen`, which its process calls again and again."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._stopping = _Pause(self.listen)  # type: ignore[assignment]
        self._consumer.assign([members.ck.TopicPartition("members", 0, 0)])

    def start(self) -> None:
        self.listen()

    def stop(self) -> None:
        self._consumer.close()

    def wait_caught_up(self, timeout_s: float) -> bool:
        while not self._caught_up.is_set():
            self._stopping.wait(0.1)
        return True

    def listen(self) -> None:
        """As often as it is called: it makes a difference only where there is something new, or each half second."""
        if not self._consumer.has_more() and members.now().mono_ms - self._listened_mono_ms < LISTEN_MS:
            return
        self._listen()
        if any([self._fold(message) for message in self._consumer.consume(500)]):
            self._on_change()


class _Pause:
    """An event that is never set; whoever waits for it listens meanwhile."""

    def __init__(self, listen: Callable[[], None]) -> None:
        self._listen = listen

    def is_set(self) -> bool:
        return False

    def wait(self, timeout_s: float) -> bool:
        STAGE.loop.block(int(timeout_s * S))
        self._listen()
        return False


class Announcer:
    """At once when something changes, but not more often than each `ANNOUNCE_DEBOUNCE_S`, and each second anyway."""

    def __init__(self, settings: Settings) -> None:
        self._process = STAGE.wire.process()
        self._member: Member | None = None
        self._started = self._stopping = False
        self._updates = self._said = self._timer = 0
        self._sent_us = -S
        self._said_mono_ms = members.now().mono_ms
        self._gap_ms = 0

    def start(self) -> None:
        self._started = True
        self._send_in(0)

    def update(self, member: Member) -> int:
        if member != self._member:
            self._member = member
            self._updates += 1
            debounce_us = int(limits.ANNOUNCE_DEBOUNCE_S * S)
            self._send_in(max(0, self._sent_us + debounce_us - STAGE.loop.now_us))
        return self._updates

    def wait_said(self, update: int, timeout_s: float) -> bool:
        until_us = STAGE.loop.now_us + int(timeout_s * S)
        while self._said < update:
            if STAGE.loop.now_us >= until_us:
                return False
            STAGE.loop.block(20 * MS)
        return True

    def silent_s(self) -> float:
        longest_ms, self._gap_ms = max(self._gap_ms, members.now().mono_ms - self._said_mono_ms), 0
        return longest_ms / 1000

    def leave(self, *, tombstone: bool = True) -> None:
        if not self._stopping:
            self._stopping = True
            if tombstone and self._member is not None and STAGE.wire.can_reach(self._process):
                STAGE.wire.broker.append("members", 0, self._member.instance.encode(), None)

    def _send_in(self, delay_us: int) -> None:
        self._timer += 1
        timer = self._timer
        STAGE.loop.at(delay_us + STAGE.loop.chance.randrange(MS, 5 * MS), lambda: self._send(timer), self._process)

    def _send(self, timer: int) -> None:
        if timer != self._timer or self._stopping or not self._started or self._member is None:
            return
        self._sent_us = STAGE.loop.now_us
        self._send_in(int((limits.ANNOUNCE_INTERVAL_S - limits.ANNOUNCE_DEBOUNCE_S) * S))
        if STAGE.wire.can_reach(self._process):
            moment, update = members.now(), self._updates
            value = encode(msgspec.structs.replace(self._member, at_ms=moment.wall_ms))
            STAGE.wire.broker.append("members", 0, self._member.instance.encode(), value)
            STAGE.loop.at(MS, lambda: self._delivered(update, moment.mono_ms), self._process)

    def _delivered(self, update: int, mono_ms: int) -> None:
        self._gap_ms = max(self._gap_ms, mono_ms - self._said_mono_ms)
        self._said, self._said_mono_ms = update, mono_ms


class _Sent:
    """A record on its way.  `left`: it has left the process, and arrives also if that is frozen or dead by then."""

    __slots__ = ("acknowledged", "is_due", "key", "left", "value")

    def __init__(self, key: bytes, value: bytes, acknowledged: Acknowledged | None, left: bool) -> None:
        self.key, self.value, self.acknowledged, self.left = key, value, acknowledged, left
        self.is_due = False


class Reporter:
    """An idempotent producer: in order per partition, as late as it takes, once."""

    def __init__(
        self, settings: Settings, worker: str, boot_id: str, on_fatal: Callable[[str], None], stats: Any = None
    ) -> None:  # fmt: skip
        self._worker, self._boot_id = worker, boot_id
        self._process = STAGE.wire.process()
        self._queues: dict[int, deque[_Sent]] = {}
        self._left = 0

    def start(self) -> None:
        pass

    def send(self, claim: Claim, reports: tuple[Report, ...], acknowledged: Acknowledged | None = None) -> None:
        dispatch = claim.dispatch
        value = encode(Completion(
            PROTOCOL, dispatch.group, self._worker, self._boot_id,
            claim.claim_id, claim.partition, claim.offset, reports,
        ))  # fmt: skip
        for report in reports:
            STAGE.wire.note(f"{self._process.name}: {dispatch.group} says {report.kind} under {report.token}")
            STAGE.truth.has_said(self._process, dispatch.partition, report)
        STAGE.wire.step(f"send {reports[0].kind}")
        chance = STAGE.loop.chance
        record = _Sent(dispatch.group.encode(), value, acknowledged, chance.random() < 0.5)
        self._left += 1
        self._queues.setdefault(dispatch.partition, deque()).append(record)
        delay_us = chance.randrange(300, 4 * MS) if chance.random() < 0.95 else chance.randrange(400 * MS)
        STAGE.loop.at(delay_us, lambda: self._due(record, dispatch.partition))
        STAGE.wire.step(f"sent {reports[0].kind}")

    def _due(self, record: _Sent, partition: int) -> None:
        record.is_due = True
        self._deliver(partition)

    def _deliver(self, partition: int) -> None:
        queue, loop, process = self._queues[partition], STAGE.loop, self._process
        cut_us = max(STAGE.wire.broker.down_until_us, process.cut_until_us)
        if cut_us > loop.now_us:
            loop.at(cut_us - loop.now_us, lambda: self._deliver(partition))
            return
        while queue and queue[0].is_due:
            if not (queue[0].left or (process.alive and not process.frozen)):
                loop.at(1, lambda: self._deliver(partition), process)  # when it goes on, if it does
                return
            record = queue.popleft()
            STAGE.wire.broker.append("completions", partition, record.key, record.value)
            loop.at(loop.chance.randrange(200, 3 * MS), lambda r=record: self._acknowledge(r), process)  # type: ignore[misc]

    def _acknowledge(self, record: _Sent) -> None:
        cut_us = max(STAGE.wire.broker.down_until_us, self._process.cut_until_us) - STAGE.loop.now_us
        if cut_us > 0:  # the answer is lost; asked again, the broker knows that it has this record
            STAGE.loop.at(cut_us, lambda: self._acknowledge(record), self._process)
            return
        self._left -= 1
        if record.acknowledged is not None:
            record.acknowledged(None)

    def unacknowledged(self) -> int:
        return self._left

    def stop(self, timeout_s: float) -> int:
        until_us = STAGE.loop.now_us + int(timeout_s * S)
        while self._left and STAGE.loop.now_us < until_us:
            STAGE.loop.block(5 * MS)
        return self._left


def _place(held: Any) -> tuple[Any, ...]:
    """An order that is the same each time."""
    claim = getattr(held, "claim", None)
    if claim is None:
        return -2, 0, ""  # the drivers of the express lane
    return (-1, held.start.task.token, claim.dispatch.group) if claim.partition < 0 else tuple(claim[1:4])


class Keeper(LeaseKeeper):
    """The real one; its thread's loop is `_tick`, which runs while there is something to look after."""

    def __init__(self, settings: Settings, fence: Callable[[str], None]) -> None:
        super().__init__(settings, fence)
        self._process = STAGE.wire.process()
        self._ticking = False

    def start(self) -> None:
        pass

    def add(self, held: Held) -> None:
        super().add(held)
        if not self._ticking:
            self._ticking = True
            self._tick_in(STAGE.loop.chance.random())

    def _tick_in(self, ticks: float) -> None:
        STAGE.loop.at(int(ticks * self._tick_s * S), self._tick, self._process)

    def _tick(self) -> None:
        self.looked_ns = now_ns = leases.mono_ns()
        self._process.is_looking = True
        try:
            for held in sorted(self._held, key=_place):
                self._look(held, now_ns)
            self.each_tick(now_ns)
        except Exception as error:
            raise Violation("errors", f"the lease keeper raised {error!r}") from error
        self._process.is_looking = False
        self._ticking = bool(self._held)
        if self._ticking:
            self._tick_in(1.0 + STAGE.loop.chance.random() / 20)


def set_state(task: Task, behaviour: Behaviour) -> None:
    if behaviour.state is not None:
        before = task.state or {"count": 0}
        task.set_state({"count": before["count"] + 1, "by": behaviour.state} if behaviour.state else None)


class Executor:
    """Runs handlers as the scenario says.  A stubborn one does not end when it is told to."""

    def __init__(self, *_: Any) -> None:
        self._process = STAGE.wire.process()

    def submit(self, execution: Execution) -> None:
        self._in(STAGE.loop.chance.randrange(2 * MS), lambda: self._begin(execution))

    def _in(self, delay_us: int, call: Callable[[], None]) -> None:
        STAGE.loop.at(delay_us, call, self._process)

    def _begin(self, execution: Execution) -> None:
        if not execution.begin():
            return
        behaviour = STAGE.truth.begin(self._process, execution.task, execution.run.lease)
        STAGE.wire.step("running")
        if behaviour.kind == "die":
            self._in(behaviour.ms * MS, lambda: self._die(execution))
        elif behaviour.kind != "hang" or behaviour.stubborn:
            hangs_us = STUBBORN_US if behaviour.kind == "hang" else 0
            self._in(behaviour.ms * MS + hangs_us, lambda: self._finish(execution, behaviour))
        if behaviour.progress:
            self._in(behaviour.ms * MS // 2, lambda: self._progress(execution))

    def _progress(self, execution: Execution) -> None:
        if STAGE.truth.is_running(execution.task):
            execution.task.progress(0.5, "half way")

    def _die(self, execution: Execution) -> None:
        if STAGE.truth.is_running(execution.task):
            STAGE.wire.note(f"{self._process.name}: a handler ends the process")
            self._process.die()
            raise Killed(self._process)

    def _finish(self, execution: Execution, behaviour: Behaviour) -> None:
        if not STAGE.truth.is_running(execution.task):
            return
        set_state(execution.task, behaviour)
        match behaviour.kind:
            case "ok" | "die" | "hang":
                outcome = execution.outcome_of_value({"n": execution.task.id})
            case "fail":
                outcome = execution.outcome_of_error(ValueError("no"))
            case "retry":
                outcome = execution.outcome_of_error(Retry(behaviour.after_s))
            case "snooze":
                outcome = execution.outcome_of_error(Snooze(behaviour.after_s))
            case "reject":
                outcome = execution.outcome_of_error(Reject("never"))
            case _:
                raise AssertionError(behaviour)
        self._end(execution, outcome)

    def cancel(self, execution: Execution) -> None:
        if not STAGE.truth.behaviour_of(execution.task).stubborn:
            self._in(STAGE.loop.chance.randrange(20 * MS), lambda: self._stop(execution))

    def _stop(self, execution: Execution) -> None:
        if STAGE.truth.is_running(execution.task):
            self._end(execution, execution.outcome_of_error(asyncio.CancelledError()))

    def _end(self, execution: Execution, outcome: Outcome) -> None:
        STAGE.truth.end(execution.task, outcome.kind, execution.stop, state_set=outcome.state_set)
        STAGE.wire.step("ended")
        execution.end(outcome)

    def kill(self, execution: Execution) -> bool:
        return False

    def lease_extended(self, execution: Execution) -> None:
        pass

    def stalled_ns(self, execution: Execution) -> int:
        return 0

    def tick(self, now_ns: int) -> None:
        pass

    def stop(self) -> None:
        pass
