"""What the HTTP API answers with; the browser's `ui/src/api/types.ts` says the same.

Names are camelCase on the wire.  Offsets, sequences, fencing tokens and ids are text, since JavaScript's numbers lose
digits above 2^53; payloads, results and group state are JSON text, unparsed, for the same reason.  Times are ms since
1970 by the server's clock.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt
from pydantic.alias_generators import to_camel

from streams import limits
from streams.protocol import CommandKind

Ms = int
DecimalText = str


class Model(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True)


class VerifyBadge(Model):
    overlaps: NonNegativeInt
    executions: NonNegativeInt
    """Whose workers told when they began and ended: those are compared."""
    begun: NonNegativeInt
    """All, also of workers that were lost."""
    at_ms: Ms


class Overview(Model):
    throughput: float
    ready: NonNegativeInt
    running: NonNegativeInt
    parked: NonNegativeInt
    failing: NonNegativeInt
    dead_letters: NonNegativeInt
    groups: NonNegativeInt
    oldest_ms: Ms | None
    lag_s: float
    workers: NonNegativeInt
    slots: NonNegativeInt
    slots_used: NonNegativeInt
    schedulers: NonNegativeInt
    cluster: str
    verify: VerifyBadge | None
    history: list[float]
    """Completed per second, one value a second, oldest first."""


class GroupSummary(Model):
    group: str
    state: str
    parked: NonNegativeInt
    done: NonNegativeInt
    since_ms: Ms


class Groups(Model):
    items: list[GroupSummary]
    next: str | None
    """Cursor of the next page; None on the last one."""
    counts: dict[str, NonNegativeInt]
    """By state, of those that `q` finds; of a search the first 10,000 are counted."""


class GroupColumns(Model):
    """All groups, a column each: a hundred thousand objects would be ten times the memory of a browser."""

    ids: list[str]
    states: list[str]
    parked: list[NonNegativeInt]
    done: list[NonNegativeInt]
    since_ms: list[Ms]


class TaskRow(Model):
    task_id: str
    type: str
    state: str
    attempt: NonNegativeInt
    sequence: DecimalText


class TaskSummary(TaskRow):
    group: str
    worker: str | None
    reason: str | None
    created_ms: Ms
    updated_ms: Ms


class Tasks(Model):
    items: list[TaskSummary]
    next: str | None


class Execution(Model):
    task_id: str
    type: str
    state: str
    attempt: NonNegativeInt
    token: DecimalText
    worker: str
    start_ms: Ms
    end_ms: Ms | None
    refused: bool
    """A zombie's report, refused: its claim was lost before it spoke."""


class WaitingHead(Model):
    task_id: str
    type: str
    state: str
    attempt: NonNegativeInt
    worker: str
    since_ms: Ms


class Paused(Model):
    actor: str
    note: str
    since_ms: Ms


class Blocked(Model):
    reason: str
    since_ms: Ms


class Explanation(Model):
    """The parts of the wait sentence: blocker, position, limiter, expected start."""

    phase: str
    head: WaitingHead | None = None
    parked: NonNegativeInt
    paused: Paused | None = None
    blocked: Blocked | None = None
    limiter: str | None = None
    due_ms: Ms | None = None
    expected_ms: Ms | None = None


class GroupDetail(Model):
    group: str
    state: str
    explanation: Explanation
    executions: list[Execution]
    parked: list[TaskRow]
    group_state: str | None
    partition: NonNegativeInt
    older: str | None = None
    """Cursor of the executions before these; None if there are none."""


class TaskEvent(Model):
    at_ms: Ms
    state: str | None
    kind: str
    attempt: NonNegativeInt | None
    worker: str | None
    reason: str | None
    note: str | None
    partition: NonNegativeInt
    offset: DecimalText
    error: str | None = None
    """Of an attempt that failed, cut."""


class TaskError(Model):
    type: str
    message: str
    traceback: str | None


class TaskDetail(TaskRow):
    group: str
    payload: str
    payload_cut: bool
    result: str | None
    error: TaskError | None
    progress: float | None
    note: str | None
    worker: str | None
    token: DecimalText | None
    events: list[TaskEvent]


class DeadLetter(Model):
    task_id: str
    sequence: DecimalText
    group: str
    type: str
    reason: str
    error: str
    at_ms: Ms
    attempt: NonNegativeInt
    payload: str
    payload_cut: bool
    masked: bool
    """Something in the payload is hidden: it can be redriven as it is, and not be edited here."""
    redrivable: bool
    """False for a record that never was a task."""


class DeadLetters(Model):
    items: list[DeadLetter]
    next: str | None
    reasons: dict[str, NonNegativeInt]


class RunningTask(Model):
    task_id: str
    group: str
    type: str
    since_ms: Ms


class Member(Model):
    instance: str
    role: Literal["scheduler", "worker"]
    host: str
    pid: int
    version: str
    at_ms: Ms
    partitions: list[NonNegativeInt]
    slots: NonNegativeInt
    slots_used: NonNegativeInt
    types: list[str]
    running: list[RunningTask]


class Members(Model):
    items: list[Member]
    lease_s: float
    """How long a silent worker keeps its tasks."""


class CommandAnswer(Model):
    command_id: str
    outcome: Literal["done", "accepted", "refused"] | None
    """None until the log answers."""
    partition: NonNegativeInt | None
    offset: DecimalText | None
    refusal: str | None


class CommandRequest(BaseModel):
    """What is asked of a group; `docs/commands.md` says which field belongs to which kind."""

    model_config = ConfigDict(extra="forbid")

    kind: CommandKind
    id: str | None = Field(None, min_length=8, max_length=64, pattern=r"^[A-Za-z0-9_-]+$")
    note: str = Field("", max_length=1000)
    task_id: str | None = Field(None, max_length=limits.NAME_CHARS_MAX)
    sequence: DecimalText | None = Field(None, pattern=r"^[0-9]{1,16}$")
    place: Literal["head", "tail"] = "head"
    payload: str | None = Field(None, description="JSON text")
    if_head: str | None = Field(None, max_length=limits.NAME_CHARS_MAX)
    if_state: str | None = Field(None, max_length=40)
    until_ms: NonNegativeInt | None = Field(None, le=253_402_300_799_000)
    running: bool = False


class Submitted(Model):
    task_id: str
    partition: NonNegativeInt
    offset: DecimalText


class LetterFilter(BaseModel):
    model_config = ConfigDict(extra="forbid")

    group: str | None = None
    task_id: str | None = None
    type: str | None = None
    reason: str | None = None
    since_ms: NonNegativeInt | None = None
    until_ms: NonNegativeInt | None = None


class RedriveRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    filter: LetterFilter = LetterFilter()
    place: Literal["head", "tail"] = "head"
    dry_run: bool = False
    note: str = Field("", max_length=1000)
    per_s: float = Field(0, ge=0, le=100_000, allow_inf_nan=False)


class BulkFilter(BaseModel):
    model_config = ConfigDict(extra="forbid")

    state: str | None = None
    q: str | None = None


class BulkRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    kind: Literal["pause_group", "resume_group", "retry_now", "unblock", "skip_head", "cancel_group"]
    filter: BulkFilter
    dry_run: bool = False
    note: str = Field("", max_length=1000)


class Job(Model):
    """A redrive or a bulk command.  `id` is None for a dry run: it only counts."""

    id: str | None
    kind: str
    state: Literal["dry_run", "running", "done", "aborted", "failed"]
    total: NonNegativeInt
    done: NonNegativeInt
    refused: dict[str, NonNegativeInt]
    error: str
    actor: str
    started_ms: Ms
    first: list[str]
    """Some of what it is about, oldest first."""


class JobList(Model):
    items: list[Job]


class KeyGiven(BaseModel):
    key: str = Field(max_length=200)


class Session(Model):
    name: str | None
    role: Literal["anyone", "viewer", "operator", "admin"]
    keys: bool
    """Whether one has to sign in at all."""


class Problem(BaseModel):
    """RFC 9457, as `application/problem+json`; `X-Request-Id` is among the headers."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
