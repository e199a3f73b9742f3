"""`streams.group`: every phase against every event, and what each transition does."""

from typing import Any

import pytest
from msgspec import Raw
from msgspec.structs import replace

from streams import retry
from streams.clock import Now
from streams.group import (
    IDLE,
    TABLE,
    Accepted,
    Bury,
    By,
    CutAsked,
    Due,
    EditAsked,
    Effect,
    Emit,
    Event,
    Free,
    Granted,
    Group,
    Head,
    Ignored,
    IllegalTransition,
    Lease,
    LeaseExpired,
    Leave,
    LostBeforeStart,
    MakeReady,
    ParkedLeft,
    PauseAsked,
    Phase,
    Progress,
    Promoted,
    Redriven,
    ReleaseAsked,
    Reported,
    ResumeAsked,
    RetryAsked,
    Send,
    SetState,
    Stop,
    StopAsked,
    SweepAsked,
    Swept,
    UnblockAsked,
    Wait,
    Withdrawn,
    decide,
)
from streams.protocol import CommandKind, ErrorInfo, HandlerPolicy, Reason, Report, ReportKind, TaskState
from streams.retry import Policy

NOW = Now(wall_ms=1_000_000, mono_ms=5_000)
POLICY = Policy(max_attempts=3, backoff_base_s=1.0, backoff_factor=2.0, backoff_cap_s=60.0)
SEQUENCE, TOKEN, CLAIM, WORKER = 10, 40, "claim-a", "worker-1"
K = ReportKind
BY = By("c1", CommandKind.PAUSE_GROUP, "ada")

HEADS = {
    Phase.WAITING: Head(SEQUENCE, Phase.WAITING, token=TOKEN, due_wall_ms=NOW.wall_ms + 5, delay_ms=5),
    Phase.READY: Head(SEQUENCE, Phase.READY, token=TOKEN),
    Phase.DISPATCHED: Head(SEQUENCE, Phase.DISPATCHED, token=TOKEN, dispatch_partition=2),
    Phase.RUNNING: Head(
        SEQUENCE, Phase.RUNNING, token=TOKEN, dispatch_partition=2, claim_id=CLAIM, worker=WORKER
    ),
}  # fmt: skip


def group_in(phase: Phase, parked: int = 2, **changes: Any) -> Group:
    if phase is Phase.IDLE:
        return Group(None, parked)
    return Group(replace(HEADS[phase], **changes), parked)


def report(kind: ReportKind, *, token: int = TOKEN, claim: str = CLAIM, **fields: Any) -> Reported:
    return Reported(Report(kind, SEQUENCE, token, **fields), claim, WORKER)


def moved(group: Group, event: Event, policy: Policy = POLICY) -> tuple[Group, tuple[Effect, ...]]:
    decision = decide(group, event, NOW, policy)
    assert not isinstance(decision, Ignored), decision
    return decision


def head_of(group: Group) -> Head:
    assert group.head is not None
    return group.head


def emitted(effects: tuple[Effect, ...]) -> list[TaskState]:
    return [e.state for e in effects if isinstance(e, Emit)]


EVENTS: dict[str, Event] = {
    "accepted": Accepted(50),
    "promoted": Promoted(50),
    "due": Due(SEQUENCE),
    "due of another task": Due(SEQUENCE - 1),
    "granted": Granted(41, 7),
    "lease expired": LeaseExpired(TOKEN),
    "stale lease expired": LeaseExpired(TOKEN - 1),
    "lost before start": LostBeforeStart(TOKEN),
    "stale lost before start": LostBeforeStart(TOKEN - 1),
    "withdrawn": Withdrawn(TOKEN),
    "stale withdrawn": Withdrawn(TOKEN - 1),
    "cut asked": CutAsked(),
    "pause asked": PauseAsked(BY, None),
    "resume asked": ResumeAsked(BY),
    "pause over": ResumeAsked(None),
    "stop asked": StopAsked(Stop(TaskState.CANCELLED, BY)),
    "retry asked": RetryAsked(BY),
    "unblock asked": UnblockAsked(BY),
    "release asked": ReleaseAsked(BY),
    "edit asked": EditAsked(BY),
    "sweep asked": SweepAsked(BY),
    "swept": Swept(1),
    "parked left": ParkedLeft(BY),
    "redriven to the tail": Redriven(BY, 60, False),
    "redriven to the head": Redriven(BY, 5, True),
    **{kind.value: report(kind) for kind in K},
    **{f"stale {kind.value}": report(kind, token=TOKEN - 1) for kind in K},
    **{f"{kind.value} of another claim": report(kind, claim="claim-b") for kind in K},
}

ILLEGAL = IllegalTransition
STALE, OTHER, NOT_WAITING, NOT_STARTED = (
    Ignored.STALE_TOKEN, Ignored.OTHER_CLAIM, Ignored.NOT_WAITING, Ignored.NOT_STARTED,
)  # fmt: skip
NO_EFFECT = "no effect"
W, R, D, X, LEFT, SAME = Phase.WAITING, Phase.READY, Phase.DISPATCHED, Phase.RUNNING, Phase.IDLE, "same"

# What comes of each event, in the phases idle, waiting, ready, dispatched, running: a phase (IDLE: the head left),
# SAME (nothing but effects), why it is ignored, or that it is illegal.
OUTCOMES: dict[str, tuple[Any, Any, Any, Any, Any]] = {
    "accepted": (R, SAME, SAME, SAME, SAME),
    "promoted": (R, ILLEGAL, ILLEGAL, ILLEGAL, ILLEGAL),
    "due": (NOT_WAITING, R, NOT_WAITING, NOT_WAITING, NOT_WAITING),
    "due of another task": (NOT_WAITING, NOT_WAITING, NOT_WAITING, NOT_WAITING, NOT_WAITING),
    "granted": (ILLEGAL, ILLEGAL, D, ILLEGAL, ILLEGAL),
    "lease expired": (STALE, STALE, STALE, STALE, R),
    "stale lease expired": (STALE, STALE, STALE, STALE, STALE),
    "lost before start": (STALE, STALE, STALE, R, STALE),
    "stale lost before start": (STALE, STALE, STALE, STALE, STALE),
    "started": (STALE, STALE, STALE, X, Ignored.REPEATED),
    "renewed": (STALE, STALE, STALE, NOT_STARTED, SAME),
    "progress": (STALE, STALE, STALE, NOT_STARTED, SAME),
    "succeeded": (STALE, STALE, STALE, NOT_STARTED, LEFT),
    "failed": (STALE, STALE, STALE, NOT_STARTED, W),
    "rejected": (STALE, STALE, STALE, NOT_STARTED, LEFT),
    "snoozed": (STALE, STALE, STALE, NOT_STARTED, W),
    "returned": (STALE, STALE, STALE, R, R),
    "abandoned": (STALE, STALE, STALE, NOT_STARTED, R),
    "withdrawn": (STALE, STALE, STALE, NO_EFFECT, STALE),
    "stale withdrawn": (STALE, STALE, STALE, STALE, STALE),
    "cut asked": (ILLEGAL, ILLEGAL, ILLEGAL, NOT_WAITING, NOT_WAITING),  # there is no run: see test_runs.py
    "pause asked": (SAME, SAME, SAME, SAME, SAME),
    "resume asked": (SAME, SAME, SAME, SAME, SAME),
    "pause over": (NOT_WAITING, NOT_WAITING, NOT_WAITING, NOT_WAITING, NOT_WAITING),
    "stop asked": (SAME, LEFT, LEFT, D, X),
    "retry asked": (SAME, SAME, SAME, SAME, SAME),
    "unblock asked": (SAME, SAME, SAME, SAME, SAME),
    "release asked": (SAME, SAME, SAME, SAME, SAME),
    "edit asked": (SAME, SAME, SAME, SAME, SAME),
    "sweep asked": (SAME, SAME, SAME, SAME, SAME),
    "swept": (ILLEGAL, ILLEGAL, ILLEGAL, ILLEGAL, ILLEGAL),
    "parked left": (SAME, SAME, SAME, SAME, SAME),
    "redriven to the tail": (SAME, SAME, SAME, SAME, SAME),
    "redriven to the head": (SAME, LEFT, LEFT, SAME, SAME),  # one that waits for its first attempt makes room
    **{f"stale {kind.value}": (STALE, STALE, STALE, STALE, STALE) for kind in K},
    # Until somebody has started, any claim may speak; a dispatch is claimed at most once.
    "started of another claim": (STALE, STALE, STALE, X, OTHER),
    "returned of another claim": (STALE, STALE, STALE, R, OTHER),
    **{
        f"{kind.value} of another claim": (STALE, STALE, STALE, NOT_STARTED, OTHER)
        for kind in K if kind not in (K.STARTED, K.RETURNED)
    },
}  # fmt: skip

PAIRS = [(phase, name, OUTCOMES[name][place]) for name in EVENTS for place, phase in enumerate(Phase)]


@pytest.mark.parametrize(("phase", "name", "outcome"), PAIRS, ids=[f"{p}-{n}" for p, n, _ in PAIRS])
def test_every_event_in_every_phase(phase: Phase, name: str, outcome: Any) -> None:
    group, event = group_in(phase), EVENTS[name]
    if outcome is ILLEGAL:
        with pytest.raises(IllegalTransition):
            decide(group, event, NOW, POLICY)
        return
    decision = decide(group, event, NOW, POLICY)
    if isinstance(outcome, Ignored):
        assert decision is outcome
        return
    assert not isinstance(decision, Ignored), decision
    new, effects = decision
    if outcome is NO_EFFECT:
        assert (new, effects) == (group, ())
        return
    assert effects
    assert new.phase is (phase if outcome == SAME else outcome)
    if outcome == SAME:
        assert new.head is group.head


def test_the_table_holds_exactly_the_legal_pairs() -> None:
    legal = {
        (phase, type(EVENTS[name])) for phase, name, outcome in PAIRS if outcome is not ILLEGAL
    }  # fmt: skip
    assert legal | {(phase, Swept) for phase in Phase} == TABLE.keys()


def test_every_event_type_is_tried() -> None:
    assert {type(event) for event in EVENTS.values()} == set(Event.__args__)


def test_nothing_parked_nothing_promoted() -> None:
    with pytest.raises(IllegalTransition):
        decide(IDLE, Promoted(50), NOW, POLICY)


# -- arriving


def test_a_task_for_an_idle_group_is_parked_and_made_ready() -> None:
    group, effects = moved(IDLE, Accepted(7, max_attempts=9))
    assert group == Group(Head(7, Phase.READY, max_attempts=9))
    assert effects == (Emit(TaskState.PARKED, 7, 1), MakeReady())


def test_a_task_behind_a_head_is_only_parked() -> None:
    group, effects = moved(group_in(Phase.RUNNING, parked=4), Accepted(50))
    assert group == group_in(Phase.RUNNING, parked=5)
    assert effects == (Emit(TaskState.PARKED, 50, 1),)


def test_not_before_in_the_future_holds_the_group() -> None:
    due = NOW.wall_ms + 60_000
    group, effects = moved(IDLE, Accepted(7, not_before_ms=due))
    assert group == Group(Head(7, Phase.WAITING, due_wall_ms=due))
    assert effects == (Emit(TaskState.PARKED, 7, 1, due_wall_ms=due), Wait(7, due, None))


@pytest.mark.parametrize("due", [NOW.wall_ms, NOW.wall_ms - 1, -(10**12)])
def test_not_before_in_the_past_holds_nothing(due: int) -> None:
    group, effects = moved(IDLE, Accepted(7, not_before_ms=due))
    assert head_of(group).phase is Phase.READY
    assert effects[-1] == MakeReady()


def test_not_before_is_looked_at_when_the_task_becomes_the_head() -> None:
    due = NOW.wall_ms + 1
    group, effects = moved(group_in(Phase.RUNNING), Accepted(50, not_before_ms=due))
    assert effects == (Emit(TaskState.PARKED, 50, 1, due_wall_ms=due),)
    group, effects = moved(Group(None, 3), Promoted(50, not_before_ms=due))
    assert group == Group(Head(50, Phase.WAITING, due_wall_ms=due), 2)
    assert effects == (Wait(50, due, None),)


def test_what_is_due_becomes_ready_and_waits_for_nothing() -> None:
    group, effects = moved(group_in(Phase.WAITING), Due(SEQUENCE))
    assert head_of(group) == replace(HEADS[Phase.WAITING], phase=Phase.READY, due_wall_ms=0, delay_ms=None)
    assert effects == (MakeReady(),)


# -- going out


def test_a_granted_head_is_sent_under_the_new_token() -> None:
    group, effects = moved(group_in(Phase.READY, attempt=2, worker="old", claim_id="old"), Granted(41, 7))
    assert head_of(group) == Head(SEQUENCE, Phase.DISPATCHED, 2, token=41, dispatch_partition=7)
    assert effects == (Emit(TaskState.DISPATCHED, SEQUENCE, 2, 41), Send(41, 7))


def test_started_begins_the_lease_and_keeps_what_the_handler_declares() -> None:
    declared = HandlerPolicy(max_attempts=7)
    event = report(K.STARTED, policy=declared)
    group, effects = moved(group_in(Phase.DISPATCHED, why=Reason.FAILED), event)
    head = head_of(group)
    assert (head.phase, head.claim_id, head.worker, head.policy, head.why) == (X, CLAIM, WORKER, declared, None)
    assert effects == (
        Emit(TaskState.RUNNING, SEQUENCE, 1, TOKEN, report=event.report, worker=WORKER), Lease(TOKEN),
    )  # fmt: skip


def test_renewed_renews_the_lease_and_nothing_else() -> None:
    group = group_in(Phase.RUNNING)
    assert moved(group, report(K.RENEWED)) == (group, (Lease(TOKEN),))


def test_progress_is_shown_and_renews_nothing() -> None:
    group, event = group_in(Phase.RUNNING), report(K.PROGRESS, fraction=0.5)
    assert moved(group, event) == (group, (Progress(event.report, WORKER),))


# -- ending


def test_success_frees_tells_and_leaves() -> None:
    event = report(K.SUCCEEDED, result=Raw(b"1"))
    group, effects = moved(group_in(Phase.RUNNING, parked=3), event)
    assert group == Group(None, 3)
    assert effects == (
        Free(), Emit(TaskState.SUCCEEDED, SEQUENCE, 1, TOKEN, report=event.report, worker=WORKER), Leave(SEQUENCE),
    )  # fmt: skip


def test_group_state_comes_with_succeeded() -> None:
    event = report(K.SUCCEEDED, state=Raw(b"{}"), state_set=True)
    _, effects = moved(group_in(Phase.RUNNING), event)
    assert SetState(event.report) in effects


@pytest.mark.parametrize("kind", [kind for kind in K if kind is not K.SUCCEEDED])
@pytest.mark.parametrize("phase", [Phase.DISPATCHED, Phase.RUNNING])
def test_group_state_comes_with_nothing_but_succeeded(kind: ReportKind, phase: Phase) -> None:
    decision = decide(group_in(phase), report(kind, state=Raw(b"{}"), state_set=True), NOW, POLICY)
    if not isinstance(decision, Ignored):
        assert not any(isinstance(effect, SetState) for effect in decision[1])


def test_a_stale_token_never_changes_group_state() -> None:
    stale = report(K.SUCCEEDED, token=TOKEN - 1, state=Raw(b"{}"), state_set=True)
    assert all(decide(group_in(phase), stale, NOW, POLICY) is Ignored.STALE_TOKEN for phase in Phase)


def test_a_failure_waits_its_backoff_and_uses_an_attempt() -> None:
    error = ErrorInfo("ValueError", "no")
    group, effects = moved(group_in(Phase.RUNNING), report(K.FAILED, error=error, reason=Reason.TIMEOUT))
    head = head_of(group)
    assert (head.phase, head.attempt, head.why, head.last_error) == (W, 2, Reason.TIMEOUT, error)
    assert head.delay_ms is not None and 0 <= head.delay_ms <= 1000
    assert head.due_wall_ms == NOW.wall_ms + head.delay_ms
    free, emit, wait = effects
    assert (free, wait) == (Free(), Wait(SEQUENCE, head.due_wall_ms, head.delay_ms))
    assert isinstance(emit, Emit)
    assert (emit.state, emit.attempt, emit.token, emit.reason) == (TaskState.RETRYING, 2, TOKEN, Reason.TIMEOUT)
    assert (emit.due_wall_ms, emit.error) == (head.due_wall_ms, error)


@pytest.mark.parametrize("attempt", [1, 2, 5])
def test_the_backoff_is_that_of_the_attempt_that_failed(attempt: int) -> None:
    declared = HandlerPolicy(backoff_base_s=2.0)
    group = group_in(Phase.RUNNING, attempt=attempt, max_attempts=9, policy=declared)
    failed, _ = moved(group, report(K.FAILED))
    assert head_of(failed).delay_ms == retry.delay_ms(attempt, declared, POLICY, TOKEN)


@pytest.mark.parametrize(("asked_s", "delay_ms"), [(0.0, 0), (2.5, 2500), (-1.0, 0), (1e30, 366 * 24 * 3_600_000)])
def test_retry_after_replaces_the_backoff(asked_s: float, delay_ms: int) -> None:
    group, _ = moved(group_in(Phase.RUNNING), report(K.FAILED, delay_s=asked_s))
    assert head_of(group).delay_ms == delay_ms


@pytest.mark.parametrize(
    ("task", "handler", "attempt", "lasts"),
    [
        (None, None, 2, True), (None, None, 3, False),
        (None, 1, 1, False), (None, 5, 4, True), (None, 5, 5, False),
        (2, 5, 1, True), (2, 5, 2, False), (9, 1, 8, True),
    ],
)  # fmt: skip
def test_attempts_of_the_task_go_before_those_of_its_handler_before_the_default(
    task: int | None, handler: int | None, attempt: int, lasts: bool
) -> None:
    declared = None if handler is None else HandlerPolicy(max_attempts=handler)
    group = group_in(Phase.RUNNING, attempt=attempt, max_attempts=task, policy=declared)
    failed, effects = moved(group, report(K.FAILED, error=ErrorInfo("E", "no")))
    lost, lost_effects = moved(group, LeaseExpired(TOKEN))
    if lasts:
        assert (failed.phase, lost.phase) == (W, R)
        return
    assert (failed.phase, lost.phase) == (LEFT, LEFT)
    assert [e.reason for e in effects if isinstance(e, Bury)] == [Reason.ATTEMPTS_SPENT]
    assert [e.reason for e in lost_effects if isinstance(e, Bury)] == [Reason.WORKER_LOST]


def test_what_is_not_retryable_is_buried_at_the_first_failure() -> None:
    group, effects = moved(group_in(Phase.RUNNING), report(K.FAILED, retryable=False))
    assert group.head is None
    assert [e.reason for e in effects if isinstance(e, Bury)] == [Reason.NOT_RETRYABLE]


def test_a_dead_letter_is_told_buried_and_left_in_this_order() -> None:
    error = ErrorInfo("Reject", "never")
    group = group_in(Phase.RUNNING, attempt=2)
    event = report(K.REJECTED, error=error, reason=Reason.INVALID_PAYLOAD)
    new, effects = moved(group, event)
    assert new == Group(None, 2)
    head = head_of(group)
    assert effects == (
        Free(),
        Bury(head, Reason.INVALID_PAYLOAD, error),
        Emit(
            TaskState.DEAD_LETTERED, SEQUENCE, 2, TOKEN, Reason.INVALID_PAYLOAD,
            report=event.report, worker=WORKER, error=error,
        ),
        Leave(SEQUENCE),
    )  # fmt: skip


def test_a_rejection_without_a_reason_gets_one() -> None:
    _, effects = moved(group_in(Phase.RUNNING), report(K.REJECTED))
    assert [e.reason for e in effects if isinstance(e, Bury)] == [Reason.HANDLER_REJECTED]


@pytest.mark.parametrize(("asked_s", "delay_ms"), [(None, 0), (0.25, 250), (-3.0, 0)])
def test_snoozed_waits_and_uses_no_attempt(asked_s: float | None, delay_ms: int) -> None:
    group, effects = moved(group_in(Phase.RUNNING, attempt=3), report(K.SNOOZED, delay_s=asked_s))
    head = head_of(group)
    assert (head.phase, head.attempt, head.why, head.delay_ms) == (W, 3, Reason.SNOOZED, delay_ms)
    assert emitted(effects) == [TaskState.RETRYING]


@pytest.mark.parametrize("phase", [Phase.DISPATCHED, Phase.RUNNING])
@pytest.mark.parametrize("reason", [None, Reason.TAKEN_BACK, Reason.NO_HANDLER])
def test_returned_may_run_at_once_and_uses_no_attempt(phase: Phase, reason: Reason | None) -> None:
    group, effects = moved(group_in(phase, attempt=3), report(K.RETURNED, reason=reason))
    head, why = head_of(group), reason or Reason.RETURNED
    assert (head.phase, head.attempt, head.why) == (R, 3, why)
    assert effects == (Free(), Emit(TaskState.PARKED, SEQUENCE, 3, TOKEN, why, worker=WORKER), MakeReady())


def test_abandoned_may_run_at_once_and_uses_no_attempt() -> None:
    event = report(K.ABANDONED)
    group, effects = moved(group_in(Phase.RUNNING, attempt=3), event)
    assert (head_of(group).phase, head_of(group).attempt, head_of(group).why) == (R, 3, Reason.ABANDONED)
    emit = Emit(TaskState.PARKED, SEQUENCE, 3, TOKEN, Reason.ABANDONED, report=event.report, worker=WORKER)
    assert effects == (Free(), emit, MakeReady())


def test_a_lost_worker_costs_an_attempt_and_nothing_waits() -> None:
    group, effects = moved(group_in(Phase.RUNNING), LeaseExpired(TOKEN))
    assert (head_of(group).phase, head_of(group).attempt, head_of(group).why) == (R, 2, Reason.WORKER_LOST)
    emit = Emit(TaskState.RETRYING, SEQUENCE, 2, TOKEN, Reason.WORKER_LOST, NOW.wall_ms, worker=WORKER)
    assert effects == (Free(), emit, MakeReady())


def test_lost_before_start_costs_no_attempt() -> None:
    group, effects = moved(group_in(Phase.DISPATCHED, attempt=2), LostBeforeStart(TOKEN))
    assert (head_of(group).phase, head_of(group).attempt, head_of(group).why) == (R, 2, Reason.LOST_BEFORE_START)
    assert effects == (Free(), Emit(TaskState.PARKED, SEQUENCE, 2, TOKEN, Reason.LOST_BEFORE_START), MakeReady())


# -- blocked

BLOCKING: list[tuple[Group, Event]] = [
    (IDLE, Accepted(50)),
    (Group(None, 3), Promoted(50)),
    (group_in(Phase.WAITING), Due(SEQUENCE)),
    (group_in(Phase.DISPATCHED), LostBeforeStart(TOKEN)),
    (group_in(Phase.DISPATCHED), report(K.RETURNED)),
    (group_in(Phase.RUNNING), LeaseExpired(TOKEN)),
    (group_in(Phase.RUNNING), report(K.ABANDONED)),
]


@pytest.mark.parametrize(("group", "event"), BLOCKING)
def test_a_blocked_group_never_enters_the_ready_set(group: Group, event: Event) -> None:
    free, free_effects = moved(group, event)
    blocked, effects = moved(replace(group, blocked=Reason.INTERNAL_ERROR), event)
    assert blocked == replace(free, blocked=Reason.INTERNAL_ERROR)
    assert effects == tuple(e for e in free_effects if e != MakeReady()) and MakeReady() in free_effects


@pytest.mark.parametrize("name", sorted(EVENTS.keys() - {"unblock asked"}))
def test_only_an_operator_unblocks(name: str) -> None:
    for phase, outcome in zip(Phase, OUTCOMES[name], strict=True):
        if outcome is ILLEGAL:
            continue
        decision = decide(replace(group_in(phase), blocked=Reason.INTERNAL_ERROR), EVENTS[name], NOW, POLICY)
        assert isinstance(decision, Ignored) or decision[0].blocked is Reason.INTERNAL_ERROR


def test_deciding_changes_nothing_but_its_answer() -> None:
    for phase in Phase:
        group = group_in(phase)
        for name, event in EVENTS.items():
            if OUTCOMES[name][list(Phase).index(phase)] is ILLEGAL:
                continue
            assert decide(group, event, NOW, POLICY) == decide(group, event, NOW, POLICY)
            assert group == group_in(phase)


@pytest.mark.parametrize("begun", [K.SNOOZED, K.ABANDONED])
def test_what_a_handler_has_begun_keeps_its_place_also_when_it_has_come_back_unrun_since(begun: ReportKind) -> None:
    running = group_in(Phase.RUNNING)
    group, _ = moved(running, report(begun, delay_s=0.001) if begun is K.SNOOZED else report(begun))
    if head_of(group).phase is Phase.WAITING:
        group, _ = moved(group, Due(SEQUENCE))
    group, _ = moved(group, Granted(TOKEN + 1, 2))
    group, _ = moved(group, LostBeforeStart(TOKEN + 1))
    assert head_of(group).attempt == 1
    after, _ = moved(group, Redriven(BY, 5, True))
    assert after.head == group.head
    fresh, _ = moved(group_in(Phase.READY), Redriven(BY, 5, True))
    assert fresh.head is None  # one that never began makes room
