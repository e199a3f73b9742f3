"""Breakers: of a type that fails too often, in one scheduler and in several."""

from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from streams import questions
from streams.breakers import Breaker, BreakerSettings, BreakerState, Place
from streams.metrics import SchedulerMetrics
from streams.murmur2 import home_partition
from streams.placement import Here
from streams.protocol import EventKind, Reason
from tests.unit.one_group import K, R, answer, ask, new_world, publish, run_next, states
from tests.unit.world import Execution, N, World

OPEN_MS = 5_000
BREAKERS = {"breakers": BreakerSettings(rate=0.5, window=4, open_s=OPEN_MS / 1000)}
GROUPS = [f"g{n}" for n in range(12)]
P = Place(0, 0)


@pytest.fixture
def world() -> World:
    return new_world(BREAKERS, max_attempts=10, backoff_base_s=0.001)


def claim_all(world: World) -> list[Execution]:
    """Everything that goes out now starts."""
    found = []
    while (execution := world.claim(world.workers["w1"])) is not None:
        assert world.begin(execution)
        found.append(execution)
    world.step()
    return found


def trip(world: World) -> list[str]:
    """A failing dependency: the breaker opens; the groups, all of which wait now."""
    world.workers["w1"].slots = 4
    for group in GROUPS:
        publish(world, f"{group}-a", f"{group}-b", group=group)
    for execution in claim_all(world):
        world.end(execution, R.FAILED)
    world.step()
    world.pass_time(100)
    world.step()
    assert claim_all(world) == [], "nothing goes out while it is open"
    return GROUPS


def breaker(world: World, name: str = "s1") -> Breaker:
    found = world.engines[name].breakers.get("t")
    assert found is not None
    return found


def told(world: World) -> list[str | None]:
    return [e.reason for e in world.events() if e.kind is EventKind.BREAKER]


# -- one breaker


def outcomes(breaker: Breaker, succeeded: Iterable[bool]) -> list[bool]:
    return [breaker.ended(P, each, 0) for each in succeeded]


def test_a_breaker_opens_when_its_type_fails_too_often() -> None:
    """Of the last `window` executions, successes that came before count as well."""
    breaker = Breaker(BREAKERS["breakers"])
    assert outcomes(breaker, [False, True, True]) == [False] * 3, "fewer than the window say nothing"
    assert outcomes(breaker, [True, True, False]) == [False] * 3
    assert outcomes(breaker, [True, False]) == [False, True], "2 of the last 4"
    assert (breaker.state, breaker.allows, breaker.until_mono_ms) == (BreakerState.OPEN, 0, OPEN_MS)
    assert outcomes(breaker, [True, False]) == [False, False], "what began before says nothing new"


def test_without_a_rate_there_is_no_breaker() -> None:
    world = new_world(max_attempts=10)
    publish(world, "a")
    world.end(run_next(world), R.FAILED)
    world.step()
    assert world.engines["s1"].breakers.states() == {}


# -- groups


def test_an_open_breaker_uses_no_attempts_and_keeps_the_order(world: World) -> None:
    trip(world)
    publish(world, "free", group="free", task_type="u")
    world.workers["w1"].types = ("t", "u")
    world.step()
    assert [e.group for e in claim_all(world)] == ["free"], "other types go on"
    world.pass_time(OPEN_MS)
    world.step()
    (probe,) = claim_all(world)
    assert probe.task.attempt <= 2, "a head that failed before it opened waits for its second attempt, and no later one"
    world.end(probe)
    world.work_off()
    for group in GROUPS:
        assert [s for s in states(world, f"{group}-a") if s == "succeeded"] == ["succeeded"]
        attempts = [e.attempt for e in world.events() if e.task_id == f"{group}-a" and e.state == "running"]
        assert attempts in ([1], [1, 2])
    assert told(world) == ["open", "half_open", "closed"]


def test_one_probe_decides(world: World) -> None:
    trip(world)
    for left_ms, succeeded in ((OPEN_MS - 100, False), (OPEN_MS, False), (OPEN_MS, True)):
        world.pass_time(left_ms - 1)
        world.step()
        assert claim_all(world) == []
        world.pass_time(1)
        world.step()
        (probe,) = claim_all(world)
        assert breaker(world).state is BreakerState.HALF_OPEN
        world.pass_time(OPEN_MS)
        world.step()
        assert claim_all(world) == [], "one probe at a time, however long it takes"
        world.end(probe, R.SUCCEEDED if succeeded else R.FAILED)
        world.step()
    assert breaker(world).state is BreakerState.CLOSED
    assert told(world) == ["open", *["half_open", "open"] * 2, "half_open", "closed"]
    assert len(claim_all(world)) == 4


def test_a_probe_that_says_nothing_is_followed_by_another(world: World) -> None:
    """It came back unrun, was snoozed, or was cancelled."""
    trip(world)
    world.pass_time(OPEN_MS)
    world.step()
    for kind, more in ((R.RETURNED, {"reason": Reason.RETURNED}), (R.SNOOZED, {"delay_s": 60.0}), (R.ABANDONED, {})):
        (probe,) = claim_all(world)
        if kind is R.ABANDONED:
            ask(world, K.CANCEL_TASK, probe.group, task_id=probe.task.task_id)
        world.end(probe, kind, **more)
        world.step()
        assert breaker(world).state is BreakerState.HALF_OPEN
    assert len(claim_all(world)) == 1


def test_each_owner_of_partitions_has_a_breaker_of_its_own(world: World) -> None:
    """Whoever takes a partition over judges for himself; who loses the probe's partition may send another."""
    trip(world)
    world.pass_time(OPEN_MS)
    world.step()
    (probe,) = claim_all(world)
    lost = home_partition(probe.group.encode(), N)
    world.let_go("s1", [lost])
    world.start("s2", [lost], **BREAKERS)
    assert world.engines["s2"].breakers.states() == {} and breaker(world).probe is None
    world.step("s2")
    world.step("s1")
    out = claim_all(world)
    here = [e for e in out if home_partition(e.group.encode(), N) != lost]
    assert len(here) == 1, "one probe for the partitions that are left"
    assert len(out) > 1, "the new owner of the other one has heard of no failure"
    world.end(probe)
    world.step("s2")
    world.step("s1")
    assert breaker(world).state is BreakerState.HALF_OPEN, "that probe says nothing to whoever let it go"


def test_tokens_of_two_partitions_are_told_apart() -> None:
    breaker = Breaker(BreakerSettings(rate=1.0, window=1, open_s=1.0))
    breaker.ended(Place(1, 7), False, 0)
    assert breaker.half_open(1000)
    breaker.probe = Place(1, 8)
    assert not breaker.ended(Place(2, 8), True, 1000) and breaker.state is BreakerState.HALF_OPEN
    assert breaker.ended(Place(1, 8), True, 1000)


def test_a_breaker_that_opens_holds_what_would_run_here(world: World) -> None:
    """A process that runs handlers itself asks its breaker at each start, also between two steps."""
    engine = world.engines["s1"]
    world.vanish("w1")
    engine.here = here = Here(
        "boot-s1", 2, {}, world.moment, first=frozenset({"t"}), only=frozenset(), spare=frozenset({"t"})
    )  # fmt: skip
    here.open = True
    for group in GROUPS:
        publish(world, group, group=group)
    starts: list[Any] = []
    for _ in range(4):
        starts += engine.take_starts()
        start = starts.pop(0)
        failed = world_report(start, R.FAILED)
        assert engine.report_here(start, (failed,), world.now, ended=True)
    assert breaker(world).state is BreakerState.OPEN
    for start in engine.take_starts():  # began before it opened
        engine.report_here(start, (world_report(start, R.FAILED),), world.now, ended=True)
    world.step()
    assert engine.take_starts() == [] and here.free >= 1
    world.pass_time(OPEN_MS)
    world.hire("w1")
    world.step()
    assert len(engine.take_starts()) + len(claim_all(world)) == 1, "here or at a worker, one probe"


def world_report(start: Any, kind: R) -> Any:
    from streams.protocol import ErrorInfo, Report

    return Report(kind, start.task.sequence, start.task.token, error=ErrorInfo("OSError", "no"), delay_s=9.0)


def test_a_breaker_is_shown_by_explain_and_metrics(world: World) -> None:
    """The CLI shows it in `tests/cli/test_operating.py`."""
    trip(world)
    engine = world.engines["s1"]
    found = questions.explain(engine, "g7")
    assert (found["blocker"], found["limiter"]) == ("breaker", "t")
    assert found["text"].startswith("the breaker of type 't' is open: one probe goes out in 5 s")
    assert scraped(world) == {"breaker_open": 1.0, "changes_open": 1.0}
    world.pass_time(OPEN_MS)
    world.step()
    waiting = next(g for g in GROUPS if questions.explain(engine, g).get("blocker") == "breaker")
    assert "half open: one probe is out" in questions.explain(engine, waiting)["text"]
    assert answer(world, ask(world, K.PAUSE_GROUP, waiting))[0] == "done"
    assert questions.explain(engine, waiting)["blocker"] == "paused", "what only an operator lifts goes first"


def scraped(world: World) -> dict[str, float]:
    registry, engine = CollectorRegistry(), world.engines["s1"]
    shell: Any = SimpleNamespace(engine=engine)
    metrics = SchedulerMetrics(registry, shell)
    samples = [s for m in (*metrics._groups(), *metrics._counts()) for s in m.samples]
    return {
        "breaker_open": next(s.value for s in samples if s.name == "pstp_breaker_open" and s.labels["type"] == "t"),
        "changes_open": next(
            s.value for s in samples if s.name.startswith("pstp_breaker_changes") and s.labels["state"] == "open"
        ),
    }


# -- what a failed transaction takes along


def load_again(world: World) -> None:
    """As after a failed transaction: memory is dropped, and loaded from what was committed before."""
    world.let_go("s1", range(N))
    world.take_over("s1", range(N))


def test_a_probe_stays_the_only_one_when_its_partition_comes_back(world: World) -> None:
    trip(world)
    world.pass_time(OPEN_MS)
    world.step()
    (probe,) = claim_all(world)
    world.step(commit=False)
    load_again(world)
    assert breaker(world).probe == Place(home_partition(probe.group.encode(), N), probe.task.token)
    world.pass_time(1000)
    world.step()
    assert claim_all(world) == []
    world.end(probe)
    world.step()
    assert breaker(world).state is BreakerState.CLOSED
    assert [told(world)[0], told(world)[-1]] == ["open", "closed"]


def test_what_a_breaker_said_in_a_failed_transaction_is_said_again(world: World) -> None:
    trip(world)
    world.pass_time(OPEN_MS)
    world.step(commit=False)
    assert (breaker(world).state, told(world)) == (BreakerState.HALF_OPEN, ["open"])
    load_again(world)
    world.step()
    assert told(world) == ["open", "half_open"]
    assert len(claim_all(world)) == 1


def test_what_a_handler_says_of_one_task_opens_no_breaker(world: World) -> None:
    """`Reject`, and a payload that it cannot take: other tasks of that type are none the worse for it."""
    for number in range(12):
        publish(world, f"t{number}", group=GROUPS[number])
        reason = Reason.HANDLER_REJECTED if number % 2 else Reason.INVALID_PAYLOAD
        world.end(run_next(world), R.REJECTED, reason=reason)
        world.step()
    assert told(world) == []
