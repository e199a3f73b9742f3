"""What this version writes and reads, byte for byte: see `records.py`."""

import json
from typing import Any, get_type_hints

import msgspec
import pytest
from msgspec import Raw, Struct

from streams import protocol, rows
from streams.group import Head
from streams.protocol import PROTOCOL, EventKind, Reason, ReportKind, TaskState, VersionError
from tests.wire.records import GOLDEN, JSON, KEYS, OLD_ROWS, REPORTS, ROWS, Golden, read

WIRE = [pytest.param(name, golden, id=name) for name, golden in JSON.items()]
TABLE = [pytest.param(name, golden, id=name) for name, golden in ROWS.items()]
OLD_TABLE = [pytest.param(name, golden, id=name) for name, golden in OLD_ROWS.items()]
ANYTHING = {"newer": [1, {"x": None}]}


@pytest.mark.parametrize(("name", "golden"), WIRE)
def test_records_are_written_as_ever(name: str, golden: Golden) -> None:
    assert protocol.encode(golden.record) == read(name)


@pytest.mark.parametrize(("name", "golden"), WIRE + TABLE + OLD_TABLE)
def test_golden_bytes_are_read_as_the_same_record(name: str, golden: Golden) -> None:
    assert golden.decode(read(name)) == golden.record


@pytest.mark.parametrize(("name", "golden"), TABLE)
def test_rows_are_written_as_ever(name: str, golden: Golden) -> None:
    assert rows.encode(golden.record) == read(name)


@pytest.mark.parametrize("name", KEYS)
def test_row_keys_are_written_as_ever(name: str) -> None:
    assert KEYS[name] == read(name)


def test_no_golden_file_is_without_its_record() -> None:
    assert {path.stem for path in GOLDEN.iterdir()} == JSON.keys() | ROWS.keys() | OLD_ROWS.keys() | KEYS.keys()


def readable(name: str) -> bytes:
    """Without the one number that Python's own JSON cannot write again."""
    return read(name).replace(b"1e400", b"1e300")


# -- unknown fields


def with_unknown_fields(value: Any) -> Any:
    """The same JSON with a field that nobody knows in each of our objects; not in people's own data."""
    if isinstance(value, list):
        return [with_unknown_fields(item) for item in value]
    if not isinstance(value, dict):
        return value
    theirs = ("payload", "state", "result", "group_state", "labels", "extra", "trace", "unclaimed", "running", "demand")
    return {k: v if k in theirs else with_unknown_fields(v) for k, v in value.items()} | ANYTHING


@pytest.mark.parametrize(("name", "golden"), WIRE)
def test_unknown_fields_are_ignored(name: str, golden: Golden) -> None:
    data = readable(name)
    decoded = golden.decode(json.dumps(with_unknown_fields(json.loads(data)), separators=(",", ":")).encode())
    assert meaning(decoded) == meaning(golden.decode(data))


def meaning(value: Any) -> Any:
    """Values by what they say: raw JSON may be spelled in more than one way."""
    if isinstance(value, Raw):
        return ("json", json.loads(bytes(value)))
    if isinstance(value, Struct):
        return (type(value), {f: meaning(getattr(value, f)) for f in value.__struct_fields__})
    if isinstance(value, tuple | list):
        return [meaning(item) for item in value]
    if isinstance(value, dict):
        return {k: meaning(item) for k, item in value.items()}
    return value


@pytest.mark.parametrize(("name", "golden"), TABLE)
def test_more_columns_in_a_row_are_ignored(name: str, golden: Golden) -> None:
    columns = msgspec.msgpack.decode(read(name), strict=False)
    assert golden.decode(msgspec.msgpack.encode([*columns, ANYTHING])) == golden.record


def test_more_columns_in_a_head_are_ignored() -> None:
    version, head, *more = msgspec.msgpack.decode(read("row-head-4"))
    decoded = rows.decode_head(msgspec.msgpack.encode([version, [*head, ANYTHING], *more]))
    assert decoded == ROWS["row-head-4"].record


# -- newer versions


@pytest.mark.parametrize(("name", "golden"), WIRE)
def test_a_newer_protocol_is_refused(name: str, golden: Golden) -> None:
    fields = json.loads(readable(name))
    with pytest.raises(VersionError):
        golden.decode(json.dumps(fields | {"v": PROTOCOL + 1}, separators=(",", ":")).encode())


@pytest.mark.parametrize(("name", "golden"), WIRE)
def test_a_newer_protocol_is_refused_whatever_has_become_of_the_fields(name: str, golden: Golden) -> None:
    fields = json.loads(readable(name))
    changed = {k: {"is": "something else"} for k in fields} | {"v": PROTOCOL + 1}
    with pytest.raises(VersionError):
        golden.decode(json.dumps(changed, separators=(",", ":")).encode())
    with pytest.raises(VersionError):
        golden.decode(json.dumps({"v": PROTOCOL + 1}, separators=(",", ":")).encode())


@pytest.mark.parametrize(("name", "golden"), TABLE)
def test_a_newer_row_is_refused_whatever_has_become_of_its_columns(name: str, golden: Golden) -> None:
    columns = msgspec.msgpack.decode(read(name))
    newer = rows.NEWEST_FORMAT + 1
    for changed in ([newer, *columns[1:]], [newer, *[{"is": "something else"}] * (len(columns) - 1)], [newer]):
        with pytest.raises(VersionError):
            golden.decode(msgspec.msgpack.encode(changed))


# -- what is no record

NO_RECORDS = {
    "nothing": b"",
    "no JSON": b"{",
    "not UTF-8": b'{"v":1,"group":"\xff","kind":"\xff","instance":"\xff"}',
    "a number": b"17",
    "an empty object": b"{}",
    "too deep": b'{"x":' + b"[" * 100_000,
    "a version that is none": b'{"v":"two"}',
    "wrong types": b'{"v":1,"group":17,"kind":17,"instance":17}',
}


@pytest.mark.parametrize("what", NO_RECORDS)
@pytest.mark.parametrize("decode", ["dispatch", "completion", "control", "member", "events"])
def test_what_is_no_record_is_said_to_be_none(decode: str, what: str) -> None:
    with pytest.raises(msgspec.DecodeError):
        getattr(protocol, f"decode_{decode}")(NO_RECORDS[what])


@pytest.mark.parametrize("decode", [rows.decode_partition, rows.decode_task, rows.decode_head])
@pytest.mark.parametrize("data", [b"", b"\x00", b"\x90", b"\x91\x01", b"\xc1", b"\x93\x01"])
def test_what_is_no_row_is_said_to_be_none(decode: Any, data: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode(data)


# -- that the golden files say everything


def test_every_report_event_state_and_reason_is_in_a_golden_file() -> None:
    assert {report.kind for report in REPORTS} == set(ReportKind)
    names = {path.stem for path in GOLDEN.iterdir()}
    assert {f"event-{kind.value}" for kind in EventKind} | {f"event-task-{s.value}" for s in TaskState} <= names
    assert sorted(reason.value for reason in Reason) == REASONS


# What other processes and other versions know by these very words.
REASONS = [
    "abandoned", "attempts_spent", "bad_json", "by_command", "cascade", "discarded", "displaced", "edited", "expired",
    "failed", "group_full", "group_mismatch", "handler_rejected", "internal_error", "invalid_payload",
    "invalid_result", "key_not_utf8", "lost_before_start", "no_group", "no_handler", "no_value", "not_an_object",
    "not_retryable", "redriven_head", "redriven_tail", "released", "retry_now", "returned", "snoozed",
    "state_too_large", "taken_back", "timeout", "too_deep", "too_large", "value_not_utf8", "worker_lost",
    "wrong_partition", "wrong_type",
]  # fmt: skip


@pytest.mark.parametrize("model", [*[type(JSON[n].record) for n in ("dispatch", "completion", "event")], Head])
def test_every_field_is_set_in_a_golden_record(model: type[Struct]) -> None:
    """A field that is added must be added here too, or nothing would notice when it changes."""
    unset = set(model.__struct_fields__)
    for golden in (*JSON.values(), *ROWS.values()):
        for struct in structs_in(golden.record):
            if type(struct) is model:
                defaults = {f.name: f.default for f in msgspec.structs.fields(model)}
                unset -= {f for f in unset if getattr(struct, f) != defaults[f]}
    assert unset == set()
    assert get_type_hints(model).keys() == set(model.__struct_fields__)


def structs_in(value: Any) -> Any:
    if isinstance(value, Struct):
        yield value
        for field in value.__struct_fields__:
            yield from structs_in(getattr(value, field))
    elif isinstance(value, tuple):
        for item in value:
            yield from structs_in(item)


def test_headers_and_keys_of_task_rows_survive_as_they_are() -> None:
    row = rows.decode_task(read("row-task"))
    assert [(type(name), type(value)) for name, value in row.headers] == [(str, bytes), (str, bytes), (str, type(None))]
    key = rows.read_task_key(KEYS["key-task"])
    assert (rows.task_key(*key), key.group.decode()) == (KEYS["key-task"], "tenant/1 ☕")


def test_rows_of_one_group_sort_by_sequence() -> None:
    sequences = [0, 1, 255, 256, 2**32 - 1, 2**32, 2**52]
    keys = [rows.task_key(s, b"g") for s in sequences]
    assert keys == sorted(keys)


def test_no_kind_of_row_can_be_taken_for_another() -> None:
    group = b"\x00\x01PTHSDICW"
    keys = {rows.PARTITION_KEY, rows.task_key(1, group), rows.head_key(group), rows.state_key(group)}
    keys |= {rows.dead_key(1, group), rows.seen_key(1, group), rows.command_key("PTHSDICW"), rows.waiting_key(1, group)}
    assert {key[:1] for key in keys} == {b"S", *rows.KINDS} and len(keys) == 8
