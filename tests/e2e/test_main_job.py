"""The promise without faults: order, parallelism, retries, dead letters, group state, waiting."""

import json
import time
from datetime import UTC, datetime, timedelta

from streams.protocol import TaskState
from tests.support import judge
from tests.support.system import System, until


def test_a_group_runs_in_order_and_one_at_a_time_while_groups_overlap_in_time(system: System) -> None:
    system.scheduler()
    system.worker()
    for number in range(10):
        for group in range(8):
            system.publish(f"g{group}", "sleep", 0.05, id=f"{group}-{number}")
    system.flush()
    system.history.wait_terminal(80)

    journal = system.journal()
    assert judge.overlaps(journal) == []
    assert judge.starts(journal) == {f"g{g}": [f"{g}-{n}" for n in range(10)] for g in range(8)}
    spans = {}
    for line in journal:
        low, high = spans.get(line["group"], (line["mono_ns"], 0))
        spans[line["group"]] = low, max(high, line["mono_ns"])
    assert max(low for low, _ in spans.values()) < min(high for _, high in spans.values())


def test_the_history_of_a_task_names_each_state_once_with_times_and_payload(system: System) -> None:
    system.scheduler()
    system.worker()
    system.publish("g", "echo", {"big": 1970670598291982290}, id="a", labels={"team": "x"}, more=[1])
    system.flush()
    system.history.wait_terminal(1)

    parked, dispatched, running, succeeded = system.history.of["a"]
    assert [e.state for e in (parked, dispatched, running, succeeded)] == [
        TaskState.PARKED, TaskState.DISPATCHED, TaskState.RUNNING, TaskState.SUCCEEDED
    ]  # fmt: skip
    assert parked.payload is not None and bytes(parked.payload) == b'{"big": 1970670598291982290}'
    assert parked.labels == {"team": "x"}
    assert succeeded.result is not None and json.loads(bytes(succeeded.result)) == {"big": 1970670598291982290}
    assert succeeded.payload is None
    assert succeeded.fencing_token == running.fencing_token == dispatched.fencing_token
    assert succeeded.started_mono_ns is not None and succeeded.ended_mono_ns is not None
    assert succeeded.started_mono_ns <= succeeded.ended_mono_ns
    assert succeeded.worker == "w1"


def test_a_failing_head_is_retried_before_anything_behind_it(system: System) -> None:
    system.scheduler()
    system.worker()
    system.publish("g", "fail", 2, id="first")
    system.publish("g", "echo", id="second")
    system.publish("other", "echo", id="other")
    system.flush()
    system.history.wait_terminal(3)

    assert judge.starts(system.journal())["g"] == ["first", "first", "first", "second"]
    retrying = [e for e in system.history.of["first"] if e.state is TaskState.RETRYING]
    assert [e.attempt for e in retrying] == [2, 3]
    assert retrying[0].error is not None and retrying[0].error.message == "attempt 1 fails"
    assert system.history.states("other")[-1] is TaskState.SUCCEEDED


def test_spent_attempts_make_a_dead_letter_byte_for_byte_and_release_the_next(system: System) -> None:
    system.scheduler()
    system.worker()
    value = b'{"type":  "fail",\n "payload":99, "max_attempts": 2, "id":"poison", "unknown": 1.50}'
    system.publish_raw("g", value, headers=[("mine", b"\x00\xff"), ("empty", None), ("mine", b"twice")])
    system.publish("g", "echo", id="next")
    system.flush()
    system.history.wait_terminal(2)

    assert system.history.states("poison")[-1] is TaskState.DEAD_LETTERED
    assert system.history.states("next")[-1] is TaskState.SUCCEEDED
    (letter,) = system.dead_letters()
    assert (letter.key(), letter.value()) == (b"g", value)
    headers = letter.headers() or []
    assert headers[:3] == [("mine", b"\x00\xff"), ("empty", None), ("mine", b"twice")]
    marks = dict(headers[3:])
    assert marks["pstp.reason"] == b"attempts_spent"
    assert marks["pstp.attempts"] == b"2"
    assert marks["pstp.error-type"] == b"ValueError"


def test_retry_reject_and_snooze_do_what_they_say(system: System) -> None:
    system.scheduler()
    system.worker()
    system.publish("first", "echo")
    system.flush()
    system.history.wait_terminal(1)  # everybody is up
    system.publish("r", "outcome", {"do": "retry", "times": 2, "after_s": 0.1}, id="retry")
    system.publish("j", "outcome", {"do": "reject"}, id="reject")
    system.publish("s", "outcome", {"do": "snooze", "until_s": time.time() + 3, "after_s": 0.5}, id="snooze")
    for group in "rjs":
        system.publish(group, "echo", id=f"after-{group}")
    system.flush()
    system.history.wait_terminal(7)

    journal = system.journal()
    assert [line["attempt"] for line in journal if line["id"] == "retry" and line["what"] == "start"] == [1, 2, 3]
    assert system.history.of["reject"][-1].reason == "handler_rejected"
    snoozed = [line for line in journal if line["id"] == "snooze" and line["what"] == "start"]
    assert len(snoozed) > 2 and {line["attempt"] for line in snoozed} == {1}
    for group, task in (("r", "retry"), ("s", "snooze")):
        assert judge.first_starts(journal)[group] == [task, f"after-{group}"]


def test_group_state_is_handed_on_in_order(system: System) -> None:
    system.scheduler()
    system.worker()
    for number in range(30):
        system.publish("g", "count", id=str(number))
    system.flush()
    system.history.wait_terminal(30)
    results = [
        json.loads(bytes(e.result)) for e in system.history.events if e.state is TaskState.SUCCEEDED and e.result
    ]
    assert results == list(range(30))


def test_not_before_holds_the_group_and_explain_gives_the_time(system: System) -> None:
    """What is explained lies far ahead: how long this machine takes to start processes says nothing."""
    system.scheduler()
    system.worker()
    due, far = (datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=s) for s in (9, 3600))
    system.publish("g", "echo", id="later", not_before=due.isoformat())
    system.publish("g", "echo", id="behind")
    system.publish("past", "echo", id="past", not_before="2001-01-01T00:00:00Z")
    for name in ("far", "behind far"):
        system.publish("far", "echo", id=name, not_before=far.isoformat() if name == "far" else None)
    system.flush()

    answer = until(lambda: explained(system, "far", "waiting"))
    assert (answer["blocker"], answer["parked"]) == ("not_before", 1)
    assert f"{far:%Y-%m-%d %H:%M:%S} UTC" in answer["text"]
    system.history.wait_terminal(3)
    (started,) = [e for e in system.history.of["later"] if e.state is TaskState.RUNNING]
    assert started.started_at is not None and started.started_at >= due
    assert judge.starts(system.journal()) == {"g": ["later", "behind"], "past": ["past"]}


def test_a_type_without_handler_waits_is_explained_and_delays_nobody(system: System) -> None:
    system.scheduler()
    system.worker()
    system.publish("new", "no.such.type", id="waits")
    for number in range(50):
        system.publish(f"probe{number}", "echo")
    system.flush()
    system.history.wait_terminal(50)
    assert system.history.states("waits") == [TaskState.PARKED]
    answer = explained(system, "new", "ready")
    assert answer["blocker"] == "no_handler" and "no.such.type" in answer["text"]


def explained(system: System, group: str, phase: str) -> dict[str, object] | None:
    """The answer of `explain`, once the group is in this phase."""
    answer = system.get("s1", f"/explain?group={group}")
    return answer if answer.get("phase") == phase else None
