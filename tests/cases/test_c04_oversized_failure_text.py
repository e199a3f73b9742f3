"""C-04: a failure whose text was too large to be reported left its task running for ever.

Elsewhere the engine repeated the same update, which the transport refused each time (flyteorg/flyte #4371).
"""

import json

from streams import limits
from streams.protocol import Event, EventKind, Reason, TaskState
from tests.support import judge
from tests.support.system import HANDLERS, System

CASES = ("raise", "chain", "return", "progress", "reject", "state", "group", "type_name")
KINDS = ("async", "thread", "process")
NEIGHBOURS = 10


def test_text_of_any_size_is_cut_the_outcome_stands_and_the_group_goes_on(system: System) -> None:
    system.scheduler()
    system.worker(handlers=HANDLERS.with_name("handlers_wordy.py"))
    for number in range(NEIGHBOURS):
        system.publish(f"neighbour {number}", "sleep", 2, id=f"n{number}", max_attempts=1)
    tasks = [f"{kind}.{case}" for kind in KINDS for case in CASES]
    for task in tasks:
        system.publish(task, task, id=task, max_attempts=1)
        system.publish(task, "echo", id=f"behind {task}")
    system.flush()
    system.history.wait_terminal(NEIGHBOURS + 2 * len(tasks), 90)

    history = system.history
    for task in tasks:
        case, events = task.partition(".")[2], history.of[task]
        check_outcome(case, events[-1], task)
        behind = history.of[f"behind {task}"]
        assert behind[-1].state is TaskState.SUCCEEDED, task
        assert (behind[-1].at - events[-1].at).total_seconds() < 30, task
    check_notes(system)
    starts = judge.starts(system.journal())
    assert all(len(starts[f"neighbour {n}"]) == 1 for n in range(NEIGHBOURS))
    assert all(starts[task] == [task, f"behind {task}"] for task in tasks)
    assert max(len(m.value() or b"") for m in system.read_all("task-events", 4)) < limits.ENVELOPE_BYTES_MAX


def check_outcome(case: str, last: Event, task: str) -> None:
    if case in ("return", "progress"):
        assert (last.state, last.result_cut) == (TaskState.SUCCEEDED, case == "return"), task
        return
    assert last.state is TaskState.DEAD_LETTERED, task
    expected = {"reject": Reason.HANDLER_REJECTED, "state": Reason.STATE_TOO_LARGE}
    assert last.reason == expected.get(case, Reason.ATTEMPTS_SPENT), task
    assert last.error is not None
    assert len(last.error.message) < limits.ERROR_TEXT_CHARS_MAX + 100, task
    assert len(last.error.traceback or "") < limits.TRACEBACK_CHARS_MAX + 100, task
    if case in ("raise", "reject"):
        assert "[cut, 3000000 characters]" in last.error.message, "the history says that it was cut"
    if case == "chain":
        assert "further exceptions before it" in (last.error.traceback or "")


def check_notes(system: System) -> None:
    notes = [e for e in system.history.events if e.kind is EventKind.PROGRESS]
    assert {e.task_id for e in notes} >= {f"{kind}.progress" for kind in KINDS}
    for event in notes:
        assert "[cut, 3000000 characters]" in (event.note or ""), event.task_id
        assert len(event.note or "") < limits.NOTE_CHARS_MAX + 100
    letters = {json.loads(m.value() or b"")["id"]: m for m in system.dead_letters()}
    marks = dict(letters["async.raise"].headers() or [])
    assert b"[cut, 3000000 characters]" in (marks["pstp.error"] or b"")
