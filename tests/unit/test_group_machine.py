"""The group machine against a short model of what a group may do, under any order of events."""

from collections import deque

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from msgspec import Raw

from streams.clock import Now
from streams.group import (
    IDLE,
    Accepted,
    Behind,
    Bury,
    CutAsked,
    Due,
    Effect,
    Emit,
    Event,
    Free,
    GoOn,
    Granted,
    Group,
    Ignored,
    LeaseExpired,
    Leave,
    LostBeforeStart,
    MakeReady,
    Phase,
    Promoted,
    Reported,
    Send,
    SetState,
    TakeBack,
    Wait,
    decide,
)
from streams.protocol import Report, ReportKind, TaskState
from streams.retry import Policy

POLICY = Policy(max_attempts=3)
TERMINAL = {TaskState.SUCCEEDED, TaskState.DEAD_LETTERED}
OUT = (Phase.DISPATCHED, Phase.RUNNING)
K = ReportKind


class Model:
    """What must hold of one group, knowing nothing of phases: a queue, whose front alone is ever out."""

    def __init__(self) -> None:
        self.queue: deque[int] = deque()  # sequences, unfinished
        self.ended: dict[int, TaskState] = {}
        self.out_token = self.last_token = 0

    def see(self, effect: Effect) -> None:
        match effect:
            case Send(token):
                assert not self.out_token, "two tasks out"
                assert token > self.last_token, "tokens only rise"
                self.out_token = self.last_token = token
            case Free():
                self.out_token = 0
            case GoOn(token=token):
                assert not self.out_token, "two tasks out"
                assert token == self.last_token + 1, "the next one of the run"
                self.out_token = self.last_token = token
            case Emit(state, sequence) if state in TERMINAL:
                assert sequence == self.queue.popleft(), "out of order"
                assert sequence not in self.ended
                if state is TaskState.SUCCEEDED:
                    self.out_token = 0
                assert not self.out_token
                self.ended[sequence] = state


class GroupMachine(RuleBasedStateMachine):
    """Plays the engine for one group: feeds events, promotes what is parked, keeps the ready set."""

    def __init__(self) -> None:
        super().__init__()
        self.group, self.model = IDLE, Model()
        self.now = Now(10**12, 0)
        self.number = 0
        self.parked: deque[int] = deque()
        self.ready = False
        self.seen: list[Event] = []
        self.accepted: list[int] = []
        self.states: list[bytes] = []
        self.expected_states: list[bytes] = []

    def next_number(self) -> int:
        self.number += 1
        return self.number

    def feed(self, event: Event) -> None:
        decision = decide(self.group, event, self.now, POLICY)
        assert not isinstance(decision, Ignored), (decision, event, self.group)
        self.group, effects = decision
        for effect in effects:
            self.model.see(effect)
            match effect:
                case MakeReady():
                    assert not self.ready, "entered the ready set twice"
                    self.ready = True
                case SetState(report):
                    self.states.append(bytes(report.state or b""))
                case Wait(sequence):
                    assert sequence == self.head_sequence
                case GoOn():
                    assert self.parked.popleft() == self.head_sequence
                case Leave(sequence):
                    assert isinstance(effects[-1], Leave) and self.group.head is None
                    if self.parked:
                        self.feed(Promoted(self.parked.popleft()))
        if not isinstance(event, Accepted | Promoted | Granted):
            self.seen.append(event)

    @property
    def head_sequence(self) -> int:
        assert self.group.head is not None
        return self.group.head.sequence

    @property
    def token(self) -> int:
        assert self.group.head is not None
        return self.group.head.token

    def said(self, kind: ReportKind, claim: str = "a", **fields: object) -> Reported:
        return Reported(Report(kind, self.head_sequence, self.token, **fields), claim, "w")  # type: ignore[arg-type]

    @rule(wait_ms=st.integers(-5, 5), attempts=st.none() | st.integers(1, 4))
    def accept(self, wait_ms: int, attempts: int | None) -> None:
        sequence, busy = self.next_number(), self.group.head is not None
        self.accepted.append(sequence)
        self.model.queue.append(sequence)
        if busy:
            self.parked.append(sequence)
        self.feed(Accepted(sequence, self.now.wall_ms + wait_ms, attempts))

    @precondition(lambda self: self.group.phase is Phase.WAITING)
    @rule()
    def due(self) -> None:
        self.feed(Due(self.head_sequence))

    @precondition(lambda self: self.ready)
    @rule(behind=st.integers(0, 3))
    def grant(self, behind: int = 0) -> None:
        self.ready = False
        run = tuple(Behind(sequence) for sequence in list(self.parked)[:behind])
        token = self.next_number()
        self.number += len(run)
        self.feed(Granted(token, 0, run))

    @precondition(lambda self: self.group.run and self.group.phase is Phase.RUNNING)
    @rule(place=st.integers(0, 2))
    def returned_behind(self, place: int) -> None:
        place %= len(self.group.run)
        self.feed(Reported(Report(K.RETURNED, self.group.run[place].sequence, self.token + 1 + place), "a", "w"))
        assert len(self.group.run) == place

    @precondition(lambda self: self.group.run)
    @rule()
    def cut(self) -> None:
        assert decide(self.group, CutAsked(), self.now, POLICY) == (self.group, (TakeBack(self.token),))

    @precondition(lambda self: self.group.phase is Phase.DISPATCHED)
    @rule(kind=st.sampled_from([K.STARTED, K.STARTED, K.STARTED, K.RETURNED]))
    def claimed(self, kind: ReportKind) -> None:
        self.feed(self.said(kind))

    @precondition(lambda self: self.group.phase is Phase.RUNNING)
    @rule(kind=st.sampled_from([k for k in K if k is not K.STARTED]), delay_s=st.none() | st.floats(0, 3))
    def reported(self, kind: ReportKind, delay_s: float | None) -> None:
        state = str(self.token).encode()
        if kind is K.SUCCEEDED:
            self.expected_states.append(state)
        self.feed(self.said(kind, delay_s=delay_s, state=Raw(state), state_set=True))

    @precondition(lambda self: self.group.phase in OUT)
    @rule()
    def lost(self) -> None:
        running = self.group.phase is Phase.RUNNING
        self.feed(LeaseExpired(self.token) if running else LostBeforeStart(self.token))

    @rule(kind=st.sampled_from(list(K)), age=st.integers(1, 3), claim=st.sampled_from("ab"))
    def stale_reports_change_nothing(self, kind: ReportKind, age: int, claim: str) -> None:
        token = self.group.head.token if self.group.phase in OUT and self.group.head else self.number + 5
        event = Reported(Report(kind, 1, token - age, state=Raw(b"0"), state_set=True), claim, "w")
        assert decide(self.group, event, self.now, POLICY) is Ignored.STALE_TOKEN

    @precondition(lambda self: self.group.phase is Phase.RUNNING)
    @rule(kind=st.sampled_from(list(K)))
    def reports_of_another_claim_change_nothing(self, kind: ReportKind) -> None:
        assert decide(self.group, self.said(kind, claim="b"), self.now, POLICY) is Ignored.OTHER_CLAIM

    @rule()
    def repeated_events_change_nothing(self) -> None:
        """Everything seen so far comes again, from the oldest on, between any two events."""
        for event in self.seen:
            match event:
                case Due(sequence) if self.group.phase is Phase.WAITING and sequence == self.head_sequence:
                    continue  # not old: the engine lets only the latest timer of a group through
                case Reported(Report(kind=K.RENEWED | K.PROGRESS, token=token)) if token == self.live_token:
                    group, effects = decide(self.group, event, self.now, POLICY)  # type: ignore[misc]
                    assert group is self.group and len(effects) == 1
                    continue
            assert isinstance(decide(self.group, event, self.now, POLICY), Ignored), event

    @property
    def live_token(self) -> int:
        return self.token if self.group.phase is Phase.RUNNING else -1

    @invariant()
    def agrees_with_the_model(self) -> None:
        group, model = self.group, self.model
        queue = [] if group.head is None else [group.head.sequence, *self.parked]
        assert queue == list(model.queue)
        assert group.parked == len(self.parked)
        assert [behind.sequence for behind in group.run] == list(self.parked)[: len(group.run)]
        assert not group.run or group.phase in OUT
        assert (group.phase in OUT) == bool(model.out_token)
        assert self.ready == (group.phase is Phase.READY)
        assert sorted([*model.ended, *model.queue]) == self.accepted, "each is unfinished, or ended once"
        assert list(model.ended) == self.accepted[: len(model.ended)], "in order"
        assert self.states == self.expected_states, "group state only with succeeded"

    def teardown(self) -> None:
        """From wherever it stopped, everything accepted can still succeed."""
        while self.group.head is not None:
            match self.group.phase:
                case Phase.WAITING:
                    self.due()
                case Phase.READY:
                    self.grant()
                case Phase.DISPATCHED:
                    self.feed(self.said(K.STARTED))
                case _:
                    self.feed(self.said(K.SUCCEEDED))
        assert self.group == IDLE and list(self.model.ended) == self.accepted


GroupMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestGroupMachine = GroupMachine.TestCase


def test_a_bury_names_the_head_that_left() -> None:
    """The one thing that the model above does not look at."""
    group = IDLE
    now = Now(0, 0)
    for event in (Accepted(1, max_attempts=1), Granted(2, 0), Reported(Report(K.STARTED, 1, 2), "a", "w")):
        decision = decide(group, event, now, POLICY)
        assert not isinstance(decision, Ignored)
        group = decision[0]
    decision = decide(group, Reported(Report(K.FAILED, 1, 2), "a", "w"), now, POLICY)
    assert not isinstance(decision, Ignored)
    (bury,) = (effect for effect in decision[1] if isinstance(effect, Bury))
    assert bury.head == group.head and decision[0] == Group()
