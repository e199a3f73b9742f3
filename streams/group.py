"""The state machine of one group: every transition there is, and why a group moved.

`decide(group, event, now, policy)` is a pure function of its arguments.  It returns the new state and the effects that
the engine must carry out in the same transaction, or `Ignored(reason)` for input that is stale or repeated.  Input that
cannot come from anything but a bug raises `IllegalTransition`.

`TABLE` says what handles which event in which phase; a pair that it does not hold is illegal.

Invariants, in every reachable state:
- A group is in the ready set (`MakeReady`) only with a READY head, and never while it is blocked, paused or swept.
- A dispatched head whose pause, cancel or skip is asked for (`Held.asked`) has had its `TakeBack`; each command is
  answered once: at once, or when that dispatch is known to have come back, to run, or to be lost.
- `Head.stop` is set only on a head that is out; it ends as cancelled or skipped, whatever its worker says, unless it
  says that it has succeeded.  Until then no other task of the group starts.
- While `Held.sweep` counts, nothing is promoted: what it counts are the oldest parked tasks, and they only leave.
- A blocked group keeps its head; only an operator moves it.
- A run (`Head.run`) is out with a head that is out, and with no other: whatever ends that head's execution, but its
  success, ends the run, and what was behind it in the run is parked as ever.  Commands find no run: the engine keeps
  them until it is over (`CutAsked`), so what an operator asks for is never about a task that may be beginning.
"""

from collections.abc import Callable
from enum import StrEnum
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import replace

from streams import limits, retry
from streams.clock import Now
from streams.protocol import (
    CommandKind,
    ErrorInfo,
    EventKind,
    FailurePolicy,
    HandlerPolicy,
    Outcome,
    Reason,
    Refusal,
    Report,
    ReportKind,
    TaskState,
)
from streams.retry import Policy


class Phase(StrEnum):
    """What the head of a group is doing.  IDLE: there is no head."""

    IDLE = "idle"
    WAITING = "waiting"  # for a time: not_before, backoff, snooze
    READY = "ready"  # may run, waits for a free slot
    DISPATCHED = "dispatched"  # on its way, nobody has said that it started
    RUNNING = "running"


class By(Struct, frozen=True, omit_defaults=True, array_like=True):
    """Which command asked, and who sent it."""

    command_id: str
    kind: CommandKind
    actor: str = ""
    note: str = ""
    quiet: bool = False  # another event of the same command answers it


class Stop(Struct, frozen=True, array_like=True):
    """How a head that is out will end: `state` is cancelled or skipped."""

    state: TaskState
    by: By


class Behind(Struct, frozen=True, array_like=True):
    """A parked task that is out with the head before it, under a token of its own."""

    sequence: int
    max_attempts: int | None = None  # as the task itself asks
    on_failure: FailurePolicy | None = None


class Head(Struct, frozen=True, omit_defaults=True, array_like=True):
    """The task at the front of its group.  `attempt`: the execution that runs now or will run next, from 1."""

    sequence: int
    phase: Phase
    attempt: int = 1
    max_attempts: int | None = None  # as the task itself asks
    token: int = 0  # of the latest dispatch
    dispatch_partition: int = -1
    claim_id: str = ""
    worker: str = ""
    policy: HandlerPolicy | None = None  # as the handler that started it last declares
    due_wall_ms: int = 0  # WAITING: not before this time of day
    delay_ms: int | None = None  # WAITING for a delay rather than a time of day
    why: Reason | None = None  # the last thing that held it up
    last_error: ErrorInfo | None = None
    on_failure: FailurePolicy | None = None  # as the task itself asks
    attempts_before: int = 0  # attempts from before an operator let it start anew; they do not count
    overdue: bool = False  # RUNNING: its worker says that it goes on after its time, or after it was cancelled
    stop: Stop | None = None
    first_error: ErrorInfo | None = None
    run: tuple[Behind, ...] = ()  # the first parked ones, out in the same dispatch under the tokens that follow `token`
    begun: bool = False  # a handler has begun it, even if no attempt was used: it was snoozed or abandoned


class Pause(Struct, frozen=True, array_like=True):
    """Nothing of the group starts, until a time of day (wall ms) or without end."""

    by: By
    since_wall_ms: int
    until_wall_ms: int | None = None


class Sweep(Struct, frozen=True, array_like=True):
    """The `left` oldest parked tasks are to leave, a part of them with each step: cancelled, or as dead letters.

    `behind`: so many after them are to leave with the failure of the head, which came while others were cancelled.
    """

    left: int
    by: By | None = None  # None: the cascade of a failed task
    cause: int = 0  # that task's sequence
    done: int = 0
    behind: int = 0


class Held(Struct, frozen=True, omit_defaults=True, array_like=True):
    """What few groups have: a pause, a sweep, commands that are not answered yet."""

    pause: Pause | None = None
    sweep: Sweep | None = None
    asked: tuple[By, ...] = ()


NOT_HELD: Final = Held()


class Group(Struct, frozen=True):
    """One group: its head, how many tasks are parked behind it, and why it may not move."""

    head: Head | None = None
    parked: int = 0
    blocked: Reason | None = None
    held: Held | None = None

    @property
    def may_start(self) -> bool:
        """Whether nothing but its own head and a free slot decides when it goes on."""
        held = self.held
        return self.blocked is None and (held is None or (held.pause is None and held.sweep is None))

    @property
    def pause(self) -> Pause | None:
        return None if self.held is None else self.held.pause

    @property
    def sweep(self) -> Sweep | None:
        return None if self.held is None else self.held.sweep

    @property
    def phase(self) -> Phase:
        return Phase.IDLE if self.head is None else self.head.phase

    @property
    def run(self) -> tuple[Behind, ...]:
        return () if self.head is None else self.head.run


IDLE: Final = Group()
# Why a head waits without having failed.
GIVEN_BACK: Final = frozenset({
    None, Reason.RETURNED, Reason.TAKEN_BACK, Reason.NO_HANDLER, Reason.LOST_BEFORE_START, Reason.ABANDONED
})  # fmt: skip
# What a worker says with `progress` of a handler that it cannot end.
GOES_ON: Final = frozenset({Reason.TIMEOUT, Reason.BY_COMMAND})


# Events


class Accepted(Struct, frozen=True, gc=False):
    """A task arrived.  Times are wall time in ms."""

    sequence: int
    not_before_ms: int | None = None
    max_attempts: int | None = None
    on_failure: FailurePolicy | None = None


class Promoted(Struct, frozen=True, gc=False):
    """The next parked task takes the place of the head that left."""

    sequence: int
    not_before_ms: int | None = None
    max_attempts: int | None = None
    on_failure: FailurePolicy | None = None


class Due(Struct, frozen=True, gc=False):
    """The time for which the head waited has come."""

    sequence: int


class Granted(Struct, frozen=True, gc=False):
    """A worker has a free slot for the head: dispatch it there, under a new token, and these parked ones with it."""

    token: int
    dispatch_partition: int
    run: tuple[Behind, ...] = ()


class Reported(Struct, frozen=True):
    """A worker's report on the claim that it names."""

    report: Report
    claim_id: str
    worker: str


class LeaseExpired(Struct, frozen=True, gc=False):
    """Its worker has been silent for a lease, and all that it could have said has been read."""

    token: int


class LostBeforeStart(Struct, frozen=True, gc=False):
    """The dispatch was claimed, and its claimant can no longer start it."""

    token: int


class Withdrawn(Struct, frozen=True, gc=False):
    """Nobody has claimed the head's dispatch nor owns its partition, and whoever will reads first that it was taken
    back.
    """

    token: int


class CutAsked(Struct, frozen=True, gc=False):
    """A command waits for the end of the run: what of it has not begun is to come back."""


class PauseAsked(Struct, frozen=True):
    by: By
    until_wall_ms: int | None


class ResumeAsked(Struct, frozen=True):
    """By an operator, or (`by` None) because the pause is over."""

    by: By | None


class StopAsked(Struct, frozen=True):
    """Cancel or skip the head."""

    stop: Stop


class RetryAsked(Struct, frozen=True):
    by: By


class UnblockAsked(Struct, frozen=True):
    by: By


class ReleaseAsked(Struct, frozen=True):
    by: By


class EditAsked(Struct, frozen=True):
    """Its payload is to be replaced; the engine does that when it sees `Edit`."""

    by: By


class SweepAsked(Struct, frozen=True):
    """Cancel everything that is parked.  `before`: how many tasks the command has taken already."""

    by: By
    before: int = 0


class Swept(Struct, frozen=True, gc=False):
    """So many of the oldest parked tasks have left."""

    count: int


class ParkedLeft(Struct, frozen=True):
    """One parked task was cancelled, and none is being swept."""

    by: By


class Redriven(Struct, frozen=True):
    """A dead letter comes back: to the front of those that have not begun, or behind all."""

    by: By
    sequence: int
    to_head: bool


Event = (
    Accepted | Promoted | Due | Granted | Reported | LeaseExpired | LostBeforeStart | Withdrawn | CutAsked
    | PauseAsked | ResumeAsked | StopAsked | RetryAsked | UnblockAsked | ReleaseAsked | EditAsked | SweepAsked
    | Swept | ParkedLeft | Redriven
)  # fmt: skip


# Effects


class Emit(Struct, frozen=True):
    """Write a task-event about the head (or, for `parked`, about the task that arrived)."""

    state: TaskState
    sequence: int
    attempt: int
    token: int = 0
    reason: Reason | None = None
    due_wall_ms: int | None = None
    report: Report | None = None
    worker: str = ""
    error: ErrorInfo | None = None


class MakeReady(Struct, frozen=True, gc=False):
    """Put the group into the ready set."""


class Wait(Struct, frozen=True, gc=False):
    """Feed `Due` after `delay_ms`, or at `due_wall_ms` when there is no delay."""

    sequence: int
    due_wall_ms: int
    delay_ms: int | None


class Send(Struct, frozen=True, gc=False):
    """Write the dispatch of the head, and of its run, and watch for its start."""

    token: int
    dispatch_partition: int


class Lease(Struct, frozen=True, gc=False):
    """The head runs: its lease begins anew."""

    token: int


class Free(Struct, frozen=True, gc=False):
    """The head is no longer out: free its slot, forget its lease."""


class SetState(Struct, frozen=True):
    """Replace the group state by what the completion carried."""

    report: Report


class Bury(Struct, frozen=True):
    """Write the head that leaves to `dead-letters`."""

    head: Head
    reason: Reason
    error: ErrorInfo | None = None


class Leave(Struct, frozen=True, gc=False):
    """The head is terminal: drop its rows and promote the next one, if any."""

    sequence: int


class GoOn(Struct, frozen=True, gc=False):
    """The head has succeeded, and the next task of its run takes its place, under its own token and the same claim:
    drop the old one's rows, and watch for the start of the new one.
    """

    sequence: int
    token: int
    dispatch_partition: int


class Progress(Struct, frozen=True):
    """Show how far the head is; changes nothing."""

    report: Report
    worker: str


class Unready(Struct, frozen=True, gc=False):
    """Take the group out of the ready set, if it is in."""


class TakeBack(Struct, frozen=True, gc=False):
    """Ask for the head's dispatch to be returned unrun; watch for nobody owning it."""

    token: int


class CancelRun(Struct, frozen=True, gc=False):
    """Tell the head's worker to stop it."""

    token: int


class Answer(Struct, frozen=True):
    """Answer a command."""

    by: By
    outcome: Outcome
    refusal: Refusal | None = None
    count: int | None = None


class Announce(Struct, frozen=True):
    """The group was paused, resumed, blocked or unblocked."""

    kind: EventKind
    by: By | None = None
    reason: Reason | None = None
    until_wall_ms: int | None = None


class Edit(Struct, frozen=True):
    """Put the new payload into the head's row."""

    by: By


class StartSweep(Struct, frozen=True, gc=False):
    """Take parked tasks out, step by step, and say `Swept`."""


class PauseUntil(Struct, frozen=True, gc=False):
    """Feed `ResumeAsked(None)` at that time of day."""

    until_wall_ms: int


class Displace(Struct, frozen=True, gc=False):
    """The head, which has not begun, goes back to the front of the parked ones."""

    sequence: int


class Insert(Struct, frozen=True):
    """Put the redriven task among the parked ones: by its sequence, which is below theirs, or behind all."""

    redriven: Redriven


class PromoteNext(Struct, frozen=True, gc=False):
    """There is no head, and something is parked."""


Effect = (
    Emit | MakeReady | Wait | Send | Lease | Free | SetState | Bury | Leave | GoOn | Progress | Unready | TakeBack
    | CancelRun | Answer | Announce | Edit | StartSweep | PauseUntil | Displace | Insert | PromoteNext
)  # fmt: skip


class Ignored(StrEnum):
    """Why an event changed nothing."""

    STALE_TOKEN = "stale_token"
    OTHER_CLAIM = "other_claim"
    REPEATED = "repeated"
    NOT_STARTED = "not_started"
    NOT_WAITING = "not_waiting"


class IllegalTransition(RuntimeError):
    """An event that only a bug can have produced."""


Decision = tuple[Group, tuple[Effect, ...]] | Ignored


def decide(group: Group, event: Event, now: Now, policy: Policy) -> Decision:
    """The new state and its effects, or why nothing changes.  Raises `IllegalTransition`."""
    handle = TABLE.get((group.phase, type(event)))
    if handle is None:
        raise IllegalTransition(f"{type(event).__name__} in phase {group.phase}")
    return handle(group, event, now, policy)


def _accept(group: Group, event: Accepted, now: Now, policy: Policy) -> Decision:
    if group.sweep is not None:  # nothing is promoted meanwhile
        return _park(group, event, now, policy)
    new, effects = _begin(group, event, now)
    return new, (Emit(TaskState.PARKED, event.sequence, 1, due_wall_ms=event.not_before_ms), *effects)


def _park(group: Group, event: Accepted, now: Now, policy: Policy) -> Decision:
    parked = Emit(TaskState.PARKED, event.sequence, 1, due_wall_ms=event.not_before_ms)
    return Group(group.head, group.parked + 1, group.blocked, group.held), (parked,)


def _promote(group: Group, event: Promoted, now: Now, policy: Policy) -> Decision:
    if group.parked < 1:
        raise IllegalTransition("nothing is parked")
    return _begin(replace(group, parked=group.parked - 1), event, now)


def _begin(group: Group, event: Accepted | Promoted, now: Now) -> tuple[Group, tuple[Effect, ...]]:
    due = event.not_before_ms
    if due is not None and due > now.wall_ms:
        head = Head(
            event.sequence, Phase.WAITING, max_attempts=event.max_attempts, due_wall_ms=due, on_failure=event.on_failure
        )
        return Group(head, group.parked, group.blocked, group.held), (Wait(event.sequence, due, None),)
    head = Head(event.sequence, Phase.READY, max_attempts=event.max_attempts, on_failure=event.on_failure)
    return _ready(group, head)


def _ready(group: Group, head: Head, *before: Effect) -> tuple[Group, tuple[Effect, ...]]:
    """A group that may not start keeps its head READY but does not enter the ready set."""
    effects = (*before, MakeReady()) if group.may_start else before
    return Group(head, group.parked, group.blocked, group.held), effects


def _due(group: Group, event: Due, now: Now, policy: Policy) -> Decision:
    head = _head(group)
    if event.sequence != head.sequence:
        return Ignored.NOT_WAITING
    return _ready(group, replace(head, phase=Phase.READY, due_wall_ms=0, delay_ms=None))


def _grant(group: Group, event: Granted, now: Now, policy: Policy) -> Decision:
    head = replace(
        _head(group),
        phase=Phase.DISPATCHED,
        token=event.token,
        dispatch_partition=event.dispatch_partition,
        claim_id="",
        worker="",
        run=event.run,
    )
    return replace(group, head=head), (
        Emit(TaskState.DISPATCHED, head.sequence, head.attempt, event.token),
        Send(event.token, event.dispatch_partition),
    )


def _reported_dispatched(group: Group, event: Reported, now: Now, policy: Policy) -> Decision:
    head, report = _head(group), event.report
    if report.token != head.token:
        return Ignored.STALE_TOKEN
    if head.claim_id and event.claim_id != head.claim_id:  # of a run, whose first task was claimed
        return Ignored.OTHER_CLAIM
    if report.kind is ReportKind.STARTED:
        running = replace(
            head, phase=Phase.RUNNING, claim_id=event.claim_id, worker=event.worker, policy=report.policy, why=None
        )
        emit = Emit(TaskState.RUNNING, head.sequence, head.attempt, head.token, report=report, worker=event.worker)
        if group.held is None:
            return replace(group, head=running), (emit, Lease(head.token))
        group, answers = _answered(replace(group, head=running))
        return group, (emit, Lease(head.token), *(_cancel_run(running) if running.stop else ()), *answers)
    if report.kind is ReportKind.RETURNED:
        return _give_back(group, head, report.reason or Reason.RETURNED, event.worker)
    return Ignored.NOT_STARTED


def _reported_running(group: Group, event: Reported, now: Now, policy: Policy) -> Decision:
    head, report = _head(group), event.report
    if report.token != head.token:
        return _reported_behind(group, head, event)
    if event.claim_id != head.claim_id:
        return Ignored.OTHER_CLAIM
    match report.kind:
        case ReportKind.STARTED:
            return Ignored.REPEATED
        case ReportKind.RENEWED:
            return group, (Lease(head.token),)
        case ReportKind.PROGRESS:
            if report.reason in GOES_ON and not head.overdue:
                group = replace(group, head=replace(head, overdue=True))
            return group, (Progress(report, event.worker),)
        case ReportKind.SUCCEEDED:
            return _succeed(group, head, report, event.worker)
        case _ if head.stop is not None:
            return _stopped(group, head, head.stop, report, event.worker)
        case ReportKind.FAILED:
            return _fail(group, head, report, event.worker, now, policy)
        case ReportKind.REJECTED:
            reason = report.reason or Reason.HANDLER_REJECTED
            return _bury(group, head, reason, report.error, report, event.worker)
        case ReportKind.SNOOZED:
            delay_ms = retry.clamp_ms(report.delay_s or 0.0)
            return _again(group, head, Reason.SNOOZED, delay_ms, head.attempt, now, report, event.worker)
        case ReportKind.RETURNED:
            return _give_back(group, head, report.reason or Reason.RETURNED, event.worker)
        case ReportKind.ABANDONED:
            return _give_back(group, head, Reason.ABANDONED, event.worker, report)


def _reported_behind(group: Group, head: Head, event: Reported) -> Decision:
    """A task of the run has come back unrun, and all behind it with it."""
    place, is_ours = event.report.token - head.token - 1, event.claim_id == head.claim_id
    if event.report.kind is not ReportKind.RETURNED or not is_ours or not 0 <= place < len(head.run):
        return Ignored.STALE_TOKEN
    return replace(group, head=replace(head, run=head.run[:place])), ()


def _succeed(group: Group, head: Head, report: Report, worker: str) -> Decision:
    emit = Emit(TaskState.SUCCEEDED, head.sequence, head.attempt, head.token, report=report, worker=worker)
    state = (SetState(report),) if report.state_set else ()
    if head.run:
        return _go_on(group, head, emit, *state)
    return replace(group, head=None), (Free(), emit, *state, Leave(head.sequence))


def _go_on(group: Group, head: Head, *before: Effect) -> Decision:
    """Its worker has the next task of the run in hand, and says in the same breath whether it begins it."""
    following, *run = head.run
    new = Head(
        following.sequence, Phase.DISPATCHED, max_attempts=following.max_attempts, token=head.token + 1,
        dispatch_partition=head.dispatch_partition, claim_id=head.claim_id, worker=head.worker,
        on_failure=following.on_failure, run=tuple(run),
    )  # fmt: skip
    go_on = GoOn(head.sequence, new.token, new.dispatch_partition)
    emit = Emit(TaskState.DISPATCHED, new.sequence, new.attempt, new.token)
    return Group(new, group.parked - 1, group.blocked, group.held), (*before, go_on, emit)


def _fail(group: Group, head: Head, report: Report, worker: str, now: Now, policy: Policy) -> Decision:
    if not report.retryable:
        return _spent(group, head, report.reason or Reason.NOT_RETRYABLE, report.error, report, worker, policy)
    if _is_spent(head, policy):
        return _spent(group, head, Reason.ATTEMPTS_SPENT, report.error, report, worker, policy)
    if report.delay_s is not None:
        delay_ms = retry.clamp_ms(report.delay_s)
    else:
        delay_ms = retry.delay_ms(head.attempt - head.attempts_before, head.policy, policy, head.token)
    return _again(group, head, report.reason or Reason.FAILED, delay_ms, head.attempt + 1, now, report, worker)


def _again(
    group: Group, head: Head, why: Reason, delay_ms: int, attempt: int, now: Now, report: Report, worker: str
) -> Decision:
    """The head waits and runs again; its group waits with it."""
    due_wall_ms = now.wall_ms + delay_ms
    waiting = replace(
        head,
        phase=Phase.WAITING,
        attempt=attempt,
        due_wall_ms=due_wall_ms,
        delay_ms=delay_ms,
        why=why,
        last_error=report.error or head.last_error,
        first_error=head.first_error or report.error,
        overdue=False,
        run=(),
        begun=True,
    )
    emit = Emit(
        TaskState.RETRYING, head.sequence, attempt, head.token, why, due_wall_ms, report, worker, error=report.error
    )
    return replace(group, head=waiting), (Free(), emit, Wait(head.sequence, due_wall_ms, delay_ms))


def _give_back(group: Group, head: Head, why: Reason, worker: str, report: Report | None = None) -> Decision:
    """The dispatch came back and no attempt is used: the head may run at once, under a new token."""
    if head.stop is not None:
        return _stopped(group, head, head.stop, report, worker)
    emit = Emit(TaskState.PARKED, head.sequence, head.attempt, head.token, why, report=report, worker=worker)
    group, answers = _answered(group)
    ready = replace(
        head, phase=Phase.READY, why=why, overdue=False, run=(), begun=head.begun or why is Reason.ABANDONED
    )
    return _ready(group, ready, Free(), emit, *answers)


def _is_spent(head: Head, policy: Policy) -> bool:
    return head.attempt - head.attempts_before >= retry.max_attempts(head.max_attempts, head.policy, policy)


def _spent(
    group: Group, head: Head, reason: Reason, error: ErrorInfo | None, report: Report | None, worker: str,
    policy: Policy,
) -> Decision:  # fmt: skip
    """No attempt is left: what then, is said by the task over its group over its type over the default."""
    match retry.on_failure(head.on_failure, head.policy, policy):
        case FailurePolicy.SKIP:
            return _bury(group, head, reason, error, report, worker)
        case FailurePolicy.CASCADE:
            group, effects = _bury(group, head, reason, error, report, worker)
            if not group.parked:
                return group, effects
            leave = effects[-1]
            if (before := group.sweep) is not None:  # by a command, which has still to be answered
                sweep = replace(before, cause=head.sequence, behind=group.parked - before.left)
                return _hold(group, sweep=sweep), effects
            sweep = Sweep(group.parked, cause=head.sequence)
            return _hold(group, sweep=sweep), (*effects[:-1], StartSweep(), leave)
        case FailurePolicy.BLOCK:
            waiting = replace(
                head, phase=Phase.READY, attempt=head.attempt + 1, why=reason, last_error=error or head.last_error,
                first_error=head.first_error or error, overdue=False, due_wall_ms=0, delay_ms=None, run=(),
            )  # fmt: skip
            emit = Emit(
                TaskState.RETRYING, head.sequence, waiting.attempt, head.token, reason,
                report=report, worker=worker, error=error,
            )  # fmt: skip
            blocked = replace(group, head=waiting, blocked=reason)
            return blocked, (Free(), emit, Announce(EventKind.GROUP_BLOCKED, reason=reason))


def _bury(
    group: Group, head: Head, reason: Reason, error: ErrorInfo | None, report: Report | None, worker: str
) -> tuple[Group, tuple[Effect, ...]]:
    emit = Emit(
        TaskState.DEAD_LETTERED, head.sequence, head.attempt, head.token, reason,
        report=report, worker=worker, error=error,
    )  # fmt: skip
    return replace(group, head=None), (Free(), Bury(head, reason, error), emit, Leave(head.sequence))


def _lease_expired(group: Group, event: LeaseExpired, now: Now, policy: Policy) -> Decision:
    """The worker that had started the head is lost: an attempt is used, and nothing waits."""
    head = _head(group)
    if event.token != head.token:
        return Ignored.STALE_TOKEN
    return _cut_off(group, head, Reason.WORKER_LOST, now, policy)


def _cut_off(group: Group, head: Head, why: Reason, now: Now, policy: Policy) -> tuple[Group, tuple[Effect, ...]]:
    """What runs of the head counts no more: its reports are stale from here on."""
    if head.stop is not None:
        return _stopped(group, head, head.stop, None, head.worker)
    if _is_spent(head, policy):
        return _sure(_spent(group, head, why, head.last_error, None, head.worker, policy))
    again = replace(head, phase=Phase.READY, attempt=head.attempt + 1, why=why, overdue=False, run=())
    emit = Emit(
        TaskState.RETRYING, head.sequence, again.attempt, head.token, why, now.wall_ms, worker=head.worker
    )  # fmt: skip
    return _ready(group, again, Free(), emit)


def _lost_before_start(group: Group, event: LostBeforeStart, now: Now, policy: Policy) -> Decision:
    head = _head(group)
    if event.token != head.token:
        return Ignored.STALE_TOKEN
    return _give_back(group, head, Reason.LOST_BEFORE_START, "")


# -- what operators ask for


def _cut_asked(group: Group, event: CutAsked, now: Now, policy: Policy) -> Decision:
    """Its worker gives back what has not begun: all of it, or what stands behind the task that runs."""
    head = _head(group)
    return (group, (TakeBack(head.token),)) if head.run else Ignored.NOT_WAITING


def _pause_asked(group: Group, event: PauseAsked, now: Now, policy: Policy) -> Decision:
    """Nothing starts after the answer, so a head on its way is asked back before it is given."""
    if len((group.held or NOT_HELD).asked) >= limits.ASKED_MAX:
        return _refuse(group, event.by, Refusal.IN_FLIGHT)
    pause = Pause(event.by, now.wall_ms, event.until_wall_ms)
    group = _hold(group, pause=pause)
    announce = Announce(EventKind.GROUP_PAUSED, event.by, until_wall_ms=event.until_wall_ms)
    effects: tuple[Effect, ...] = (Unready(), announce)
    if event.until_wall_ms is not None:
        effects = (*effects, PauseUntil(event.until_wall_ms))
    if group.head is not None and group.phase is Phase.DISPATCHED:
        return _ask_back(group, group.head, event.by, *effects)
    return group, (*effects, Answer(event.by, Outcome.DONE))


def _resume_asked(group: Group, event: ResumeAsked, now: Now, policy: Policy) -> Decision:
    pause = group.pause
    if event.by is None and (pause is None or pause.until_wall_ms is None or pause.until_wall_ms > now.wall_ms):
        return Ignored.NOT_WAITING  # it was lifted, or another took its place
    if pause is None:
        assert event.by is not None
        return _refuse(group, event.by, Refusal.NOT_PAUSED)
    answers = () if event.by is None else (Answer(event.by, Outcome.DONE),)
    return _free_to_go(_hold(group, pause=None), Announce(EventKind.GROUP_RESUMED, event.by), *answers)


def _stop_waiting(group: Group, event: StopAsked, now: Now, policy: Policy) -> Decision:
    """What has not begun ends at once, also between two attempts."""
    head, by = _head(group), event.stop.by
    emit = Emit(event.stop.state, head.sequence, head.attempt, head.token, Reason.BY_COMMAND)
    group, announce = _settle_failure(replace(group, head=None), by)
    return group, (Unready(), emit, *announce, Answer(by, Outcome.DONE), Leave(head.sequence))


def _stop_dispatched(group: Group, event: StopAsked, now: Now, policy: Policy) -> Decision:
    head = _head(group)
    if head.stop is not None:
        return _refuse(group, event.stop.by, Refusal.STOPPING)
    return _ask_back(group, replace(head, stop=event.stop), event.stop.by)


def _stop_running(group: Group, event: StopAsked, now: Now, policy: Policy) -> Decision:
    head = _head(group)
    if head.stop is not None:
        return _refuse(group, event.stop.by, Refusal.STOPPING)
    head = replace(head, stop=event.stop)
    return replace(group, head=head), (*_cancel_run(head), Answer(event.stop.by, Outcome.ACCEPTED))


def _cancel_run(head: Head) -> tuple[Effect, ...]:
    emit = Emit(
        TaskState.CANCELLING, head.sequence, head.attempt, head.token, Reason.BY_COMMAND, worker=head.worker
    )  # fmt: skip
    return emit, CancelRun(head.token)


def _stopped(
    group: Group, head: Head, stop: Stop, report: Report | None, worker: str
) -> tuple[Group, tuple[Effect, ...]]:
    """The head that was to be cancelled or skipped has ended, or never began."""
    emit = Emit(
        stop.state, head.sequence, head.attempt, head.token, Reason.BY_COMMAND, report=report, worker=worker,
        error=report.error if report else None,
    )  # fmt: skip
    group, answers = _answered(replace(group, head=None))
    return group, (Free(), emit, *answers, Leave(head.sequence))


def _ask_back(group: Group, head: Head, by: By, *before: Effect) -> Decision:
    """The answer must wait until it is known whether the dispatch runs.  Asking again is harmless."""
    asked = (*(group.held or NOT_HELD).asked, by)
    return _hold(replace(group, head=head), asked=asked), (*before, TakeBack(head.token))


def _withdrawn(group: Group, event: Withdrawn, now: Now, policy: Policy) -> Decision:
    """A stop is final now.  A pause is answered; the dispatch stays out, since the group does not go on anyway."""
    head = _head(group)
    if event.token != head.token:
        return Ignored.STALE_TOKEN
    if head.stop is not None:
        return _stopped(group, head, head.stop, None, "")
    return _answered(replace(group, head=replace(head, run=())) if head.run else group)


def _answered(group: Group) -> tuple[Group, tuple[Effect, ...]]:
    """Commands that waited for the fate of a dispatch get their answer: a head that runs now is told to stop."""
    if group.held is None or not group.held.asked:
        return group, ()
    runs = group.head is not None and group.head.stop is not None
    answers = tuple(
        Answer(by, Outcome.ACCEPTED if runs and by.kind is not CommandKind.PAUSE_GROUP else Outcome.DONE)
        for by in group.held.asked
    )
    return _hold(group, asked=()), answers


def _retry_waiting(group: Group, event: RetryAsked, now: Now, policy: Policy) -> Decision:
    head = _head(group)
    if head.why is None:
        return _refuse(group, event.by, Refusal.NOT_BEFORE)
    ready = replace(head, phase=Phase.READY, due_wall_ms=0, delay_ms=None)
    return _ready(group, ready, Answer(event.by, Outcome.DONE))


def _retry_ready(group: Group, event: RetryAsked, now: Now, policy: Policy) -> Decision:
    """A head that blocks its group runs once more, and blocks it again if that fails."""
    if group.blocked is None or group.blocked is Reason.INTERNAL_ERROR:
        return _refuse(group, event.by, Refusal.NOT_WAITING)
    return _unblocked(group, event.by)


def _unblock_asked(group: Group, event: UnblockAsked, now: Now, policy: Policy) -> Decision:
    """A head that failed starts anew, with all its attempts."""
    if group.blocked is None:
        return _refuse(group, event.by, Refusal.NOT_BLOCKED)
    return _unblocked(_anew(group), event.by)


def _anew(group: Group) -> Group:
    """Attempts so far no longer count for a head that has spent them."""
    head = group.head
    if head is None or group.blocked is None or group.blocked is Reason.INTERNAL_ERROR:
        return group
    return replace(group, head=replace(head, attempts_before=head.attempt - 1))


def _unblocked(group: Group, by: By) -> Decision:
    announce = Announce(EventKind.GROUP_UNBLOCKED, by)
    return _free_to_go(replace(group, blocked=None), announce, Answer(by, Outcome.DONE))


def _settle_failure(group: Group, by: By) -> tuple[Group, tuple[Effect, ...]]:
    """What blocked the group is gone, if it was the failure of its head."""
    if group.blocked is None or group.blocked is Reason.INTERNAL_ERROR:
        return group, ()
    return replace(group, blocked=None), (Announce(EventKind.GROUP_UNBLOCKED, by),)


def _release_asked(group: Group, event: ReleaseAsked, now: Now, policy: Policy) -> Decision:
    """An operator takes it upon himself that what goes on after its time does no harm: its token is stale from now.

    Its worker must have said that it cannot end it: what was just told to stop may still be about to, and what comes
    next must not run beside it.
    """
    head = _head(group)
    if not head.overdue:
        return _refuse(group, event.by, Refusal.RUNS_IN_TIME)
    group, effects = _cut_off(group, head, Reason.RELEASED, now, policy)
    return group, (Answer(event.by, Outcome.DONE), *effects)


def waits_as(head: Head) -> TaskState:
    """What was told last of a head that waits."""
    return TaskState.PARKED if head.why in GIVEN_BACK else TaskState.RETRYING


def _edit_asked(group: Group, event: EditAsked, now: Now, policy: Policy) -> Decision:
    """The head keeps its place.  If its failure blocked the group, it starts anew."""
    group, announce = _settle_failure(_anew(group), event.by)
    head = _head(group)
    edited = Emit(
        waits_as(head), head.sequence, head.attempt, head.token, Reason.EDITED,
        due_wall_ms=head.due_wall_ms or None,
    )  # fmt: skip
    effects = (Edit(event.by), edited, *announce)
    return _free_to_go(group, *effects) if announce else (group, effects)


def _sweep_asked(group: Group, event: SweepAsked, now: Now, policy: Policy) -> Decision:
    if group.sweep is not None:
        return _refuse(group, event.by, Refusal.SWEEPING)
    if not group.parked:
        return group, (Answer(event.by, Outcome.DONE, count=event.before),)
    return _hold(group, sweep=Sweep(group.parked, event.by, done=event.before)), (Unready(), StartSweep())


def _swept(group: Group, event: Swept, now: Now, policy: Policy) -> Decision:
    sweep = group.sweep
    if sweep is None or not 0 <= event.count <= sweep.left:
        raise IllegalTransition("nothing is being swept")
    group = replace(group, parked=group.parked - event.count)
    done = sweep.done + event.count
    if sweep.left > event.count:
        return _hold(group, sweep=replace(sweep, left=sweep.left - event.count, done=done)), (StartSweep(),)
    answers = () if sweep.by is None else (Answer(sweep.by, Outcome.DONE, count=done),)
    if sweep.behind:
        return _hold(group, sweep=Sweep(sweep.behind, cause=sweep.cause)), (*answers, StartSweep())
    return _free_to_go(_hold(group, sweep=None), *answers)


def _parked_left(group: Group, event: ParkedLeft, now: Now, policy: Policy) -> Decision:
    if group.parked < 1:
        raise IllegalTransition("nothing is parked")
    return replace(group, parked=group.parked - 1), (Answer(event.by, Outcome.DONE),)


def _redriven(group: Group, event: Redriven, now: Now, policy: Policy) -> Decision:
    """To the head: before all that has not begun.  A head that has begun an attempt keeps its place."""
    if group.sweep is not None and event.to_head:
        return _refuse(group, event.by, Refusal.SWEEPING)
    effects: tuple[Effect, ...] = ()
    head = group.head
    if event.to_head and head is not None and _has_not_begun(head) and head.sequence > event.sequence:
        back = Emit(TaskState.PARKED, head.sequence, head.attempt, head.token, Reason.DISPLACED)
        effects = (Unready(), back, Displace(head.sequence))
        group = replace(group, head=None, parked=group.parked + 1)
    why = Reason.REDRIVEN_HEAD if event.to_head else Reason.REDRIVEN_TAIL
    parked = Emit(TaskState.PARKED, event.sequence, 1, reason=why)
    effects = (*effects, Insert(event), parked, Answer(event.by, Outcome.DONE))
    group = replace(group, parked=group.parked + 1)
    return group, (*effects, PromoteNext()) if group.head is None and group.sweep is None else effects


def _has_not_begun(head: Head) -> bool:
    """It waits for its first attempt, also if it was on its way and has come back unrun."""
    return head.phase in (Phase.READY, Phase.WAITING) and head.attempt == 1 and not head.begun


def _free_to_go(group: Group, *before: Effect) -> tuple[Group, tuple[Effect, ...]]:
    """One thing that held it is gone; if nothing else does, it goes on.  What is in the ready set already stays."""
    head = group.head
    if head is None:
        go: tuple[Effect, ...] = (PromoteNext(),) if group.parked and group.sweep is None else ()
    else:
        go = (MakeReady(),) if head.phase is Phase.READY and group.may_start else ()
    return group, (*before, *go)


def _hold(group: Group, **changes: Any) -> Group:
    held = replace(group.held or NOT_HELD, **changes)
    return replace(group, held=None if held == NOT_HELD else held)


def _refuse(group: Group, by: By, why: Refusal) -> tuple[Group, tuple[Effect, ...]]:
    return group, (Answer(by, Outcome.REFUSED, why),)


def _refused(why: Refusal) -> "Handler":
    def refuse(group: Group, event: Any, now: Now, policy: Policy) -> Decision:
        return _refuse(group, event.stop.by if isinstance(event, StopAsked) else event.by, why)

    return refuse


def _sure(decision: Decision) -> tuple[Group, tuple[Effect, ...]]:
    assert not isinstance(decision, Ignored)
    return decision


def _stale(group: Group, event: Event, now: Now, policy: Policy) -> Decision:
    return Ignored.STALE_TOKEN


def _not_waiting(group: Group, event: Event, now: Now, policy: Policy) -> Decision:
    return Ignored.NOT_WAITING


def _head(group: Group) -> Head:
    if group.head is None:
        raise IllegalTransition("no head")
    return group.head


# Each handler takes the one event of its row.
Handler = Callable[[Group, Any, Now, Policy], Decision]

# Rows: phases.  What is missing here cannot happen: a promotion only follows a head that left, a grant only answers a
# ready head.
TABLE: Final[dict[tuple[Phase, type[Event]], Handler]] = {
    (Phase.IDLE, Accepted): _accept,
    (Phase.IDLE, Promoted): _promote,
    (Phase.IDLE, Due): _not_waiting,
    (Phase.IDLE, Reported): _stale,
    (Phase.IDLE, LeaseExpired): _stale,
    (Phase.IDLE, LostBeforeStart): _stale,
    (Phase.WAITING, Accepted): _park,
    (Phase.WAITING, Due): _due,
    (Phase.WAITING, Reported): _stale,
    (Phase.WAITING, LeaseExpired): _stale,
    (Phase.WAITING, LostBeforeStart): _stale,
    (Phase.READY, Accepted): _park,
    (Phase.READY, Due): _not_waiting,
    (Phase.READY, Granted): _grant,
    (Phase.READY, Reported): _stale,
    (Phase.READY, LeaseExpired): _stale,
    (Phase.READY, LostBeforeStart): _stale,
    (Phase.DISPATCHED, Accepted): _park,
    (Phase.DISPATCHED, Due): _not_waiting,
    (Phase.DISPATCHED, Reported): _reported_dispatched,
    (Phase.DISPATCHED, LeaseExpired): _stale,
    (Phase.DISPATCHED, LostBeforeStart): _lost_before_start,
    (Phase.RUNNING, Accepted): _park,
    (Phase.RUNNING, Due): _not_waiting,
    (Phase.RUNNING, Reported): _reported_running,
    (Phase.RUNNING, LeaseExpired): _lease_expired,
    (Phase.RUNNING, LostBeforeStart): _stale,
    (Phase.DISPATCHED, CutAsked): _cut_asked,
    (Phase.RUNNING, CutAsked): _cut_asked,
    (Phase.DISPATCHED, Withdrawn): _withdrawn,
    **{(phase, Withdrawn): _stale for phase in Phase if phase is not Phase.DISPATCHED},
    **{(phase, PauseAsked): _pause_asked for phase in Phase},
    **{(phase, ResumeAsked): _resume_asked for phase in Phase},
    (Phase.IDLE, StopAsked): _refused(Refusal.NO_HEAD),
    (Phase.WAITING, StopAsked): _stop_waiting,
    (Phase.READY, StopAsked): _stop_waiting,
    (Phase.DISPATCHED, StopAsked): _stop_dispatched,
    (Phase.RUNNING, StopAsked): _stop_running,
    (Phase.IDLE, RetryAsked): _refused(Refusal.NO_HEAD),
    (Phase.WAITING, RetryAsked): _retry_waiting,
    (Phase.READY, RetryAsked): _retry_ready,
    (Phase.DISPATCHED, RetryAsked): _refused(Refusal.IN_FLIGHT),
    (Phase.RUNNING, RetryAsked): _refused(Refusal.IN_FLIGHT),
    **{(phase, UnblockAsked): _unblock_asked for phase in Phase},
    **{(phase, ReleaseAsked): _refused(Refusal.NOT_RUNNING) for phase in Phase},
    (Phase.RUNNING, ReleaseAsked): _release_asked,
    (Phase.IDLE, EditAsked): _refused(Refusal.NO_HEAD),
    (Phase.WAITING, EditAsked): _edit_asked,
    (Phase.READY, EditAsked): _edit_asked,
    (Phase.DISPATCHED, EditAsked): _refused(Refusal.IN_FLIGHT),
    (Phase.RUNNING, EditAsked): _refused(Refusal.IN_FLIGHT),
    **{(phase, SweepAsked): _sweep_asked for phase in Phase},
    **{(phase, Swept): _swept for phase in Phase},
    **{(phase, ParkedLeft): _parked_left for phase in Phase},
    **{(phase, Redriven): _redriven for phase in Phase},
}
