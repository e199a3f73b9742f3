"""Dead letters and jobs that redrive them, through the real command line and as functions."""

from collections.abc import Iterator

import pytest
from msgspec import Raw

from pstp.service import DeadLetterFilter, RedriveJob, list_dead_letters
from streams.protocol import EventKind, TaskState
from tests.cli.operated import ended, operated, pstp
from tests.support.system import System


@pytest.fixture(scope="module")
def system(bootstrap: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with operated(bootstrap, tmp_path_factory.mktemp("redriven")) as system:
        yield system


def bury(system: System, group: str, count: int, task_type: str = "picky", **payload: object) -> list[str]:
    """So many dead letters of a group, in order."""
    ids = [f"{group}-{number}" for number in range(count)]
    for task_id in ids:
        system.publish(group, task_type, payload, id=task_id)
    system.flush()
    ended(system, ids[-1], TaskState.DEAD_LETTERED)
    return ids


def test_dead_letters_are_listed_shown_redriven_edited_and_discarded(system: System) -> None:
    a, b, c = bury(system, "d/1", 3)
    bury(system, "d/2", 1)
    listed = pstp(system, "redrivable", "--group", "d/1", "--type", "picky", "--since", "1h", "--json")
    assert [(x["task_id"], x["reason"], x["attempts"]) for x in listed] == [(t, "attempts_spent", 1) for t in (a, b, c)]
    assert pstp(system, "redrivable", "--until", "1h", "--json") == []
    assert "d/1" in pstp(system, "redrivable", "--limit", "1") and "no dead letter" in pstp(
        system, "redrivable", "--type", "x"
    )
    shown = pstp(system, "dead-letter", "d/1", a, "--json")
    assert shown["payload"] == {} and shown["error_info"]["message"] == "login with *** refused"
    assert "no open dead letter" in pstp(system, "dead-letter", "d/1", "nope", code=2)
    assert pstp(system, "redrive", "--group", "d/1", "--dry-run", "--json") == {"count": 3}
    assert pstp(system, "redrive", "--group", "d/1", code=2).startswith("pstp: redrive 3 dead letters to the head")
    assert "--group and --id" in pstp(system, "redrive", "--payload", "1", code=2)
    done = pstp(system, "redrive", "--group", "d/1", "--id", a, "--payload", '{"ok":true}', "--actor", "ada", "--json")
    assert done == {"count": 1, "redriven": 1, "refused": {}, "aborted": False}
    ended(system, a, TaskState.SUCCEEDED)
    (edited,) = [e for e in system.history.events if e.kind is EventKind.EDITED]
    assert (edited.task_id, edited.actor, [(c.path, c.before, c.after) for c in edited.changes]) == (
        a, "ada", [("/ok", None, "true")],
    )  # fmt: skip
    assert pstp(system, "discard", "d/1", b, "--note", "by hand").startswith("d/1: discard dead letter done")
    assert pstp(system, "discard", "d/1", b, "--json", code=1)["reason"] == "no_dead_letter"
    assert "redriven: 1 of 1" in pstp(system, "redrive", "--group", "d/1", "--to", "tail", "--yes", "--per-s", "50")
    assert [x["task_id"] for x in pstp(system, "redrivable", "--group", "d/2", "--json")] == ["d/2-0"]


def test_secrets_are_masked_also_in_child_processes_where_hopeless_errors_are_not_retried(system: System) -> None:
    bury(system, "masked", 1)
    bury(system, "masked-child", 1, "picky.process")
    assert system.history.states("masked-child-0").count(TaskState.RUNNING) == 1, "only KeyError is retried"
    letters = [m for m in system.dead_letters() if (m.key() or b"").startswith(b"masked")]
    assert len(letters) == 2
    for letter in letters:
        headers = dict(letter.headers() or [])
        assert headers["pstp.error"] == headers["pstp.first-error"] == b"login with *** refused"
        assert b"*** refused" in headers["pstp.traceback"]
        assert b"Traceback" in headers["pstp.traceback"] or b"File" in headers["pstp.traceback"]
    said = b"".join(
        (m.value() or b"") + repr(m.headers()).encode() for m in system.read_all("task-events", 4) + letters
    )
    logs = "".join(process.log() for process in system.processes)
    assert b"s3cr3t" not in said and "s3cr3t" not in logs


def letters(system: System, group: str) -> list[str]:
    return [letter.task_id for letter in list_dead_letters(system.settings, DeadLetterFilter(group))]


@pytest.mark.parametrize("position", ["head", "tail"])
def test_a_job_keeps_the_original_order_and_does_nothing_twice(system: System, position: str) -> None:
    """To the head also if it is sent in the wrong order; a second job, and the same one again, are refused."""
    group = f"ordered-{position}"
    ids = bury(system, group, 5)
    pstp(system, "pause", group)
    system.publish(group, "ok", id=f"{group}-parked")
    system.flush()
    found = list_dead_letters(system.settings, DeadLetterFilter(group, type="picky"))
    to = "head" if position == "head" else "tail"
    job, again = (RedriveJob(system.settings, found[::-1], position=to, payload=Raw(b'{"ok":true}')) for _ in range(2))
    assert [(j.done, j.total) for j in job.run()] == [(5, 5)]
    for twice in (again, job):
        list(twice.run())
    assert (again.done, again.refused) == (0, {"no_dead_letter": 5})
    assert (job.done, job.refused) == (5, {"repeated": 5})
    pstp(system, "resume", group)
    for task_id in ids:
        ended(system, task_id, TaskState.SUCCEEDED)
    ended(system, f"{group}-parked", TaskState.SUCCEEDED)
    parked = [f"{group}-parked"]
    assert system.history.started_order(group)[5:] == ([*ids, *parked] if position == "head" else [*parked, *ids])


def test_a_job_is_limited_shows_its_progress_and_is_aborted(system: System) -> None:
    bury(system, "limited", 6)
    job = RedriveJob(system.settings, list_dead_letters(system.settings, DeadLetterFilter("limited")), per_s=2)
    seen = []
    for state in job.run():
        seen.append((state.done, state.total, state.aborted))
        if state.done >= 4:
            job.abort()
    assert seen == [(2, 6, False), (4, 6, False)], "two a second, and no more once it is aborted"
    assert job.aborted and job.done == 4
    system.history.wait(lambda h: h.states("limited-3").count(TaskState.DEAD_LETTERED) == 2)
    assert sorted(letters(system, "limited")) == [f"limited-{n}" for n in range(6)], "they failed again, 2 never went"
    assert system.history.started_order("limited")[6:] == [f"limited-{n}" for n in range(4)]


def test_the_history_of_all_this_keeps_the_promise(system: System) -> None:
    found = pstp(system, "verify", "--running", "--json")
    assert found["ok"], found
