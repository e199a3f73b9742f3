"""SIGTERM: what ends in time does not repeat, what does not is released, and nothing is reported that goes on."""

import asyncio
import threading

from consumers import Registry, Task
from streams.members import MembersView
from streams.protocol import ReportKind
from tests.support.system import until
from tests.worker.kit import Gate, Rig


def waiting(gate: Gate) -> Registry:
    registry = Registry()

    @registry.handler("async")
    async def wait(task: Task) -> str:
        await gate.pass_async(task.id)
        return "done"

    @registry.handler("thread")
    def block(task: Task) -> str:
        gate.pass_blocking(task.id)
        return "done"

    @registry.handler("listens")
    def listens(task: Task) -> None:
        gate.entered.append(task.id)
        until(lambda: task.cancelled, what="cancelled")
        raise RuntimeError("told to end")

    @registry.handler("finishes")
    async def finishes(task: Task) -> str:
        gate.entered.append(task.id)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "done all the same"
        return ""

    return registry


def test_what_ends_within_the_drain_time_succeeds_and_the_rest_of_its_run_returns(rig: Rig, gate: Gate) -> None:
    running = rig.worker(waiting(gate), drain_s=20)
    tokens = [*rig.dispatch("g", "async", run=2), rig.dispatch("h", "thread")[0]]
    gate.wait_entered(2)
    running.worker.request_stop()
    until(lambda: not running.worker._poller.owned, what="it lets its partitions go")
    gate.opened.set()
    assert [r.kind.value for r in rig.ends(*tokens)] == ["succeeded", "returned", "succeeded"]
    running.wait()
    assert (running.error, running.exits) == (None, [])
    assert sorted(gate.entered) == ["g-0", "h-0"], (
        "a loop and a thread, in any order; the rest of the run did not begin"
    )


def test_what_can_be_stopped_is_released_when_the_drain_time_is_over(rig: Rig, gate: Gate) -> None:
    running = rig.worker(waiting(gate), drain_s=0)
    tokens = [rig.dispatch(name, name)[0] for name in ("async", "listens", "finishes")]
    gate.wait_entered(3)
    running.stop()
    ends = rig.ends(*tokens)
    assert [r.kind.value for r in ends] == ["abandoned", "abandoned", "succeeded"]
    assert all(r.started and r.ended for r in ends)
    assert running.exits == []


def test_what_cannot_be_stopped_is_not_reported_and_ends_with_the_process(rig: Rig, gate: Gate) -> None:
    running = rig.worker(waiting(gate), drain_s=0)
    [token] = rig.dispatch("g", "thread")
    gate.wait_entered(1)
    running.stop()
    assert running.exits == [0]
    assert rig.kinds(token)[-1] in ("started", "renewed")


def test_who_leaves_says_so_at_once_and_its_partitions_go_to_others_while_it_drains(rig: Rig, gate: Gate) -> None:
    running = rig.worker(waiting(gate), drain_s=20)
    other = rig.worker(waiting(gate), "w2")
    rig.dispatch("g", "async")
    gate.wait_entered(1)
    view = MembersView(rig.settings)
    view.start()
    try:
        until(lambda: view.snapshot().keys() == {"w1", "w2"}, what="both are announced")
        until(lambda: len(running.worker._poller.owned) == 2, what="they share")
        busy = next(w for w in (running, other) if w.worker._running())
        name = busy.worker._instance
        busy.worker.request_stop()
        until(lambda: name not in view.snapshot(), what="it has left")
        idle = next(w for w in (running, other) if w is not busy)
        until(lambda: len(idle.worker._poller.owned) == 4, 10, "the other has all")
        assert busy.worker._running() == 1
    finally:
        view.stop()


def test_a_claim_that_was_under_way_is_given_back(rig: Rig, gate: Gate) -> None:
    """`request_stop` between the commit and `started`: nothing begins any more."""
    held, stopping = threading.Event(), threading.Event()

    def at(step: str) -> None:
        if step == "started":
            held.set()
            stopping.wait(20)

    running = rig.worker(waiting(gate), step=at)
    tokens = rig.dispatch("g", "async", run=2)
    assert held.wait(20)
    running.worker.request_stop()
    until(lambda: running.worker._runtime.draining, what="it drains")
    stopping.set()
    assert [r.kind for r in rig.ends(*tokens)] == [ReportKind.RETURNED] * 2
    running.wait()
    assert (gate.entered, running.exits) == ([], [])
