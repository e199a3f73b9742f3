"""The state machine of one group: every transition there is, and why a group moved.

`decide(group, event, now, policy)` is a pure function of its arguments.  It returns the new state and the effects that
the engine must carry out in the same transaction, or `Ignored(reason)` for input that is stale or repeated.  Input that
cannot come from anything but a bug raises `IllegalTransition`.

`TABLE` says what handles which event in which phase; a pair that it does not hold is illegal.
"""

from collections.abc import Callable
from enum import StrEnum
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import replace

from streams import retry
from streams.clock import Now
from streams.protocol import ErrorInfo, HandlerPolicy, Reason, Report, ReportKind, TaskState
from streams.retry import Policy


class Phase(StrEnum):
    """What the head of a group is doing.  IDLE: there is no head."""

    IDLE = "idle"
    WAITING = "waiting"  # for a time: not_before, backoff, snooze
    READY = "ready"  # may run, waits for a free slot
    DISPATCHED = "dispatched"  # on its way, nobody has said that it started
    RUNNING = "running"


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


class Group(Struct, frozen=True):
    """One group: its head, how many tasks are parked behind it, and why it may not move."""

    head: Head | None = None
    parked: int = 0
    blocked: Reason | None = None

    @property
    def phase(self) -> Phase:
        return Phase.IDLE if self.head is None else self.head.phase


IDLE: Final = Group()


# Events


class Accepted(Struct, frozen=True, gc=False):
    """A task arrived.  Times are wall time in ms."""

    sequence: int
    not_before_ms: int | None = None
    max_attempts: int | None = None


class Promoted(Struct, frozen=True, gc=False):
    """The next parked task takes the place of the head that left."""

    sequence: int
    not_before_ms: int | None = None
    max_attempts: int | None = None


class Due(Struct, frozen=True, gc=False):
    """The time for which the head waited has come."""

    sequence: int


class Granted(Struct, frozen=True, gc=False):
    """A worker has a free slot for the head: dispatch it there, under a new token."""

    token: int
    dispatch_partition: int


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


Event = Accepted | Promoted | Due | Granted | Reported | LeaseExpired | LostBeforeStart


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
    """Write the dispatch of the head and watch for its start."""

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


class Progress(Struct, frozen=True):
    """Show how far the head is; changes nothing."""

    report: Report
    worker: str


Effect = Emit | MakeReady | Wait | Send | Lease | Free | SetState | Bury | Leave | Progress


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
    new, effects = _begin(group, event, now)
    return new, (Emit(TaskState.PARKED, event.sequence, 1, due_wall_ms=event.not_before_ms), *effects)


def _park(group: Group, event: Accepted, now: Now, policy: Policy) -> Decision:
    parked = Emit(TaskState.PARKED, event.sequence, 1, due_wall_ms=event.not_before_ms)
    return Group(group.head, group.parked + 1, group.blocked), (parked,)


def _promote(group: Group, event: Promoted, now: Now, policy: Policy) -> Decision:
    if group.parked < 1:
        raise IllegalTransition("nothing is parked")
    return _begin(replace(group, parked=group.parked - 1), event, now)


def _begin(group: Group, event: Accepted | Promoted, now: Now) -> tuple[Group, tuple[Effect, ...]]:
    due = event.not_before_ms
    if due is not None and due > now.wall_ms:
        head = Head(event.sequence, Phase.WAITING, max_attempts=event.max_attempts, due_wall_ms=due)
        return Group(head, group.parked, group.blocked), (Wait(event.sequence, due, None),)
    head = Head(event.sequence, Phase.READY, max_attempts=event.max_attempts)
    return _ready(group, head)


def _ready(group: Group, head: Head, *before: Effect) -> tuple[Group, tuple[Effect, ...]]:
    """A blocked group keeps its head READY but does not enter the ready set until it is unblocked."""
    effects = before if group.blocked else (*before, MakeReady())
    return Group(head, group.parked, group.blocked), effects


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
    )
    return replace(group, head=head), (
        Emit(TaskState.DISPATCHED, head.sequence, head.attempt, event.token),
        Send(event.token, event.dispatch_partition),
    )


def _reported_dispatched(group: Group, event: Reported, now: Now, policy: Policy) -> Decision:
    head, report = _head(group), event.report
    if report.token != head.token:
        return Ignored.STALE_TOKEN
    if report.kind is ReportKind.STARTED:
        running = replace(
            head, phase=Phase.RUNNING, claim_id=event.claim_id, worker=event.worker, policy=report.policy, why=None
        )
        emit = Emit(TaskState.RUNNING, head.sequence, head.attempt, head.token, report=report, worker=event.worker)
        return replace(group, head=running), (emit, Lease(head.token))
    if report.kind is ReportKind.RETURNED:
        return _give_back(group, head, report.reason or Reason.RETURNED, event.worker)
    return Ignored.NOT_STARTED


def _reported_running(group: Group, event: Reported, now: Now, policy: Policy) -> Decision:
    head, report = _head(group), event.report
    if report.token != head.token:
        return Ignored.STALE_TOKEN
    if event.claim_id != head.claim_id:
        return Ignored.OTHER_CLAIM
    match report.kind:
        case ReportKind.STARTED:
            return Ignored.REPEATED
        case ReportKind.RENEWED:
            return group, (Lease(head.token),)
        case ReportKind.PROGRESS:
            return group, (Progress(report, event.worker),)
        case ReportKind.SUCCEEDED:
            return _succeed(group, head, report, event.worker)
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


def _succeed(group: Group, head: Head, report: Report, worker: str) -> Decision:
    emit = Emit(TaskState.SUCCEEDED, head.sequence, head.attempt, head.token, report=report, worker=worker)
    state = (SetState(report),) if report.state_set else ()
    return replace(group, head=None), (Free(), emit, *state, Leave(head.sequence))


def _fail(group: Group, head: Head, report: Report, worker: str, now: Now, policy: Policy) -> Decision:
    if not report.retryable:
        return _bury(group, head, report.reason or Reason.NOT_RETRYABLE, report.error, report, worker)
    if head.attempt >= retry.max_attempts(head.max_attempts, head.policy, policy):
        return _bury(group, head, Reason.ATTEMPTS_SPENT, report.error, report, worker)
    if report.delay_s is not None:
        delay_ms = retry.clamp_ms(report.delay_s)
    else:
        delay_ms = retry.delay_ms(head.attempt, head.policy, policy, head.token)
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
    )
    emit = Emit(
        TaskState.RETRYING, head.sequence, attempt, head.token, why, due_wall_ms, report, worker, error=report.error
    )
    return replace(group, head=waiting), (Free(), emit, Wait(head.sequence, due_wall_ms, delay_ms))


def _give_back(group: Group, head: Head, why: Reason, worker: str, report: Report | None = None) -> Decision:
    """The dispatch came back and no attempt is used: the head may run at once, under a new token."""
    emit = Emit(TaskState.PARKED, head.sequence, head.attempt, head.token, why, report=report, worker=worker)
    return _ready(group, replace(head, phase=Phase.READY, why=why), Free(), emit)


def _bury(
    group: Group, head: Head, reason: Reason, error: ErrorInfo | None, report: Report | None, worker: str
) -> Decision:
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
    if head.attempt >= retry.max_attempts(head.max_attempts, head.policy, policy):
        return _bury(group, head, Reason.WORKER_LOST, head.last_error, None, head.worker)
    again = replace(head, phase=Phase.READY, attempt=head.attempt + 1, why=Reason.WORKER_LOST)
    emit = Emit(
        TaskState.RETRYING,
        head.sequence,
        again.attempt,
        head.token,
        Reason.WORKER_LOST,
        now.wall_ms,
        worker=head.worker,
    )
    return _ready(group, again, Free(), emit)


def _lost_before_start(group: Group, event: LostBeforeStart, now: Now, policy: Policy) -> Decision:
    head = _head(group)
    if event.token != head.token:
        return Ignored.STALE_TOKEN
    return _give_back(group, head, Reason.LOST_BEFORE_START, "")


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
}
