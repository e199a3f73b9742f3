"""What became of a partition's tasks, counted for ever: a fold of its own task-events.

The counts stand in the partition's row, so they are written in the transaction that writes the events: they neither
double nor start again, whoever owns the partition.  `pstp verify` folds the log the same way and must agree.
"""

from streams.protocol import Event, EventKind, Reason, TaskState

# what is counted -> label -> how often
Totals = dict[str, dict[str, int]]
STATES, BURIED, REFUSED, LOST = "states", "buried", "refused", "lost"
_RUN_THROUGH = (TaskState.PARKED, TaskState.DISPATCHED, TaskState.RUNNING, TaskState.SUCCEEDED)
_BURIED = frozenset({TaskState.DEAD_LETTERED, TaskState.REJECTED})


def add(totals: Totals, event: Event) -> None:
    """Count one event."""
    if event.kind is EventKind.TASK and event.state is not None:
        _count(totals, STATES, event.state)
        if event.state in _BURIED:
            _count(totals, BURIED, event.reason or "")
        if event.reason == Reason.WORKER_LOST:
            _count(totals, LOST, "")
    elif event.kind is EventKind.STALE_REPORT:
        _count(totals, REFUSED, event.reason or "")


def add_run_through(totals: Totals, tasks: int, *, parked: bool) -> None:
    """Count the events of so many tasks that were dispatched, ran and succeeded; perhaps they were parked before."""
    counts = totals.setdefault(STATES, {})
    for state in _RUN_THROUGH if parked else _RUN_THROUGH[1:]:
        counts[state] = counts.get(state, 0) + tasks


def _count(totals: Totals, what: str, label: str) -> None:
    counts = totals.setdefault(what, {})
    counts[label] = counts.get(label, 0) + 1
