"""`Pump.hold_back` and `leave_out`: what is fetched from when, with a consumer that only notes what it is told."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from faust.types import TP

from streams.transport import Pump


class Noting:
    """Which partitions are paused, as librdkafka would have it: a pause outlives assignments."""

    def __init__(self) -> None:
        self.assigned: set[TP] = set()
        self.paused: set[TP] = set()

    def assign(self, partitions: list[Any]) -> None:
        self.assigned = {TP(p.topic, p.partition) for p in partitions}

    def pause(self, partitions: list[Any]) -> None:
        assert {TP(p.topic, p.partition) for p in partitions} <= self.assigned
        self.paused |= {TP(p.topic, p.partition) for p in partitions}

    def resume(self, partitions: list[Any]) -> None:
        assert {TP(p.topic, p.partition) for p in partitions} <= self.assigned
        self.paused -= {TP(p.topic, p.partition) for p in partitions}


@pytest.fixture
def pump() -> Iterator[Pump]:
    async def nothing(*_: Any) -> None:
        pass

    loop = asyncio.new_event_loop()
    pump = Pump(
        {"bootstrap.servers": "127.0.0.1:1", "group.id": "g"}, ["tasks"], loop,
        on_batch=lambda _: None, on_assigned=nothing, on_revoked=nothing, on_error=lambda _: None,
    )  # fmt: skip
    pump._consumer.close()
    pump._consumer = Noting()  # type: ignore[assignment]
    yield pump
    loop.close()


def assign(pump: Pump, *numbers: int) -> None:
    pump.assigned = frozenset(TP(topic, n) for topic in ("tasks", "completions") for n in numbers)
    pump._start_flow(pump.epoch)


def paused(pump: Pump) -> set[TP]:
    consumer: Any = pump._consumer
    return set(consumer.paused & consumer.assigned)


def test_only_the_named_topic_is_held_back_and_goes_on_again(pump: Pump) -> None:
    assign(pump, 0, 1, 2)
    pump._hold_back("tasks", frozenset({0, 1}))
    assert paused(pump) == {TP("tasks", 0), TP("tasks", 1)}, "completions must go on, or no room is ever made"
    pump._hold_back("tasks", frozenset({1, 2}))
    assert paused(pump) == {TP("tasks", 1), TP("tasks", 2)}
    pump._hold_back("tasks", frozenset())
    assert paused(pump) == set()


def test_after_a_rebalance_only_what_is_named_anew_is_held_back(pump: Pump) -> None:
    assign(pump, 0, 1)
    pump._hold_back("tasks", frozenset({0}))
    pump._new_epoch()
    pump._hold_back("tasks", frozenset({1}))  # while nothing flows: the next assignment decides
    assign(pump, 1, 2)
    assert paused(pump) == set()
    pump._hold_back("tasks", frozenset({0, 2}))
    assert paused(pump) == {TP("tasks", 2)}, "0 belongs to another scheduler now"


def test_what_was_held_back_flows_when_it_is_assigned_again(pump: Pump) -> None:
    assign(pump, 0, 1)
    pump._hold_back("tasks", frozenset({0}))
    pump._new_epoch()
    assign(pump, 0, 1)
    assert paused(pump) == set(), "it was loaded afresh, and nobody has said yet that it is full"


def test_what_is_left_out_for_good_is_not_fetched_again_with_what_was_held_back(pump: Pump) -> None:
    assign(pump, 0, 1)
    pump._hold_back("tasks", frozenset({0}))
    pump._left_out = frozenset({0})
    pump._pause_left_out()
    pump._hold_back("tasks", frozenset())
    assert paused(pump) == {TP("tasks", 0), TP("completions", 0)}
