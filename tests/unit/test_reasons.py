"""`streams.reasons`: in every state that can be reached each waiting task has one reason, and it goes away.

Worlds are driven at random.  After each step what `explain` names must hold; at the end, whatever is named is lifted,
once, and then something else must be named, or the group has moved: so nothing is named that was not the reason.
"""

from collections import Counter
from typing import Any, NamedTuple
from unittest import mock

from hypothesis import event, given, settings
from hypothesis import strategies as st
from msgspec import Raw

from streams import limits, protocol, questions
from streams.breakers import BreakerSettings
from streams.flow import Flow
from streams.group import Phase
from streams.murmur2 import home_partition
from streams.partition import Entry
from streams.protocol import CommandKind, FailurePolicy, Reason
from streams.reasons import Blocker
from tests.unit.one_group import K, R, ask, new_world
from tests.unit.world import N, Worker

HOME = home_partition(b"g", N)
OPEN_S = 3.0
AT_REST = (None, Blocker.PAUSED, Blocker.BLOCKED)  # of a group without a task
# Commands are one step in three; a whole attempt is a step of its own, or nothing would ever fail twice.
ALONE = ["claim", "begin", "lost", "time", "fire", "hire", "full", "crash", "unknown", "later"]
STEPS = st.one_of(
    st.sampled_from(["publish", "publish", "publish", "fails", "fails", "fails", "snoozes", "succeeds"]),
    st.sampled_from(ALONE), st.sampled_from(list(K)),
)  # fmt: skip


class Chosen(NamedTuple):
    policy: FailurePolicy
    breakers: bool
    pauses: bool  # intake, beyond 2 parked tasks

    def engine(self) -> dict[str, Any]:
        return {
            "breakers": BreakerSettings(0.5, 2, OPEN_S) if self.breakers else BreakerSettings(),
            "flow": Flow(group_max=2, when_full="pause") if self.pauses else Flow(),
        }


class Driven:
    """A world with one group, and the name of the scheduler that owns it now."""

    def __init__(self, chosen: Chosen) -> None:
        self.chosen, self.name = chosen, "s1"
        self.world = new_world(chosen.engine(), on_failure=chosen.policy)

    @property
    def entry(self) -> Entry | None:
        return self.world.engines[self.name].partitions[HOME].entries.get(b"g")

    def explain(self) -> dict[str, Any]:
        return questions.explain(self.world.engines[self.name], "g")

    def step(self) -> None:
        self.world.step(self.name)
        self.world.answer_all()

    def take(self, step: str, number: int) -> None:
        world, worker = self.world, self.world.workers.get("w1")
        match step:
            case "publish":
                world.publish("g", id=f"t{number}")
            case "later":
                world.publish("g", id=f"t{number}", not_before=protocol.utc(world.now.wall_ms + 3000).isoformat())
            case "unknown":
                world.publish("g", "u", id=f"t{number}")
            case "claim" if worker:
                world.claim(worker)
            case "begin" if worker and worker.claimed:
                world.begin(worker.claimed[0])
            case "succeeds" | "fails" | "snoozes" if worker:
                kind = {"succeeds": R.SUCCEEDED, "fails": R.FAILED, "snoozes": R.SNOOZED}[step]
                self.attempt(worker, kind, **({"delay_s": 1.0} if step == "snoozes" else {}))
            case "time":
                world.pass_time(1500)
            case "lost" if worker and worker.running:
                world.vanish("w1")
            case "fire" if worker and not worker.running:
                world.vanish("w1")
            case "hire" if worker is None:
                world.hire("w1")
            case "full" if worker:
                worker.slots = 0
            case "crash":
                world.crash(self.name)
                self.name = f"s{number + 2}"
                world.start(self.name, **self.chosen.engine())
            case _ if step in list(K):
                self.command(K(step), task_id=f"t{max(0, number - 2)}", payload=Raw(b"1"))

    def attempt(self, worker: Worker, kind: R, **fields: Any) -> None:
        """What runs ends so; if nothing does, the next one starts first, after its backoff if need be."""
        if not worker.running:
            if not worker.claimed and self.world.claim(worker) is None:
                self.world.pass_time(1000)
                self.step()
                self.world.claim(worker)
            if worker.claimed:
                self.world.begin(worker.claimed[0])
                self.step()
        if worker.running:
            self.world.end(worker.running[0], kind, **fields)

    def command(self, kind: CommandKind, **fields: Any) -> None:
        number = len(list(self.world.records("commands")))
        command = protocol.Command(f"c{number}", kind, "g", **fields)
        self.world.append("commands", HOME, b"g", protocol.encode(command))

    # -- what is named holds

    def check(self) -> None:
        found, entry = self.explain(), self.entry
        if entry is None or (entry.group.head is None and entry.group.sweep is None):
            assert found["phase"] is Phase.IDLE
            return
        group, head, blocker = entry.group, entry.group.head, found["blocker"]
        why, phase = head.why if head else None, group.phase
        ready = phase is Phase.READY and group.may_start
        handled = entry.task is not None and self.world.engines[self.name].handles(entry.task.type)
        holds = {
            Blocker.RUNNING: phase is Phase.RUNNING,
            Blocker.DISPATCHED: phase is Phase.DISPATCHED,
            Blocker.SWEEPING: group.sweep is not None,
            Blocker.BLOCKED: group.blocked is not None,
            Blocker.PAUSED: group.pause is not None,
            Blocker.BACKOFF: phase is Phase.WAITING and why not in (None, Reason.SNOOZED),
            Blocker.SNOOZED: phase is Phase.WAITING and why is Reason.SNOOZED,
            Blocker.NOT_BEFORE: phase is Phase.WAITING and why is None,
            Blocker.NO_HANDLER: ready and not handled,
            Blocker.BREAKER: ready and handled and bool(self.breaker()),
            Blocker.NO_FREE_SLOT: ready and handled and not self.breaker(),
        }
        assert holds[blocker], (blocker, group)
        assert found["text"].count("\n") == 0
        self.check_parked(group.parked, head is not None)

    def breaker(self) -> str | None:
        breaker = self.world.engines[self.name].breakers.get("t")
        return breaker.state if breaker is not None and breaker.state != "closed" else None

    def check_parked(self, parked: int, has_head: bool) -> None:
        engine = self.world.engines[self.name]
        listed = questions.list_tasks(engine, "g", 1000)
        for place in range(parked):
            why = questions.explain_task(engine, "g", listed[place + has_head]["task_id"])
            assert why["blocker"] is Blocker.BEHIND and why["position_in_group"] == place + 1

    # -- and goes away with its condition

    def lift(self, found: dict[str, Any]) -> None:
        world = self.world
        worker = world.workers.get("w1") or world.hire("w1")
        match found["blocker"]:
            case Blocker.RUNNING if worker.running:
                world.end(worker.running[0])
            case Blocker.RUNNING:  # its worker is gone: the lease is out, and everything is read
                world.pass_time(world.lease_ms + 1)
                self.step()
            case Blocker.DISPATCHED:
                worker.slots = max(worker.slots, 4)
                execution = worker.claimed[0] if worker.claimed else world.claim(worker)
                if execution in worker.claimed:
                    world.begin(execution)
                elif execution is None:  # claimed by a worker that is gone
                    world.pass_time(world.lease_ms + 1)
                    self.step()
            case Blocker.BLOCKED:
                self.command(K.UNBLOCK)
            case Blocker.PAUSED:
                self.command(K.RESUME_GROUP)
            case Blocker.BACKOFF | Blocker.SNOOZED | Blocker.NOT_BEFORE:
                left = found["expected_start"] - protocol.utc(world.now.wall_ms)
                world.pass_time(int(left.total_seconds() * 1000) + 1)
            case Blocker.NO_HANDLER:
                worker.types = ("t", "u")
            case Blocker.BREAKER:
                world.pass_time(int(OPEN_S * 1000))
                worker.slots = 4
            case Blocker.NO_FREE_SLOT:
                worker.slots = 4
        self.step()
        self.step()

    def picture(self) -> Any:
        """What a group is at: it moved if this differs."""
        group = self.entry.group if self.entry else None
        head = group.head if group else None
        return (group and group.parked, head and (head.sequence, head.phase, head.token, head.attempt))

    def lift_all(self) -> None:
        names: Counter[str] = Counter()
        for _ in range(300):
            found = self.explain()
            if found["phase"] is Phase.IDLE and found.get("blocker") in AT_REST and "intake_paused" not in found:
                break
            names[found["blocker"]] += 1
            before = self.picture()
            self.lift(found)
            waits_for_the_log = found["blocker"] in (Blocker.RUNNING, Blocker.DISPATCHED)
            assert self.explain().get("blocker") != found["blocker"] or self.picture() != before or waits_for_the_log
        else:
            raise AssertionError(f"it never comes to rest: {names}, {self.explain()}")
        for name in names:
            event(f"lifted {name}")


@settings(max_examples=400, deadline=None)
@given(
    steps=st.lists(STEPS, min_size=6, max_size=30),
    chosen=st.builds(Chosen, st.sampled_from(FailurePolicy), st.booleans(), st.booleans()),
)
@mock.patch.object(limits, "SWEPT_PER_STEP", 1)  # so that it is seen while it goes on
def test_each_waiting_task_has_exactly_one_reason_and_it_goes_away(steps: list[str], chosen: Chosen) -> None:
    driven = Driven(chosen)
    for number, step in enumerate(steps):
        driven.take(step, number)
        driven.step()
        driven.check()
    driven.lift_all()
    ended = {e.task_id for e in driven.world.events() if e.state in protocol.TERMINAL}
    seen = {e.task_id for e in driven.world.events() if e.state is not None}
    assert seen == ended, "nothing was forgotten"


def test_one_who_takes_over_from_an_owner_that_ran_tasks_himself_says_that_he_waits() -> None:
    world = new_world()
    world.publish("g", id="a")
    world.step()
    world.vanish("w1")
    engine = world.engines["s1"]
    world.publish("h")
    ask(world, K.CANCEL_TASK, task_id="a")
    for _ in range(3):
        world.pass_time(50)
        world.step()
        world.answer_all()
    engine.partitions[HOME].quiet_until_ms = world.now.mono_ms + 4850
    world.publish("g", id="b")
    world.step()
    found = questions.explain(engine, "g")
    assert found["blocker"] is Blocker.TAKING_OVER
    assert found["expected_start"] == protocol.utc(world.now.wall_ms + 4850)
