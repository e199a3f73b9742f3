"""Tasks that count in the state of their group, so that each that is lost, doubled or out of order shows."""

import json

from streams.protocol import EventKind, TaskState
from tests.support import judge
from tests.support.system import System

TASKS, GROUPS = 400, 20


def publish_counting(system: System) -> None:
    for number in range(TASKS):
        system.publish(f"g{number % GROUPS}", "count", 0.02, id=f"{number}")
    system.flush()


def assert_kept(system: System, *, repeats_allowed: bool) -> None:
    """Every task succeeded once, in order, and each group's state counted each of them exactly once."""
    history, journal = system.history, system.journal()
    assert history.count(TaskState.SUCCEEDED) == TASKS == history.terminal()
    dead = {p.popen.pid for p in system.processes if not p.alive()}
    assert judge.overlaps(judge.without_the_dead(journal, dead)) == []
    expected = {f"g{g}": [str(n) for n in range(g, TASKS, GROUPS)] for g in range(GROUPS)}
    assert judge.first_starts(journal) == expected
    if not repeats_allowed:
        assert judge.starts(journal) == expected
    for group, tasks in expected.items():
        results = [
            json.loads(bytes(e.result)) for e in history.events
            if e.group == group and e.state is TaskState.SUCCEEDED and e.result
        ]  # fmt: skip
        assert results == list(range(len(tasks)))
        states = [e for e in history.events if e.group == group and e.kind is EventKind.GROUP_STATE]
        assert states[-1].group_state is not None
        assert json.loads(bytes(states[-1].group_state)) == {"n": len(tasks)}
        assert len(states) == len(tasks)
