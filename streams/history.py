"""Building `task-events`: what the world sees of a decision.  Pure."""

from functools import lru_cache
from typing import TYPE_CHECKING, Final

from streams import limits
from streams.clock import Now
from streams.group import Announce, By, Emit, Head, Ignored
from streams.intake import AcceptedTask
from streams.protocol import (
    PROTOCOL,
    Change,
    Completion,
    Event,
    EventKind,
    Events,
    MaybeRaw,
    Moment,
    Outcome,
    Reason,
    Refusal,
    Report,
    ReportKind,
    TaskState,
    cut,
    encode,
    utc,
)

if TYPE_CHECKING:
    from streams.express import Item

TOLD_ANEW = frozenset({Reason.REDRIVEN_HEAD, Reason.REDRIVEN_TAIL, Reason.EDITED})
NO_TIME = Moment(0, 0, "")


def state_changed(
    group: str, task: AcceptedTask, emit: Emit, now: Now, boot_id: str | None, origin: tuple[int, int] | None
) -> Event:
    """A task's state changed.  `origin`, its place in `tasks`, comes with its first event, and so does the payload;
    that is told again when it may be another.
    """
    report = emit.report
    started, ended = (report.started, report.ended) if report else (None, None)
    return Event(
        PROTOCOL,
        EventKind.TASK,
        utc(now.wall_ms),
        group=group,
        task_id=task.task_id,
        type=task.type,
        state=emit.state,
        attempt=emit.attempt,
        fencing_token=emit.token or None,
        sequence=emit.sequence,
        reason=emit.reason,
        worker=emit.worker or None,
        boot_id=boot_id,
        labels=task.labels,
        priority=task.priority,
        not_before=None if emit.due_wall_ms is None else utc(emit.due_wall_ms),
        origin_partition=origin and origin[0],
        origin_offset=origin and origin[1],
        payload=task.payload if origin or emit.reason in TOLD_ANEW else None,
        started_at=utc(started.wall_ms) if started else None,
        started_mono_ns=started.mono_ns if started else None,
        ended_at=utc(ended.wall_ms) if ended else None,
        ended_mono_ns=ended.mono_ns if ended else None,
        clock_id=(started or ended or NO_TIME).clock_id or None,
        error=emit.error,
        result=report.result if report else None,
        result_cut=report.result_cut if report else False,
    )


class Worker:
    """A process that runs handlers, as its events name it: the same bytes in each of them."""

    def __init__(self, name: str, boot_id: str) -> None:
        self.name, self.boot_id = name, boot_id
        self.name_json, self.boot_json = encode(name), encode(boot_id)


def run_through(task: AcceptedTask, item: "Item", worker: Worker) -> bytes:
    """One record with all events of a task that was parked (unless that is told), dispatched, ran and succeeded.

    The bytes are those of `run_through_plainly`, at a fifth of the cost: they are most of what a local task costs.
    """
    if task.labels or task.priority is not None or item.result_cut:
        return run_through_plainly(task, item, worker)
    begun, ended = item.started, item.ended
    names = b',"group":%b,"task_id":%b,"type":%b,"state":' % (
        _text(task.group), encode(task.task_id), _text(task.type)
    )  # fmt: skip
    token = b',"fencing_token":%d,"sequence":%d' % (item.token, item.sequence)
    begun_at, ended_at, clock = _at(begun.wall_ms), _at(ended.wall_ms), _text(begun.clock_id)
    return b"".join((
        _EVENTS if item.rowed else _EVENTS + b'{"v":%d,"kind":"task","at":%b%b"parked","attempt":1,"sequence":%d,'
        b'"origin_partition":%d,"origin_offset":%d,"payload":%b},' % (
            PROTOCOL, _at(item.accepted.wall_ms), names, item.sequence, *item.origin, bytes(task.payload)
        ),
        b'{"v":%d,"kind":"task","at":%b%b"dispatched","attempt":1%b},' % (PROTOCOL, begun_at, names, token),
        b'{"v":%d,"kind":"task","at":%b%b"running","attempt":1%b,"worker":%b,"started_at":%b,"started_mono_ns":%d,'
        b'"clock_id":%b,"boot_id":%b},' % (
            PROTOCOL, begun_at, names, token, worker.name_json, begun_at, begun.mono_ns, clock, worker.boot_json
        ),
        b'{"v":%d,"kind":"task","at":%b%b"succeeded","attempt":1%b,"worker":%b,"started_at":%b,"ended_at":%b,'
        b'"started_mono_ns":%d,"ended_mono_ns":%d,"clock_id":%b,"boot_id":%b' % (
            PROTOCOL, ended_at, names, token, worker.name_json, begun_at, ended_at, begun.mono_ns, ended.mono_ns,
            clock, worker.boot_json
        ),
        b"}]}" if item.result is None else b',"result":%b}]}' % bytes(item.result),
    ))  # fmt: skip


def run_through_plainly(task: AcceptedTask, item: "Item", worker: Worker) -> bytes:
    """The same for any task, event by event."""
    ran = Report(
        ReportKind.SUCCEEDED, item.sequence, item.token, started=item.started, ended=item.ended, result=item.result,
        result_cut=item.result_cut,
    )  # fmt: skip
    began = Report(ReportKind.STARTED, item.sequence, item.token, started=item.started)
    begun, ended = (Now(moment.wall_ms, 0) for moment in (item.started, item.ended))
    emits = (
        (Emit(TaskState.PARKED, item.sequence, 1), item.accepted, None, item.origin),
        (Emit(TaskState.DISPATCHED, item.sequence, 1, item.token), begun, None, None),
        (
            Emit(TaskState.RUNNING, item.sequence, 1, item.token, report=began, worker=worker.name),
            begun, worker.boot_id, None,
        ),
        (
            Emit(TaskState.SUCCEEDED, item.sequence, 1, item.token, report=ran, worker=worker.name),
            ended, worker.boot_id, None,
        ),
    )  # fmt: skip
    events = tuple(
        state_changed(task.group, task, emit, now, boot_id, origin)
        for emit, now, boot_id, origin in emits[1 if item.rowed else 0 :]
    )
    return encode(Events(PROTOCOL, events))


def together(events: list[bytes]) -> bytes:
    """One record with these encoded events of a group."""
    return b"%b%b]}" % (_EVENTS, b",".join(events))


_EVENTS: Final = b'{"v":%d,"events":[' % PROTOCOL
_CACHED_CHARS_MAX: Final = 128


def _text(text: str) -> bytes:
    return _cached_text(text) if len(text) <= _CACHED_CHARS_MAX else encode(text)


_cached_text = lru_cache(maxsize=1 << 14)(encode)


@lru_cache(maxsize=1 << 12)
def _at(wall_ms: int) -> bytes:
    return encode(utc(wall_ms))


def rejected(key: bytes | None, origin: tuple[int, int], reason: Reason, detail: str, now: Now) -> Event:
    """A record of `tasks` that is no task; it is named by its place."""
    return Event(
        PROTOCOL,
        EventKind.TASK,
        utc(now.wall_ms),
        group=None if key is None else _shown(key),
        task_id=f"{origin[0]}-{origin[1]}",
        state=TaskState.REJECTED,
        reason=reason,
        origin_partition=origin[0],
        origin_offset=origin[1],
        note=detail,
    )


def _shown(key: bytes) -> str:
    """What a stranger gave as a group, as text and not too much of it."""
    text = key[: limits.SHOWN_BYTES_MAX].decode(errors="backslashreplace")
    return text if len(key) <= limits.SHOWN_BYTES_MAX else f"{text}… [cut, {len(key)} bytes]"


def report_refused(completion: Completion, report: Report, why: Ignored, now: Now) -> Event | None:
    """A worker that lost its claim still speaks.  Renewals and progress are too many to be worth a record; what comes
    back unrun changes nothing, and each task of a run does when the run ends early.
    """
    if report.kind in (ReportKind.RENEWED, ReportKind.PROGRESS, ReportKind.RETURNED):
        return None
    return Event(
        PROTOCOL,
        EventKind.STALE_REPORT,
        utc(now.wall_ms),
        group=cut(completion.group, limits.SHOWN_BYTES_MAX),
        fencing_token=report.token,
        sequence=report.sequence,
        worker=completion.worker,
        boot_id=completion.boot_id,
        reason=why,
        note=f"{report.kind} refused",
    )


def group_state(group: str, task: AcceptedTask, report: Report, state: MaybeRaw, now: Now) -> Event:
    """The group state was replaced, by the completion that carried it.  No `group_state`: it was cleared."""
    return Event(
        PROTOCOL,
        EventKind.GROUP_STATE,
        utc(now.wall_ms),
        group=group,
        task_id=task.task_id,
        sequence=report.sequence,
        fencing_token=report.token,
        group_state=state,
    )


def progress(group: str, task: AcceptedTask, head: Head, report: Report, worker: str, now: Now) -> Event:
    return Event(
        PROTOCOL,
        EventKind.PROGRESS,
        utc(now.wall_ms),
        group=group,
        task_id=task.task_id,
        type=task.type,
        attempt=head.attempt,
        fencing_token=head.token,
        sequence=head.sequence,
        reason=report.reason,
        worker=worker,
        progress=report.fraction,
        note=None if report.note is None else cut(report.note, limits.NOTE_CHARS_MAX),
    )


def answered(
    group: str, by: By, outcome: Outcome, now: Now, *, refusal: Refusal | None = None, task_id: str | None = None,
    count: int | None = None, changes: tuple[Change, ...] = (), until_wall_ms: int | None = None,
) -> Event:  # fmt: skip
    """The answer to a command: what the actor gave as a note, or why it changed nothing."""
    return Event(
        PROTOCOL,
        EventKind.COMMAND,
        utc(now.wall_ms),
        group=group,
        task_id=task_id,
        command_id=by.command_id,
        command=by.kind,
        outcome=outcome,
        actor=by.actor or None,
        note=by.note or None,
        reason=refusal,
        count=count,
        changes=changes,
        until=None if until_wall_ms is None else utc(until_wall_ms),
    )


def not_a_command(group: str, command_id: str, actor: str, detail: str, now: Now) -> Event:
    """The answer to a record of `commands` that is none: what is wrong with it."""
    return Event(
        PROTOCOL,
        EventKind.COMMAND,
        utc(now.wall_ms),
        group=group,
        command_id=command_id,
        outcome=Outcome.REFUSED,
        actor=actor or None,
        reason=Refusal.BAD_COMMAND,
        note=detail,
    )


def announced(group: str, announce: Announce, now: Now) -> Event:
    """The group was paused, resumed, blocked or unblocked."""
    by, until = announce.by, announce.until_wall_ms
    return Event(
        PROTOCOL,
        announce.kind,
        utc(now.wall_ms),
        group=group,
        reason=announce.reason,
        command_id=by.command_id if by else None,
        actor=(by.actor or None) if by else None,
        note=(by.note or None) if by else None,
        until=None if until is None else utc(until),
    )


def duplicate(group: str, task: AcceptedTask, first: str, origin: tuple[int, int], now: Now) -> Event:
    """A task whose idempotency key came before: it does not run, the first one stands for it."""
    return Event(
        PROTOCOL,
        EventKind.DUPLICATE,
        utc(now.wall_ms),
        group=group,
        task_id=task.task_id,
        type=task.type,
        origin_partition=origin[0],
        origin_offset=origin[1],
        duplicate_of=first,
    )


def dead_letter_closed(group: str, task_id: str, sequence: int, why: Reason, by: By | None, now: Now) -> Event:
    return Event(
        PROTOCOL,
        EventKind.DEAD_LETTER_CLOSED,
        utc(now.wall_ms),
        group=group,
        task_id=task_id,
        sequence=sequence,
        reason=why,
        command_id=by.command_id if by else None,
        actor=(by.actor or None) if by else None,
    )


def forgotten(group: str, by: By, now: Now) -> Event:
    return Event(
        PROTOCOL,
        EventKind.GROUP_FORGOTTEN,
        utc(now.wall_ms),
        group=group,
        command_id=by.command_id,
        actor=by.actor or None,
        note=by.note or None,
    )


def breaker(task_type: str, state: str, scheduler: str, until_wall_ms: int | None, now: Now) -> Event:
    """A scheduler's breaker of a type changed; it speaks for the groups of that scheduler's partitions."""
    return Event(
        PROTOCOL,
        EventKind.BREAKER,
        utc(now.wall_ms),
        type=task_type,
        reason=state,
        note=scheduler,
        until=None if until_wall_ms is None else utc(until_wall_ms),
    )


def edited(task: AcceptedTask, by: By, changes: tuple[Change, ...], now: Now) -> Event:
    """A dead letter gets another payload before it is redriven: what differs."""
    return Event(
        PROTOCOL,
        EventKind.EDITED,
        utc(now.wall_ms),
        group=task.group,
        task_id=task.task_id,
        command_id=by.command_id,
        actor=by.actor or None,
        changes=changes,
    )
