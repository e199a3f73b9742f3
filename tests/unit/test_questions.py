"""`streams.questions`: why a group waits, in the words that people read."""

import pytest
from msgspec import Raw

from streams import questions
from streams.group import Phase
from streams.murmur2 import home_partition
from streams.protocol import Reason, ReportKind, utc
from tests.unit.world import LEASE_MS, Execution, N, World, group_of

HOME = home_partition(b"g", N)


@pytest.fixture
def world() -> World:
    world = World()
    world.start("s1")
    return world


def text(world: World, group: str = "g") -> str:
    answer: str = questions.explain(world.engines["s1"], group)["text"]
    return answer


def answer(world: World, group: str = "g") -> dict[str, object]:
    return questions.explain(world.engines["s1"], group)


def claimed(world: World) -> Execution:
    execution = world.claim(next(iter(world.workers.values())))
    assert execution is not None
    return execution


def running(world: World) -> Execution:
    execution = claimed(world)
    world.begin(execution)
    world.step()
    return execution


def test_of_a_group_that_nobody_knows(world: World) -> None:
    assert text(world) == "idle: nothing is waiting"
    assert answer(world)["phase"] is Phase.IDLE and answer(world)["partition"] == HOME


def test_of_a_group_whose_state_alone_is_left(world: World) -> None:
    world.hire("w1")
    world.publish("g")
    world.step()
    world.end(running(world), ReportKind.SUCCEEDED, state=Raw(b"1"), state_set=True)
    world.step()
    assert text(world) == "idle: nothing is waiting"


def test_of_a_group_that_another_scheduler_owns(world: World) -> None:
    world.engines["s1"].drop(HOME)
    assert text(world) == "another scheduler owns this group"
    assert answer(world)["owned"] is False


def test_of_a_type_that_no_worker_handles(world: World) -> None:
    world.hire("w1")
    world.publish("g", "mail.send")
    world.publish("g")
    world.step()
    assert text(world) == (
        "no worker handles type 'mail.send': start one whose handlers include it; 1 parked behind it"
    )  # fmt: skip
    assert (answer(world)["blocker"], answer(world)["limiter"]) == ("no_handler", "mail.send")


def test_of_a_group_that_waits_for_a_slot(world: World) -> None:
    world.hire("w1", slots=1)
    for group in ("h", "g", "i"):
        world.publish(group)
        world.step()
    assert text(world) == "ready: every slot for type 't' is taken, it is number 1 of 2 groups that wait for one"
    assert answer(world)["blocker"] == "no_free_slot"


def test_of_a_dispatched_head(world: World) -> None:
    world.hire("w1", [1])
    _, offset = world.publish("g")
    world.step()
    assert text(world) == f"task {HOME}-{offset} is on its way to worker w1"
    world.vanish("w1")
    world.step()
    assert text(world) == f"task {HOME}-{offset} is on its way to dispatch partition 1, which nobody owns"


def test_of_a_running_head(world: World) -> None:
    world.hire("w1")
    for _ in range(3):
        world.publish("g", id="x1")
    world.step()
    running(world)
    since = f"{utc(world.now.wall_ms):%H:%M:%S} UTC"
    assert text(world) == f"task x1 runs on w1 since {since}; 2 parked behind it"
    assert (answer(world)["blocker"], answer(world)["worker"], answer(world)["attempt"]) == ("running", "w1", 1)


def test_of_a_head_that_goes_on_after_its_time(world: World) -> None:
    world.hire("w1")
    world.publish("g", id="x1")
    world.publish("g", id="x2")
    world.step()
    execution = running(world)
    note = "timed out, still running on w1 since 2031-05-01T08:00:00Z"
    world.say(execution, ReportKind.PROGRESS, reason=Reason.TIMEOUT, note=note)
    world.step()
    assert text(world) == f"task x1 {note}; 1 parked behind it"
    world.end(execution)
    world.step()
    running(world)
    assert text(world).startswith("task x2 runs on w1 since ")


def test_of_a_head_whose_time_has_not_come(world: World) -> None:
    due_ms = world.now.wall_ms + 60_000
    world.publish("g", id="x1", not_before=utc(due_ms).isoformat())
    world.step()
    assert text(world) == f"task x1 waits until {utc(due_ms):%Y-%m-%d %H:%M:%S} UTC, not before its time"
    assert answer(world)["expected_start"] == utc(due_ms)


@pytest.mark.parametrize(
    ("kind", "reason"), [(ReportKind.FAILED, None), (ReportKind.FAILED, Reason.TIMEOUT), (ReportKind.SNOOZED, None)]
)
def test_of_a_head_that_runs_again_later(world: World, kind: ReportKind, reason: Reason | None) -> None:
    world.hire("w1")
    world.publish("g", id="x1")
    world.publish("g")
    world.step()
    world.end(running(world), kind, delay_s=60.0, reason=reason)
    world.step()
    why = reason or (Reason.FAILED if kind is ReportKind.FAILED else Reason.SNOOZED)
    due = f"{utc(world.now.wall_ms + 60_000):%Y-%m-%d %H:%M:%S}"
    assert text(world) == f"task x1 waits until {due} UTC, after {why}; 1 parked behind it"


def test_of_a_blocked_group(world: World) -> None:
    world.publish("g")
    world.publish("g")
    world.step()
    offset = world.append("completions", HOME, b"g", b"broken")
    world.engines["s1"].quarantined.add(("completions", HOME, offset))
    world.step()
    assert text(world) == "blocked: internal_error; 1 parked behind it"
    assert (answer(world)["blocker"], answer(world)["blocked"]) == ("blocked", Reason.INTERNAL_ERROR)


def test_of_an_input_that_a_strangers_transaction_holds_up(world: World) -> None:
    engine = world.engines["s1"]
    held = [("tasks", HOME), ("completions", (HOME + 1) % N)]
    answer = questions.explain(engine, "g", held)
    assert answer["held_by_transaction"] == f"tasks-{HOME}"
    assert answer["text"].startswith(f"idle: nothing is waiting; what was published later to tasks-{HOME} is held up")
    assert "held_by_transaction" not in questions.explain(engine, "g", held[1:])


def test_every_phase_has_words(world: World) -> None:
    """Whatever a group goes through, there is an answer; and it says how old it is."""
    world.hire("w1")
    world.publish("g", not_before=utc(world.now.wall_ms + 1000).isoformat())
    seen = set()

    def look() -> None:
        found = answer(world)
        assert found["text"] and found["as_of_ms"]
        seen.add(found["phase"])

    look()
    world.step()
    look()
    world.workers["w1"].slots = 0
    world.pass_time(1000)
    world.step()
    look()
    world.workers["w1"].slots = 1
    world.step()
    look()
    running(world)
    look()
    world.pass_time(LEASE_MS)
    assert seen == set(Phase)


@pytest.mark.parametrize("group", ["", "a/b\n..", "☕", "x" * 1000, "\ud800"])
def test_odd_names_are_only_names(world: World, group: str) -> None:
    assert questions.explain(world.engines["s1"], group)["group"] == group
    assert questions.list_tasks(world.engines["s1"], group, 10) == []


def test_tasks_of_a_group_are_listed_in_order(world: World) -> None:
    world.hire("w1")
    for name in ("a", "b", "c", "d"):
        world.publish("g", id=name)
    world.step()
    running(world)
    tasks = questions.list_tasks(world.engines["s1"], "g", 3)
    assert [(t["task_id"], t["state"]) for t in tasks] == [("a", "running"), ("b", "parked"), ("c", "parked")]
    assert [t["sequence"] for t in tasks] == sorted(t["sequence"] for t in tasks)


def test_a_summary_says_what_the_machine_says(world: World) -> None:
    world.hire("w1")
    world.publish("g", id="x1")
    world.publish("g")
    world.step()
    entry = world.engines["s1"].partitions[HOME].entries[b"g"]
    summary = questions.summary(entry)
    assert (summary["group"], summary["phase"], summary["parked"]) == ("g", group_of(world, "g").phase, 1)
    assert (summary["task_id"], summary["type"], summary["since_ms"]) == ("x1", "t", world.now.wall_ms)
