"""The fold: what events change in the rows of the read model.  Pure; `store.py` loads the rows and writes them back.

A batch is folded over the rows that its events touch, and each touched row is written once, however many events it had.
"""

from collections import Counter
from typing import Final, NamedTuple

import msgspec
from msgspec import Struct

from pstp.verify.table import came_back_unrun
from pstp.web.tables import key_of, shown, stored
from streams.protocol import Event, EventKind, TaskState

UNFINISHED: Final = 1
LETTER: Final = 2
OVER: Final = 0
_NO_GROUP: Final = 0
ERROR_CHARS: Final = 500  # of each attempt's error; the last one is kept whole
_text = msgspec.json.Encoder().encode
# A task's states as its group counts them.
_COUNTED: Final = {
    TaskState.PARKED: "parked", TaskState.DISPATCHED: "dispatched", TaskState.RUNNING: "running",
    TaskState.CANCELLING: "running", TaskState.RETRYING: "retrying",
}  # fmt: skip
_STEPS: Final = frozenset({EventKind.TASK, EventKind.STALE_REPORT, EventKind.DEAD_LETTER_CLOSED})


class Record(NamedTuple):
    """Events of one record of `task-events`, in order, and where it stands."""

    partition: int
    offset: int
    events: tuple[Event, ...]


class GroupRow(Struct):
    """One row of `groups`."""

    id: int
    name: str
    partition: int
    place: int = 0
    state: str = "idle"
    since_ms: int = 0
    parked: int = 0
    dispatched: int = 0
    running: int = 0
    retrying: int = 0
    done: int = 0
    paused: str | None = None
    blocked: str | None = None
    group_state: str | None = None
    clock_id: str | None = None
    ended_ns: int = 0
    overlaps: int = 0

    def change(self) -> dict[str, object]:
        """The group as the stream tells of it."""
        return {
            "group": shown(self.name), "state": self.state, "parked": self.behind_head(), "done": self.done,
            "sinceMs": self.since_ms,
        }  # fmt: skip

    def behind_head(self) -> int:
        return max(0, self.unfinished() - 1)

    def unfinished(self) -> int:
        return self.parked + self.dispatched + self.running + self.retrying

    def now_in(self) -> str:
        """The state that people are shown."""
        if self.blocked is not None:
            return "blocked"
        if self.paused is not None:
            return "paused"
        if self.running:
            return "running"
        if self.dispatched:
            return "dispatched"
        if self.retrying:
            return "retrying"
        return "ready" if self.parked else "idle"


class TaskRow(Struct):
    """One row of `tasks`; `steps` holds what this batch adds."""

    id: int
    task_id: str = ""
    group_id: int = _NO_GROUP
    type: str = ""
    state: str = ""
    open: int = OVER
    attempt: int = 0
    token: int | None = None
    worker: str | None = None
    reason: str | None = None
    created_ms: int = 0
    updated_ms: int = 0
    due_ms: int | None = None
    progress: float | None = None
    note: str | None = None
    error: str | None = None
    result: str | None = None
    steps: str = ""
    payload: str | None = None


class ExecutionRow(Struct):
    """One row of `executions`."""

    id: int
    group_id: int
    task: int
    attempt: int
    worker: str
    state: str
    start_ms: int
    end_ms: int | None = None
    reported: int = 0
    refused: int = 0


class Command(NamedTuple):
    """The answer to a command, as a row of `commands`."""

    id: str
    group_name: str
    kind: str | None
    outcome: str
    reason: str | None
    actor: str | None
    note: str | None
    at_ms: int
    partition: int
    place: int


class Batch:
    """Rows that some records touch, and their fold.  Fill `groups`, `tasks` and `executions`, then call `fold`."""

    def __init__(self, records: list[Record], next_group_id: int) -> None:
        self.records, self.next_group_id = records, next_group_id
        self.groups: dict[str, GroupRow] = {}
        self.tasks: dict[int, TaskRow] = {}
        self.executions: dict[int, ExecutionRow] = {}
        self.touched: dict[int, GroupRow] = {}
        self.commands: dict[str, Command] = {}
        self.counts: Counter[str] = Counter()
        self.ended: Counter[int] = Counter()
        self.new_groups = 0
        self.last_ms = 0
        self.seen = 0

    def keys(self) -> tuple[set[str], set[int], set[int]]:
        """Names of groups, keys of tasks and of executions whose rows must be there before `fold`."""
        groups, tasks, executions = set(), set(), set()
        for partition, _offset, events in self.records:
            for event in events:
                if event.group is not None and event.state is not TaskState.REJECTED:
                    groups.add(stored(event.group))
                if event.sequence is not None:
                    tasks.add(key_of(event.sequence, partition))
                if event.fencing_token is not None:
                    executions.add(key_of(event.fencing_token, partition))
        return groups, tasks, executions

    def fold(self) -> None:
        for partition, offset, events in self.records:
            for event in events:
                self._take(partition, offset, event)

    def _take(self, partition: int, offset: int, event: Event) -> None:
        self.seen += 1
        at_ms = int(event.at.timestamp() * 1000 + 0.5)
        self.last_ms = at_ms
        if event.state is TaskState.REJECTED:
            self._reject(partition, offset, event, at_ms)
            return
        group = self._group(event, partition, offset)
        if event.kind is EventKind.TASK:
            if group is not None and event.sequence is not None and event.state is not None:
                task = self._task(event, group, partition, at_ms)
                self._change(task, group, event, partition, at_ms)
        elif group is not None:
            self._other(group, event, partition, offset, at_ms)
        if event.sequence is not None and event.kind in _STEPS:
            row = self.tasks.get(key_of(event.sequence, partition))
            if row is not None:
                row.steps += _step(event, at_ms, partition, offset)

    def _group(self, event: Event, partition: int, offset: int) -> GroupRow | None:
        if event.group is None:
            return None
        name = stored(event.group)
        group = self.groups.get(name)
        if group is None:
            group = self.groups[name] = GroupRow(self.next_group_id, name, partition)
            self.next_group_id += 1
            self.new_groups += 1
            self.counts["group:idle"] += 1
        group.place = offset
        self.touched[group.id] = group
        return group

    def _task(self, event: Event, group: GroupRow, partition: int, at_ms: int) -> TaskRow:
        key = key_of(event.sequence or 0, partition)
        task = self.tasks.get(key)
        if task is None:
            task = self.tasks[key] = TaskRow(key, group_id=group.id, created_ms=at_ms)
        if not task.task_id:
            task.task_id = stored(event.task_id or "")
        if not task.type and event.type is not None:
            task.type = stored(event.type)
        return task

    def _change(self, task: TaskRow, group: GroupRow, event: Event, partition: int, at_ms: int) -> None:
        state = event.state
        assert state is not None
        before = _COUNTED.get(task.state) if task.open == UNFINISHED else None  # type: ignore[call-overload]
        after = _COUNTED.get(state)
        was_busy = group.unfinished() > 0
        if before != after:
            if before is not None:
                setattr(group, before, getattr(group, before) - 1)
            if after is not None:
                setattr(group, after, getattr(group, after) + 1)
        self.counts["busy"] += (group.unfinished() > 0) - was_busy
        if task.state:
            self.counts["task:" + task.state] -= 1
        self.counts["task:" + state] += 1
        self._open(task, UNFINISHED if after else LETTER if state is TaskState.DEAD_LETTERED else OVER)
        if after is None:
            group.done += 1
            self.ended[at_ms // 1000] += 1
            self.counts["ended"] += 1
        task.state, task.updated_ms, task.group_id = state.value, at_ms, group.id
        if event.attempt is not None:
            task.attempt = event.attempt
        if event.worker is not None:
            task.worker = stored(event.worker)
        task.reason = event.reason
        task.due_ms = None if event.not_before is None else int(event.not_before.timestamp() * 1000 + 0.5)
        if event.payload is not None:
            task.payload = bytes(event.payload).decode()
        if event.error is not None:
            task.error = stored(_text(event.error).decode())
        if event.result is not None:
            task.result = bytes(event.result).decode()
        if event.fencing_token is not None:
            task.token = event.fencing_token
            self._execute(task, group, event, partition, at_ms)
        self._regroup(group, at_ms)

    def _open(self, task: TaskRow, value: int) -> None:
        if task.open == LETTER:
            self.counts["letters"] -= 1
        if value == LETTER:
            self.counts["letters"] += 1
        task.open = value

    def _execute(self, task: TaskRow, group: GroupRow, event: Event, partition: int, at_ms: int) -> None:
        key = key_of(event.fencing_token or 0, partition)
        row = self.executions.get(key)
        if row is None:
            if event.state is not TaskState.RUNNING and event.started_at is None:
                return  # dispatched, or came back and never ran
            start_ms = at_ms if event.started_at is None else int(event.started_at.timestamp() * 1000 + 0.5)
            row = self.executions[key] = ExecutionRow(
                key,
                group.id,
                task.id,
                event.attempt or 0,
                stored(event.worker or ""),
                event.state.value if event.state else "",
                start_ms,
            )
            self.counts["begun"] += 1
        if event.state in (TaskState.RUNNING, TaskState.CANCELLING):
            row.state = event.state.value
            return
        if event.state is TaskState.PARKED and row.end_ms is None and came_back_unrun(event.reason, event.worker):
            self.counts["begun"] -= 1  # its start was told, and it had not run
        row.state = event.state.value if event.state else ""
        if event.ended_at is None:
            row.end_ms = at_ms if row.end_ms is None else row.end_ms
            return
        row.end_ms, row.reported = int(event.ended_at.timestamp() * 1000 + 0.5), 1
        if event.started_mono_ns is None or event.ended_mono_ns is None or event.clock_id is None:
            return
        self.counts["executions"] += 1
        if group.clock_id == event.clock_id and event.started_mono_ns < group.ended_ns:
            group.overlaps += 1
            self.counts["overlaps"] += 1
        if group.clock_id != event.clock_id or event.ended_mono_ns > group.ended_ns:
            group.clock_id, group.ended_ns = event.clock_id, event.ended_mono_ns

    def _other(self, group: GroupRow, event: Event, partition: int, offset: int, at_ms: int) -> None:
        match event.kind:
            case EventKind.PROGRESS:
                task = self.tasks.get(key_of(event.sequence or 0, partition))
                if task is not None:
                    task.progress, task.note = event.progress, None if event.note is None else stored(event.note)
            case EventKind.GROUP_STATE:
                group.group_state = None if event.group_state is None else bytes(event.group_state).decode()
            case EventKind.GROUP_FORGOTTEN:
                group.group_state = None
            case EventKind.GROUP_PAUSED:
                until_ms = None if event.until is None else int(event.until.timestamp() * 1000 + 0.5)
                group.paused = stored(_text({
                    "actor": event.actor or "", "note": event.note or "", "since_ms": at_ms, "until_ms": until_ms,
                }).decode())  # fmt: skip
            case EventKind.GROUP_RESUMED:
                group.paused = None
            case EventKind.GROUP_BLOCKED:
                group.blocked = _text({"reason": event.reason or "", "since_ms": at_ms}).decode()
            case EventKind.GROUP_UNBLOCKED:
                group.blocked = None
            case EventKind.STALE_REPORT:
                row = self.executions.get(key_of(event.fencing_token or 0, partition))
                # A report that came twice is refused too; only an end that its worker had not told makes a zombie.
                if row is not None and not row.reported and row.end_ms is not None:
                    row.refused = 1
            case EventKind.DEAD_LETTER_CLOSED:
                task = self.tasks.get(key_of(event.sequence or 0, partition))
                if task is not None and task.open == LETTER:
                    self._open(task, OVER)
            case EventKind.COMMAND if event.command_id is not None and event.outcome is not None:
                self._answer(event, event.command_id, partition, offset, at_ms)
            case _:
                pass
        self._regroup(group, at_ms)

    def _answer(self, event: Event, command_id: str, partition: int, offset: int, at_ms: int) -> None:
        if event.reason == "repeated":
            return  # the first answer stands
        self.commands[command_id] = Command(
            stored(command_id), stored(event.group or ""), event.command.value if event.command else None,
            event.outcome.value if event.outcome else "", event.reason,
            None if event.actor is None else stored(event.actor), None if event.note is None else stored(event.note),
            at_ms, partition, offset,
        )  # fmt: skip

    def _regroup(self, group: GroupRow, at_ms: int) -> None:
        state = group.now_in()
        if state != group.state:
            self.counts["group:" + group.state] -= 1
            self.counts["group:" + state] += 1
            group.state, group.since_ms = state, at_ms
        elif not group.since_ms:
            group.since_ms = at_ms

    def _reject(self, partition: int, offset: int, event: Event, at_ms: int) -> None:
        """It never was a task, and its group may be none: a dead letter under its place in `tasks`."""
        key = -key_of(event.origin_offset or offset, event.origin_partition or partition) - 1
        note = None if event.note is None else stored(event.note)
        if key not in self.tasks:
            self.counts["task:rejected"] += 1
        self.tasks[key] = TaskRow(
            key, stored(event.task_id or ""), _NO_GROUP, "", "rejected", LETTER, reason=event.reason, created_ms=at_ms,
            updated_ms=at_ms, note=note, steps=_step(event, at_ms, partition, offset),
        )  # fmt: skip


def _step(event: Event, at_ms: int, partition: int, offset: int) -> str:
    words = [
        at_ms,
        event.state,
        event.kind,
        event.attempt,
        event.worker,
        event.reason,
        event.note,
        partition,
        str(offset),
    ]
    if event.error is not None:
        words.append(f"{event.error.type}: {event.error.message}"[:ERROR_CHARS])
    return stored(_text(words).decode()) + "\n"
