"""Claim, run, report: each kind of handler, runs of several tasks, and what is not run at all."""

import asyncio
import threading
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel

from consumers import Registry, Reject, Retry, Snooze, Task
from streams.errors import UserError
from streams.protocol import HandlerPolicy, Reason, ReportKind
from streams.settings import Settings
from tests.support.system import until
from tests.worker.kit import Gate, Rig


class Order(BaseModel):
    number: int


NEWER = b'{"v": 2, "something": "new"}'


def registry() -> Registry:
    handlers = Registry()

    @handlers.handler("ok", max_attempts=7, backoff_base_s=0.5)
    async def ok(task: Task) -> Any:
        return task.payload

    @handlers.handler("thread")
    def thread(task: Task) -> dict[str, Any]:
        task.progress(0.5, "half way")
        return {"thread": threading.current_thread().name}

    @handlers.handler("count")
    async def count(task: Task) -> Any:
        task.set_state((task.state or 0) + 1)
        return task.state

    @handlers.handler("forget")
    async def forget(task: Task) -> Any:
        before = task.state
        task.set_state(None if before else 1)
        return before

    @handlers.handler("second fails")
    async def second_fails(task: Task) -> None:
        task.set_state(task.id)
        if task.id.endswith("-1"):
            raise ValueError("the second")

    @handlers.handler("order")
    def order(task: Task, payload: Order) -> int:
        return payload.number

    @handlers.handler("raise")
    async def raise_(task: Task) -> None:
        raise {"retry": Retry(7.5), "snooze": Snooze(3), "reject": Reject("no such order")}[task.payload]

    return handlers


@pytest.fixture(scope="module")
def shared(bootstrap: str) -> Iterator[Rig]:
    """One worker with all of these handlers, for the tests that leave it as it was."""
    settings = Settings(
        app=f"t{uuid.uuid4().hex[:10]}", bootstrap_servers=bootstrap, partitions=2, dispatch_partitions=2, lease_s=3
    )
    with Rig(settings) as rig:
        rig.handlers = registry()
        rig.worker()
        yield rig


def test_started_comes_first_and_the_outcome_carries_what_the_handler_left(shared: Rig) -> None:
    [token] = shared.dispatch("g/ü", "ok", b'{"big": 1970670598291982290}')
    end = shared.end(token)
    started, succeeded = shared.reports(token)
    assert (started.kind, succeeded.kind) == (ReportKind.STARTED, ReportKind.SUCCEEDED)
    assert started.policy == HandlerPolicy(max_attempts=7, backoff_base_s=0.5)
    assert end.started and end.ended and end.started.mono_ns <= end.ended.mono_ns
    assert bytes(end.result or b"") == b'{"big":1970670598291982290}'
    completion = shared.completions[-1]
    assert (completion.group, completion.worker) == ("g/ü", "w1")
    assert shared.claimed() == (completion.dispatch_offset + 1, completion.claim_id)


def test_a_thread_handler_reports_progress_and_does_not_wait_for_others(shared: Rig, gate: Gate) -> None:
    @shared.handlers.handler("slow")
    def slow(task: Task) -> None:
        gate.pass_blocking(task.id)

    slow_tokens = [shared.dispatch(f"slow {i}", "slow")[0] for i in range(5)]
    gate.wait_entered(5)
    [token] = shared.dispatch("g", "thread")
    assert b"handlers-" in bytes(shared.end(token).result or b"")
    assert [(r.fraction, r.note) for r in shared.reports(token) if r.kind is ReportKind.PROGRESS] == [(0.5, "half way")]
    gate.opened.set()
    assert {r.kind for r in shared.ends(*slow_tokens)} == {ReportKind.SUCCEEDED}


def test_a_run_is_executed_in_order_and_hands_on_the_state(shared: Rig) -> None:
    tokens = shared.dispatch("g", "count", run=4, state=b"10")
    ends = shared.ends(*tokens)
    assert [bytes(r.result or b"") for r in ends] == [b"10", b"11", b"12", b"13"]
    assert [bytes(r.state or b"") for r in ends] == [b"11", b"12", b"13", b"14"]
    assert shared.kinds(*tokens) == ["started", "succeeded"] * 4
    together = [[r.kind.value for r in c.reports] for c in shared.completions if c.reports[0].token in tokens]
    assert together == [["started"], *[["succeeded", "started"]] * 3, ["succeeded"]]


def test_a_cleared_state_is_gone_for_the_next_task_of_the_run(shared: Rig) -> None:
    ends = shared.ends(*shared.dispatch("g", "forget", run=3, state=b"5"))
    assert [r.result and bytes(r.result) for r in ends] == [b"5", None, b"1"]
    assert [bytes(r.state or b"") for r in ends] == [b"null", b"1", b"null"]


def test_a_failure_in_the_middle_of_a_run_returns_the_rest_in_order(shared: Rig) -> None:
    tokens = shared.dispatch("g", "second fails", run=4)
    ends = shared.ends(*tokens)
    assert [r.kind.value for r in ends] == ["succeeded", "failed", "returned", "returned"]
    assert not ends[1].state_set
    assert [r.token for r in shared.reports(*tokens[2:])] == tokens[2:]
    assert ends[2].started is None


def test_outcomes_that_handlers_ask_for(shared: Rig) -> None:
    tokens = [shared.dispatch("g", "raise", name)[0] for name in (b'"retry"', b'"snooze"', b'"reject"')]
    retry, snooze, reject = shared.ends(*tokens)
    assert (retry.kind, retry.delay_s, retry.retryable) == (ReportKind.FAILED, 7.5, True)
    assert (snooze.kind, snooze.delay_s) == (ReportKind.SNOOZED, 3)
    assert (reject.kind, reject.reason) == (ReportKind.REJECTED, Reason.HANDLER_REJECTED)
    assert reject.error is not None and reject.error.message == "no such order"


def test_a_payload_is_validated_before_the_handler_sees_it(shared: Rig) -> None:
    good, bad = shared.dispatch("g", "order", b'{"number": 5}')[0], shared.dispatch("h", "order", b'{"number": "x"}')[0]
    assert bytes(shared.end(good).result or b"") == b"5"
    refused = shared.end(bad)
    assert (refused.kind, refused.reason) == (ReportKind.REJECTED, Reason.INVALID_PAYLOAD)
    assert refused.error is not None and "valid integer" in refused.error.message


def test_a_type_without_handler_comes_back_though_every_slot_is_taken(rig: Rig, gate: Gate) -> None:
    handlers = registry()

    @handlers.handler("wait")
    async def wait(task: Task) -> None:
        await gate.pass_async(task.id)

    rig.worker(handlers, slots=1)
    [running] = rig.dispatch("g", "wait")
    gate.wait_entered(1)
    tokens = rig.dispatch("h", "unknown", run=2)
    assert [(r.kind, r.reason) for r in rig.ends(*tokens)] == [(ReportKind.RETURNED, Reason.NO_HANDLER)] * 2
    assert "started" not in rig.kinds(*tokens)
    gate.opened.set()
    assert rig.end(running).kind is ReportKind.SUCCEEDED


def test_only_as_many_run_as_there_are_slots_and_no_more_are_claimed(rig: Rig, gate: Gate) -> None:
    handlers = registry()

    @handlers.handler("wait")
    async def wait(task: Task) -> None:
        await gate.pass_async(task.id)

    rig.worker(handlers, slots=3)
    tokens = [rig.dispatch(f"g{i}", "wait")[0] for i in range(300)]
    gate.wait_entered(3)
    assert rig.claimed()[0] == 3
    gate.opened.set()
    assert {r.kind for r in rig.ends(*tokens)} == {ReportKind.SUCCEEDED}
    assert gate.entered == [f"g{i}-0" for i in range(300)]


def test_what_cannot_be_read_is_passed_over(shared: Rig) -> None:
    shared.raw("dispatches", 1, b"no json")
    shared.raw("dispatches", 1, b'{"v": 1, "group": "g", "partition": 0, "scheduler": "s", "tasks": []}')
    [token] = shared.dispatch("g", partition=1)
    assert shared.end(token).kind is ReportKind.SUCCEEDED
    assert shared.claimed(1)[0] == shared.completions[-1].dispatch_offset + 1


def test_a_take_back_of_a_newer_protocol_stops_the_worker_with_a_sentence(rig: Rig) -> None:
    running = rig.worker(registry())
    rig.end(rig.dispatch("g")[0])
    claimed = rig.claimed()[0]
    rig.raw("control", 0, NEWER)
    running.wait()
    assert isinstance(running.error, UserError)
    assert "upgrade" in str(running.error)
    assert rig.claimed()[0] == claimed


def test_a_dispatch_of_a_newer_protocol_stops_its_partition_only(rig: Rig) -> None:
    """What stands before it is claimed, it and what is behind it are not, and other partitions go on."""
    running = rig.worker(registry())
    before = rig.dispatch("g")[0]
    rig.raw("dispatches", 0, NEWER)
    behind = rig.dispatch("g")[0]
    rig.end(before)
    until(lambda: running.worker._poller.stopped)
    rig.end(rig.dispatch("h", partition=1)[0])
    assert rig.kinds(behind) == []
    assert rig.claimed()[0] == rig.completions[0].dispatch_offset + 1
    assert "upgrade" in running.worker._is_ready()[1] and not running.worker._is_ready()[0]


def test_the_handlers_of_one_worker_run_at_the_same_time(shared: Rig) -> None:
    together = asyncio.Event()
    inside: list[str] = []

    @shared.handlers.handler("meet")
    async def meet(task: Task) -> None:
        inside.append(task.id)
        if len(inside) == 20:
            together.set()
        await together.wait()

    tokens = [shared.dispatch(f"g{i}", "meet", partition=i % 2)[0] for i in range(20)]
    assert {r.kind for r in shared.ends(*tokens)} == {ReportKind.SUCCEEDED}


def test_progress_is_thinned_out_and_the_last_word_is_kept(shared: Rig) -> None:
    @shared.handlers.handler("chatty")
    async def chatty(task: Task) -> None:
        for i in range(5000):
            await task.progress(i / 5000, f"step {i}")

    [token] = shared.dispatch("g", "chatty")
    shared.end(token)
    notes = [r.note for r in shared.reports(token) if r.kind is ReportKind.PROGRESS]
    assert notes[0] == "step 0"
    assert notes[-1] == "step 4999"
    assert len(notes) < 30


def test_a_worker_says_who_it_is_and_is_ready(rig: Rig) -> None:
    running = rig.worker(registry())
    until(lambda: running.worker._is_ready()[0], what="ready")
    assert running.worker._is_live()[0]
    rig.end(rig.dispatch("g")[0])
    running.stop()
    assert running.error is None
    assert running.exits == []
