"""One record of each kind with every field set, and one with as few as there can be.

Their bytes lie in `golden/`, as this version writes them.  What is written there was written by processes that may
still run, and lies in logs that may still be read: never change a golden file.  `python -m tests.wire.records` writes
those that are missing.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from msgspec import Raw
from msgspec.structs import replace

from streams import protocol, rows
from streams.group import Behind, By, Head, Held, Pause, Phase, Stop, Sweep
from streams.protocol import (
    PROTOCOL,
    Change,
    Command,
    CommandKind,
    Completion,
    Control,
    Dispatch,
    DispatchedTask,
    ErrorInfo,
    Event,
    EventKind,
    Events,
    FailurePolicy,
    HandlerPolicy,
    Member,
    Moment,
    Outcome,
    Reason,
    Report,
    ReportKind,
    TaskState,
)
from streams.rows import (
    ROW_FORMAT,
    RUN_FORMAT,
    CommandRow,
    DeadRow,
    HeadRow,
    Original,
    PartitionRow,
    SeenRow,
    TaskRow,
    WaitingRow,
)

GOLDEN = Path(__file__).parent / "golden"
AT = datetime(2031, 5, 1, 8, 0, 0, 250_000, tzinfo=UTC)
TOKEN, SEQUENCE = (3 << 32) + 12, (3 << 32) + 11
STARTED, ENDED = (
    Moment(1_935_561_600_000, 7_000_000_000, "0f1e2d3c"),
    Moment(1_935_561_601_500, 8_500_000_000, "0f1e2d3c"),
)
POLICY = HandlerPolicy(max_attempts=3, backoff_base_s=0.5, backoff_factor=3.0, backoff_cap_s=30.0)
ERROR = ErrorInfo("ValueError", 'no "such" thing: ☕', "Traceback …\nValueError")


def _report(kind: ReportKind, **fields: Any) -> Report:
    return Report(kind, SEQUENCE, TOKEN, **fields)


REPORTS = (
    _report(ReportKind.STARTED, started=STARTED, policy=POLICY),
    _report(ReportKind.RENEWED),
    _report(ReportKind.PROGRESS, fraction=0.5, note="half way"),
    _report(
        ReportKind.SUCCEEDED, started=STARTED, ended=ENDED, result=Raw(b'{"rows":12}'), result_cut=True,
        state=Raw(b'{"cursor":12}'), state_set=True,
    ),
    _report(ReportKind.SUCCEEDED, result=Raw(b"null"), state=Raw(b"null"), state_set=True),
    _report(
        ReportKind.FAILED, started=STARTED, ended=ENDED, error=ERROR, reason=Reason.TIMEOUT, delay_s=2.5,
        retryable=False,
    ),
    _report(ReportKind.REJECTED, started=STARTED, ended=ENDED, error=ERROR, reason=Reason.INVALID_PAYLOAD),
    _report(ReportKind.SNOOZED, started=STARTED, ended=ENDED, reason=Reason.SNOOZED, delay_s=60.0),
    _report(ReportKind.RETURNED, reason=Reason.TAKEN_BACK),
    _report(ReportKind.ABANDONED, started=STARTED, ended=ENDED),
)  # fmt: skip

TASK = DispatchedTask(
    SEQUENCE, "4-17", "sync.customer", TOKEN, 2, Raw(b'{"id": 7, "n": 1e400}'), 30.0, {"team": "a"},
    {"source": Raw(b'"/shop"')}, {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
)  # fmt: skip
EVENT = Event(
    PROTOCOL, EventKind.TASK, AT, "tenant/1 ☕", "4-17", "sync.customer", TaskState.RETRYING, 2, TOKEN, SEQUENCE, 4, 17,
    "worker-1", Reason.FAILED, AT, AT, AT, STARTED.mono_ns, ENDED.mono_ns, STARTED.clock_id, "b00t", ERROR,
    Raw(b'{"rows":12}'), True, 0.5, "half way", {"team": "a"}, -3, Raw(b'{"id": 7}'), Raw(b'{"cursor":12}'),
)  # fmt: skip
HEADERS: rows.Headers = [("content-type", b"application/json"), ("odd", b"\xff\x00"), ("none", None)]
HEAD = Head(
    SEQUENCE, Phase.WAITING, 2, 7, TOKEN, 5, "c1a1m", "worker-1", POLICY, 1_935_561_700_000, 98_500, Reason.TIMEOUT,
    ERROR,
)  # fmt: skip
BY = By("c0mmand", CommandKind.CANCEL_TASK, "ada", "customer called", True)
HEAD_NOW = Head(
    SEQUENCE, Phase.WAITING, 2, 7, TOKEN, 5, "c1a1m", "worker-1", POLICY, 1_935_561_700_000, 98_500, Reason.TIMEOUT,
    ERROR, FailurePolicy.BLOCK, 3, True, Stop(TaskState.SKIPPED, BY), ERROR,
)  # fmt: skip
WITH_A_RUN = replace(HEAD_NOW, run=(Behind(SEQUENCE + 1, 9, FailurePolicy.CASCADE), Behind(SEQUENCE + 2)))
HAS_BEGUN = replace(HEAD_NOW, begun=True)


class Golden(NamedTuple):
    record: Any
    decode: Callable[[bytes], Any]


def _events(data: bytes) -> Any:
    return protocol._events(data)


def _event(data: bytes) -> Any:
    (event,) = protocol.decode_events(data)
    return event


JSON: dict[str, Golden] = {
    "dispatch": Golden(
        Dispatch(PROTOCOL, "tenant/1 ☕", 4, "scheduler-1", (TASK, TASK), Raw(b'{"cursor":11}')),
        protocol.decode_dispatch,
    ),
    "dispatch-least": Golden(
        Dispatch(PROTOCOL, "g", 0, "s", (DispatchedTask(1, "0-0", "t", 2, 1),)), protocol.decode_dispatch
    ),
    "completion": Golden(
        Completion(PROTOCOL, "tenant/1 ☕", "worker-1", "b00t", "c1a1m", 5, 1234, REPORTS), protocol.decode_completion
    ),
    "completion-least": Golden(
        Completion(PROTOCOL, "g", "w", "b", "c", 0, 0, (Report(ReportKind.RENEWED, 1, 2),)), protocol.decode_completion
    ),
    "control-take-back": Golden(
        Control(PROTOCOL, "take_back", 5, "tenant/1 ☕", TOKEN, "scheduler-1"), protocol.decode_control
    ),
    "control-cancel": Golden(
        Control(PROTOCOL, "cancel", 5, "tenant/1 ☕", TOKEN, "scheduler-1"), protocol.decode_control
    ),
    "command": Golden(
        Command(
            "c0mmand", CommandKind.EDIT_AND_REDRIVE, "tenant/1 ☕", PROTOCOL, "ada", "customer called", "4-17",
            "retrying", "4-16", SEQUENCE, "tail", Raw(b'{"id": 7}'), AT, True,
        ),
        protocol.decode_command,
    ),
    "command-least": Golden(Command("c", CommandKind.PAUSE_GROUP), protocol.decode_command),
    "event-answer": Golden(
        Event(
            PROTOCOL, EventKind.COMMAND, AT, "tenant/1 ☕", "4-17", reason="other_head", note="x", command_id="c0mmand",
            command=CommandKind.SKIP_HEAD, outcome=Outcome.REFUSED, actor="ada", count=3,
            changes=(Change("/id", "7", "8"), Change("/new", None, "1")), until=AT, duplicate_of="4-2",
        ),
        _event,
    ),
    "completion-started": Golden(
        Completion(PROTOCOL, "g", "w", "b", "c", 0, 0, (
            _report(ReportKind.STARTED, policy=HandlerPolicy(jitter=False, on_failure=FailurePolicy.BLOCK)),
        )),
        protocol.decode_completion,
    ),
    "member-scheduler": Golden(
        Member(
            PROTOCOL, "scheduler-1", "b00t", "scheduler", "host-1", 4711, 1_935_561_600_000, "http://127.0.0.1:8080",
            (0, 3), unclaimed={5: 2, 7: 1}, running={"worker-1": 12},
            demand={"mail.send": (3, 15)},
        ),
        protocol.decode_member,
    ),
    "member-worker": Golden(
        Member(
            PROTOCOL, "worker-1", "b00t", "worker", "host-1", 4712, 1_935_561_600_000, "http://127.0.0.1:8081",
            (5, 7), 64, ("mail.send", "sync.customer"),
        ),
        protocol.decode_member,
    ),
    "member-least": Golden(Member(PROTOCOL, "w", "b", "worker", "h", 1, 0), protocol.decode_member),
    "event": Golden(EVENT, _event),
    "event-least": Golden(Event(PROTOCOL, EventKind.DUPLICATE, AT), _event),
    "events": Golden(Events(PROTOCOL, (EVENT, Event(PROTOCOL, EventKind.GROUP_STATE, AT, "g"))), _events),
    **{
        f"event-{kind.value}": Golden(Event(PROTOCOL, kind, AT, "g", fencing_token=TOKEN), _event)
        for kind in EventKind
    },
    **{
        f"event-task-{state.value}": Golden(Event(PROTOCOL, EventKind.TASK, AT, "g", "0-0", "t", state), _event)
        for state in TaskState
    },
}  # fmt: skip

TASK = TaskRow(ROW_FORMAT, 2, 40, "tenant/1 ☕".encode(), b'{"type":"sync.customer"}', HEADERS, 1767225600000)
DEAD = DeadRow(ROW_FORMAT, b"\x97", 1767225600000, Reason.CASCADE, "4-17", "mail.send", 3, ERROR, SEQUENCE)

PARTITION = PartitionRow(
    ROW_FORMAT, TOKEN, {"tasks": 7, "completions": 9, "commands": 0}, {2: 41, 0: 3}, "pstp-scheduler-1", "b00t",
    True, {"tasks": "3v8kQmJ2R0mW9x", "completions": "aZ", "commands": "bY"},
    {"states": {"parked": 3, "succeeded": 2}, "buried": {"bad_json": 1}, "lost": {"": 1}}, True,
)  # fmt: skip

ROWS: dict[str, Golden] = {
    "row-partition-1": Golden(replace(PARTITION, may_run=("b00s",), careful=(SEQUENCE, 44)), rows.decode_partition),
    "row-partition-1-least": Golden(PartitionRow(ROW_FORMAT, 0, {}, {}, "", "", False), rows.decode_partition),
    "row-task-1": Golden(replace(TASK, original=Original(None, b'{"type":"x"}', HEADERS[:1])), rows.decode_task),
    "row-task-1-least": Golden(TaskRow(ROW_FORMAT, 0, 0, None, b"", []), rows.decode_task),
    "row-head-4": Golden(
        HeadRow(ROW_FORMAT, HAS_BEGUN, Reason.ATTEMPTS_SPENT, Held(Pause(BY, 7, 8), Sweep(3, BY, 4, 5, 6), (BY,))),
        rows.decode_head,
    ),
    "row-head-4-run": Golden(HeadRow(RUN_FORMAT, WITH_A_RUN, None), rows.decode_head),
    "row-head-4-least": Golden(HeadRow(ROW_FORMAT, Head(1, Phase.READY), None), rows.decode_head),
    "row-head-1-paused": Golden(HeadRow(ROW_FORMAT, None, None, Held(Pause(BY, 7))), rows.decode_head),
    "row-dead-1": Golden(replace(DEAD, first_error=ErrorInfo("KeyError", "'id'")), rows.decode_dead),
    "row-seen": Golden(SeenRow(ROW_FORMAT, "key-1", "4-17", 1767225600000), rows.decode_seen),
    "row-command": Golden(CommandRow(ROW_FORMAT, 12), rows.decode_command),
    "row-waiting": Golden(WaitingRow(ROW_FORMAT, b'{"id":"c0mmand"}'), rows.decode_waiting),
}  # fmt: skip

# As earlier versions wrote them, with fewer columns: they are read, and no longer written.
OLD_ROWS: dict[str, Golden] = {
    "row-head-3": Golden(
        HeadRow(ROW_FORMAT, HEAD_NOW, Reason.ATTEMPTS_SPENT, Held(Pause(BY, 7, 8), Sweep(3, BY, 4, 5, 6), (BY,))),
        rows.decode_head,
    ),
    "row-head-3-run": Golden(HeadRow(RUN_FORMAT, WITH_A_RUN, None), rows.decode_head),
    "row-head-3-least": Golden(HeadRow(ROW_FORMAT, Head(1, Phase.READY), None), rows.decode_head),
    "row-head-2": Golden(
        HeadRow(ROW_FORMAT, HEAD_NOW, Reason.ATTEMPTS_SPENT, Held(Pause(BY, 7, 8), Sweep(3, BY, 4, 5, 6), (BY,))),
        rows.decode_head,
    ),
    "row-head-1-least": Golden(HeadRow(ROW_FORMAT, Head(1, Phase.READY), None), rows.decode_head),
    "row-partition": Golden(PARTITION, rows.decode_partition),
    "row-partition-least": Golden(PartitionRow(ROW_FORMAT, 0, {}, {}, "", "", False), rows.decode_partition),
    "row-head-1": Golden(
        HeadRow(ROW_FORMAT, HEAD_NOW, Reason.ATTEMPTS_SPENT, Held(Pause(BY, 7, 8), Sweep(3, BY, 4, 5), (BY,))),
        rows.decode_head,
    ),
    "row-task": Golden(TASK, rows.decode_task),
    "row-task-least": Golden(TaskRow(ROW_FORMAT, 0, 0, None, b"", []), rows.decode_task),
    "row-dead": Golden(DEAD, rows.decode_dead),
    "row-head": Golden(HeadRow(ROW_FORMAT, HEAD, Reason.INTERNAL_ERROR), rows.decode_head),
    "row-head-least": Golden(HeadRow(ROW_FORMAT, Head(1, Phase.READY), None), rows.decode_head),
    "row-head-blocked": Golden(HeadRow(ROW_FORMAT, None, Reason.INTERNAL_ERROR), rows.decode_head),
    **{
        f"row-head-{phase.value}": Golden(
            HeadRow(ROW_FORMAT, Head(SEQUENCE, phase, 2, token=TOKEN), None), rows.decode_head
        )
        for phase in Phase if phase is not Phase.IDLE
    },
}  # fmt: skip

KEYS: dict[str, bytes] = {
    "key-dead": rows.dead_key(SEQUENCE, "tenant/1 ☕".encode()),
    "key-seen": rows.seen_key(SEQUENCE, "tenant/1 ☕".encode()),
    "key-command": rows.command_key("c0mmand"),
    "key-waiting": rows.waiting_key(SEQUENCE, "tenant/1 ☕".encode()),
    "key-partition": rows.PARTITION_KEY,
    "key-task": rows.task_key(SEQUENCE, "tenant/1 ☕".encode()),
    "key-head": rows.head_key("tenant/1 ☕".encode()),
    "key-state": rows.state_key("tenant/1 ☕".encode()),
}


def text_of(data: bytes) -> str:
    """Bytes as a golden file holds them: hex, 32 bytes a line."""
    return "\n".join(data[i : i + 32].hex(" ") for i in range(0, len(data), 32)) + "\n"


def read(name: str) -> bytes:
    """The golden bytes of that name."""
    path = GOLDEN / f"{name}.json"
    if path.exists():
        return path.read_bytes().removesuffix(b"\n")
    return bytes.fromhex((GOLDEN / f"{name}.hex").read_text(encoding="ascii"))


def write_missing() -> None:
    for name, golden in JSON.items():
        if not (path := GOLDEN / f"{name}.json").exists():
            path.write_bytes(protocol.encode(golden.record) + b"\n")
    binary = {name: rows.encode(golden.record) for name, golden in ROWS.items()} | KEYS
    for name, data in binary.items():
        if not (path := GOLDEN / f"{name}.hex").exists():
            path.write_text(text_of(data), encoding="ascii")


if __name__ == "__main__":
    write_missing()
