"""What the HTTP API answers with; the browser's `ui/src/api/types.ts` says the same.

Names are camelCase on the wire.  Offsets, sequences, fencing tokens and ids are text, since JavaScript's numbers lose
digits above 2^53; payloads, results and group state are JSON text, unparsed, for the same reason.  Times are ms since
1970 by the server's clock.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, NonNegativeInt
from pydantic.alias_generators import to_camel

Ms = int
DecimalText = str


class Model(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True)


class VerifyBadge(Model):
    overlaps: NonNegativeInt
    executions: NonNegativeInt
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
    group: str
    type: str
    reason: str
    error: str
    at_ms: Ms
    attempt: NonNegativeInt
    payload: str


class DeadLetters(Model):
    items: list[DeadLetter]


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


class CommandAnswer(Model):
    command_id: str
    outcome: Literal["done", "accepted", "refused"] | None
    """None until the log answers."""
    partition: NonNegativeInt | None
    offset: DecimalText | None
    refusal: str | None


class Problem(BaseModel):
    """RFC 9457, as `application/problem+json`; `X-Request-Id` is among the headers."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
