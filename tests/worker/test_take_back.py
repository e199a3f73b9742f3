"""Dispatches that schedulers take back, before they are met, while they wait, and too late."""

from typing import Any

import confluent_kafka as ck
import pytest

from consumers import Registry, Task
from streams.protocol import PROTOCOL, Control, Reason, ReportKind, encode
from tests.support.system import until
from tests.worker.kit import Gate, InThread, Rig


@pytest.fixture
def handlers(gate: Gate) -> Registry:
    registry = Registry()

    @registry.handler("ok")
    async def ok(task: Task) -> None:
        pass

    @registry.handler("wait")
    async def wait(task: Task) -> None:
        await gate.pass_async(task.id)

    return registry


def back(rig: Rig, *tokens: int) -> list[tuple[ReportKind, Reason | None]]:
    return [(report.kind, report.reason) for report in rig.ends(*tokens)]


TAKEN_BACK = (ReportKind.RETURNED, Reason.TAKEN_BACK)


def test_taken_back_while_every_slot_is_taken_it_returns_with_what_stands_before_it(
    rig: Rig, handlers: Registry, gate: Gate
) -> None:
    rig.worker(handlers, slots=1)
    [running] = rig.dispatch("busy", "wait")
    gate.wait_entered(1)
    waiting = [rig.dispatch(f"g{i}")[0] for i in range(4)]
    elsewhere = rig.dispatch("other", partition=1)[0]
    rig.take_back(0, waiting[2])
    assert back(rig, *waiting[:3]) == [TAKEN_BACK] * 3
    assert rig.claimed(0)[0] == 4
    assert rig.kinds(waiting[3]) == rig.kinds(elsewhere) == []
    gate.opened.set()
    assert {r.kind for r in rig.ends(running, waiting[3], elsewhere)} == {ReportKind.SUCCEEDED}


def test_a_token_taken_back_before_its_dispatch_is_met_returns_when_it_is(rig: Rig, handlers: Registry) -> None:
    tokens = [rig.dispatch(f"g{i}", run=2) for i in range(3)]
    rig.take_back(0, tokens[1][0])
    rig.worker(handlers)
    assert {r.kind for r in rig.ends(*tokens[0], *tokens[2])} == {ReportKind.SUCCEEDED}
    assert back(rig, *tokens[1]) == [TAKEN_BACK] * 2
    assert "started" not in rig.kinds(*tokens[1])


def test_taken_back_when_it_runs_already_it_goes_on(rig: Rig, handlers: Registry, gate: Gate) -> None:
    rig.worker(handlers)
    [token] = rig.dispatch("g", "wait")
    gate.wait_entered(1)
    rig.take_back(0, token)
    after = rig.dispatch("after")[0]
    rig.take_back(0, after)
    rig.end(after)
    gate.opened.set()
    assert rig.end(token).kind is ReportKind.SUCCEEDED


def test_a_run_that_is_wanted_back_keeps_only_what_runs(rig: Rig, handlers: Registry, gate: Gate) -> None:
    """Whichever of its tasks is named; and the slot is free again when that one ends."""
    rig.worker(handlers, slots=1)
    for named in (0, 2):
        gate.opened.clear()
        tokens = rig.dispatch(f"g{named}", "wait", run=3)
        gate.wait_entered(1)
        rig.take_back(0, tokens[named])
        assert back(rig, *tokens[1:]) == [TAKEN_BACK] * 2
        gate.opened.set()
        assert rig.end(tokens[0]).kind is ReportKind.SUCCEEDED
        assert gate.entered == [f"g{named}-0"]
        gate.entered.clear()
    assert rig.end(rig.dispatch("after")[0]).kind is ReportKind.SUCCEEDED


def test_a_run_is_cut_though_it_is_wanted_back_just_as_it_is_announced(rig: Rig, handlers: Registry) -> None:
    """Between its claim and its start; what comes back is told after the start of what goes on."""
    tokens: list[int] = []
    running: list[InThread] = []

    def at(step: str) -> None:
        if step == "claimed" and tokens:
            rig.take_back(0, tokens[0])
            control = running[0].worker._control
            until(lambda: ("late", tokens[0]) in control.tokens(0), what="it has heard of it")

    running.append(rig.worker(handlers, step=at))
    rig.end(rig.dispatch("before")[0])
    tokens += range(rig._token + 1, rig._token + 4)
    rig.dispatch("late", run=3)
    assert back(rig, *tokens) == [TAKEN_BACK] * 3
    assert rig.kinds(tokens[0]) == ["returned"]


def test_the_same_token_of_another_partition_is_not_meant(rig: Rig, handlers: Registry) -> None:
    [token] = rig.dispatch("g")
    rig.take_back(3, token)
    rig.worker(handlers)
    assert rig.end(token).kind is ReportKind.SUCCEEDED


def test_the_same_token_of_another_group_is_not_meant(rig: Rig, handlers: Registry) -> None:
    """Schedulers' partitions count their tokens for themselves."""
    [token] = rig.dispatch("g")
    rig.take_back(0, token, group="h")
    rig.worker(handlers)
    assert rig.end(token).kind is ReportKind.SUCCEEDED


def test_no_first_claim_while_a_transaction_may_hide_what_was_taken_back(rig: Rig, handlers: Registry) -> None:
    """Behind one scheduler's open transaction stands another's take-back: the worker waits until it can read it."""
    token, control = rig.dispatch("g")[0], rig.settings.topic("control")
    hanging = transaction(rig, "hangs")
    produce(hanging, control, Control(PROTOCOL, "take_back", 2, "h", 1, "s1"))
    done = transaction(rig, "commits")
    produce(done, control, Control(PROTOCOL, "take_back", 0, "g", token, "s2"))
    done.commit_transaction(10)
    running = rig.worker(handlers)
    until(lambda: running.worker._poller.owned, what="it owns partitions")
    until(lambda: running.worker._poller._ahead.count(0) == 1, what="it has read the dispatch")
    assert not running.worker._is_ready()[0]
    assert rig.claimed()[0] == 0
    hanging.abort_transaction(10)
    assert back(rig, token) == [TAKEN_BACK]


def transaction(rig: Rig, name: str) -> ck.Producer:
    producer = ck.Producer(rig.settings.kafka(**{"transactional.id": f"{rig.settings.app}-{name}"}))
    producer.init_transactions(10)
    producer.begin_transaction()
    return producer


def produce(producer: ck.Producer, topic: Any, control: Control) -> None:
    producer.produce(topic, encode(control), b"g", 0)
    producer.flush(10)
