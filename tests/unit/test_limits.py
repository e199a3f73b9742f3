"""`streams.limits`: what was accepted can always be written on, and what is refused is kept as far as Kafka carries it.

A record that does not fit fails its transaction, again and again, and takes every scheduler down in turn.
"""

from collections.abc import Iterable
from typing import Any

import pytest
from msgspec import Raw

from streams import limits, protocol
from streams.engine import Output
from streams.murmur2 import home_partition
from streams.protocol import PROTOCOL, Completion, ErrorInfo, Report, ReportKind, TaskState
from streams.rows import Headers
from streams.settings import Settings
from streams.topic_plan import plan_topics
from tests.unit.world import N, World

FULL = limits.TASK_BYTES_MAX
CONTROL = "\x01"
SMALL = b'{"type":"t"}'
ERROR = ErrorInfo("E", CONTROL * limits.ERROR_TEXT_CHARS_MAX, CONTROL * limits.TRACEBACK_CHARS_MAX)
BINARY: Headers = [("ce_specversion", b"1.0"), ("ce_type", b"t"), ("ce_id", b"1"), ("ce_source", b"/")]

Case = tuple[bytes | None, bytes, Headers]


def padded(size: int, *, key: bytes = b"", headers: Headers = []) -> bytes:  # noqa: B006
    """A task that weighs `size` with key and headers."""
    rest = (
        size - len(key) - sum(len(n.encode()) + len(v or b"") for n, v in headers) - len(SMALL) - len(',"payload":""')
    )
    return SMALL[:-1] + b',"payload":"' + b"x" * rest + b'"}'


TASKS: dict[str, Case] = {
    "a payload at the limit": (b"g", padded(FULL, key=b"g"), []),
    "a payload of escapes": (b"g", SMALL[:-1] + b',"payload":"' + b"\\u0001" * 130_000 + b'"}', []),
    "labels at the limit": (b"g", SMALL[:-1] + b',"labels":{"a":"' + b"x" * (FULL - 100) + b'"}}', []),
    "unknown fields at the limit": (b"g", SMALL[:-1] + b',"mine":"' + b"x" * (FULL - 100) + b'"}', []),
    "a key at the limit": (b"k" * (FULL - len(SMALL)), SMALL, []),
    "a key of control characters": (CONTROL.encode() * 200_000, SMALL, []),
    "a key of control characters at the limit": (CONTROL.encode() * (FULL - len(SMALL)), SMALL, []),
    "a key of quotes at the limit": (b'"' * (FULL - len(SMALL)), SMALL, []),
    "a traceparent of control characters": (b"g", SMALL, [("traceparent", CONTROL.encode() * (FULL - 100))]),
    "headers at the limit": (b"g", SMALL, [("x", b"\xff" * (FULL - 100))]),
    "a header name at the limit": (b"g", SMALL, [("é" * ((FULL - 100) // 2), b"")]),
    "many empty headers": (b"g", SMALL, [("", None)] * limits.HEADERS_MAX),
    "too many empty headers": (b"g", SMALL, [("", None)] * (limits.HEADERS_MAX + 1)),
    "a million empty headers": (b"g", SMALL, [("", b"")] * 1_000_000),
    "an event attribute of control characters": (b"g", b"1", [*BINARY, ("ce_x", CONTROL.encode() * (FULL - 200))]),
    "an event attribute's name of control characters": (b"g", b"1", [*BINARY, ("ce_" + CONTROL * (FULL - 200), b"")]),
    "an event with a partition key of control characters": (
        None, b"1", [*BINARY, ("ce_partitionkey", CONTROL.encode() * (FULL - 200))],
    ),
    "one byte too much": (b"g", padded(FULL + 1, key=b"g"), []),
    "five megabytes, compressed": (b"g", padded(5_000_000), []),
    "five megabytes of key": (CONTROL.encode() * 5_000_000, SMALL, []),
    "five megabytes of a key that is no text": (b"\xff" * 5_000_000, SMALL, []),
    "five megabytes of headers": (b"g", SMALL, [("x", b"y" * 5_000_000)]),
    "as much as Kafka takes": (b"g", padded(limits.RECORD_BYTES_MAX - 100), []),
    "a long key and bad JSON": (b"\x01" * (FULL - 10), b"{", []),
    "a long key that is no text, and no value": (b"\xff" * 700_000, b"", []),
}  # fmt: skip
ACCEPTED = {
    "a payload at the limit", "a payload of escapes", "labels at the limit", "unknown fields at the limit",
    "a key at the limit", "a key of control characters", "headers at the limit", "a header name at the limit",
    "many empty headers",
}  # fmt: skip


def wire_bytes(key: bytes | None, value: bytes | None, headers: Iterable[tuple[str, bytes | None]] | None) -> int:
    """What librdkafka counts, at most: see `rd_kafka_msg_max_wire_size`."""
    header_bytes = sum(len(name.encode()) + len(data or b"") + 10 for name, data in headers or ())
    return 100 + len(key or b"") + len(value or b"") + header_bytes


def check(outputs: list[Output]) -> None:
    for output in outputs:
        assert wire_bytes(output.key, output.value, output.headers) <= limits.RECORD_BYTES_MAX, output.topic


@pytest.mark.parametrize("what", TASKS)
def test_everything_we_write_about_a_task_fits(what: str) -> None:
    world = World()
    world.start("s1")
    world.hire("w1")
    key, value, headers = TASKS[what]
    home = home_partition(key or b"", N)
    if key is not None:  # with as much group state as there can be
        world.append("tasks", home, key, SMALL)
        check(world.step())
        state = Raw(b'"' + b"x" * (limits.STATE_BYTES_MAX - 2) + b'"')
        run(world, ReportKind.SUCCEEDED, state=state, state_set=True)
    place = world.append("tasks", home, key, value, headers)
    check(world.step())
    run(world, ReportKind.FAILED, error=ERROR, delay_s=0.0)
    run(world, ReportKind.SUCCEEDED, result=Raw(b'"' + b"x" * (limits.RESULT_BYTES_MAX - 2) + b'"'))
    states = [e.state for e in world.events() if e.task_id == f"{home}-{place}"]
    if what in ACCEPTED:
        assert states[-1] is TaskState.SUCCEEDED
    elif key is not None:
        assert states == [TaskState.REJECTED]
    else:
        assert len(states) <= 1  # forwarded or rejected
    assert not world.engines["s1"].quarantined


def run(world: World, kind: ReportKind, **fields: Any) -> None:
    """Run what is out, if anything is, and let it end like this."""
    execution = world.claim(world.workers["w1"])
    if execution is None:
        return
    world.begin(execution)
    world.end(execution, kind, **fields)
    for record in world.logs["completions", execution.dispatch.partition]:
        assert record is not None and wire_bytes(*record) <= limits.RECORD_BYTES_MAX
    check(world.step())
    world.pass_time(1)
    check(world.step())


@pytest.mark.parametrize("what", [w for w in TASKS if w in ACCEPTED])
def test_a_dead_letter_of_an_accepted_task_is_whole(what: str) -> None:
    world = World()
    world.start("s1")
    world.hire("w1")
    key, value, headers = TASKS[what]
    world.append("tasks", home_partition(key or b"", N), key, value, headers)
    check(world.step())
    run(world, ReportKind.REJECTED, error=ERROR)
    ((dead_key, dead_value, dead_headers),) = world.records("dead-letters")
    assert (dead_key, dead_value, dead_headers[: len(headers)]) == (key, value, headers)
    assert "pstp.cut" not in dict(dead_headers)


@pytest.mark.parametrize("what", [w for w in TASKS if w not in ACCEPTED and "event" not in w])
def test_a_dead_letter_of_a_refused_record_is_whole_or_says_that_it_is_not(what: str) -> None:
    world = World()
    world.start("s1")
    key, value, headers = TASKS[what]
    world.append("tasks", home_partition(key or b"", N), key, value, headers)
    check(world.step())
    ((dead_key, dead_value, dead_headers),) = world.records("dead-letters")
    whole = (dead_key, dead_value, dead_headers[: len(headers)]) == (key, value, headers)
    assert whole != ("pstp.cut" in dict(dead_headers))
    assert (key or b"").startswith(dead_key or b"") and value.startswith(dead_value or b"")
    assert whole or wire_bytes(key, value, headers) > limits.RECORD_BYTES_MAX - limits.ENVELOPE_BYTES_MAX


@pytest.mark.parametrize(
    "value",
    [
        b"x" * 5_000_000,
        protocol.encode(
            Completion(PROTOCOL, CONTROL * 3_000_000, "w", "b", "c", 0, 0, (Report(ReportKind.FAILED, 1, 2),))
        ),
    ],
    ids=["no completion", "of a group with an endless name"],
)  # fmt: skip
def test_what_a_stranger_writes_into_completions_stops_nothing(value: bytes) -> None:
    world = World()
    world.start("s1")
    world.append("completions", 1, b"g" * 3_000_000, value)
    outputs = world.step()
    check(outputs)
    assert {o.topic for o in outputs} & {"dead-letters", "task-events"}


def test_topics_take_what_we_write() -> None:
    """A record that the producer lets through must not be refused by the broker."""
    for name, plan in plan_topics(Settings(_env_file=None)).items():
        assert int(plan.config["max.message.bytes"]) >= limits.RECORD_BYTES_MAX, name


def test_limits_leave_room_for_each_other() -> None:
    assert limits.UNCLAIMED_S < limits.LEASE_S
    assert 1 << limits.EPOCH_SHIFT < limits.COUNTER_MAX
    assert limits.COUNTER_MAX == 2**53 - 1, "JavaScript reads it exactly"
    assert limits.SESSION_TIMEOUT_MS < limits.TRANSACTION_TIMEOUT_MS
    assert limits.BATCH_RECORDS_MAX * 4 < 1 << limits.EPOCH_SHIFT
