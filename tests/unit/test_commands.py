"""`streams.commands`: what an operator asks of one group, in a world of logs, schedulers and workers."""

from datetime import timedelta
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from streams import protocol, questions
from streams.flow import Flow
from streams.murmur2 import home_partition
from streams.protocol import CommandKind, EventKind, FailurePolicy, Outcome, Reason, Refusal
from tests.unit.one_group import K, R, answer, answers, ask, fail, new_world, publish, ran, run_next, states
from tests.unit.world import N, World, group_of


@pytest.fixture
def world() -> World:
    return new_world()


# -- pause and resume


def test_a_paused_group_starts_nothing_and_goes_on_in_order(world: World) -> None:
    publish(world, "a", "b")
    running = run_next(world)
    assert answer(world, ask(world, K.PAUSE_GROUP)) == (Outcome.DONE, None)
    world.end(running)
    world.step()
    assert world.claim(world.workers["w1"]) is None
    assert answer(world, ask(world, K.RESUME_GROUP)) == (Outcome.DONE, None)
    world.work_off()
    assert ran(world) == ["a", "b"]
    assert answer(world, ask(world, K.RESUME_GROUP)) == (Outcome.REFUSED, Refusal.NOT_PAUSED)


def test_a_pause_of_a_dispatched_head_is_answered_when_it_has_come_back(world: World) -> None:
    publish(world, "a")
    asked = ask(world, K.PAUSE_GROUP)
    world.step()
    assert answers(world, asked) == [], "its worker has not said yet whether it runs"
    assert world.claim(world.workers["w1"]) is not None
    world.step()
    assert answer(world, asked) == (Outcome.DONE, None) and ran(world) == []
    ask(world, K.RESUME_GROUP)
    world.work_off()
    assert states(world, "a").count("succeeded") == 1


def test_a_pause_is_answered_at_once_where_nobody_owns_the_dispatch(world: World) -> None:
    publish(world, "a")
    world.vanish("w1")
    asked = ask(world, K.PAUSE_GROUP)
    for _ in range(3):
        world.pass_time(50)
        world.step()
        world.answer_all()  # the claims are looked up: somebody who is gone may have taken it
    world.step()
    assert answer(world, asked) == (Outcome.DONE, None)
    world.hire("w1")
    world.claim(world.workers["w1"])
    world.step()
    assert ran(world) == []


@pytest.mark.parametrize("kind", [K.PAUSE_GROUP, K.SKIP_HEAD])
def test_what_a_silent_worker_has_claimed_may_begin_yet(world: World, kind: CommandKind) -> None:
    """Frozen between claim and start it looks dead, and begins within its lease when it wakes up."""
    publish(world, "a")
    claimed = world.claim(world.workers["w1"])
    assert claimed is not None
    frozen = world.workers.pop("w1")
    asked = ask(world, kind)
    for _ in range(5):
        world.pass_time(50)
        world.step()
        world.answer_all()
    assert answers(world, asked) == []
    world.workers["w1"] = frozen
    assert world.begin(claimed)
    world.step()
    assert answer(world, asked)[0] in (Outcome.DONE, Outcome.ACCEPTED)
    assert ran(world) == ["a"]


@pytest.mark.parametrize("kind", [K.PAUSE_GROUP, K.SKIP_HEAD])
def test_what_a_lost_worker_had_claimed_is_given_up_when_it_can_no_longer_begin(
    world: World, kind: CommandKind
) -> None:
    publish(world, "a")
    assert world.claim(world.workers["w1"]) is not None
    world.vanish("w1")
    asked = ask(world, kind)
    for _ in range(5):
        world.pass_time(50)
        world.step()
        world.answer_all()
    assert answers(world, asked) == []
    for _ in range(4):
        world.pass_time(world.lease_ms)
        world.step()
        world.answer_all()
    world.step()
    assert answer(world, asked) == (Outcome.DONE, None)


def test_a_pause_ends_at_its_deadline_also_with_a_new_owner(world: World) -> None:
    ask(world, K.PAUSE_GROUP, until=protocol.utc(world.now.wall_ms) + timedelta(minutes=10))
    publish(world, "a")
    world.crash("s1")
    world.start("s2")
    world.step("s2")
    assert world.claim(world.workers["w1"]) is None
    world.pass_time(600_000)
    world.step("s2")
    world.step("s2")
    assert world.claim(world.workers["w1"]) is not None


# -- cancel and skip


def test_a_parked_task_is_cancelled_at_once(world: World) -> None:
    publish(world, "a", "b", "c")
    assert answer(world, ask(world, K.CANCEL_TASK, task_id="b")) == (Outcome.DONE, None)
    assert answer(world, ask(world, K.CANCEL_TASK, task_id="b")) == (Outcome.REFUSED, Refusal.NO_SUCH_TASK)
    world.work_off()
    assert (ran(world), states(world, "b")) == (["a", "c"], ["parked", "cancelled"])


def test_a_waiting_retry_is_cancelled_at_once_and_releases_the_group(world: World) -> None:
    publish(world, "a", "b")
    world.end(run_next(world), R.FAILED)
    world.step()
    assert answer(world, ask(world, K.CANCEL_TASK, task_id="a", if_state="retrying")) == (Outcome.DONE, None)
    world.work_off()
    world.pass_time(5000)
    world.work_off()
    assert (ran(world), states(world, "a")[-1]) == (["a", "b"], "cancelled")


def test_a_running_task_is_cancelled_when_its_handler_has_ended(world: World) -> None:
    publish(world, "a", "b")
    execution = run_next(world)
    assert answer(world, ask(world, K.CANCEL_TASK, task_id="a")) == (Outcome.ACCEPTED, None)
    kinds = [protocol.decode_control(v or b"").kind for _, v, _ in world.records("control")]
    assert kinds == ["cancel"] and states(world, "a")[-1] == "cancelling"
    assert answer(world, ask(world, K.CANCEL_TASK, task_id="a")) == (Outcome.REFUSED, Refusal.STOPPING)
    assert world.claim(world.workers["w1"]) is None
    world.end(execution, R.ABANDONED)
    world.work_off()
    assert (states(world, "a")[-1], ran(world)) == ("cancelled", ["a", "b"])


def test_a_skip_meant_for_one_head_never_hits_the_next(world: World) -> None:
    publish(world, "a", "b")
    world.end(run_next(world))
    world.step()
    assert answer(world, ask(world, K.SKIP_HEAD, if_head="a")) == (Outcome.REFUSED, Refusal.OTHER_HEAD)
    skipped = ask(world, K.SKIP_HEAD, if_head="b")
    world.claim(world.workers["w1"])
    world.step()
    assert answer(world, skipped)[0] is Outcome.DONE and states(world, "b")[-1] == "skipped"


def test_a_backlog_is_cancelled_in_parts_that_later_tasks_do_not_join(world: World) -> None:
    publish(world, *(f"t{n}" for n in range(2500)))
    running = run_next(world)
    asked = ask(world, K.CANCEL_GROUP)
    publish(world, "late")
    world.end(running)
    for _ in range(4):
        world.step()
    (event,) = answers(world, asked)
    assert (event.outcome, event.count) == (Outcome.DONE, 2499)
    world.work_off()
    assert ran(world) == ["t0", "late"]


# -- failures


def test_block_holds_the_group_until_somebody_acts() -> None:
    world = new_world(on_failure=FailurePolicy.BLOCK)
    publish(world, "a", "b")
    fail(world, 2)
    assert group_of(world, "g").blocked is Reason.ATTEMPTS_SPENT and states(world, "a")[-1] == "retrying"
    assert world.claim(world.workers["w1"]) is None
    assert answer(world, ask(world, K.RETRY_NOW)) == (Outcome.DONE, None)
    fail(world)
    assert group_of(world, "g").blocked is Reason.ATTEMPTS_SPENT, "once more, and blocked again"
    ask(world, K.UNBLOCK)
    fail(world)
    assert group_of(world, "g").blocked is None, "all attempts anew"
    ask(world, K.RETRY_NOW)
    world.work_off()
    assert ran(world)[-1] == "b" and states(world, "a")[-1] == "succeeded"


def test_a_blocked_head_is_edited_and_goes_on() -> None:
    world = new_world(on_failure=FailurePolicy.BLOCK)
    publish(world, "a", payload={"n": 1970670598291982290, "to": "x"})
    fail(world, 2)
    asked = ask(world, K.EDIT_HEAD, payload=Raw(b'{"n":1970670598291982290,"to":"y"}'))
    (event,) = answers(world, asked)
    assert [(c.path, c.before, c.after) for c in event.changes] == [("/to", '"x"', '"y"')]
    assert bytes(run_next(world).task.payload) == b'{"n":1970670598291982290,"to":"y"}'


def test_cascade_takes_the_rest_along_and_says_so(world: World) -> None:
    publish(world, "a", "b", "c", on_failure="cascade")
    fail(world, 2)
    world.step()
    marks = [dict(headers) for _, _, headers in world.records("dead-letters")]
    assert [m["pstp.reason"] for m in marks] == [b"attempts_spent", b"cascade", b"cascade"]
    assert marks[1]["pstp.cascade-of"] == marks[0]["pstp.sequence"] and ran(world) == ["a", "a"]


# -- dead letters


def test_redriven_to_the_head_before_all_that_waits_in_their_own_order(world: World) -> None:
    publish(world, "a", "b", "c", max_attempts=1)
    fail(world, 2)
    running = run_next(world)
    publish(world, "d")
    for task_id in ("b", "a"):
        assert answer(world, ask(world, K.REDRIVE, task_id=task_id)) == (Outcome.DONE, None)
        assert answer(world, ask(world, K.REDRIVE, task_id=task_id)) == (Outcome.REFUSED, Refusal.NO_DEAD_LETTER)
    world.crash("s1")
    world.start("s2")
    world.end(running)
    world.work_off("s2")
    assert ran(world) == ["a", "b", "c", "a", "b", "d"]


def test_redriven_to_the_tail_with_another_payload(world: World) -> None:
    publish(world, "a", "b", max_attempts=1, payload=1)
    fail(world)
    asked = ask(world, K.EDIT_AND_REDRIVE, task_id="a", position="tail", payload=Raw(b"1970670598291982290"))
    assert answers(world, asked)[0].task_id == "a", "the answer names the task that was asked for, not the head"
    (edited,) = [e for e in world.events() if e.kind is EventKind.EDITED]
    assert (edited.changes[0].before, edited.changes[0].after) == ("1", "1970670598291982290")
    world.work_off()
    assert [bytes(e.payload or b"") for e in world.events() if e.task_id == "a" and e.payload][-1:] == [
        b"1970670598291982290"
    ]
    assert ran(world) == ["a", "b", "a"]
    engine = world.engines["s1"]
    assert questions.dead_letters(engine, {}, 0) == []


def test_a_discarded_dead_letter_is_gone(world: World) -> None:
    publish(world, "a", max_attempts=1)
    fail(world)
    assert [d["task_id"] for d in questions.dead_letters(world.engines["s1"], {"group": "g"}, 0)] == ["a"]
    ask(world, K.DISCARD_DEAD_LETTER, task_id="a")
    assert answer(world, ask(world, K.REDRIVE, task_id="a")) == (Outcome.REFUSED, Refusal.NO_DEAD_LETTER)


# -- the rest


def test_a_command_is_taken_in_once_by_its_id(world: World) -> None:
    ask(world, K.PAUSE_GROUP, id="x")
    ask(world, K.RESUME_GROUP)
    ask(world, K.PAUSE_GROUP, id="x")
    assert [(e.outcome, e.reason) for e in answers(world, "x")] == [
        (Outcome.DONE, None),
        (Outcome.REFUSED, Refusal.REPEATED),
    ]
    assert not world.engines["s1"].partitions[home_partition(b"g", N)].entries


def test_a_command_in_a_wrong_partition_is_forwarded(world: World) -> None:
    home = home_partition(b"g", N)
    asked = ask(world, K.PAUSE_GROUP, partition=(home + 1) % N)
    world.step()
    assert answer(world, asked) == (Outcome.DONE, None)


def test_what_goes_on_after_its_time_is_released_under_a_new_token(world: World) -> None:
    publish(world, "a", "b")
    execution = run_next(world)
    assert answer(world, ask(world, K.RELEASE)) == (Outcome.REFUSED, Refusal.RUNS_IN_TIME)
    world.say(execution, R.PROGRESS, reason=Reason.TIMEOUT)
    world.step()
    assert answer(world, ask(world, K.RELEASE)) == (Outcome.DONE, None)
    world.say(execution, R.SUCCEEDED)
    world.step()
    assert states(world, "a")[-1] != "succeeded"
    assert [e.note for e in world.events() if e.kind is EventKind.STALE_REPORT] == ["succeeded refused"]


def test_what_was_just_cancelled_cannot_be_released(world: World) -> None:
    """Its handler may be about to end: the next task must not run beside it."""
    publish(world, "a", "b")
    execution = run_next(world)
    ask(world, K.CANCEL_TASK, task_id="a")
    assert answer(world, ask(world, K.RELEASE)) == (Outcome.REFUSED, Refusal.RUNS_IN_TIME)
    assert world.claim(world.workers["w1"]) is None
    world.say(execution, R.PROGRESS, reason=Reason.BY_COMMAND, note="cancelled, still running on w1 since …")
    world.step()
    assert "cancelled, still running on w1" in questions.explain(world.engines["s1"], "g")["text"]
    world.crash("s1")
    world.start("s2")
    asked = ask_of(world, "s2", K.RELEASE)
    assert (answer(world, asked), states(world, "a")[-1]) == ((Outcome.DONE, None), "cancelled")
    assert world.claim(world.workers["w1"]) is not None


def ask_of(world: World, scheduler: str, kind: CommandKind, **fields: Any) -> str:
    command = protocol.Command(f"of-{scheduler}", kind, "g", actor="ada", **fields)
    world.append("commands", home_partition(b"g", N), b"g", protocol.encode(command))
    world.step(scheduler)
    return command.id


def test_a_retry_of_a_running_task_is_refused(world: World) -> None:
    publish(world, "a")
    run_next(world)
    assert answer(world, ask(world, K.RETRY_NOW)) == (Outcome.REFUSED, Refusal.IN_FLIGHT)


def test_a_retry_of_a_head_whose_time_has_not_come_is_refused(world: World) -> None:
    """Its publisher set the time; an operator may cancel it, or give it another payload meanwhile."""
    due = protocol.utc(world.now.wall_ms) + timedelta(minutes=1)
    publish(world, "a", not_before=due.isoformat())
    publish(world, "b")
    publish(world, "free", group="h")
    assert world.claim(world.workers["w1"]).group == "h", "other groups are free"  # type: ignore[union-attr]
    found = questions.explain(world.engines["s1"], "g")
    assert (found["blocker"], found["expected_start"]) == ("not_before", due)
    assert answer(world, ask(world, K.RETRY_NOW)) == (Outcome.REFUSED, Refusal.NOT_BEFORE)
    assert answer(world, ask(world, K.EDIT_HEAD, payload=Raw(b"5"))) == (Outcome.DONE, None)
    world.pass_time(60_000)
    world.step()
    assert bytes(run_next(world).task.payload) == b"5"


def test_not_before_behind_a_head_holds_nobody_until_it_is_its_turn(world: World) -> None:
    due = protocol.utc(world.now.wall_ms) + timedelta(minutes=1)
    publish(world, "a")
    publish(world, "b", not_before=due.isoformat())
    publish(world, "c")
    world.end(run_next(world))
    world.step()
    assert questions.explain(world.engines["s1"], "g")["blocker"] == "not_before"
    assert answer(world, ask(world, K.CANCEL_TASK, task_id="b")) == (Outcome.DONE, None)
    world.work_off()
    assert ran(world) == ["a", "c"]


def test_a_command_that_makes_no_sense_is_refused_by_its_id(world: World) -> None:
    home = home_partition(b"g", N)
    for value in (
        b'{"id":"x1","kind":"explode","actor":"ada"}',
        b'{"id":"x2","kind":"pause_group","until":"2031-05-01T08:00:00"}',
        b'{"id":"x3","kind":"redrive","position":"middle"}', b'{"kind":"pause_group"}', b"[",
    ):  # fmt: skip
        world.append("commands", home, b"g", value)
    world.step()
    found = [e for e in world.events() if e.kind is EventKind.COMMAND]
    assert [(e.command_id, e.reason) for e in found] == [(f"x{n}", Refusal.BAD_COMMAND) for n in (1, 2, 3)]
    assert "explode" in (found[0].note or "") and "UTC" in (found[1].note or "")
    assert len(list(world.records("dead-letters"))) == 5
    assert answer(world, ask(world, K.CANCEL_TASK)) == (Outcome.REFUSED, Refusal.NO_SUCH_TASK)


def test_a_redrive_goes_behind_what_runs_and_what_has_begun(world: World) -> None:
    publish(world, "a", max_attempts=1)
    fail(world)
    publish(world, "b", "c")
    world.end(run_next(world), R.FAILED, delay_s=30.0)
    world.step()
    ask(world, K.REDRIVE, task_id="a")
    world.pass_time(30_000)
    world.step()
    world.work_off()
    assert ran(world) == ["a", "b", "b", "a", "c"]


def test_a_redrive_goes_before_a_head_that_has_come_back_unrun(world: World) -> None:
    publish(world, "a", max_attempts=1)
    fail(world)
    publish(world, "b", "c")
    ask(world, K.PAUSE_GROUP)
    assert world.claim(world.workers["w1"]) is not None, "b was taken back"
    world.step()
    ask(world, K.REDRIVE, task_id="a")
    world.check_memory()
    assert [t["task_id"] for t in questions.list_tasks(world.engines["s1"], "g", 9)] == ["a", "b", "c"]
    ask(world, K.RESUME_GROUP)
    world.work_off()
    assert ran(world) == ["a", "a", "b", "c"]


def test_a_redriven_task_is_redriven_once_also_by_a_new_owner(world: World) -> None:
    publish(world, "a", max_attempts=1)
    fail(world)
    first = ask(world, K.REDRIVE, task_id="a")
    world.crash("s1")
    world.start("s2")
    second = ask_of(world, "s2", K.REDRIVE, task_id="a")
    assert (answer(world, first)[0], answer(world, second)) == (
        Outcome.DONE, (Outcome.REFUSED, Refusal.NO_DEAD_LETTER),
    )  # fmt: skip
    world.work_off("s2")
    assert ran(world) == ["a", "a"]


def test_a_command_names_what_it_expects(world: World) -> None:
    publish(world, "a", "b")
    world.end(run_next(world), R.FAILED)
    world.step()
    for state, outcome in (("running", Outcome.REFUSED), ("retrying", Outcome.DONE)):
        assert answer(world, ask(world, K.RETRY_NOW, if_head="a", if_state=state))[0] is outcome


def test_group_state_is_forgotten(world: World) -> None:
    publish(world, "a")
    world.end(run_next(world), R.SUCCEEDED, state=Raw(b"1"), state_set=True)
    world.step()
    assert answer(world, ask(world, K.FORGET_GROUP)) == (Outcome.DONE, None)
    assert answer(world, ask(world, K.FORGET_GROUP)) == (Outcome.REFUSED, Refusal.NOTHING_TO_FORGET)


def test_a_second_task_of_an_idempotency_key_is_a_duplicate(world: World) -> None:
    publish(world, "a", "b", idempotency_key="k")
    publish(world, "c", group="h", idempotency_key="k")
    (event,) = [e for e in world.events() if e.kind is EventKind.DUPLICATE]
    assert (event.task_id, event.duplicate_of) == ("b", "a")
    world.work_off()
    assert sorted(map(str, ran(world))) == ["a", "c"]


@pytest.mark.parametrize("when_full", ["dead_letter", "pause"])
def test_limits_are_never_exceeded(world: World, when_full: Any) -> None:
    engine = world.engines["s1"]
    engine.flow = Flow(group_max=2, when_full=when_full)
    publish(world, *(f"t{n}" for n in range(6)))
    assert group_of(world, "g").parked == 2
    full = [home_partition(b"g", N)] if when_full == "pause" else []
    assert engine.full_partitions() == full
    world.work_off()
    assert ran(world) == [f"t{n}" for n in range(6 if full else 3)]


def test_answers_are_json_that_anyone_can_read(world: World) -> None:
    ask(world, K.SKIP_HEAD)
    (value,) = [v for _, v, _ in world.records("task-events")]
    fields = msgspec.json.decode(value or b"")
    assert (fields["kind"], fields["outcome"], fields["reason"]) == ("command", "refused", "no_head")
