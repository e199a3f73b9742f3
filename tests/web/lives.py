"""Histories as schedulers write them: whole lives of tasks, for tests of the fold."""

import random
from collections.abc import Iterator
from typing import Any

from msgspec import Raw

from pstp.web.folding import Record
from streams.protocol import PROTOCOL, CommandKind, ErrorInfo, Event, EventKind, Outcome, TaskState, utc

START_MS = 1_700_000_000_000
PARTITIONS = 3


class Log:
    """One log of `PARTITIONS` partitions.  Each event is a record; time and tokens rise."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.ms = START_MS
        self.token = 2**32
        self._offsets = [0] * PARTITIONS

    def say(self, partition: int, kind: EventKind = EventKind.TASK, **fields: Any) -> Event:
        self.ms += 7
        event = Event(PROTOCOL, kind, utc(self.ms), **fields)
        self.records.append(Record(partition, self._offsets[partition], (event,)))
        self._offsets[partition] += 1 + len(self.records) % 2  # marks of transactions take offsets too
        return event

    def task(self, partition: int, group: str, sequence: int, state: TaskState, **fields: Any) -> Event:
        common = {"task_id": f"{partition}-{sequence}", "type": "t", "attempt": 1}
        return self.say(partition, group=group, sequence=2**32 + sequence, state=state, **(common | fields))

    def park(self, partition: int, group: str, sequence: int, payload: bytes = b'{"n":1}', **fields: Any) -> Event:
        return self.task(partition, group, sequence, TaskState.PARKED, payload=Raw(payload), **fields)

    def dispatch(self, partition: int, group: str, sequence: int, **fields: Any) -> int:
        self.token += 1
        self.task(partition, group, sequence, TaskState.DISPATCHED, fencing_token=self.token, **fields)
        return self.token

    def start(self, partition: int, group: str, sequence: int, **fields: Any) -> tuple[int, dict[str, Any]]:
        """Dispatch and start; the token, and what its end repeats."""
        token = self.dispatch(partition, group, sequence, **fields)
        began = {
            "fencing_token": token, "worker": "w1", "started_at": utc(self.ms), "started_mono_ns": self.ms * 10**6,
            "clock_id": "c",
        }  # fmt: skip
        self.task(partition, group, sequence, TaskState.RUNNING, **(began | fields))
        return token, began

    def end(
        self, partition: int, group: str, sequence: int, began: dict[str, Any], state: TaskState, **fields: Any
    ) -> None:
        ended = {"ended_at": utc(self.ms + 5), "ended_mono_ns": (self.ms + 5) * 10**6}
        self.task(partition, group, sequence, state, **(began | ended | fields))

    def run(self, partition: int, group: str, sequence: int, **fields: Any) -> None:
        """From parked to succeeded."""
        self.park(partition, group, sequence)
        _token, began = self.start(partition, group, sequence)
        self.end(partition, group, sequence, began, TaskState.SUCCEEDED, result=Raw(b'{"ok":true}'), **fields)

    @property
    def ends(self) -> dict[int, int]:
        return ends_of(self.records)


def ends_of(records: list[Record]) -> dict[int, int]:
    return {record.partition: record.offset + 1 for record in records}


def random_log(seed: int, tasks: int = 60) -> Log:
    """Groups that run, fail, retry, are paused, skipped, redriven, lose workers and have group state."""
    draw = random.Random(seed)
    log = Log()
    lives = [_life(draw, log, n % PARTITIONS, f"group-{n % 7 * PARTITIONS + n % PARTITIONS}", n) for n in range(tasks)]
    while lives:
        life = draw.choice(lives[:9])
        if next(life, None) is None:
            lives.remove(life)
    return log


def _life(draw: random.Random, log: Log, partition: int, group: str, n: int) -> Iterator[bool]:
    log.park(partition, group, n)
    yield True
    if draw.random() < 0.1:
        log.say(partition, EventKind.GROUP_PAUSED, group=group, actor="ada", note="n", command_id=f"c{n}")
        yield True
        log.say(
            partition, EventKind.COMMAND, group=group, command_id=f"c{n}", command=CommandKind.PAUSE_GROUP,
            outcome=Outcome.DONE,
        )  # fmt: skip
        yield True
        log.say(partition, EventKind.GROUP_RESUMED, group=group)
        yield True
    for attempt in range(1, draw.choice((2, 2, 2, 3, 4))):
        token, began = log.start(partition, group, n, attempt=attempt)
        yield True
        fate = draw.random()
        if fate < 0.2:
            log.task(
                partition, group, n, TaskState.RETRYING, fencing_token=token, reason="worker_lost", attempt=attempt
            )
            yield True
            log.say(
                partition, EventKind.STALE_REPORT, group=group, fencing_token=token, sequence=2**32 + n, worker="w1",
                note="succeeded refused",
            )  # fmt: skip
            yield True
        elif fate < 0.5:
            error = ErrorInfo("ValueError", "no")
            log.end(partition, group, n, began, TaskState.RETRYING, error=error, reason="failed", attempt=attempt)
            yield True
    token, began = log.start(partition, group, n)
    yield True
    log.say(
        partition, EventKind.PROGRESS, group=group, sequence=2**32 + n, fencing_token=token, progress=0.5, note="half"
    )
    yield True
    if draw.random() < 0.2:
        log.end(partition, group, n, began, TaskState.DEAD_LETTERED, reason="attempts_spent", error=ErrorInfo("E", "m"))
        yield True
        if draw.random() < 0.5:
            log.say(
                partition, EventKind.DEAD_LETTER_CLOSED, group=group, sequence=2**32 + n, task_id=f"{partition}-{n}",
                reason="redriven_head",
            )  # fmt: skip
            log.park(partition, group, n, reason="redriven_head")
            yield True
            _token, began = log.start(partition, group, n)
            log.end(partition, group, n, began, TaskState.SUCCEEDED)
            yield True
    else:
        log.end(partition, group, n, began, TaskState.SUCCEEDED, result=Raw(b"12"))
        log.say(partition, EventKind.GROUP_STATE, group=group, group_state=Raw(b'{"n":%d}' % n), sequence=2**32 + n)
        yield True
