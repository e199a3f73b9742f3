"""Writing histories by hand: a `Log` for good ones, `Log.change` and friends to break them."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec import Raw
from msgspec.structs import replace

from pstp.verify import History, Options, Report
from streams.protocol import PROTOCOL, CommandKind, Event, EventKind, Outcome, Reason, TaskState, encode

START = datetime(2031, 5, 1, 8, tzinfo=UTC)
S = TaskState


@dataclass
class T:
    """A task that the log knows."""

    group: str
    task_id: str
    sequence: int
    attempt: int = 1
    token: int = 0
    started_ms: int = 0
    worker: str = ""


@dataclass
class Log:
    """One partition's events.  Time passes 10 ms per event, on all clocks."""

    partition: int = 0
    events: list[Event] = field(default_factory=list, repr=False)
    ms: int = 0
    counter: int = 1 << 32
    offset: int = 0
    clock: str = "boot-a"

    def add(self, kind: EventKind = EventKind.TASK, **fields: Any) -> Event:
        self.ms += 10
        event = Event(PROTOCOL, kind, self.at(self.ms), **fields)
        self.events.append(event)
        return event

    def at(self, ms: int) -> datetime:
        return START + timedelta(milliseconds=ms)

    def _about(self, task: T, state: TaskState, **fields: Any) -> Event:
        fields = {"attempt": task.attempt, "fencing_token": task.token or None} | fields
        return self.add(group=task.group, task_id=task.task_id, type="t", state=state, sequence=task.sequence, **fields)

    def next_number(self) -> int:
        self.counter += 1
        return self.counter

    def park(self, group: str, origin: tuple[int, int] | None = None, **fields: Any) -> T:
        if origin is None:
            origin = self.partition, self.offset
            self.offset += 1
        task = T(group, f"{origin[0]}-{origin[1]}", self.next_number())
        self._about(
            task, S.PARKED, origin_partition=origin[0], origin_offset=origin[1], payload=Raw(b'{"a":1}'), **fields
        )
        return task

    def dispatch(self, task: T, **fields: Any) -> Event:
        task.token = self.next_number()
        return self._about(task, S.DISPATCHED, **fields)

    def start(self, task: T, worker: str = "w1", **fields: Any) -> Event:
        task.started_ms, task.worker = self.ms + 5, worker
        times = {"started_at": self.at(task.started_ms), "started_mono_ns": task.started_ms * 1_000_000}
        more = {"worker": worker, "boot_id": worker, "clock_id": self.clock} | times
        return self._about(task, S.RUNNING, **(more | fields))

    def _end(self, task: T, state: TaskState, **fields: Any) -> Event:
        ended_ms = self.ms + 5
        more = {
            "worker": task.worker, "boot_id": task.worker, "clock_id": self.clock,
            "started_at": self.at(task.started_ms), "started_mono_ns": task.started_ms * 1_000_000,
            "ended_at": self.at(ended_ms), "ended_mono_ns": ended_ms * 1_000_000,
        }  # fmt: skip
        return self._about(task, state, **(more | fields))

    def succeed(self, task: T, **fields: Any) -> Event:
        return self._end(task, S.SUCCEEDED, result=Raw(b"null"), **fields)

    def set_state(self, task: T, state: bytes = b'{"n":1}') -> Event:
        return self.add(
            EventKind.GROUP_STATE, group=task.group, task_id=task.task_id, sequence=task.sequence,
            fencing_token=task.token, group_state=Raw(state),
        )  # fmt: skip

    def bury(self, task: T, reason: Reason = Reason.HANDLER_REJECTED) -> Event:
        return self._end(task, S.DEAD_LETTERED, reason=reason)

    def retry(self, task: T, reason: str = Reason.FAILED, delay_ms: int = 0) -> Event:
        task.attempt += reason != Reason.SNOOZED
        due = self.at(self.ms + 10 + delay_ms)
        if reason == Reason.WORKER_LOST:
            return self._about(task, S.RETRYING, reason=reason, not_before=due, worker=task.worker)
        return self._end(task, S.RETRYING, reason=reason, not_before=due)

    def come_back(self, task: T, reason: str = Reason.RETURNED, worker: str | None = None) -> Event:
        if reason == Reason.ABANDONED:
            return self._end(task, S.PARKED, reason=reason)
        return self._about(task, S.PARKED, reason=reason, worker=worker)

    def release(self, task: T, actor: str = "ada", note: str = "harmless") -> None:
        """An operator gives it up while it goes on; it is to run again."""
        self.add(
            EventKind.COMMAND, group=task.group, task_id=task.task_id, command_id="c1", command=CommandKind.RELEASE,
            outcome=Outcome.DONE, actor=actor, note=note,
        )  # fmt: skip
        task.attempt += 1
        self._about(task, S.RETRYING, reason=Reason.RELEASED, not_before=self.at(self.ms + 10), worker=task.worker)

    def reject(self, reason: Reason = Reason.NO_GROUP) -> Event:
        origin = self.partition, self.offset
        self.offset += 1
        return self.add(
            task_id=f"{origin[0]}-{origin[1]}", state=S.REJECTED, reason=reason,
            origin_partition=origin[0], origin_offset=origin[1],
        )  # fmt: skip

    def run(self, task: T) -> T:
        """From parked to succeeded."""
        self.dispatch(task)
        self.start(task)
        self.succeed(task)
        return task

    def where(self, state: TaskState, nth: int = 0, group: str = "g") -> int:
        """The index of the group's nth event with that state."""
        return [i for i, event in enumerate(self.events) if event.state is state and event.group == group][nth]

    def change(self, index: int, **fields: Any) -> None:
        self.events[index] = replace(self.events[index], **fields)

    def drop(self, index: int) -> None:
        del self.events[index]

    def repeat(self, index: int, later: int = 1) -> None:
        self.events.insert(index + later, self.events[index])

    def swap(self, one: int, other: int) -> None:
        self.events[one], self.events[other] = self.events[other], self.events[one]


def verdict(*logs: Log, truncated: tuple[int, ...] = (), **options: Any) -> Report:
    """Over the wire and through the checker."""
    history = History(Options(**options), truncated)
    for log in logs:
        for offset, event in enumerate(log.events):
            history.record(log.partition, offset, encode(event))
    history.close()
    return history.verdict()


def kinds(*logs: Log, **options: Any) -> set[str]:
    """Of the violations found, like "G3 lost"."""
    return set(verdict(*logs, **options).by_kind)
