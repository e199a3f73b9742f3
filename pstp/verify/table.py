"""What a history may say: which state of a task follows which, and why a task may run again.

The checker has its own table on purpose: it does not believe the machine that it judges.
"""

from typing import Final, NamedTuple

from pstp.verify.findings import Guarantee
from streams.protocol import TERMINAL, Reason, TaskState

S = TaskState

NEXT: Final[dict[TaskState, frozenset[TaskState]]] = {
    S.PARKED: frozenset({S.PARKED, S.DISPATCHED, S.DEAD_LETTERED, S.CANCELLED, S.SKIPPED}),
    S.DISPATCHED: frozenset({S.RUNNING, S.PARKED, S.CANCELLING, S.CANCELLED, S.SKIPPED}),
    S.RUNNING: frozenset({S.SUCCEEDED, S.RETRYING, S.DEAD_LETTERED, S.PARKED, S.CANCELLING}),
    S.RETRYING: frozenset({S.RETRYING, S.DISPATCHED, S.DEAD_LETTERED, S.CANCELLED, S.SKIPPED}),
    S.CANCELLING: frozenset({S.CANCELLED, S.SKIPPED, S.SUCCEEDED, S.DEAD_LETTERED, S.PARKED}),
}

# A task in one of these is out at the workers; in the other open states it waits.
IN_FLIGHT: Final = frozenset({S.DISPATCHED, S.RUNNING, S.CANCELLING})
STARTED: Final = frozenset({S.RUNNING, S.CANCELLING})

# Why an execution may be followed by another, and whether the one that ended has used an attempt.
RETRY_USES_ATTEMPT: Final[dict[str | None, bool]] = {
    Reason.FAILED: True,
    Reason.TIMEOUT: True,
    Reason.INVALID_RESULT: True,
    Reason.WORKER_LOST: True,
    Reason.SNOOZED: False,
    # By command: released though it goes on, or blocked its group until somebody acted.
    Reason.RELEASED: True,
    Reason.ATTEMPTS_SPENT: True,
    Reason.NOT_RETRYABLE: True,
}
# Said of a task that waits, and it goes on waiting: its payload was edited, a redriven one was put before it.
STILL_WAITS: Final[frozenset[str | None]] = frozenset({Reason.EDITED, Reason.DISPLACED})
REDRIVEN: Final[frozenset[str | None]] = frozenset({Reason.REDRIVEN_HEAD, Reason.REDRIVEN_TAIL})
# Why a dispatch may come back unrun, using no attempt.  Its start may be in the log by then: a worker that finds too
# much of its lease gone does not run what it had announced.
CAME_BACK: Final[frozenset[str | None]] = frozenset(
    {Reason.RETURNED, Reason.TAKEN_BACK, Reason.NO_HANDLER, Reason.LOST_BEFORE_START}
)


def came_back_unrun(reason: str | None, worker: str | None) -> bool:
    """Whether a task whose start is in the log may have come back unrun: only its worker can know."""
    return reason in CAME_BACK and worker is not None


class Breach(NamedTuple):
    guarantee: Guarantee
    kind: str
    words: str


def breach(old: TaskState, new: TaskState) -> Breach:
    """What it means that `new` follows `old` where `NEXT` does not allow it."""
    if new is S.RUNNING and old not in STARTED:
        return Breach(Guarantee.G1, "started_undispatched", "started without a dispatch")
    if new in (S.RUNNING, S.DISPATCHED) and old in STARTED:
        return Breach(Guarantee.G4, "unexplained_repeat", "was given out again though its execution had not ended")
    if new is S.DISPATCHED:
        return Breach(Guarantee.G1, "double_release", "was dispatched again though the dispatch had not come back")
    if new in TERMINAL or new is S.RETRYING:
        return Breach(Guarantee.G3, "ended_unstarted", "has an outcome though it had not started")
    return Breach(Guarantee.G3, "illegal_transition", "took a step that does not exist")


def known_terminal(code: int) -> TaskState:
    return _BY_CODE[code]


_BY_CODE: Final = dict(enumerate(sorted(TERMINAL), start=1))
TERMINAL_CODES: Final = {state: code for code, state in _BY_CODE.items()}
