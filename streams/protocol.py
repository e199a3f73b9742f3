"""Wire models: every record that PSTP's processes exchange, and the public `task-events`.

JSON on the wire, msgspec in memory.  Every record carries the protocol's major version `v`; a reader that meets a
higher one stops that partition rather than guess (docs/upgrade.md).  In `tasks` and `dead-letters`, whose values are
other people's, it is the header `pstp.v`; a task without it is of version 1.

`tasks`, `commands`, `completions` and `task-events` are keyed by group (UTF-8) and live in the partition that murmur2
gives; `dispatches` and `control` name theirs; `members` is keyed by instance.
"""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

import msgspec
from msgspec import Raw, Struct

PROTOCOL: Final = 1
VERSION_HEADER: Final = "pstp.v"

# msgspec takes `Raw` only by itself: in a union with None it refuses values.  Absent is None, null is Raw(b"null").
if TYPE_CHECKING:
    MaybeRaw = Raw | None
else:
    MaybeRaw = Raw


class TaskState(StrEnum):
    """States of a task, as `task-events` names them."""

    PARKED = "parked"
    DISPATCHED = "dispatched"
    RUNNING = "running"
    RETRYING = "retrying"
    SUCCEEDED = "succeeded"
    DEAD_LETTERED = "dead_lettered"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"
    REJECTED = "rejected"


TERMINAL: Final = frozenset({
    TaskState.SUCCEEDED, TaskState.DEAD_LETTERED, TaskState.CANCELLED, TaskState.SKIPPED, TaskState.REJECTED,
})  # fmt: skip


class ReportKind(StrEnum):
    """What a worker says about a task.  `returned`: never ran.  `abandoned`: was stopped by a drain, and has ended."""

    STARTED = "started"
    RENEWED = "renewed"
    PROGRESS = "progress"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    REJECTED = "rejected"
    SNOOZED = "snoozed"
    RETURNED = "returned"
    ABANDONED = "abandoned"


class EventKind(StrEnum):
    """Kinds of `task-events`.  `task` is a state change of a task; the others are told apart by readers who care."""

    TASK = "task"
    PROGRESS = "progress"
    GROUP_STATE = "group_state"
    DUPLICATE = "duplicate"
    STALE_REPORT = "stale_report"
    COMMAND = "command"  # the answer to a command
    GROUP_PAUSED = "group_paused"
    GROUP_RESUMED = "group_resumed"
    GROUP_BLOCKED = "group_blocked"
    GROUP_UNBLOCKED = "group_unblocked"
    GROUP_FORGOTTEN = "group_forgotten"
    DEAD_LETTER_CLOSED = "dead_letter_closed"  # redriven, discarded or expired: it can no longer be redriven
    EDITED = "edited"  # a dead letter got another payload: `changes`
    BREAKER = "breaker"


class CommandKind(StrEnum):
    """What an operator may ask of one group."""

    PAUSE_GROUP = "pause_group"
    RESUME_GROUP = "resume_group"
    CANCEL_TASK = "cancel_task"
    CANCEL_GROUP = "cancel_group"
    SKIP_HEAD = "skip_head"
    EDIT_HEAD = "edit_head"
    RETRY_NOW = "retry_now"
    UNBLOCK = "unblock"
    RELEASE = "release"
    REDRIVE = "redrive"
    EDIT_AND_REDRIVE = "edit_and_redrive"
    DISCARD_DEAD_LETTER = "discard_dead_letter"
    FORGET_GROUP = "forget_group"


class Outcome(StrEnum):
    """How a command is answered.  `accepted`: a running task was told to stop, its own end will follow."""

    DONE = "done"
    ACCEPTED = "accepted"
    REFUSED = "refused"


class Refusal(StrEnum):
    """Why a command changed nothing."""

    BAD_COMMAND = "bad_command"
    REPEATED = "repeated"  # a command with this id was answered before
    OTHER_HEAD = "other_head"  # `if_head` names another task
    OTHER_STATE = "other_state"  # `if_state` is not the state of the head (or of the task that is named)
    NO_HEAD = "no_head"
    NO_SUCH_TASK = "no_such_task"
    NOT_PAUSED = "not_paused"
    NOT_BLOCKED = "not_blocked"
    NOT_WAITING = "not_waiting"  # the head does not wait for a retry
    NOT_BEFORE = "not_before"  # the head waits for the time that its publisher set
    NOT_RUNNING = "not_running"
    RUNS_IN_TIME = "runs_in_time"  # only what its worker could not end, after its timeout or a cancel, may be released
    IN_FLIGHT = "in_flight"  # the head is dispatched or running
    STOPPING = "stopping"  # the head is being cancelled or skipped already
    SWEEPING = "sweeping"  # the group's backlog is being cancelled
    NO_DEAD_LETTER = "no_dead_letter"  # it is not open: never was, redriven, discarded or expired
    TOO_LARGE = "too_large"
    GROUP_FULL = "group_full"
    NOTHING_TO_FORGET = "nothing_to_forget"


class FailurePolicy(StrEnum):
    """What happens when a task's attempts are spent."""

    SKIP = "skip"  # dead letter, the next task goes on
    BLOCK = "block"  # the group stands still until an operator acts
    CASCADE = "cascade"  # dead letters of it and of all that is parked behind it


class Reason(StrEnum):
    """Why a task became a dead letter or was rejected, why it runs again, why a dispatch came back."""

    NO_GROUP = "no_group"
    KEY_NOT_UTF8 = "key_not_utf8"
    NO_VALUE = "no_value"
    VALUE_NOT_UTF8 = "value_not_utf8"
    BAD_JSON = "bad_json"
    TOO_DEEP = "too_deep"
    NOT_AN_OBJECT = "not_an_object"
    WRONG_TYPE = "wrong_type"
    TOO_LARGE = "too_large"
    GROUP_MISMATCH = "group_mismatch"
    WRONG_PARTITION = "wrong_partition"
    INTERNAL_ERROR = "internal_error"

    ATTEMPTS_SPENT = "attempts_spent"
    NOT_RETRYABLE = "not_retryable"
    HANDLER_REJECTED = "handler_rejected"
    INVALID_PAYLOAD = "invalid_payload"
    INVALID_RESULT = "invalid_result"
    STATE_TOO_LARGE = "state_too_large"
    TIMEOUT = "timeout"
    WORKER_LOST = "worker_lost"
    CASCADE = "cascade"
    GROUP_FULL = "group_full"

    REDRIVEN_HEAD = "redriven_head"
    REDRIVEN_TAIL = "redriven_tail"
    DISPLACED = "displaced"  # a redriven task was put before it
    EDITED = "edited"
    RETRY_NOW = "retry_now"
    RELEASED = "released"
    BY_COMMAND = "by_command"
    DISCARDED = "discarded"
    EXPIRED = "expired"

    FAILED = "failed"
    SNOOZED = "snoozed"
    RETURNED = "returned"
    ABANDONED = "abandoned"
    NO_HANDLER = "no_handler"
    TAKEN_BACK = "taken_back"
    LOST_BEFORE_START = "lost_before_start"


class Moment(Struct, frozen=True, gc=False):
    """A worker's reading of both clocks.  `mono_ns` compares only within one `clock_id` (one boot of one machine)."""

    wall_ms: int
    mono_ns: int
    clock_id: str


class ErrorInfo(Struct, frozen=True, gc=False, omit_defaults=True):
    """An error as people read it; texts are cut to the limits, and say so."""

    type: str
    message: str
    traceback: str | None = None


class HandlerPolicy(Struct, frozen=True, gc=False, omit_defaults=True):
    """What a handler's declaration says about failures; None leaves it to the scheduler's settings."""

    max_attempts: int | None = None
    backoff_base_s: float | None = None
    backoff_factor: float | None = None
    backoff_cap_s: float | None = None
    jitter: bool | None = None
    on_failure: FailurePolicy | None = None


class DispatchedTask(Struct, frozen=True, omit_defaults=True):
    """One task of a run, with the token reserved for it."""

    sequence: int
    task_id: str
    type: str
    token: int
    attempt: int
    payload: Raw = Raw(b"null")
    timeout_s: float | None = None
    labels: dict[str, str] = {}
    extra: dict[str, Raw] = {}
    trace: dict[str, str] = {}


class Dispatch(Struct, frozen=True, omit_defaults=True):
    """Scheduler to worker: a run of 1..k consecutive tasks of one group (`dispatches`, key = group)."""

    v: int
    group: str
    partition: int  # of `completions`: reports go there
    scheduler: str
    tasks: tuple[DispatchedTask, ...]
    state: MaybeRaw = None  # group state as the task before left it


class Report(Struct, frozen=True, omit_defaults=True):
    """What happened to one task.  Which fields matter depends on `kind`:

    started: `started`, `policy`; renewed: none; progress: `fraction`, `note`, and `reason` timeout or by_command if it
    goes on after its time, or after it was cancelled, and cannot be stopped; succeeded: `started`, `ended`, `result`,
    `state` when `state_set`; failed: `started`, `ended`, `error`, `reason`, `delay_s` (asked for by `Retry`),
    `retryable`; rejected (by the handler, no retry): `reason`, `error`; snoozed: `delay_s`; returned: `reason`, and
    what stands behind it in its run comes back with it; abandoned: `started`, `ended`.
    """

    kind: ReportKind
    sequence: int
    token: int
    started: Moment | None = None
    ended: Moment | None = None
    policy: HandlerPolicy | None = None
    error: ErrorInfo | None = None
    reason: Reason | None = None
    retryable: bool = True
    delay_s: float | None = None
    result: MaybeRaw = None
    result_cut: bool = False
    state: MaybeRaw = None
    state_set: bool = False
    fraction: float | None = None
    note: str | None = None


class Completion(Struct, frozen=True, omit_defaults=True):
    """Worker to scheduler: reports about tasks of one claim, in order (`completions`, key = group)."""

    v: int
    group: str
    worker: str
    boot_id: str
    claim_id: str
    dispatch_partition: int
    dispatch_offset: int
    reports: tuple[Report, ...]


class Control(Struct, frozen=True, omit_defaults=True):
    """Scheduler to workers (`control`): take a dispatch back, or what of it has not begun, or cancel a running task.
    It is named by group and token: other groups may have the same token, if they live in other partitions.
    """

    v: int
    kind: str  # take_back | cancel
    dispatch_partition: int
    group: str
    token: int
    scheduler: str


class Command(Struct, frozen=True, omit_defaults=True):
    """An operator's wish for one group (`commands`, key = group), from any Kafka client.

    `id`: made by the client, repeated by the answer; a second command of that id is refused.  `if_head` (a task id) and
    `if_state` say what the operator saw: if it is no longer so, the command is refused.  Which fields matter:

    pause_group: `until` (open end without); cancel_task: `task_id`; cancel_group: `running` (the running task too);
    edit_head: `payload`; redrive: `task_id`, `position` (head or tail), `sequence` if an id has several dead letters;
    edit_and_redrive: the same and `payload`; discard_dead_letter: `task_id`, `sequence`.
    """

    id: str
    kind: CommandKind
    group: str | None = None  # the record's key, if absent
    v: int = PROTOCOL
    actor: str = ""
    note: str = ""
    if_head: str | None = None
    if_state: str | None = None
    task_id: str | None = None
    sequence: int | None = None
    position: Literal["head", "tail"] = "head"
    payload: MaybeRaw = None
    until: datetime | None = None
    running: bool = False


class Change(Struct, frozen=True, gc=False, omit_defaults=True):
    """One difference between two payloads: JSON texts, cut to a limit; absent where there was or is nothing."""

    path: str
    before: str | None = None
    after: str | None = None


class Member(Struct, frozen=True, omit_defaults=True):
    """An announcement on `members` (key = instance; a tombstone when it leaves).  Silent for MEMBER_SILENT_S: dead.

    `partitions`: of the input topics (scheduler) or of `dispatches` (worker).  A scheduler tells what it has
    outstanding: `unclaimed` per dispatch partition, `running` per worker instance; and what it could use: `demand` per
    type, as heads that are ready and heads that are out.
    """

    v: int
    instance: str
    boot_id: str
    role: str  # scheduler | worker
    host: str
    pid: int
    at_ms: int
    http: str = ""
    partitions: tuple[int, ...] = ()
    slots: int = 0
    types: tuple[str, ...] = ()
    unclaimed: dict[int, int] = {}
    running: dict[str, int] = {}
    demand: dict[str, tuple[int, int]] = {}


class Event(Struct, frozen=True, omit_defaults=True):
    """One public record of `task-events` (key = group).  Fold them in order and you have the whole truth.

    `sequence` orders tasks within their partition; `origin_*` is where the task stands in `tasks`.  `payload` comes
    once, with a task's first record.  `started_*`, `ended_*`, `clock_id` and `boot_id` are the worker's own words.
    """

    v: int
    kind: EventKind
    at: datetime
    group: str | None = None
    task_id: str | None = None
    type: str | None = None
    state: TaskState | None = None
    attempt: int | None = None
    fencing_token: int | None = None
    sequence: int | None = None
    origin_partition: int | None = None
    origin_offset: int | None = None
    worker: str | None = None
    reason: str | None = None
    not_before: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    started_mono_ns: int | None = None
    ended_mono_ns: int | None = None
    clock_id: str | None = None
    boot_id: str | None = None
    error: ErrorInfo | None = None
    result: MaybeRaw = None
    result_cut: bool = False
    progress: float | None = None
    note: str | None = None
    labels: dict[str, str] = {}
    priority: int | None = None
    payload: MaybeRaw = None
    group_state: MaybeRaw = None
    # Of answers to commands, and of what commands led to.
    command_id: str | None = None
    command: CommandKind | None = None
    outcome: Outcome | None = None
    actor: str | None = None
    count: int | None = None  # of tasks that a command took, or that waited
    changes: tuple[Change, ...] = ()  # by an edited payload
    until: datetime | None = None  # a pause, or an open breaker
    duplicate_of: str | None = None  # the task id that was accepted first under this idempotency key


class Events(Struct, frozen=True):
    """Several events of one group in one record, in order."""

    v: int
    events: tuple[Event, ...]


class VersionError(ValueError):
    """A record of a newer major protocol version: this process is too old to read it."""


T = TypeVar("T", Dispatch, Completion, Control, Command, Member, Event, Events)

encode: Callable[[Any], bytes] = msgspec.json.Encoder().encode


class _Version(Struct):
    v: int = 0


_version = msgspec.json.Decoder(_Version).decode


def _decoder(model: type[T]) -> Callable[[bytes], T]:
    decode = msgspec.json.Decoder(model).decode

    def checked(data: bytes) -> T:
        try:
            record = decode(data)
        except msgspec.ValidationError:
            _refuse_newer(_version(data).v)
            raise
        except UnicodeDecodeError:  # msgspec lets these two through
            raise msgspec.DecodeError("it is not UTF-8") from None
        except RecursionError:
            raise msgspec.DecodeError("it nests too deep") from None
        _refuse_newer(record.v)
        return record

    return checked


def _refuse_newer(version: int) -> None:
    if version > PROTOCOL:
        raise VersionError(
            f"a record of protocol {version}, and this process speaks {PROTOCOL}: upgrade it to the version of PSTP "
            "that wrote the record"
        )


def refuse_newer_headers(headers: Iterable[tuple[str, bytes | None]]) -> None:
    """Raises `VersionError` for a task or dead letter that says so; what is no number is not our word."""
    for name, value in headers:
        if name == VERSION_HEADER and value is not None and value[:4].isdigit() and len(value) <= 4:
            _refuse_newer(int(value))


def refuse_newer_json(value: bytes) -> None:
    """Raises `VersionError` for a record that says so; what cannot be read is for others to refuse."""
    try:
        version = _version(value).v
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return
    _refuse_newer(version)


# Each raises `VersionError`, or `msgspec.DecodeError` on anything that is no such record.
decode_dispatch = _decoder(Dispatch)
decode_completion = _decoder(Completion)
decode_control = _decoder(Control)
decode_command = _decoder(Command)
decode_member = _decoder(Member)

_event = _decoder(Event)
_events = _decoder(Events)


def decode_events(data: bytes) -> tuple[Event, ...]:
    """The events of one record of `task-events`, in order.  Raises like the other decoders."""
    if b'"events":' in data[:40]:
        return _events(data).events
    return (_event(data),)


def utc(wall_ms: int) -> datetime:
    return datetime.fromtimestamp(wall_ms / 1000, UTC)


def cut(text: str, chars_max: int) -> str:
    """`text`, cut to a limit and saying so; to cut it again changes nothing."""
    if len(text) <= chars_max:
        return text
    mark = f"… [cut, {len(text)} characters]"
    return text[: max(0, chars_max - len(mark))] + mark
