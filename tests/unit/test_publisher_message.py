"""`producers.message`: what a publisher takes, and the record that it makes of it."""

import json
import math
import zoneinfo
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw
from pydantic import BaseModel, Field

from producers import InvalidTaskError, TaskMessage
from producers.message import encode_task
from streams import limits
from streams.errors import UserError
from streams.intake import AcceptedTask, read_task
from streams.protocol import Reason


def accepted(task: TaskMessage) -> AcceptedTask:
    """What the scheduler reads of it."""
    record = encode_task(task)
    read = read_task(record.key, record.value, list(record.headers), partition=0, offset=0)  # type: ignore[arg-type]
    assert isinstance(read, AcceptedTask)
    return read


def payload_of(payload: Any) -> bytes:
    return bytes(accepted(TaskMessage(group="g", type="t", payload=payload)).payload)


def refusal(**fields: Any) -> InvalidTaskError:
    with pytest.raises(InvalidTaskError) as caught:
        encode_task(TaskMessage.of({"group": "g", "type": "t"} | fields))
    assert isinstance(caught.value, ValueError) and isinstance(caught.value, UserError)
    assert "\n" not in str(caught.value)
    return caught.value


def test_every_field_arrives() -> None:
    task = accepted(TaskMessage.of({
        "group": "ü/日本", "type": "sync.customer", "payload": {"n": [1, None]}, "id": "x", "timeout_s": 5,
        "not_before": "2031-05-01T08:00:00Z", "max_attempts": 3, "labels": {"a": "b"}, "idempotency_key": "k",
        "priority": 0, "headers": {"traceparent": "00-ab-cd-01", "other": b"\xff"}, "more": {"x": 1}, "none": None,
    }))  # fmt: skip
    assert (task.group, task.type, task.task_id, task.idempotency_key) == ("ü/日本", "sync.customer", "x", "k")
    assert (bytes(task.payload), task.not_before_ms) == (b'{"n":[1,null]}', 1935388800000)
    assert (task.timeout_s, task.max_attempts, task.labels, task.priority) == (5.0, 3, {"a": "b"}, 0)
    assert task.trace == {"traceparent": "00-ab-cd-01"}
    assert {name: bytes(raw) for name, raw in task.extra.items()} == {"more": b'{"x":1}', "none": b"null"}


class Point(BaseModel):
    x: float = Field(alias="X")
    at: datetime | None = None


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (None, b"null"),
        (b'{"raw": 1970670598291982290}', b'{"raw": 1970670598291982290}'),
        (Raw(b"[1e400]"), b"[1e400]"),
        (bytearray(b"1"), b"1"),
        ("text", b'"text"'),
        (1970670598291982290, b"1970670598291982290"),
        (10**400, b"1" + b"0" * 400),
        (0.1, b"0.1"),
        ({"ü": "🙂\x00"}, '{"ü":"🙂\\u0000"}'.encode()),
        ((1, 2), b"[1,2]"),
        (Point(X=1.5), b'{"X":1.5,"at":null}'),
        ([Point(X=1, at=datetime(2031, 5, 1, tzinfo=UTC))], b'[{"X":1.0,"at":"2031-05-01T00:00:00Z"}]'),
        ([date(2031, 5, 1), UUID(int=1)], b'["2031-05-01","00000000-0000-0000-0000-000000000001"]'),
    ],
)
def test_payloads(payload: Any, expected: bytes) -> None:
    assert payload_of(payload) == expected


@pytest.mark.parametrize(
    ("reason", "payload"),
    [
        (Reason.BAD_JSON, math.nan),
        (Reason.BAD_JSON, {"a": [-math.inf]}),
        (Reason.BAD_JSON, Point(X=math.nan)),
        (Reason.BAD_JSON, {"a": Point(X=math.inf)}),
        (Reason.BAD_JSON, object()),
        (Reason.BAD_JSON, {(1, 2): 3}),
        (Reason.BAD_JSON, "\ud800"),
        (Reason.BAD_JSON, [10**5000]),
        (Reason.BAD_JSON, b""),
        (Reason.BAD_JSON, b"hello"),
        (Reason.BAD_JSON, b"NaN"),
        (Reason.BAD_JSON, b'1,"type":"smuggled"'),
        (Reason.BAD_JSON, b"1}{"),
        (Reason.VALUE_NOT_UTF8, b'"\xff"'),
        (Reason.TOO_DEEP, b"[" * 10_000 + b"]" * 10_000),
        (Reason.TOO_DEEP, b"[" * 300 + b"]" * 300),
        (Reason.TOO_LARGE, "x" * limits.TASK_BYTES_MAX),
    ],
)
def test_payloads_that_are_refused(reason: Reason, payload: Any) -> None:
    assert refusal(payload=payload).reason is reason


def test_deep_and_circular_payloads_are_refused() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    assert refusal(payload=deep).reason is Reason.TOO_DEEP
    circle: list[Any] = []
    circle.append(circle)
    assert refusal(payload=circle).reason is Reason.BAD_JSON


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("type", ["", 1, None, "x" * 201]),
        ("id", ["", 1, "x" * 201]),
        ("timeout_s", [0, -1, math.nan, math.inf, "5", True]),
        ("max_attempts", [0, 1001, 1.5, "3", True]),
        ("labels", [{"a": 1}, [], "a"]),
        ("not_before", ["tomorrow", "2031-05-01", "2031-05-01T08:00:00", datetime(2031, 5, 1), 5]),
        ("priority", ["high", 2**31, 1.5]),
        ("headers", [{"a": 1}]),
    ],
)
def test_wrong_fields_are_named(name: str, values: list[Any]) -> None:
    for value in values:
        error = refusal(**{name: value})
        assert error.reason is Reason.WRONG_TYPE and name in str(error), (value, str(error))


def test_groups_that_are_refused() -> None:
    assert refusal(group="").reason is Reason.NO_GROUP
    assert refusal(group=None).reason is Reason.NO_GROUP
    assert "unicode" in str(refusal(group="\ud800"))


def test_half_a_surrogate_pair_is_refused_wherever_it_is() -> None:
    for fields in ({"labels": {"\ud800": "a"}}, {"headers": {"\ud800": "a"}}, {"\ud800": 1}, {"more": ["\ud800"]}):
        assert refusal(**fields).reason in (Reason.WRONG_TYPE, Reason.BAD_JSON)


@pytest.mark.parametrize(
    ("time", "wall_ms"),
    [
        (datetime(1970, 1, 1, 1, tzinfo=timezone(timedelta(hours=1))), 0),
        (datetime(1970, 1, 1, 0, 0, 1, 500_000, tzinfo=UTC), 1500),
        # an offset with seconds, which RFC 3339 cannot write
        (datetime(1890, 1, 1, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin")), -2524524808000),
    ],
)
def test_not_before_keeps_its_moment(time: datetime, wall_ms: int) -> None:
    assert accepted(TaskMessage(group="g", type="t", not_before=time)).not_before_ms == wall_ms


def test_not_before_outside_of_all_years() -> None:
    assert refusal(not_before=datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=1)))).reason is Reason.WRONG_TYPE


def test_a_line_of_a_file_keeps_its_numbers() -> None:
    line = (
        b'{"group":"g","type":"t","payload":{"n": 1970670598291982290, "x": 1e400},"more":0.1000000000000000055,'
        b'"timeout_s":null,"labels":{"a":"b"},"not_before":"1970-01-01T00:00:01+00:00"}'
    )
    task = accepted(TaskMessage.from_json(line))
    assert bytes(task.payload) == b'{"n": 1970670598291982290, "x": 1e400}'
    assert bytes(task.extra["more"]) == b"0.1000000000000000055"
    assert (task.timeout_s, task.labels, task.not_before_ms) == (None, {"a": "b"}, 1000)


@pytest.mark.parametrize(
    ("reason", "line"),
    [
        (Reason.BAD_JSON, b""),
        (Reason.BAD_JSON, b'{"group":"g","type":"t","payload":NaN}'),
        (Reason.VALUE_NOT_UTF8, b'{"group":"\xff"}'),
        (Reason.NOT_AN_OBJECT, b"[]"),
        (Reason.TOO_DEEP, b'{"group":"g","type":"t","payload":' + b"[" * 10_000 + b"]" * 10_000 + b"}"),
        (Reason.TOO_DEEP, b'{"group":' + b"[" * 10_000 + b"]" * 10_000 + b"}"),
        (Reason.NO_GROUP, b'{"type":"t"}'),
        (Reason.NO_GROUP, b'{"group":null,"type":"t"}'),
        (Reason.WRONG_TYPE, b'{"group":"g"}'),
        (Reason.WRONG_TYPE, b'{"group":"g","type":"t","max_attempts":"3"}'),
    ],
)
def test_lines_that_are_refused(reason: Reason, line: bytes) -> None:
    with pytest.raises(InvalidTaskError) as caught:
        encode_task(TaskMessage.from_json(line))
    assert caught.value.reason is reason


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.text(min_size=1, max_size=20), json_values, st.dictionaries(st.text(max_size=5), json_values, max_size=2))
def test_what_is_published_is_what_the_scheduler_reads(group: str, payload: Any, extra: dict[str, Any]) -> None:
    extra = {name: value for name, value in extra.items() if name not in TaskMessage.model_fields}
    for task in (
        TaskMessage.of(extra | {"group": group, "type": "t", "payload": payload}),
        TaskMessage.from_json(json.dumps(extra | {"group": group, "type": "t", "payload": payload}).encode()),
    ):
        read = accepted(task)
        assert (read.group, read.key, read.type) == (group, group.encode(), "t")
        assert json.loads(bytes(read.payload)) == payload
        assert {name: json.loads(bytes(raw)) for name, raw in read.extra.items()} == extra


@given(st.binary(max_size=60) | st.text(alphabet='{}[]":,group type1', max_size=60).map(str.encode))
def test_any_line_is_a_task_or_refused(line: bytes) -> None:
    try:
        encode_task(TaskMessage.from_json(line))
    except InvalidTaskError as error:
        assert str(error)


def test_published_records_hold_the_documented_fields_only() -> None:
    record = encode_task(TaskMessage(group="g", type="t"))
    assert record == (b"g", b'{"type":"t","payload":null}', [], None)
    assert msgspec.json.decode(encode_task(TaskMessage(group="g", type="t", id="x")).value)["id"] == "x"
