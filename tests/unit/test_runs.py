"""Runs: several tasks of a group in one dispatch; what the machine makes of them, how many go out, what cuts them."""

from typing import Any

import pytest
from msgspec import Raw
from msgspec.structs import replace

from streams import limits, protocol, questions, runs
from streams.breakers import BreakerSettings
from streams.clock import Now
from streams.group import (
    Behind,
    By,
    CutAsked,
    Effect,
    Emit,
    Event,
    Free,
    GoOn,
    Granted,
    Group,
    Head,
    Ignored,
    Lease,
    LeaseExpired,
    LostBeforeStart,
    Phase,
    Reported,
    Send,
    SetState,
    TakeBack,
    Withdrawn,
    decide,
)
from streams.protocol import (
    CommandKind,
    Dispatch,
    EventKind,
    FailurePolicy,
    Outcome,
    Reason,
    Refusal,
    Report,
    ReportKind,
    TaskState,
    utc,
)
from streams.retry import Policy
from tests.unit.one_group import answer, answers, ask, publish, ran, states
from tests.unit.world import Execution, World, group_of

NOW, POLICY = Now(1_000_000, 5_000), Policy(max_attempts=3)
K, R = CommandKind, ReportKind
BY = By("c1", K.PAUSE_GROUP)
RUN = (Behind(11), Behind(12, 9, FailurePolicy.BLOCK))
DISPATCHED = Group(Head(10, Phase.DISPATCHED, token=40, dispatch_partition=2, run=RUN), 3)
RUNNING = Group(
    Head(10, Phase.RUNNING, token=40, dispatch_partition=2, claim_id="a", worker="w", run=RUN), 3
)  # fmt: skip


# -- the machine


def moved(group: Group, event: Event) -> tuple[Group, tuple[Effect, ...]]:
    decision = decide(group, event, NOW, POLICY)
    assert not isinstance(decision, Ignored), decision
    return decision


def said(kind: ReportKind, token: int = 40, claim: str = "a", **fields: Any) -> Reported:
    return Reported(Report(kind, 0, token, **fields), claim, "w")


def test_a_run_goes_out_with_its_head() -> None:
    group, effects = moved(Group(Head(10, Phase.READY), 3), Granted(40, 2, RUN))
    assert group == DISPATCHED
    assert effects == (Emit(TaskState.DISPATCHED, 10, 1, 40), Send(40, 2))


def test_the_next_of_the_run_takes_the_place_of_a_head_that_succeeds() -> None:
    event = said(R.SUCCEEDED, state=Raw(b"1"), state_set=True)
    group, effects = moved(RUNNING, event)
    following = Head(11, Phase.DISPATCHED, token=41, dispatch_partition=2, claim_id="a", worker="w", run=RUN[1:])
    assert group == Group(following, 2)
    assert effects == (
        Emit(TaskState.SUCCEEDED, 10, 1, 40, report=event.report, worker="w"), SetState(event.report),
        GoOn(10, 41, 2), Emit(TaskState.DISPATCHED, 11, 1, 41),
    )  # fmt: skip
    event = said(R.STARTED, 41)
    group, effects = moved(group, event)
    assert group == Group(replace(following, phase=Phase.RUNNING), 2)
    assert effects == (Emit(TaskState.RUNNING, 11, 1, 41, report=event.report, worker="w"), Lease(41))


def test_what_each_task_asks_for_goes_with_it_and_the_last_one_leaves() -> None:
    group, _ = moved(moved(RUNNING, said(R.SUCCEEDED))[0], said(R.STARTED, 41))
    group, _ = moved(moved(group, said(R.SUCCEEDED, 41))[0], said(R.STARTED, 42))
    assert group.head is not None
    assert (group.head.max_attempts, group.head.on_failure, group.run) == (9, FailurePolicy.BLOCK, ())
    group, effects = moved(group, said(R.SUCCEEDED, 42))
    assert group == Group(None, 1) and isinstance(effects[0], Free)


@pytest.mark.parametrize("kind", [R.FAILED, R.SNOOZED, R.RETURNED, R.ABANDONED, R.REJECTED])
def test_whatever_else_ends_the_head_ends_the_run(kind: ReportKind) -> None:
    group, effects = moved(RUNNING, said(kind))
    assert (group.run, group.parked) == ((), 3)
    assert Free() in effects and not any(isinstance(effect, GoOn) for effect in effects)
    later = group if group.head is not None else Group(Head(11, Phase.READY), 2)
    for token in (41, 42):
        assert decide(later, said(R.RETURNED, token), NOW, POLICY) is Ignored.STALE_TOKEN


@pytest.mark.parametrize(
    ("group", "event"),
    [(RUNNING, LeaseExpired(40)), (DISPATCHED, LostBeforeStart(40)), (DISPATCHED, said(R.RETURNED)),
     (DISPATCHED, Withdrawn(40))],
)  # fmt: skip
def test_who_is_lost_or_comes_back_takes_the_run_along(group: Group, event: Event) -> None:
    after, _ = moved(group, event)
    assert (after.run, after.parked) == ((), 3)


def test_a_spent_head_that_blocks_its_group_keeps_no_run() -> None:
    group = replace(RUNNING, head=replace(RUNNING.head, on_failure=FailurePolicy.BLOCK, max_attempts=1))
    after, _ = moved(group, said(R.FAILED))
    assert (after.blocked, after.run, after.parked) == (Reason.ATTEMPTS_SPENT, (), 3)


@pytest.mark.parametrize(("token", "left"), [(41, ()), (42, RUN[:1])])
def test_what_comes_back_behind_the_head_cuts_the_run(token: int, left: tuple[Behind, ...]) -> None:
    group, effects = moved(RUNNING, said(R.RETURNED, token))
    assert (group, effects) == (replace(RUNNING, head=replace(RUNNING.head, run=left)), ())


@pytest.mark.parametrize(
    "event",
    [said(R.RETURNED, 43), said(R.RETURNED, 39), said(R.RETURNED, 41, "b"), said(R.STARTED, 41), said(R.SUCCEEDED, 41)],
)
def test_nothing_else_is_believed_of_what_is_behind(event: Event) -> None:
    assert decide(RUNNING, event, NOW, POLICY) is Ignored.STALE_TOKEN
    assert isinstance(decide(DISPATCHED, event, NOW, POLICY), Ignored)


def test_the_next_of_a_run_is_begun_by_the_claim_of_the_first() -> None:
    group, _ = moved(RUNNING, said(R.SUCCEEDED))
    for kind in (R.STARTED, R.RETURNED):
        assert decide(group, said(kind, 41, "b"), NOW, POLICY) is Ignored.OTHER_CLAIM


def test_asking_for_the_end_of_a_run_asks_for_its_dispatch() -> None:
    for group in (DISPATCHED, RUNNING):
        assert moved(group, CutAsked()) == (group, (TakeBack(40),))


# -- how many


@pytest.mark.parametrize(
    ("run_ms", "work_ms", "tasks"),
    [(None, 50, 1), (0.0, 0, 1), (0.0, 50, 250), (1.0, 50, 41), (10.0, 50, 4), (60.0, 50, 1), (0.0, 10_000, 250)],
)
def test_as_many_as_fit_into_the_time(run_ms: float | None, work_ms: int, tasks: int) -> None:
    assert runs.length(run_ms, work_ms) == tasks <= limits.RUN_TASKS_MAX


# -- in a world of logs


def new_world(more: dict[str, Any] = {}, *, run_ms: int = 50, known: bool = True) -> World:  # noqa: B006
    """One scheduler and one worker.  `known`: a task has run already, in no time."""
    world = World(policy=Policy(max_attempts=2, backoff_base_s=0.2, jitter=False), run_ms=run_ms)
    world.start("s1", **more)
    world.hire("w1")
    if known:
        world.publish("before")
        world.work_off()
    return world


def dispatches(world: World, group: str = "g") -> list[Dispatch]:
    found = [protocol.decode_dispatch(value or b"") for _, value, _ in world.records("dispatches")]
    return [dispatch for dispatch in found if dispatch.group == group]


def sizes(world: World) -> list[int]:
    return [len(dispatch.tasks) for dispatch in dispatches(world)]


def begin(world: World) -> Execution:
    """The next dispatch, claimed and begun."""
    execution = world.claim(world.workers["w1"])
    assert execution is not None and world.begin(execution)
    world.step()
    return execution


def test_a_backlog_goes_out_at_once_and_in_order() -> None:
    world = new_world()
    publish(world, "a", "b", "c", "d")
    (dispatch,) = dispatches(world)
    assert [task.task_id for task in dispatch.tasks] == ["a", "b", "c", "d"]
    first = dispatch.tasks[0].token
    assert [task.token for task in dispatch.tasks] == [first, first + 1, first + 2, first + 3]
    execution: Execution | None = begin(world)
    while execution is not None:
        world.check_memory()
        execution = world.end(execution)
        world.step()
    assert ran(world)[1:] == ["a", "b", "c", "d"]
    assert all(states(world, task) == ["parked", "dispatched", "running", "succeeded"] for task in "abcd")
    assert not world.engines["s1"].running and not world.rows_of_group("g")


def test_one_slot_is_taken_for_the_whole_run() -> None:
    world, engine = new_world(), World
    engine = world.engines["s1"]
    publish(world, "a", "b", "c")
    assert sum(engine.unclaimed.values()) == 1
    execution = begin(world)
    for _ in range(2):
        assert (dict(engine.running), dict(engine.out)) == ({"w1": 1}, {"t": 1})
        following = world.end(execution)
        world.step()
        assert following is not None
        execution = following
    world.end(execution)
    world.step()
    assert not engine.running and not engine.out


@pytest.mark.parametrize(("run_ms", "known", "more"), [
    (0, True, {}), (50, False, {}), (50, True, {"breakers": BreakerSettings(0.5, 10, 1.0)}),
])  # fmt: skip
def test_one_by_one_when_off_when_nobody_knows_how_long_and_with_breakers(
    run_ms: int, known: bool, more: dict[str, Any]
) -> None:
    world = new_world(more, run_ms=run_ms, known=known)
    publish(world, "a", "b")
    assert sizes(world) == [1]


def test_slow_handlers_get_one_task_at_a_time() -> None:
    world = new_world(known=False)
    world.publish("before")
    world.step()
    execution = begin(world)
    ended = replace(world.moment(), mono_ns=world.moment().mono_ns + 900_000_000)
    world.end(execution, started=world.moment(), ended=ended)
    world.step()
    publish(world, "a", "b")
    assert sizes(world) == [1]


def test_what_may_not_start_yet_or_is_of_another_type_ends_a_run() -> None:
    world = new_world()
    world.workers["w1"].types = ("t", "u")
    world.publish("g", id="a")
    world.publish("g", id="b")
    world.publish("g", "u", id="c")
    world.publish("g", id="d")
    world.publish("g", id="e", not_before=utc(world.now.wall_ms + 60_000).isoformat())
    world.step()
    world.work_off()
    assert sizes(world) == [2, 1, 1]


def test_a_run_holds_so_many_bytes() -> None:
    world = new_world()
    big = "x" * (limits.RUN_BYTES_MAX // 3)
    publish(world, "a", "b", "c", "d", payload=big)
    assert sizes(world) == [2]


def test_a_failure_in_the_middle_returns_the_rest_unstarted_and_runs_again_alone() -> None:
    world = new_world()
    publish(world, "a", "b", "c", "d")
    following = world.end(begin(world))
    assert following is not None
    world.end(following, R.FAILED)
    world.step()
    assert group_of(world, "g").parked == 2 and not group_of(world, "g").run
    world.check_memory()
    world.pass_time(500)
    world.work_off()
    assert ran(world)[1:] == ["a", "b", "b", "c", "d"]
    assert sizes(world) == [4, 1, 2]
    assert states(world, "c") == ["parked", "dispatched", "running", "succeeded"]
    assert not [e for e in world.events() if e.kind is EventKind.STALE_REPORT]


def test_a_drained_worker_gives_back_what_it_has_not_begun() -> None:
    world = new_world()
    publish(world, "a", "b", "c")
    world.end(begin(world), alone=True)
    world.step()
    assert states(world, "b") == ["parked", "dispatched", "parked", "dispatched"]
    world.work_off()
    assert ran(world)[1:] == ["a", "b", "c"]


def test_a_lost_worker_costs_its_head_an_attempt_and_the_rest_of_the_run_goes_one_by_one() -> None:
    """Which of them has ended it, nobody can know: one that does so again must be found out by its own start."""
    world = new_world()
    publish(world, "a", "b", "c", "d")
    following = world.end(begin(world))
    assert following is not None
    world.vanish("w1")
    world.hire("w2")
    world.step()
    for _ in range(3):
        world.pass_time(world.lease_ms)
        world.step()
        world.answer_all()
    world.step()
    publish(world, "e", "f")
    world.work_off()
    assert ran(world)[1:] == ["a", "b", "b", "c", "d", "e", "f"]
    assert sizes(world) == [4, 1, 1, 1, 2]
    lost = [e for e in world.events() if e.reason == Reason.WORKER_LOST]
    assert [(e.task_id, e.attempt) for e in lost] == [("b", 2)]


def test_what_its_worker_neither_begins_nor_gives_back_is_free_after_a_lease() -> None:
    world = new_world()
    publish(world, "a", "b")
    execution = begin(world)
    execution.rest = ()  # as if it had forgotten it
    world.end(execution)
    world.step()
    assert group_of(world, "g").phase is Phase.DISPATCHED
    world.check_memory()
    for _ in range(3):
        world.pass_time(world.lease_ms)
        world.step()
        world.answer_all()
    world.work_off()
    assert states(world, "b")[:3] == ["parked", "dispatched", "parked"]
    assert ran(world)[1:] == ["a", "b"]


@pytest.mark.parametrize("ended", [0, 1, 2])
def test_a_new_owner_goes_on_with_a_run_that_is_out(ended: int) -> None:
    world = new_world()
    publish(world, "a", "b", "c")
    execution: Execution | None = begin(world)
    for _ in range(ended):
        execution = world.end(execution) if execution is not None else None
    world.crash("s1")
    world.start("s1")
    world.step()
    world.check_memory()
    world.work_off()
    assert ran(world)[1:] == ["a", "b", "c"] and sizes(world) == [3]


# -- commands wait until a run is cut


def test_a_pause_is_answered_when_what_has_not_begun_is_back() -> None:
    world = new_world()
    publish(world, "a", "b", "c")
    execution = begin(world)
    command = ask(world, K.PAUSE_GROUP)
    assert answers(world, command) == [] and not group_of(world, "g").pause
    following = world.end(execution)  # it had gone on before it was asked
    assert following is not None
    world.cut_runs()
    world.step()
    assert answer(world, command) == (Outcome.DONE, None)
    world.end(following)
    world.work_off()
    assert ran(world)[1:] == ["a", "b"]
    ask(world, K.RESUME_GROUP)
    world.work_off()
    assert ran(world)[1:] == ["a", "b", "c"]


def test_a_parked_task_of_a_run_is_cancelled_once_it_is_back() -> None:
    world = new_world()
    publish(world, "a", "b", "c")
    begin(world)
    command = ask(world, K.CANCEL_TASK, task_id="b")
    assert states(world, "b") == ["parked"]
    world.cut_runs()
    world.step()
    assert (answer(world, command), states(world, "b")) == ((Outcome.DONE, None), ["parked", "cancelled"])
    world.work_off()
    assert ran(world)[1:] == ["a", "c"]


def test_a_cancel_of_what_has_begun_meanwhile_stops_it() -> None:
    world = new_world()
    publish(world, "a", "b", "c")
    execution = begin(world)
    command = ask(world, K.CANCEL_TASK, task_id="b")
    following = world.end(execution)
    assert following is not None
    world.cut_runs()
    world.step()
    assert answer(world, command) == (Outcome.ACCEPTED, None)
    world.end(following, R.ABANDONED)
    world.work_off()
    assert (ran(world)[1:], states(world, "b")[-2:]) == (["a", "b", "c"], ["cancelling", "cancelled"])


def test_a_backlog_is_cancelled_once_the_run_is_cut() -> None:
    world = new_world()
    publish(world, "a", "b", "c", "d")
    execution = begin(world)
    command = ask(world, K.CANCEL_GROUP)
    world.cut_runs()
    world.step()
    assert [e.count for e in answers(world, command)] == [3]
    world.end(execution)
    world.work_off()
    assert ran(world)[1:] == ["a"]


def test_a_redrive_to_the_head_comes_right_after_what_runs() -> None:
    world = new_world()
    publish(world, "dead", max_attempts=1)
    world.end(begin(world), R.FAILED)
    world.step()
    publish(world, "a", "b", "c")
    execution = begin(world)
    command = ask(world, K.REDRIVE, task_id="dead", position="head")
    assert states(world, "dead")[-1] == "dead_lettered"
    world.cut_runs()
    world.step()
    assert answer(world, command) == (Outcome.DONE, None)
    world.end(execution)
    world.work_off()
    assert ran(world)[1:] == ["dead", "a", "dead", "b", "c"]


def test_commands_to_a_group_keep_their_order_and_are_taken_once() -> None:
    world = new_world()
    publish(world, "a", "b", "c")
    execution = begin(world)
    first, second = ask(world, K.CANCEL_TASK, task_id="c"), ask(world, K.PAUSE_GROUP)
    ask(world, K.PAUSE_GROUP, id=second)
    assert [e.reason for e in answers(world, second)] == [Refusal.REPEATED]
    world.cut_runs()
    world.step()
    assert answer(world, first) == (Outcome.DONE, None)
    assert [e.outcome for e in answers(world, second)] == [Outcome.REFUSED, Outcome.DONE]
    world.end(execution)
    world.work_off()
    assert ran(world)[1:] == ["a"]
    world.check_memory()


def test_so_many_commands_may_wait() -> None:
    world = new_world()
    publish(world, "a", "b")
    begin(world)
    waiting = [ask(world, K.RETRY_NOW, id=f"n{n}") for n in range(limits.ASKED_MAX)]
    assert answer(world, ask(world, K.PAUSE_GROUP)) == (Outcome.REFUSED, Refusal.IN_FLIGHT)
    world.cut_runs()
    world.step()
    assert {answer(world, command) for command in waiting} == {(Outcome.REFUSED, Refusal.IN_FLIGHT)}


def test_a_new_owner_has_the_commands_that_wait() -> None:
    world = new_world()
    publish(world, "a", "b", "c")
    execution = begin(world)
    world.step("s1", 1000)
    command = ask(world, K.PAUSE_GROUP)
    world.crash("s1")
    world.start("s1")
    world.check_memory()
    asked = len(list(world.records("control")))
    world.step()
    assert len(list(world.records("control"))) == asked + 1, "it asks again"
    world.cut_runs()
    world.step()
    assert answer(world, command) == (Outcome.DONE, None)
    world.end(execution)
    world.work_off()
    assert ran(world)[1:] == ["a"]


def test_a_run_that_nobody_owns_is_withdrawn_for_a_command() -> None:
    world = new_world()
    publish(world, "a", "b", "c")
    worker = world.vanish("w1")
    command = ask(world, K.CANCEL_TASK, task_id="b")
    for _ in range(8):
        world.pass_time(1_000)
        world.step()
        world.answer_all()
    assert answer(world, command) == (Outcome.DONE, None)
    assert group_of(world, "g").phase is Phase.DISPATCHED
    world.hire("w2", worker.partitions)
    world.work_off()
    assert ran(world)[1:] == ["a", "c"]


def test_a_lost_worker_lets_the_commands_through_before_anything_starts() -> None:
    world = new_world()
    publish(world, "a", "b")
    begin(world)
    command = ask(world, K.PAUSE_GROUP)
    world.vanish("w1")
    world.hire("w2")
    for _ in range(3):
        world.pass_time(world.lease_ms)
        world.step()
        world.answer_all()
    world.work_off()
    assert answer(world, command) == (Outcome.DONE, None)
    assert ran(world)[1:] == ["a"]


def test_a_command_that_raises_is_set_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that waits is taken in outside of its record; it must not stop its partition again and again."""
    from streams import commands
    from streams.engine import RecordFailed

    def fail(*_: Any) -> None:
        raise ValueError("no")

    world = new_world()
    publish(world, "a", "b")
    begin(world)
    ask(world, K.PAUSE_GROUP)
    world.cut_runs()
    monkeypatch.setattr(commands, "_carry_out", fail)
    with pytest.raises(RecordFailed) as failed:
        world.step()
    world.crash("s1")
    world.start("s1")
    world.engines["s1"].quarantined.add(failed.value.place)
    world.step()
    assert group_of(world, "g").blocked is Reason.INTERNAL_ERROR
    world.check_memory()


def test_each_task_of_a_run_has_one_reason() -> None:
    world = new_world()
    publish(world, "a", "b", "c")
    engine = world.engines["s1"]
    begin(world)
    assert questions.explain(engine, "g")["blocker"] == "running"
    for place, task in enumerate("bc", 1):
        found = questions.explain_task(engine, "g", task)
        assert (found["blocker"], found["position_in_group"]) == ("behind", place)
        assert "in the same dispatch" in found["text"]
