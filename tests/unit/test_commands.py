"""`streams.commands`: what an operator asks of one group, in a world of logs, schedulers and workers."""

from datetime import timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from streams import protocol, questions
from streams.flow import Flow
from streams.group import Phase
from streams.murmur2 import home_partition
from streams.protocol import EventKind, FailurePolicy, Outcome, Reason, Refusal
from streams.reasons import Blocker
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
    assert answer(world, asked) == (Outcome.DONE, None)
    world.hire("w1")
    world.claim(world.workers["w1"])
    world.step()
    assert ran(world) == []


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
    ask(world, K.EDIT_AND_REDRIVE, task_id="a", position="tail", payload=Raw(b"2"))
    (edited,) = [e for e in world.events() if e.kind is EventKind.EDITED]
    assert (edited.changes[0].before, edited.changes[0].after) == ("1", "2")
    world.work_off()
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
    publish(world, "a")
    execution = run_next(world)
    assert answer(world, ask(world, K.RELEASE)) == (Outcome.REFUSED, Refusal.RUNS_IN_TIME)
    world.say(execution, R.PROGRESS, reason=Reason.TIMEOUT)
    world.step()
    assert answer(world, ask(world, K.RELEASE)) == (Outcome.DONE, None)
    world.say(execution, R.SUCCEEDED)
    world.step()
    assert states(world, "a")[-1] != "succeeded"


def test_a_retry_of_a_running_task_is_refused(world: World) -> None:
    publish(world, "a")
    run_next(world)
    assert answer(world, ask(world, K.RETRY_NOW)) == (Outcome.REFUSED, Refusal.IN_FLIGHT)


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


# -- why a task waits

STEPS = st.sampled_from(
    ["publish", "later", "claim", "begin", "succeed", "fail", "snooze", "time", "fire", "hire", *K]
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(STEPS, max_size=30), policy=st.sampled_from(FailurePolicy))
def test_each_waiting_task_has_exactly_one_reason(steps: list[str], policy: FailurePolicy) -> None:
    world = new_world(on_failure=policy)
    for number, step in enumerate(steps):
        take(world, step, number)
        world.step()
        check_reasons(world)


def take(world: World, step: str, number: int) -> None:
    worker = world.workers.get("w1")
    match step:
        case "publish":
            world.publish("g", id=f"t{number}")
        case "later":
            due = protocol.utc(world.now.wall_ms + 3000).isoformat()
            world.publish("g", id=f"t{number}", not_before=due)
        case "claim" if worker:
            world.claim(worker)
        case "begin" if worker and worker.claimed:
            world.begin(worker.claimed[0])
        case "succeed" | "fail" | "snooze" if worker and worker.running:
            kind = {"succeed": R.SUCCEEDED, "fail": R.FAILED, "snooze": R.SNOOZED}[step]
            world.end(worker.running[0], kind, **({"delay_s": 1.0} if step == "snooze" else {}))
        case "time":
            world.pass_time(1500)
        case "fire" if worker and not worker.running:
            world.vanish("w1")
        case "hire" if worker is None:
            world.hire("w1")
        case _ if step in list(K):
            ask(world, K(step), task_id=f"t{max(0, number - 2)}", payload=Raw(b"1"))


def check_reasons(world: World) -> None:
    engine = world.engines["s1"]
    found = questions.explain(engine, "g")
    entry = engine.partitions[home_partition(b"g", N)].entries.get(b"g")
    if entry is None or (entry.group.head is None and entry.group.sweep is None):
        return
    group, head = entry.group, entry.group.head
    blocker = found["blocker"]
    assert blocker in set(Blocker)
    # A reason that is named holds, and one that does not hold is not named.
    holds = {
        Blocker.RUNNING: group.phase is Phase.RUNNING,
        Blocker.DISPATCHED: group.phase is Phase.DISPATCHED,
        Blocker.SWEEPING: group.sweep is not None,
        Blocker.BLOCKED: group.blocked is not None,
        Blocker.PAUSED: group.pause is not None,
        Blocker.BACKOFF: group.phase is Phase.WAITING and head is not None and head.why is not None,
        Blocker.SNOOZED: group.phase is Phase.WAITING and head is not None and head.why is Reason.SNOOZED,
        Blocker.NOT_BEFORE: group.phase is Phase.WAITING and head is not None and head.why is None,
        Blocker.NO_HANDLER: group.phase is Phase.READY and "w1" not in world.workers,
        Blocker.NO_FREE_SLOT: group.phase is Phase.READY and group.may_start,
    }
    assert holds[blocker], (blocker, group)
    for place in range(group.parked):
        task = questions.list_tasks(engine, "g", 1000)[place + (head is not None)]
        why = questions.explain_task(engine, "g", task["task_id"])
        assert why["blocker"] is Blocker.BEHIND and why["position_in_group"] == place + 1


def test_answers_are_json_that_anyone_can_read(world: World) -> None:
    ask(world, K.SKIP_HEAD)
    (value,) = [v for _, v, _ in world.records("task-events")]
    fields = msgspec.json.decode(value or b"")
    assert (fields["kind"], fields["outcome"], fields["reason"]) == ("command", "refused", "no_head")
