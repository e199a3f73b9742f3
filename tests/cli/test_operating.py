"""Commands that act on groups, through the real command line: for people, with --json, refused, and mistaken."""

from collections.abc import Iterator

import pytest

from pstp.service import new_command, send_command
from streams.protocol import CommandKind, TaskState
from tests.cli.operated import ended, explained, operated, pstp
from tests.support.system import System


@pytest.fixture(scope="module")
def system(bootstrap: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with operated(bootstrap, tmp_path_factory.mktemp("operated")) as system:
        yield system


def test_pause_and_resume_one_group_or_all_that_a_filter_finds(system: System) -> None:
    text = pstp(system, "pause", "p/1", "--for", "10m", "--actor", "ada", "--note", "their API is down")
    assert text.strip() == "p/1: pause group done"
    for group in ("p/1", "p/2", "p/3"):
        system.publish(group, "no.such", id=group, labels={"tenant": "x"})
    system.flush()
    explained(system, "p/3", "no worker handles")
    found = pstp(system, "explain", "p/1", "--json")
    assert (found["blocker"], found["paused"]["actor"]) == ("paused", "ada")
    assert "paused by ada since" in found["text"] and "their API is down" in found["text"]
    sentence = pstp(system, "pause", "--label", "tenant=x", code=2)
    assert sentence == "pstp: pause group: 3 groups; add --yes to do it\n", "the count comes first"
    answers = pstp(system, "pause", "--label", "tenant=x", "--yes", "--json")
    assert sorted((a["group"], a["outcome"]) for a in answers) == [(f"p/{n}", "done") for n in (1, 2, 3)]
    assert len(pstp(system, "groups", "--state", "paused", "--json")) == 3
    pstp(system, "resume", "p/3")
    resumed = pstp(system, "resume", "--type", "no.such", "--yes", "--json")
    assert [a["group"] for a in resumed] == ["p/1", "p/2"], "those that are paused"
    pstp(system, "pause", "p/idle")
    assert pstp(system, "resume", "--all", "--yes").strip() == "p/idle: resume group done", "also without a task"
    refused = pstp(system, "resume", "p/2", code=1)
    assert refused.strip() == "p/2: resume group refused, not paused, task p/2"
    assert "name a group" in pstp(system, "pause", code=2) and "no time" in pstp(
        system, "pause", "p", "--for", "x", code=2
    )
    paused = [e for e in system.history.read() if e.kind == "group_paused" and e.group == "p/1"]
    assert (paused[0].actor, paused[0].note) == ("ada", "their API is down") and paused[0].until is not None


def test_a_blocked_group_is_edited_retried_unblocked_and_skipped(system: System) -> None:
    for task in ("a", "b", "c", "d"):
        system.publish("blocked", "picky", {"ok": task == "d"}, id=f"block-{task}", on_failure="block")
    system.flush()
    explained(system, "blocked", "blocked by task block-a: attempts_spent, ValueError: login with *** refused")
    refused = pstp(system, "edit", "blocked", '{"ok": true}', "--if-head", "block-b", "--json", code=1)
    assert (refused["outcome"], refused["reason"]) == ("refused", "other_head")
    assert "no JSON" in pstp(system, "edit", "blocked", "{", code=2)
    edited = pstp(system, "edit", "blocked", '{"ok": true}', "--if-head", "block-a", "--actor", "ada", "--json")
    assert edited["changes"] == [{"path": "/ok", "before": "false", "after": "true"}]
    ended(system, "block-a", TaskState.SUCCEEDED)
    for command, attempts in (("retry", 2), ("unblock", 3)):
        explained(system, "blocked", "blocked by task block-b")
        pstp(system, command, "blocked", "--if-head", "block-b")
        system.history.wait(lambda h, n=attempts: h.states("block-b").count(TaskState.RUNNING) == n)
    explained(system, "blocked", "blocked by task block-b")
    pstp(system, "skip", "blocked", "--if-head", "block-b", "--if-state", "blocked")
    ended(system, "block-b", TaskState.SKIPPED)
    explained(system, "blocked", "blocked by task block-c")
    pstp(system, "cancel", "blocked", "block-c")
    ended(system, "block-d", TaskState.SUCCEEDED)
    assert pstp(system, "unblock", "blocked", code=1).strip() == "blocked: unblock refused, not blocked"


def test_a_task_is_explained_by_its_id_alone(system: System) -> None:
    for name in ("explained-head", "explained-parked"):
        system.publish("e/1", "no.such", id=name)
    system.flush()
    explained(system, "e/1", "1 parked behind it")
    assert pstp(system, "explain", "explained-head").startswith("e/1: no worker handles type 'no.such'")
    found = pstp(system, "explain", "explained-parked", "--json")
    assert (found["group"], found["blocker"], found["position_in_group"]) == ("e/1", "behind", 1)
    assert pstp(system, "explain", "nobody").strip() == "nobody: idle: nothing is waiting"
    system.publish("e/2", "no.such", id="explained-head")
    system.flush()
    explained(system, "e/2", "no worker handles")
    assert "name the group, one of ['e/1', 'e/2']" in pstp(system, "explain", "explained-head", code=2)


def test_cancel_one_task_or_the_backlog(system: System) -> None:
    pstp(system, "pause", "cancelled")
    for number in range(5):
        system.publish("cancelled", "ok", id=f"cancel-{number}")
    system.flush()
    system.history.wait(lambda h: h.of["cancel-4"])
    assert pstp(system, "cancel", "cancelled", "cancel-3").strip() == "cancelled: cancel task done, task cancel-3"
    assert pstp(system, "cancel", "cancelled", "cancel-3", "--json", code=1)["reason"] == "no_such_task"
    assert "name the task" in pstp(system, "cancel", "cancelled", code=2)
    assert pstp(system, "cancel", "cancelled", "--all", "--json")["count"] == 4
    assert all(system.history.read() and system.history.states(f"cancel-{n}")[-1] == "cancelled" for n in range(5))


def test_what_does_not_stop_is_released(system: System) -> None:
    system.publish("rude", "stubborn", id="stubborn")
    system.publish("rude", "ok", id="after")
    system.flush()
    ended(system, "stubborn", TaskState.RUNNING)
    assert pstp(system, "release", "rude", "--json", code=1)["reason"] == "runs_in_time"
    assert pstp(system, "retry", "rude", "--json", code=1)["reason"] == "in_flight"
    redrive = send_command(system.settings, new_command(CommandKind.REDRIVE, "rude", task_id="stubborn"))
    assert (redrive.outcome, redrive.reason) == ("refused", "no_dead_letter"), "it runs: there is nothing to redrive"
    assert "accepted" in pstp(system, "cancel", "rude", "stubborn")
    explained(system, "rude", "cancelled, still running on w1 since")
    assert TaskState.CANCELLED not in system.history.states("stubborn"), "one at a time goes before progress"
    assert pstp(system, "release", "rude", "--note", "seen to it").startswith("rude: release done")
    ended(system, "after", TaskState.SUCCEEDED)
    assert system.history.states("stubborn")[-1] is TaskState.CANCELLED
    (system.folder / "let-go").touch()
    system.history.wait(lambda h: any(e.kind == "stale_report" for e in h.events), what="its late report is refused")


def test_the_state_of_a_group_is_forgotten(system: System) -> None:
    system.publish("keeper", "keeps", 7, id="kept")
    system.flush()
    ended(system, "kept", TaskState.SUCCEEDED)
    assert pstp(system, "forget", "keeper").strip() == "keeper: forget group done"
    assert pstp(system, "forget", "keeper", "--json", code=1)["reason"] == "nothing_to_forget"


def test_breakers_are_listed_explained_and_measured(system: System) -> None:
    for number in range(30):
        system.publish(f"down-{number}", "down", id=f"down-{number}")
        system.publish(f"down-{number}", "down", id=f"down-{number}-next")
    system.flush()
    system.history.wait(lambda h: any(e.kind == "breaker" for e in h.events), what="the breaker opens")
    (listed,) = [b for b in pstp(system, "breakers", "--json") if b["state"] != "closed"]
    assert (listed["type"], listed["scheduler"], listed["state"], listed["probe"]) == ("down", "s1", "open", False)
    assert "down" in pstp(system, "breakers")
    system.history.wait(lambda h: h.of["down-29-next"], what="all are taken in")
    why = (pstp(system, "explain", f"down-{number}") for number in reversed(range(30)))
    assert any("the breaker of type 'down' is open" in text for text in why)
    assert system.metric("s1", "pstp_breaker_open") == 1 == system.metric("s1", "pstp_breaker_changes_total")


def test_the_history_of_all_this_keeps_the_promise(system: System) -> None:
    found = pstp(system, "verify", "--running", "--json")
    assert found["ok"], found
