"""What became of a partition's tasks, counted for ever: a fold of its own task-events.

The counts stand in the partition's row, so they are written in the transaction that writes the events: they neither
double nor start again, whoever owns the partition.  `pstp verify` folds the log the same way and must agree.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Final

from streams.catalogue import OTHER
from streams.protocol import TERMINAL, Event, EventKind, Reason, TaskState

# what is counted -> label -> how often
Totals = dict[str, dict[str, int]]
STATES, BURIED, REFUSED, LOST, ENDS = "states", "buried", "refused", "lost", "ends"
# Publishers invent types, and these counts stand in a row that is written again and again: so many (state, type) are
# told apart in a partition, and no longer types; all others count together.
ENDS_MAX: Final = 100
TYPE_CHARS_MAX: Final = 64
_RUN_THROUGH = (TaskState.PARKED, TaskState.DISPATCHED, TaskState.RUNNING, TaskState.SUCCEEDED)
_BURIED = frozenset({TaskState.DEAD_LETTERED, TaskState.REJECTED})


# What is counted of an event: (kind, state, reason, type).  Most are alike, so they are gathered and counted together.
Told = tuple[EventKind, TaskState | None, str | None, str | None]


def told(event: Event) -> Told:
    return event.kind, event.state, event.reason, event.type


def add(totals: Totals, events: Iterable[Told]) -> None:
    for (kind, state, reason, task_type), count in Counter(events).items():
        if kind is EventKind.TASK and state is not None:
            _count(totals, STATES, state, count)
            if task_type is not None and state in TERMINAL:
                add_ends(totals, state, task_type, count)
            if state in _BURIED:
                _count(totals, BURIED, reason or "", count)
            if reason == Reason.WORKER_LOST:
                _count(totals, LOST, "", count)
        elif kind is EventKind.STALE_REPORT:
            _count(totals, REFUSED, reason or "", count)


def add_run_through(totals: Totals, task_type: str, tasks: int, *, parked: bool) -> None:
    """Count the events of so many tasks that were dispatched, ran and succeeded; perhaps they were parked before."""
    counts = totals.setdefault(STATES, {})
    for state in _RUN_THROUGH if parked else _RUN_THROUGH[1:]:
        counts[state] = counts.get(state, 0) + tasks
    add_ends(totals, TaskState.SUCCEEDED, task_type, tasks)


def add_ends(totals: Totals, state: TaskState, task_type: str, tasks: int) -> None:
    """So many tasks of this type have reached this end."""
    counts = totals.setdefault(ENDS, {})
    label = f"{state} {task_type}"
    if label not in counts and (len(counts) >= ENDS_MAX or len(task_type) > TYPE_CHARS_MAX):
        label = f"{state} {OTHER}"
    counts[label] = counts.get(label, 0) + tasks


def read_end(label: str) -> tuple[str, str]:
    """State and type of a label of `ENDS`."""
    state, _, task_type = label.partition(" ")
    return state, task_type


def _count(totals: Totals, what: str, label: str, count: int) -> None:
    counts = totals.setdefault(what, {})
    counts[label] = counts.get(label, 0) + count
