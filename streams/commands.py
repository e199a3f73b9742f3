"""Commands: what an operator asks of one group becomes events of its machine, or a refusal.  Pure.

A command is taken in once by its id, is judged by what it expects (`if_head`, `if_state`), and is answered in the
transaction that carries out what it asks, or later when it waits for the fate of a dispatch (see `streams.group`).
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import replace

from streams import edits, history, limits, protocol, rows
from streams.group import (
    By,
    EditAsked,
    Event,
    Group,
    ParkedLeft,
    PauseAsked,
    Phase,
    Redriven,
    ReleaseAsked,
    ResumeAsked,
    RetryAsked,
    Stop,
    StopAsked,
    SweepAsked,
    UnblockAsked,
    waits_as,
)
from streams.intake import AcceptedTask
from streams.memory import Dead
from streams.murmur2 import home_partition
from streams.partition import Entry, Partition, read_row
from streams.protocol import Command, CommandKind, Outcome, Reason, Refusal, TaskState, cut

if TYPE_CHECKING:
    from streams.engine import Engine, Input

K: Final = CommandKind
# Those that act on the head as the operator saw it.
ON_HEAD: Final[dict[CommandKind, Callable[[By], Event]]] = {
    K.RESUME_GROUP: ResumeAsked, K.RETRY_NOW: RetryAsked, K.UNBLOCK: UnblockAsked, K.RELEASE: ReleaseAsked,
}  # fmt: skip
DEAD: Final = frozenset({K.REDRIVE, K.EDIT_AND_REDRIVE, K.DISCARD_DEAD_LETTER})


class _Refused(Exception):
    def __init__(self, why: Refusal) -> None:
        self.why = why


def take(engine: "Engine", partition: Partition, record: "Input") -> None:
    """One record of `commands`.  Raises `VersionError`."""
    from streams.engine import read_origin

    *_, key, _headers, forwarded = read_origin(record, engine.partition_count)
    try:
        command = protocol.decode_command(record.value or b"")
        key = key or (command.group or "").encode()
        group = key.decode()
        if not group or command.group not in (None, group) or not command.id:
            raise ValueError("its key and its `group` must name one group, and its `id` itself")
        if command.until is not None and command.until.tzinfo is None:
            raise ValueError("`until` needs an offset from UTC")
    except protocol.VersionError:
        raise
    except ValueError as error:  # msgspec.DecodeError and UnicodeDecodeError are such
        engine.set_aside(partition, record, Reason.BAD_JSON, f"no command: {error}")
        _answer_unreadable(engine, partition, key, record.value or b"", str(error))
        return
    home = home_partition(key, engine.partition_count)
    if home != partition.number:
        if forwarded:
            engine.set_aside(partition, record, Reason.WRONG_PARTITION, "forwarded and still not at home")
        else:
            engine.forward(record, home, key)
        return
    by = _by(command)
    named = _named(command)
    if len(command.id) > limits.NAME_CHARS_MAX:
        _refuse(
            engine, partition, key, replace(by, command_id=cut(command.id, limits.NAME_CHARS_MAX)), Refusal.BAD_COMMAND,
            named,
        )  # fmt: skip
        return
    if command.id in partition.memory.commands:
        _refuse(engine, partition, key, by, Refusal.REPEATED, named)
        return
    number = partition.memory.note_command(command.id)
    engine.put_row(partition, rows.command_key(command.id), rows.encode(rows.CommandRow(rows.ROW_FORMAT, number)))
    if (entry := engine.must_wait(partition, key)) is None:
        _carry_out_or_refuse(engine, partition, key, command, by)
    elif len(entry.commands) >= limits.ASKED_MAX:
        _refuse(engine, partition, key, by, Refusal.IN_FLIGHT, named)
    else:
        engine.keep_command(partition, entry, record.value or b"")


def take_waiting(engine: "Engine", partition: Partition, record: "Input") -> None:
    """A command that was taken in while a run of its group was out; now none is."""
    command = protocol.decode_command(record.value or b"")
    _carry_out_or_refuse(engine, partition, record.key or b"", command, _by(command))


def _by(command: Command) -> By:
    return By(
        command.id, command.kind, cut(command.actor, limits.NAME_CHARS_MAX), cut(command.note, limits.NOTE_CHARS_MAX)
    )


def _carry_out_or_refuse(engine: "Engine", partition: Partition, key: bytes, command: Command, by: By) -> None:
    try:
        _carry_out(engine, partition, key, command, by)
    except _Refused as refused:
        _refuse(engine, partition, key, by, refused.why, _named(command))


def _named(command: Command) -> str | None:
    return command.task_id and cut(command.task_id, limits.NAME_CHARS_MAX)


class _Sender(Struct):
    """What can be read of a command that makes no sense."""

    id: str
    actor: str = ""


def _answer_unreadable(engine: "Engine", partition: Partition, key: bytes | None, value: bytes, detail: str) -> None:
    """Whoever sent it may wait: if it has an id, and is where its answer would be, it is refused by that id."""
    try:
        sender = _decode_sender(value)
        group = (key or b"").decode()
    except (ValueError, RecursionError):
        return
    if group and sender.id and home_partition(group.encode(), engine.partition_count) == partition.number:
        command_id, actor = cut(sender.id, limits.NAME_CHARS_MAX), cut(sender.actor, limits.NAME_CHARS_MAX)
        event = history.not_a_command(group, command_id, actor, cut(detail, limits.NOTE_CHARS_MAX), engine.now)
        engine.publish(partition, group.encode(), event)


_decode_sender: Final = msgspec.json.Decoder(_Sender).decode


def _refuse(
    engine: "Engine", partition: Partition, key: bytes, by: By, why: Refusal, named: str | None
) -> None:  # fmt: skip
    """The answer names the task that was named, or else the head."""
    entry = partition.entries.get(key)
    head_id = entry.task.task_id if entry is not None and entry.task is not None else None
    engine.answer(partition, key, by, Outcome.REFUSED, refusal=why, task_id=named or head_id)


def _carry_out(engine: "Engine", partition: Partition, key: bytes, command: Command, by: By) -> None:
    """Raises `_Refused`."""
    if command.kind in DEAD:
        _dead_letter(engine, partition, key, command, by)
        return
    entry = partition.entries.get(key)
    if command.kind is not K.CANCEL_TASK or _is_head(entry, command.task_id):
        _expect(entry, command)
    if command.kind is K.FORGET_GROUP:
        _forget(engine, partition, key, by)
        return
    if entry is None:
        if command.kind is not K.PAUSE_GROUP:
            raise _Refused(_OF_NOBODY.get(command.kind, Refusal.NO_HEAD))
        entry = partition.entries[key] = Entry(key)
    engine.touch(partition, entry)
    match command.kind:
        case K.PAUSE_GROUP:
            until_ms = None if command.until is None else int(command.until.timestamp() * 1000)
            engine.feed(partition, entry, PauseAsked(by, until_ms))
        case K.CANCEL_TASK:
            _cancel_task(engine, partition, entry, command, by)
        case K.CANCEL_GROUP:
            _cancel_group(engine, partition, entry, command, by)
        case K.SKIP_HEAD:
            engine.feed(partition, entry, StopAsked(Stop(TaskState.SKIPPED, by)))
        case K.EDIT_HEAD:
            _edit_head(engine, partition, entry, command, by)
        case _:
            engine.feed(partition, entry, ON_HEAD[command.kind](by))


_OF_NOBODY: Final = {
    K.CANCEL_TASK: Refusal.NO_SUCH_TASK, K.RESUME_GROUP: Refusal.NOT_PAUSED, K.UNBLOCK: Refusal.NOT_BLOCKED,
    K.RELEASE: Refusal.NOT_RUNNING,
}  # fmt: skip


def states_of(group: Group) -> frozenset[str]:
    """Every word that says what a group or its head is doing now: any of them fits `if_state`."""
    words: set[str] = {group.phase}
    head = group.head
    if head is not None:
        match head.phase:
            case Phase.DISPATCHED:
                words.add(TaskState.DISPATCHED)
            case Phase.RUNNING:
                words.add(TaskState.CANCELLING if head.stop else TaskState.RUNNING)
            case _:
                words.add(waits_as(head))
    if group.blocked is not None:
        words.add("blocked")
    if group.pause is not None:
        words.add("paused")
    return frozenset(words)


def _expect(entry: Entry | None, command: Command) -> None:
    """What the operator saw must still be so: a skip meant for one head never hits the next."""
    task_id = entry.task.task_id if entry is not None and entry.task is not None else None
    if command.if_head is not None and command.if_head != task_id:
        raise _Refused(Refusal.OTHER_HEAD)
    if command.if_state is not None and command.if_state not in states_of(entry.group if entry else Group()):
        raise _Refused(Refusal.OTHER_STATE)


def _is_head(entry: Entry | None, task_id: str | None) -> bool:
    return entry is not None and entry.task is not None and entry.task.task_id == task_id


def _cancel_task(engine: "Engine", partition: Partition, entry: Entry, command: Command, by: By) -> None:
    if command.task_id is None:
        raise _Refused(Refusal.BAD_COMMAND)
    if _is_head(entry, command.task_id):
        engine.feed(partition, entry, StopAsked(Stop(TaskState.CANCELLED, by)))
        return
    found = find_parked(entry, command.task_id)
    if found is None:
        raise _Refused(Refusal.NO_SUCH_TASK)
    if command.if_state not in (None, TaskState.PARKED):
        raise _Refused(Refusal.OTHER_STATE)
    if command.if_head is not None and not _is_head(entry, command.if_head):
        raise _Refused(Refusal.OTHER_HEAD)
    if entry.group.sweep is not None:
        raise _Refused(Refusal.SWEEPING)
    engine.take_out(partition, entry, *entry.unpark(found[0]), ParkedLeft(by))


def find_parked(entry: Entry, task_id: str) -> tuple[int, AcceptedTask] | None:
    """Where a task stands among the parked ones.  Bytes first: only a record that may hold that id is parsed."""
    named, (origin, _, offset) = task_id.encode(errors="surrogatepass"), task_id.partition("-")
    by_place = origin.isdigit() and offset.isdigit()
    plain = task_id.isascii() and task_id.isprintable() and '"' not in task_id and "\\" not in task_id
    for place, (_, value) in enumerate(entry.backlog()):
        # An escaped spelling of a plain id is legal JSON, if odd.
        if plain and not by_place and named not in value and b"\\u" not in value and b"\\/" not in value:
            continue
        task = read_row(value)[1]
        if task.task_id == task_id:
            return place, task
    return None


def _cancel_group(engine: "Engine", partition: Partition, entry: Entry, command: Command, by: By) -> None:
    """The backlog: all that is parked and a head that is not out; with `running` also one that is."""
    head = entry.group.head
    if entry.group.sweep is not None:
        raise _Refused(Refusal.SWEEPING)
    stops = head is not None and head.stop is None and (command.running or head.phase in (Phase.READY, Phase.WAITING))
    engine.feed(partition, entry, SweepAsked(by, before=int(stops)))
    if stops:
        engine.feed(partition, entry, StopAsked(Stop(TaskState.CANCELLED, replace(by, quiet=True))))


def _edit_head(engine: "Engine", partition: Partition, entry: Entry, command: Command, by: By) -> None:
    head, task = entry.group.head, entry.task
    edited: tuple[AcceptedTask, rows.TaskRow] | None = None
    if head is not None and task is not None and head.phase in (Phase.READY, Phase.WAITING):
        row, new = _edited(engine, entry.row, command.payload)
        edited = new, row
    engine.feed(partition, entry, EditAsked(by), edited)


def _edited(engine: "Engine", value: bytes, payload: Raw | None) -> tuple[rows.TaskRow, AcceptedTask]:
    row, task = read_row(value)
    if payload is None:
        raise _Refused(Refusal.BAD_COMMAND)
    try:
        return edits.with_payload(row, task, payload, engine.task_bytes_max)
    except ValueError:
        raise _Refused(Refusal.TOO_LARGE) from None


def _forget(engine: "Engine", partition: Partition, key: bytes, by: By) -> None:
    """Drop the group state.  A task that is out was given the old one, so it must end first."""
    entry = partition.entries.get(key)
    if key not in partition.states:
        raise _Refused(Refusal.NOTHING_TO_FORGET)
    if entry is not None and entry.group.phase in (Phase.DISPATCHED, Phase.RUNNING):
        raise _Refused(Refusal.IN_FLIGHT)
    engine.forget_state(partition, key, by)


def _dead_letter(engine: "Engine", partition: Partition, key: bytes, command: Command, by: By) -> None:
    if command.task_id is None:
        raise _Refused(Refusal.BAD_COMMAND)
    place = partition.memory.find(key, command.task_id, command.sequence)
    if place is None:
        raise _Refused(Refusal.NO_DEAD_LETTER)
    if command.kind is K.DISCARD_DEAD_LETTER:
        engine.close_dead_letter(partition, place, Reason.DISCARDED, by)
        engine.answer(partition, key, by, Outcome.DONE, task_id=command.task_id)
        return
    _redrive(engine, partition, place, command, by)


def _redrive(engine: "Engine", partition: Partition, place: Dead, command: Command, by: By) -> None:
    """Back to its group: at the head under its own sequence, which is below all that has come since, or at the tail."""
    entry = partition.entries.get(place.key)
    to_head = command.position == "head"
    _expect(entry, command)
    if to_head and entry is not None and entry.group.sweep is not None:
        raise _Refused(Refusal.SWEEPING)
    if engine.flow.full(entry.group.parked if entry is not None else 0, partition.tasks) is not None:
        raise _Refused(Refusal.GROUP_FULL)
    letter = partition.memory.dead[place]
    row, task = read_row(letter.task)
    if command.kind is K.EDIT_AND_REDRIVE:
        before = task.payload
        row, task = _edited(engine, letter.task, command.payload)
        event = history.edited(task, by, edits.changes(before, task.payload), engine.now)
        engine.publish(partition, place.key, event)
    engine.close_dead_letter(partition, place, Reason.REDRIVEN_HEAD if to_head else Reason.REDRIVEN_TAIL, by)
    if entry is None:
        entry = partition.entries[place.key] = Entry(place.key)
    engine.touch(partition, entry)
    sequence = place.sequence if to_head else partition.next_number()
    row = replace(row, accepted_ms=engine.now.wall_ms)
    engine.feed(partition, entry, Redriven(by, sequence, to_head), (task, row))
