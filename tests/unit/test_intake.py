"""`streams.intake`: what is a task, what is refused, and with which words."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams import limits
from streams.intake import AcceptedTask, Refused, read_task
from streams.protocol import Reason

KEY = b"tenant-1"
MINIMAL = b'{"type":"sync.customer"}'
STRUCTURED = ("content-type", b"application/cloudevents+json; charset=utf-8")
BINARY = ("ce_specversion", b"1.0")


def read(value: bytes | None = MINIMAL, key: bytes | None = KEY, headers: Any = None, **more: Any) -> Any:
    return read_task(key, value, headers, partition=3, offset=12, **more)


def accepted(*args: Any, **kwargs: Any) -> AcceptedTask:
    task = read(*args, **kwargs)
    assert isinstance(task, AcceptedTask), task
    return task


def refused(*args: Any, **kwargs: Any) -> Refused:
    refusal = read(*args, **kwargs)
    assert isinstance(refusal, Refused), refusal
    return refusal


def with_field(name: str, value: str) -> bytes:
    return f'{{"type":"sync.customer","{name}":{value}}}'.encode()


def test_minimal_task() -> None:
    task = accepted()
    assert (task.group, task.key, task.task_id, task.type) == ("tenant-1", KEY, "3-12", "sync.customer")
    assert bytes(task.payload) == b"null"
    assert (task.not_before_ms, task.timeout_s, task.max_attempts, task.priority) == (None, None, None, None)
    assert (task.labels, task.extra, task.trace) == ({}, {}, {})


def test_every_field() -> None:
    task = accepted(
        b'{"type":"a","payload":{"n": 1},"id":"x/1","idempotency_key":"k","not_before":"1970-01-01T01:00:01.5+01:00",'
        b'"timeout_s":2.5,"max_attempts":1000,"priority":-1,"labels":{"team":"a"},"retries":{"of": [ 3 ]}}'
    )
    assert (task.task_id, task.idempotency_key, task.not_before_ms) == ("x/1", "k", 1500)
    assert (task.timeout_s, task.max_attempts, task.priority, task.labels) == (2.5, 1000, -1, {"team": "a"})
    assert bytes(task.payload) == b'{"n": 1}'
    assert {name: bytes(raw) for name, raw in task.extra.items()} == {"retries": b'{"of": [ 3 ]}'}


@pytest.mark.parametrize(
    ("reason", "key", "value"),
    [
        (Reason.NO_GROUP, None, MINIMAL),
        (Reason.NO_GROUP, b"", MINIMAL),
        (Reason.NO_GROUP, b"", b'{"type":"a","unknown":1}'),
        (Reason.KEY_NOT_UTF8, b"\x83\xff", MINIMAL),
        (Reason.KEY_NOT_UTF8, b"\xc0\xaf", MINIMAL),  # overlong "/"
        (Reason.KEY_NOT_UTF8, b"\xe0\x80\xaf", MINIMAL),
        (Reason.KEY_NOT_UTF8, b"\xed\xa0\x80", MINIMAL),  # a surrogate
        (Reason.KEY_NOT_UTF8, b"\xf4\x90\x80\x80", MINIMAL),  # beyond U+10FFFF
        (Reason.NO_VALUE, KEY, None),
        (Reason.NO_VALUE, None, None),
        (Reason.VALUE_NOT_UTF8, KEY, b'{"type":"a","payload":"\xff"}'),
        (Reason.VALUE_NOT_UTF8, KEY, b'{"type":"a","payload":"\xed\xa0\x80"}'),
        (Reason.VALUE_NOT_UTF8, KEY, '{"type":"a"}'.encode("utf-16")),
        (Reason.BAD_JSON, KEY, b""),
        (Reason.BAD_JSON, KEY, b"{"),
        (Reason.BAD_JSON, KEY, b"hello"),
        (Reason.BAD_JSON, KEY, b'{"type":"a"} {}'),
        (Reason.BAD_JSON, KEY, b'{"type":"a",}'),
        (Reason.BAD_JSON, KEY, b"{'type':'a'}"),
        (Reason.BAD_JSON, KEY, b'\xef\xbb\xbf{"type":"a"}'),
        (Reason.BAD_JSON, KEY, b'{"type":"a","payload":NaN}'),
        (Reason.BAD_JSON, KEY, b'{"type":"a","payload":-Infinity}'),
        (Reason.BAD_JSON, KEY, b'{"type":"a","payload":01}'),
        (Reason.BAD_JSON, KEY, rb'{"type":"a","payload":["\ud800 alone"]}'),
        (Reason.BAD_JSON, KEY, b'{"type":"a","unknown":1} trailing'),
        (Reason.NOT_AN_OBJECT, KEY, b"[]"),
        (Reason.NOT_AN_OBJECT, KEY, b'"text"'),
        (Reason.NOT_AN_OBJECT, KEY, b"null"),
        (Reason.NOT_AN_OBJECT, KEY, b"12"),
        (Reason.TOO_DEEP, KEY, b'{"type":"a","payload":' + b"[" * 10_000 + b"]" * 10_000 + b"}"),
        (Reason.TOO_DEEP, KEY, b"[" * 10_000),
        (Reason.TOO_DEEP, KEY, b'{"a":' * 10_000 + b"1" + b"}" * 10_000),
    ],
)
def test_refused(reason: Reason, key: bytes | None, value: bytes | None) -> None:
    refusal = refused(value, key)
    assert refusal.reason is reason
    assert ": " in refusal.detail  # what is wrong: what to do


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("type", ["null", "1", '""', "[]", f'"{"x" * 201}"']),
        ("id", ["1", '""', "{}", "9" * 400, f'"{"x" * 201}"']),
        ("idempotency_key", ["1", '""']),
        ("timeout_s", ["0", "-1", '"5"', "1e999", "9" * 400, "true"]),
        ("max_attempts", ["0", "1001", "2.0", '"3"', "1" + "0" * 400, "-1"]),
        ("priority", ["1.5", '"high"', "9" * 400]),
        ("labels", ["[]", '{"a":1}', '{"a":null}', '"a"']),
        (
            "not_before",
            [
                "1700000000", '""', '"tomorrow"', '"2031-05-01"', '"2031-05-01T08:00:00"', '"2031-05-01T08:00Z"',
                '"2031-05-01T08:00:00+0100"', '"2031-02-30T08:00:00Z"', '"2031-05-01T24:00:00Z"',
                '"2031-05-01T08:00:00+24:00"', '"0001-01-01T00:00:00+01:00"', '"9999-12-31T23:59:59-01:00"',
                '"2031-05-01T08:00:00Z "', '"2031-W18-4T08:00:00Z"', '"２０３１-05-01T08:00:00Z"',
            ],
        ),
    ],
)  # fmt: skip
def test_wrong_types_name_the_field(name: str, values: list[str]) -> None:
    for value in values:
        refusal = refused(with_field(name, value))
        assert refusal.reason is Reason.WRONG_TYPE, value
        assert f"`{name}` must be " in refusal.detail


def test_missing_type() -> None:
    assert "`type` is missing" in refused(b"{}").detail
    assert "`type` is missing" in refused(b'{"payload":1}').detail


@pytest.mark.parametrize(
    "name", ["payload", "id", "idempotency_key", "not_before", "timeout_s", "max_attempts", "priority", "labels"]
)
def test_null_is_like_absent(name: str) -> None:
    assert read(with_field(name, "null")) == read()
    assert read(b'{"type":"sync.customer","unknown":1,"%s":null}' % name.encode()).extra.keys() == {"unknown"}


@pytest.mark.parametrize(
    ("text", "wall_ms"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01t00:00:00.0011z", 2),
        ("1970-01-01 00:00:00-00:00", 0),
        ("1970-01-01T00:00:00.0000000001Z", 0),  # finer than a clock shows
        ("1969-12-31T23:59:59.5Z", -500),
        ("2000-02-29T12:00:00+05:30", 951805800000),
        ("0001-01-01T00:00:00Z", -62135596800000),
        ("9999-12-31T23:59:59.999999Z", 253402300799000),
    ],
)
def test_not_before(text: str, wall_ms: int) -> None:
    assert accepted(with_field("not_before", f'"{text}"')).not_before_ms == wall_ms


@pytest.mark.parametrize("key", ["a\x00b", "a/b", "..", "ü/日本", "\n", "🙂" * 200, "x" * 1000, "u\u0308", " "])
def test_keys_have_no_meaning(key: str) -> None:
    task = accepted(key=key.encode())
    assert (task.group, task.key) == (key, key.encode())


@pytest.mark.parametrize("number", ["1970670598291982290", "1" + "0" * 400, "1e400", "-0.0", "0.1000000000000000055"])
def test_numbers_survive(number: str) -> None:
    task = accepted(f'{{"type":"a","payload":{number},"unknown":{number}}}'.encode())
    assert bytes(task.payload) == bytes(task.extra["unknown"]) == number.encode()


def test_of_two_fields_the_last_counts() -> None:
    assert accepted(b'{"type":1,"type":"a","id":"x","id":"y"}').task_id == "y"
    assert refused(b'{"type":"a","type":1}').reason is Reason.WRONG_TYPE


def test_timeout_beyond_what_timers_take_is_as_long_as_they_take() -> None:
    assert accepted(with_field("timeout_s", "1e300")).timeout_s == limits.DELAY_S_MAX


def test_depth_counts_no_brackets_in_strings() -> None:
    deepest = b'{"type":"a","payload":' + b"[" * 199 + b"]" * 199 + b"}"
    assert isinstance(read(deepest), AcceptedTask)
    assert refused(deepest.replace(b"[]", b"[{}]")).reason is Reason.TOO_DEEP
    text = json.dumps({"type": "a", "payload": ['[{"\\' * 5_000, "[" * 5_000]}).encode()
    assert isinstance(read(text), AcceptedTask)
    flat = b'{"type":"a","payload":[' + b'{"a":[1]},' * 10_000 + b"1]}"
    assert isinstance(read(flat), AcceptedTask)


def test_size_counts_plain_bytes_of_key_value_and_headers() -> None:
    headers = [("ä", b"123"), ("empty", None)]
    size = len(KEY) + len(MINIMAL) + 2 + 3 + 5
    assert isinstance(read(headers=headers, bytes_max=size), AcceptedTask)
    refusal = refused(headers=headers, bytes_max=size - 1)
    assert refusal.reason is Reason.TOO_LARGE
    assert str(size) in refusal.detail and str(size - 1) in refusal.detail


def test_trace_headers_are_carried() -> None:
    headers = [("traceparent", b"00-ab-cd-01"), ("tracestate", b"x=1"), ("baggage", b"\xff"), ("other", b"1")]
    assert accepted(headers=headers).trace == {"traceparent": "00-ab-cd-01", "tracestate": "x=1"}


EVENT = {"specversion": "1.0", "type": "customer.changed", "source": "/crm", "id": "e-1"}


def event(**more: Any) -> bytes:
    return json.dumps(EVENT | more).encode()


def test_structured_cloudevent() -> None:
    task = accepted(
        event(data={"n": 1}, partitionkey="tenant-9", notbefore="1970-01-01T00:00:01Z", timeouts="2.5", maxattempts=4,
              labels='{"a":"b"}', priority="7", idempotencykey="k", subject=None, traceparent="00-ab-cd-01"),
        None,
        [STRUCTURED],
    )  # fmt: skip
    assert (task.group, task.key, task.task_id, task.type) == ("tenant-9", b"tenant-9", "e-1", "customer.changed")
    assert msgspec.json.decode(task.payload) == {"n": 1}
    assert (task.not_before_ms, task.timeout_s, task.max_attempts, task.priority) == (1000, 2.5, 4, 7)
    assert (task.labels, task.idempotency_key, task.trace) == ({"a": "b"}, "k", {"traceparent": "00-ab-cd-01"})
    assert {name: bytes(raw) for name, raw in task.extra.items()} == {"specversion": b'"1.0"', "source": b'"/crm"'}


def test_structured_cloudevent_without_its_header_is_known_by_its_data() -> None:
    assert msgspec.json.decode(accepted(event(data=[1])).payload) == [1]
    plain = accepted(event(payload=1, data=2, partitionkey="other"))
    assert bytes(plain.payload) == b"1" and "data" in plain.extra


def test_structured_cloudevent_with_binary_data() -> None:
    assert msgspec.json.decode(accepted(event(data_base64="AAE=")).payload) == {"data_base64": "AAE="}


def test_binary_cloudevent() -> None:
    headers = [
        BINARY, ("ce_type", b"customer.changed"), ("ce_id", b"e-1"), ("ce_source", "/crm/ü".encode()),
        ("ce_partitionkey", b"tenant-9"), ("ce_maxattempts", b"4"), ("ce_labels", b'{"a":"b"}'), ("ce_subject", None),
        ("content-type", b"application/json"), ("traceparent", b"00-head"), ("ce_traceparent", b"00-event"),
    ]  # fmt: skip
    task = accepted(b'{"type": 5}', None, headers)
    assert (task.group, task.key, task.task_id, task.type) == ("tenant-9", b"tenant-9", "e-1", "customer.changed")
    assert bytes(task.payload) == b'{"type": 5}'
    assert (task.max_attempts, task.labels, task.trace) == (4, {"a": "b"}, {"traceparent": "00-head"})
    assert msgspec.json.decode(task.extra["source"]) == "/crm/ü"
    assert msgspec.json.decode(task.extra["datacontenttype"]) == "application/json"


@pytest.mark.parametrize(
    ("reason", "key", "value", "headers"),
    [
        (Reason.GROUP_MISMATCH, KEY, event(data=1, partitionkey="other"), [STRUCTURED]),
        (Reason.GROUP_MISMATCH, KEY, b"1", [BINARY, ("ce_type", b"a"), ("ce_partitionkey", b"other")]),
        (Reason.GROUP_MISMATCH, KEY, event(data=1, partitionkey=""), [STRUCTURED]),
        (Reason.NO_GROUP, None, event(data=1), [STRUCTURED]),
        (Reason.NO_GROUP, b"", event(data=1, partitionkey=""), [STRUCTURED]),
        (Reason.KEY_NOT_UTF8, b"\xff", event(data=1, partitionkey="a"), [STRUCTURED]),
        (Reason.WRONG_TYPE, KEY, event(data=1, partitionkey=5), [STRUCTURED]),
        (Reason.WRONG_TYPE, KEY, event(data=1, specversion="0.3"), [STRUCTURED]),
        (Reason.WRONG_TYPE, KEY, b'{"type":"a","data":1}', [STRUCTURED]),
        (Reason.WRONG_TYPE, KEY, event(data=1, type=None), [STRUCTURED]),
        (Reason.WRONG_TYPE, KEY, event(data=1, timeouts="soon"), [STRUCTURED]),
        (Reason.WRONG_TYPE, KEY, event(data=1, traceparent=1), [STRUCTURED]),
        (Reason.WRONG_TYPE, KEY, b"1", [BINARY]),
        (Reason.WRONG_TYPE, KEY, b"1", [BINARY, ("ce_type", b"\xff")]),
        (Reason.WRONG_TYPE, KEY, b"1", [BINARY, ("ce_type", b"a"), ("ce_maxattempts", b"many")]),
        (Reason.BAD_JSON, KEY, b"<xml/>", [BINARY, ("ce_type", b"a")]),
        (Reason.BAD_JSON, KEY, b"{", [STRUCTURED]),
        (Reason.NOT_AN_OBJECT, KEY, b"[]", [STRUCTURED]),
        (Reason.NO_VALUE, KEY, None, [BINARY, ("ce_type", b"a")]),
    ],
)
def test_cloudevents_refused(reason: Reason, key: bytes | None, value: bytes | None, headers: Any) -> None:
    assert refused(value, key, headers).reason is reason


def test_the_same_partitionkey_is_no_mismatch() -> None:
    assert accepted(event(data=1, partitionkey="tenant-1"), KEY, [STRUCTURED]).group == "tenant-1"


# What comes from outside: bytes, near misses of tasks, and whole tasks.
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
names = st.sampled_from([
    "type", "payload", "id", "idempotency_key", "not_before", "timeout_s", "max_attempts", "priority", "labels",
    "specversion", "data", "data_base64", "partitionkey", "notbefore", "timeouts", "maxattempts", "traceparent",
]) | st.text(max_size=5)  # fmt: skip
values = (
    st.none()
    | st.binary(max_size=40)
    | st.text(alphabet='{}[]":,\\udt01', max_size=40).map(str.encode)
    | st.dictionaries(names, json_values, max_size=6).map(lambda d: json.dumps({"type": "a"} | d).encode())
)
header_names = st.sampled_from(["content-type", "ce_specversion", "ce_type", "ce_id", "ce_partitionkey", "ce_labels"])
header_values = st.none() | st.binary(max_size=9) | st.sampled_from([b"application/cloudevents+json", b"1.0", b"a"])
headers_or_none = st.none() | st.lists(st.tuples(header_names | st.text(max_size=5), header_values), max_size=5)


@given(st.none() | st.binary(max_size=9) | st.just(KEY), values, headers_or_none)
def test_never_raises_and_what_is_accepted_reads_back(key: bytes | None, value: bytes | None, headers: Any) -> None:
    task = read(value, key, headers)
    if isinstance(task, Refused):
        assert task.detail and len(task.detail) < 400
        return
    assert task.key == task.group.encode()
    again = msgspec.json.Decoder(AcceptedTask).decode(msgspec.json.encode(task))
    assert msgspec.json.encode(again) == msgspec.json.encode(task)
    for raw in (task.payload, *task.extra.values()):
        json.loads(bytes(raw))


@given(
    st.text(min_size=1, max_size=20), json_values,
    st.fixed_dictionaries({}, optional={
        "id": st.text(min_size=1, max_size=200), "timeout_s": st.floats(0.001, 1e6), "priority": st.integers(-9, 9),
        "max_attempts": st.integers(1, 1000), "labels": st.dictionaries(st.text(max_size=5), st.text(max_size=5)),
        "more": json_values,
    }),
)  # fmt: skip
def test_good_tasks_are_accepted_unchanged(group: str, payload: Any, fields: dict[str, Any]) -> None:
    value = json.dumps({"type": "a", "payload": payload} | fields).encode()
    task = accepted(value, group.encode())
    assert (task.group, json.loads(bytes(task.payload))) == (group, payload)
    assert task.task_id == fields.get("id", "3-12")
    assert (task.timeout_s, task.max_attempts) == (fields.get("timeout_s"), fields.get("max_attempts"))
    assert (task.labels, task.priority) == (fields.get("labels", {}), fields.get("priority"))
    assert task.extra.keys() == fields.keys() & {"more"}
