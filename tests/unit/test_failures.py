"""What becomes of a group when its task fails, without anybody's command: the timelines of docs/failures.md."""

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any
from unittest import mock

import pytest
from msgspec import Raw

from streams import limits, questions, rows
from streams.flow import Flow
from streams.group import Head, Phase
from streams.murmur2 import home_partition
from streams.partition import load
from streams.protocol import ErrorInfo, EventKind, FailurePolicy, HandlerPolicy, Outcome, Reason, Refusal
from streams.transport import TICK_S
from tests.unit.one_group import K, R, answer, ask, dead_letters, fail, new_world, publish, ran, run_next, states
from tests.unit.world import LEASE_MS, N, World, group_of

HOME = home_partition(b"g", N)


@pytest.fixture
def world() -> World:
    return new_world()


def end_next(world: World, kind: R = R.FAILED, **fields: Any) -> None:
    world.end(run_next(world), kind, **fields)
    world.step()


# -- retries in place


def test_a_failing_head_is_tried_again_in_its_place(world: World) -> None:
    publish(world, "a", "b", "c")
    publish(world, "other", group="h")
    end_next(world)
    assert world.claim(world.workers["w1"]).group == "h", "nobody else waits"  # type: ignore[union-attr]
    assert world.claim(world.workers["w1"]) is None
    world.pass_time(200)
    world.work_off()
    assert [task for task in ran(world) if task != "other"] == ["a", "a", "b", "c"]
    assert states(world, "a").count("retrying") == 1


def test_retry_asks_for_a_delay(world: World) -> None:
    publish(world, "a")
    end_next(world, delay_s=30.0)
    head = group_of(world, "g").head
    assert head is not None and (head.delay_ms, head.attempt) == (30_000, 2)
    world.pass_time(29_999)
    world.step()
    assert world.claim(world.workers["w1"]) is None
    world.pass_time(1)
    world.step()
    assert run_next(world).task.attempt == 2


def test_snooze_uses_no_attempt(world: World) -> None:
    publish(world, "a", "b")
    for _ in range(5):
        end_next(world, R.SNOOZED, delay_s=1.0)
        assert world.claim(world.workers["w1"]) is None, "its group waits with it"
        world.pass_time(1000)
        world.step()
    assert run_next(world).task.attempt == 1


@pytest.mark.parametrize("policy", FailurePolicy)
def test_reject_ends_the_task_at_once(policy: FailurePolicy) -> None:
    """Whatever the policy says of attempts that are spent: this one said so itself."""
    world = new_world(on_failure=policy)
    publish(world, "a", "b")
    end_next(world, R.REJECTED, reason=Reason.HANDLER_REJECTED)
    world.work_off()
    assert (ran(world), [d["pstp.reason"] for d in dead_letters(world)]) == (["a", "b"], ["handler_rejected"])


def test_an_exception_that_is_not_retried_spends_all_attempts(world: World) -> None:
    publish(world, "a", "b", on_failure="block")
    end_next(world, retryable=False, reason=Reason.NOT_RETRYABLE)
    assert group_of(world, "g").blocked is Reason.NOT_RETRYABLE and ran(world) == ["a"]


@pytest.mark.parametrize("wall_ms", [0, 90_000])
def test_backoff_survives_a_new_owner(world: World, wall_ms: int) -> None:
    """It goes on where it was, and a wall clock that was set makes it no longer."""
    publish(world, "a", "b")
    end_next(world, delay_s=60.0)
    world.crash("s1")
    world.pass_time(20_000, wall_ms=20_000 - wall_ms)
    world.start("s2")
    world.pass_time(39_999 if not wall_ms else 59_999)
    world.step("s2")
    assert world.claim(world.workers["w1"]) is None
    world.pass_time(1)
    world.step("s2")
    execution = world.claim(world.workers["w1"])
    assert execution is not None and (execution.task.task_id, execution.task.attempt) == ("a", 2)


def test_a_due_head_goes_out_with_the_next_tick(world: World) -> None:
    """At idle the loop ticks each TICK_S; what is due is dispatched in the very step that sees it."""
    assert TICK_S <= 0.1, "a tick, a commit and a claim fit into 200 ms"
    publish(world, "a")
    end_next(world, delay_s=1.0)
    ticks_ms = 0
    while world.claim(world.workers["w1"]) is None:
        world.pass_time(int(TICK_S * 1000))
        ticks_ms += int(TICK_S * 1000)
        world.step()
    assert 1000 <= ticks_ms <= 1000 + TICK_S * 1000


def test_a_million_heads_in_backoff_cost_nothing_until_due() -> None:
    """What a step executes does not depend on how many there are: counted in instructions, not in time."""
    few, many = (executed(waiting(heads)) for heads in (10, 20_000))
    assert few == many


def waiting(heads: int) -> Callable[[], object]:
    """A step that takes in and dispatches one task, beside so many heads in backoff."""
    world = World()
    world.hire("w1")
    table = world.tables[HOME]
    for n in range(heads):
        key = b"b%d" % n
        head = Head(
            n, Phase.WAITING, attempt=2, due_wall_ms=world.now.wall_ms + 3_600_000 + n, delay_ms=3_600_000,
            why=Reason.FAILED,
        )  # fmt: skip
        row = rows.TaskRow(rows.ROW_FORMAT, HOME, n, key, b'{"type":"t"}', [])
        table[rows.task_key(n, key)] = rows.encode(row)
        table[rows.head_key(key)] = rows.encode(rows.HeadRow(rows.ROW_FORMAT, head, None))
    return one_more(world)


def one_more(world: World) -> Callable[[], object]:
    world.start("s1", [HOME])
    world.step()
    world.publish("g")
    inputs, ends = world._fetch("s1", 10)
    engine = world.engines["s1"]
    engine.members = world.members()
    engine.step([], {}, world.now)
    return lambda: engine.step(inputs, ends, world.now)


def executed(function: Callable[[], object]) -> int:
    """How many instructions of the interpreter it takes."""
    count = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal count
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        count += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        outputs = function()
    finally:
        sys.settrace(before)
    assert [o.topic for o in outputs].count("dispatches") == 1  # type: ignore[attr-defined]
    return count


# -- attempts spent


def test_skip_lets_the_next_task_go_on(world: World) -> None:
    publish(world, "a", "b", "c")
    fail(world, 2)
    world.work_off()
    assert ran(world) == ["a", "a", "b", "c"] and states(world, "a")[-1] == "dead_lettered"


S, B, C = FailurePolicy.SKIP, FailurePolicy.BLOCK, FailurePolicy.CASCADE


@pytest.mark.parametrize(
    ("task", "group", "handler", "then"),
    [(None, None, None, S), (None, None, B, B), (None, C, B, C), (B, C, S, B), (S, B, B, S), (None, S, B, S)],
)
def test_task_goes_over_group_over_type_over_default(
    task: FailurePolicy | None, group: FailurePolicy | None, handler: FailurePolicy | None, then: FailurePolicy
) -> None:
    patterns = [("h-*", B), ("g*", group), ("*", B)] if group else [("h-*", B)]
    world = new_world({"group_policies": patterns}, max_attempts=1)
    publish(world, "a", "b", **({"on_failure": task.value} if task else {}))
    world.end(run_next(world, HandlerPolicy(on_failure=handler)), R.FAILED)
    world.step()
    world.step()
    assert any(e.kind is EventKind.GROUP_BLOCKED for e in world.events()) is (then is B)
    assert len(dead_letters(world)) == {S: 1, B: 0, C: 2}[then]


def test_a_task_that_kills_its_worker_cannot_loop(world: World) -> None:
    publish(world, "a", "b", on_failure="block")
    for number in range(2):
        run_next(world)
        world.vanish("w1")
        for _ in range(3):
            world.pass_time(LEASE_MS)
            world.step()
            world.answer_all()
            world.step()
        world.hire("w1")
        world.step()
        assert (group_of(world, "g").blocked is Reason.WORKER_LOST) is (number == 1)
    assert ran(world) == ["a", "a"]


def test_150000_tasks_behind_a_block_delay_nobody_else() -> None:
    """A step beside them takes what it takes beside ten, and a group published after them is out in that step."""
    few, many = (executed(blocked(tasks)) for tasks in (10, 150_000))
    assert few == many


def blocked(tasks: int) -> Callable[[], object]:
    world = World()
    world.hire("w1")
    table, value = world.tables[HOME], b'{"type":"t"}'
    for n in range(tasks):
        table[rows.task_key(n, b"block")] = rows.encode(rows.TaskRow(rows.ROW_FORMAT, HOME, n, b"block", value, []))
    head = Head(0, Phase.READY, attempt=2, why=Reason.ATTEMPTS_SPENT)
    table[rows.head_key(b"block")] = rows.encode(rows.HeadRow(rows.ROW_FORMAT, head, Reason.ATTEMPTS_SPENT))
    return one_more(world)


# -- dead letters


def test_a_dead_letter_is_its_record_byte_for_byte(world: World) -> None:
    """Also after somebody has given it another payload: what ran last stands beside it."""
    value = b'{ "type":"t", "id":"a",  "payload": 1e2, "max_attempts":1, "x": {"y":[]} }'
    world.append("tasks", HOME, b"g", value, [("ce-odd", b"\xff"), ("none", None)])
    world.step()
    end_next(world)
    ask(world, K.EDIT_AND_REDRIVE, task_id="a", payload=Raw(b"2"))
    end_next(world)
    ask(world, K.REDRIVE, task_id="a")
    assert bytes(run_next(world).task.payload) == b"2", "a redrive is of what ran last"
    world.crash("s1")
    world.start("s2")
    for execution in list(world.workers["w1"].running):
        world.end(execution, R.FAILED)
    world.step("s2")
    letters = [(key, old, headers[:2]) for key, old, headers in world.records("dead-letters")]
    assert letters == [(b"g", value, [("ce-odd", b"\xff"), ("none", None)])] * 3
    assert [d.get("pstp.edited-value", "")[:33] for d in edited(world)] == [
        "",
        *['{"type":"t","payload":2,"id":"a",'] * 2,
    ]


def edited(world: World) -> list[dict[str, str]]:
    return [
        {name: (data or b"").decode() for name, data in headers if name.startswith("pstp.")}
        for _, _, headers in world.records("dead-letters")
    ]


def test_first_and_last_error_are_kept(world: World) -> None:
    publish(world, "a")
    end_next(world, error=ErrorInfo("OSError", "first", "File x"))
    world.pass_time(2000)
    world.step()
    end_next(world, error=ErrorInfo("KeyError", "last", "File y"))
    (letter,) = dead_letters(world)
    names = ("error-type", "error", "traceback", "first-error-type", "first-error", "first-traceback", "attempts")
    assert [letter[f"pstp.{name}"] for name in names] == [
        "KeyError", "last", "File y", "OSError", "first", "File x", "2",
    ]  # fmt: skip
    kafkas = ("topic", "partition", "offset", "delivery.count", "message", "disposition")
    assert [letter[f"__dlq.errors.{name}"] for name in kafkas] == [
        "tasks", str(HOME), "0", "2", "last", "attempts_spent",
    ]  # fmt: skip
    (found,) = questions.dead_letters(world.engines["s1"], {"group": "g", "payload": "1"}, 0)
    assert (found["first_error"].traceback, found["error_info"].traceback) == ("File x", "File y")


def test_dead_letters_are_listed_without_reading_the_topic(world: World) -> None:
    for group, reason in (("g", Reason.HANDLER_REJECTED), ("h", Reason.INVALID_PAYLOAD), ("g", Reason.INVALID_PAYLOAD)):
        publish(world, f"{group}-{reason}", group=group)
        end_next(world, R.REJECTED, reason=reason)
        world.pass_time(1000)
    world.crash("s1")
    engine = world.start("s2")
    begun_ms = world.now.wall_ms - 3000

    def ids(**query: str) -> list[str]:
        return sorted(d["task_id"] for d in questions.dead_letters(engine, query, 0))

    assert ids(group="g") == ["g-handler_rejected", "g-invalid_payload"]
    assert ids(reason="invalid_payload") == ["g-invalid_payload", "h-invalid_payload"]
    assert ids(type="t", since=str(begun_ms + 500), until=str(begun_ms + 1500)) == ["h-invalid_payload"]
    assert ids(type="u") == [] and len(questions.dead_letters(engine, {}, 2)) == 2


def test_an_open_dead_letter_expires(world: World) -> None:
    publish(world, "a", max_attempts=1)
    end_next(world)
    world.pass_time(limits.DEAD_LETTERS_OPEN_H * 3_600_000 + 1)
    world.step()
    assert [e.reason for e in world.events() if e.kind == "dead_letter_closed"] == ["expired"]
    assert answer(world, ask(world, K.REDRIVE, task_id="a")) == (Outcome.REFUSED, Refusal.NO_DEAD_LETTER)
    assert len(dead_letters(world)) == 1, "the topic keeps it for as long as its retention says"


# -- too many


def test_beyond_the_limit_the_newest_is_a_dead_letter() -> None:
    world = new_world({"flow": Flow(group_max=1)})
    publish(world, "a", "b", "c")
    publish(world, "other", group="h")
    found = questions.explain(world.engines["s1"], "g")
    assert found["full"] == "1 tasks are parked in this group, the limit is 1"
    assert "newer tasks become dead letters (group_full)" in found["text"]
    assert "full" not in questions.explain(world.engines["s1"], "h")
    assert world.engines["s1"].counts["group_full", ""] == 1
    assert [(d["pstp.task-id"], d["pstp.reason"]) for d in dead_letters(world)] == [("c", "group_full")]
    assert answer(world, ask(world, K.REDRIVE, task_id="c")) == (Outcome.REFUSED, Refusal.GROUP_FULL)
    world.work_off()
    ask(world, K.REDRIVE, task_id="c")
    world.work_off()
    assert [task for task in ran(world) if task != "other"] == ["a", "b", "c"]


def test_beyond_the_limit_intake_pauses_and_explain_says_so() -> None:
    world = new_world({"flow": Flow(group_max=1, when_full="pause")})
    engine = world.engines["s1"]
    publish(world, "a", "b", "c", "d")
    found = questions.explain(engine, "g")
    assert found["intake_paused"] == {"records": 2, "of_group": 2} and found["blocker"] == "dispatched"
    assert f"intake of partition {HOME} pauses until there is room: 1 tasks are parked in this group" in found["text"]
    task = questions.explain_task(engine, "g", "d")
    assert (task["blocker"], task["position_in_intake"]) == ("intake", 1)
    assert "is not taken in yet" in task["text"]
    assert engine.full_partitions() == [HOME]
    assert [task for task in ("a", "b", "c", "d") if states(world, task)] == ["a", "b"]
    world.work_off()
    assert ran(world) == ["a", "b", "c", "d"] and engine.full_partitions() == []
    assert "intake_paused" not in questions.explain(engine, "g")


def test_idempotency_keys_are_forgotten_after_their_window_or_when_there_are_too_many() -> None:
    world = new_world({"idempotency_window_s": 60.0})

    def duplicates() -> list[str | None]:
        return [e.task_id for e in world.events() if e.kind is EventKind.DUPLICATE]

    with mock.patch.object(limits, "IDEMPOTENCY_KEYS_MAX", 3):
        for number in range(4):
            publish(world, f"a{number}", idempotency_key=f"k{number}")
        publish(world, "again-0", idempotency_key="k0")
        publish(world, "again-3", idempotency_key="k3")
    assert duplicates() == ["again-3"], "k0 made room for k3"
    world.pass_time(60_000)
    publish(world, "later-3", idempotency_key="k3")
    assert duplicates() == ["again-3"], "its window is over"
    world.crash("s1")
    world.start("s2", idempotency_window_s=60.0)
    world.publish("g", id="last-3", idempotency_key="k3")
    world.step("s2")
    assert duplicates() == ["again-3", "last-3"], "the next owner remembers"
    assert len([key for key in world.tables[HOME] if key[:1] == b"I"]) == 1


def test_what_waits_for_room_is_read_again_by_the_next_owner() -> None:
    flow = {"flow": Flow(group_max=1, when_full="pause")}
    world = new_world(flow)
    publish(world, "a", "b", "c", "d")
    world.crash("s1")
    world.start("s2", **flow)
    world.work_off("s2")
    assert ran(world) == ["a", "b", "c", "d"]
    world.check_memory("s2")
    assert load(HOME, world.tables[HOME]).tasks == 0
