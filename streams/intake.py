"""Reading `tasks`: every record that anyone may publish becomes an `AcceptedTask` or is `Refused` with a reason.

Pure.  The payload and unknown fields stay bytes: no number in them is ever decoded, so none is ever damaged.
JSON is strict (no NaN, no lone surrogates); of two fields with one name the last counts; null is like absent.
"""

from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Raw, Struct

from streams import cloudevents, limits, rfc3339
from streams.cloudevents import Headers
from streams.depth import is_deeper
from streams.protocol import FailurePolicy, Reason

TRACE_HEADERS: Final = frozenset({"traceparent", "tracestate", "baggage"})


class AcceptedTask(Struct, frozen=True, gc=False):
    """A task as it was submitted, its group known.  `payload` is JSON, `extra` holds unknown fields as JSON."""

    group: str
    key: bytes  # of the group's home: the record's key, or the encoded `partitionkey` where there was none
    task_id: str
    type: str
    payload: Raw
    not_before_ms: int | None = None  # wall time
    timeout_s: float | None = None
    max_attempts: int | None = None
    idempotency_key: str | None = None
    priority: int | None = None
    labels: dict[str, str] = {}
    extra: dict[str, Raw] = {}
    trace: dict[str, str] = {}
    on_failure: FailurePolicy | None = None


class Refused(Struct, frozen=True, gc=False):
    """A record that is no task.  `detail`: one sentence with what its publisher should do."""

    reason: Reason
    detail: str


def read_task(
    key: bytes | None,
    value: bytes | None,
    headers: Headers | None,
    *,
    partition: int,
    offset: int,
    bytes_max: int = limits.TASK_BYTES_MAX,
) -> AcceptedTask | Refused:
    """Read one record of `tasks`.  Never raises, whatever the bytes.

    `partition` and `offset` name a task without an `id`: pass those at which its publisher put it.  `bytes_max`
    limits the plain bytes of key, value and headers together.
    """
    try:
        return _read(key, value, headers or [], f"{partition}-{offset}", bytes_max)
    except _Refusal as refusal:
        return Refused(refusal.reason, refusal.detail)


class _Refusal(Exception):
    def __init__(self, reason: Reason, detail: str) -> None:
        self.reason, self.detail = reason, detail


_Name = Annotated[str, Meta(min_length=1, max_length=limits.NAME_CHARS_MAX)]
_NULL: Final = Raw(b"null")
_FITS: Final = limits.RECORD_BYTES_MAX - limits.ENVELOPE_BYTES_MAX
_SURELY_FITS: Final = _FITS // 8
_encode: Final = msgspec.json.Encoder().encode


class _Fields(Struct, forbid_unknown_fields=True):
    type: _Name
    payload: Raw = _NULL
    id: _Name | None = None
    idempotency_key: _Name | None = None
    not_before: str | None = None
    timeout_s: Annotated[float, Meta(gt=0)] | None = None
    max_attempts: Annotated[int, Meta(ge=1, le=limits.MAX_ATTEMPTS_MAX)] | None = None
    priority: Annotated[int, Meta(ge=-(2**31), lt=2**31)] | None = None
    labels: dict[str, str] | None = None
    on_failure: FailurePolicy | None = None


_A_NAME: Final = f"a string of 1 to {limits.NAME_CHARS_MAX} characters"
_MUST_BE: Final = {
    "type": _A_NAME,
    "id": _A_NAME,
    "idempotency_key": _A_NAME,
    "partitionkey": "a string",
    "specversion": '"1.0", the one version of CloudEvents that is understood',
    "not_before": 'a time with its offset as RFC 3339 writes it, like "2031-05-01T08:00:00Z"',
    "timeout_s": "a finite number of seconds above 0",
    "max_attempts": f"a whole number from 1 to {limits.MAX_ATTEMPTS_MAX}",
    "priority": f"a whole number from {-(2**31)} to {2**31 - 1}",
    "on_failure": '"skip", "block" or "cascade"',
    "labels": "an object whose values are all strings",
    **dict.fromkeys(TRACE_HEADERS, "a string"),
}
_AN_EXAMPLE: Final = 'publish a JSON object like {"type": "mail.send", "payload": {}}'

# One pass decodes and checks the usual record.  Only one that fails it (an unknown field, or a wrong one) is taken
# apart field by field, which is slower and can name the field.
_decode_usual = msgspec.json.Decoder(_Fields).decode
_decode_object = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_any = msgspec.json.Decoder(Raw).decode
_decode_field: Final = {f.name: msgspec.json.Decoder(f.type).decode for f in msgspec.structs.fields(_Fields)} | {
    "partitionkey": msgspec.json.Decoder(str).decode,
    "specversion": msgspec.json.Decoder(Annotated[str, Meta(pattern=r"^1\.")]).decode,
    **dict.fromkeys(TRACE_HEADERS, msgspec.json.Decoder(str).decode),
}


def _read(key: bytes | None, value: bytes | None, headers: Headers, default_id: str, bytes_max: int) -> AcceptedTask:
    if value is None:
        raise _Refusal(Reason.NO_VALUE, f"the record has no value: {_AN_EXAMPLE}")
    size = _check_size(key, value, headers, bytes_max)
    group = _group_of(key)
    _check_text(value)
    trace = _trace_of(headers) if headers else {}
    extra: dict[str, Raw] = {}
    mode = cloudevents.mode_of(headers) if headers else None
    fields = _usual(value) if group and mode is None else None
    if fields is None:
        raw, is_event = _by_name(value, headers, mode)
        if is_event:
            group = _event_group(raw, group)
            _adopt_trace(raw, trace)
        fields, extra = _sorted_out(raw)
    if not group:
        raise _Refusal(Reason.NO_GROUP, "the record has no key: publish it with the id of its group as the key")
    task = AcceptedTask(
        group,
        key or group.encode(),
        fields.id or default_id,
        fields.type,
        fields.payload,
        None if fields.not_before is None else _not_before_ms(fields.not_before),
        None if fields.timeout_s is None else min(fields.timeout_s, limits.DELAY_S_MAX),
        fields.max_attempts,
        fields.idempotency_key,
        fields.priority,
        fields.labels or {},
        extra,
        trace,
        fields.on_failure,
    )
    if size > _SURELY_FITS:
        _check_fits(task)
    return task


def _check_fits(task: AcceptedTask) -> None:
    """What we write about a task must fit: JSON takes up to six bytes for one of a key or header that it escapes."""
    size = len(task.key) + len(_encode((task.group, task.payload, task.labels, task.extra, task.trace)))
    if size > _FITS:
        raise _Refusal(
            Reason.TOO_LARGE,
            f"escaped as JSON, key, headers and payload take {size} bytes, {_FITS} are allowed: "
            "leave control characters out of keys and headers",
        )


def _check_size(key: bytes | None, value: bytes, headers: Headers, bytes_max: int) -> int:
    """The plain bytes of key, value and headers together."""
    if len(headers) > limits.HEADERS_MAX:
        detail = f"the record has {len(headers)} headers, {limits.HEADERS_MAX} are allowed: put data into the payload"
        raise _Refusal(Reason.TOO_LARGE, detail)
    size = len(value) + len(key or b"")
    for name, data in headers:
        size += len(name.encode(errors="surrogatepass")) + len(data or b"")
    if size > bytes_max:
        raise _Refusal(
            Reason.TOO_LARGE,
            f"key, value and headers take {size} bytes together, {bytes_max} are allowed: "
            "keep large data elsewhere and publish a reference to it",
        )
    return size


def _group_of(key: bytes | None) -> str | None:
    if not key:
        return None
    try:
        return key.decode()
    except UnicodeDecodeError as error:
        raise _Refusal(
            Reason.KEY_NOT_UTF8,
            f"the key is not UTF-8 at byte {error.start}: publish the id of the group as UTF-8 text",
        ) from None


def _check_text(value: bytes) -> None:
    """UTF-8 and of bounded depth, neither of which the decoder sees in parts that it only skips."""
    if not value.isascii():
        try:
            value.decode()
        except UnicodeDecodeError as error:
            raise _Refusal(
                Reason.VALUE_NOT_UTF8, f"the value is not UTF-8 at byte {error.start}: publish JSON as UTF-8 text"
            ) from None
    if is_deeper(value, limits.JSON_DEPTH_MAX):
        raise _too_deep()


def _usual(value: bytes) -> _Fields | None:
    """A plain task all in order; None if it has to be taken apart."""
    try:
        return _decode_usual(value)
    except msgspec.ValidationError:
        return None
    except msgspec.DecodeError as error:
        raise _bad_json(error) from None
    except RecursionError:
        raise _too_deep() from None


def _by_name(value: bytes, headers: Headers, mode: cloudevents.Mode | None) -> tuple[dict[str, Raw], bool]:
    """The record's fields under our names, not yet checked, and whether it is a CloudEvent."""
    try:
        if mode is cloudevents.Mode.BINARY:
            return cloudevents.from_binary(headers, _decode_any(value)), True
        fields = _decode_object(value)
    except msgspec.ValidationError:
        raise _Refusal(Reason.NOT_AN_OBJECT, f"the value is JSON, but no object: {_AN_EXAMPLE}") from None
    except msgspec.DecodeError as error:
        raise _bad_json(error) from None
    except RecursionError:
        raise _too_deep() from None
    except UnicodeDecodeError:
        raise _Refusal(Reason.WRONG_TYPE, "a `ce_` header is not UTF-8: publish attributes as UTF-8 text") from None
    if mode is cloudevents.Mode.STRUCTURED or cloudevents.looks_structured(fields):
        return cloudevents.from_structured(fields), True
    return fields, False


def _event_group(raw: dict[str, Raw], group: str | None) -> str | None:
    """The group of a CloudEvent: the record's key wins, but only over the same `partitionkey` or none."""
    _field("specversion", raw.get("specversion", _NULL))
    partition_key = _field("partitionkey", raw.pop("partitionkey")) if "partitionkey" in raw else None
    if group and partition_key is not None and partition_key != group:
        raise _Refusal(
            Reason.GROUP_MISMATCH, "`partitionkey` names another group than the record's key: leave one of them out"
        )
    return group or partition_key


def _sorted_out(raw: dict[str, Raw]) -> tuple[_Fields, dict[str, Raw]]:
    """Known fields, each checked, and the unknown ones."""
    known: dict[str, Any] = {}
    extra: dict[str, Raw] = {}
    for name, json in raw.items():
        if name in _Fields.__struct_fields__:
            known[name] = _field(name, json)
        else:
            extra[name] = json
    if "type" not in known:
        raise _Refusal(Reason.WRONG_TYPE, f"`type` is missing: {_AN_EXAMPLE}")
    return _Fields(**known), extra


def _field(name: str, json: Raw) -> Any:
    try:
        return _decode_field[name](json)
    except msgspec.DecodeError:
        raise _wrong_type(name) from None


def _not_before_ms(text: str) -> int:
    try:
        return rfc3339.wall_ms(text)
    except ValueError:
        raise _wrong_type("not_before") from None


def _trace_of(headers: Headers) -> dict[str, str]:
    """Trace context, as far as it is text; a broken header is the tracer's loss, not the task's."""
    return {name: data.decode() for name, data in headers if name in TRACE_HEADERS and data and data.isascii()}


def _adopt_trace(raw: dict[str, Raw], trace: dict[str, str]) -> None:
    """An event's own trace context counts where the record has none."""
    for name in TRACE_HEADERS & raw.keys() - trace.keys():
        trace[name] = _field(name, raw.pop(name))


def _bad_json(error: msgspec.DecodeError) -> _Refusal:
    return _Refusal(Reason.BAD_JSON, f"the value is not strict JSON ({error}): {_AN_EXAMPLE}")


def _too_deep() -> _Refusal:
    return _Refusal(Reason.TOO_DEEP, f"the JSON nests deeper than {limits.JSON_DEPTH_MAX} levels: flatten it")


def _wrong_type(name: str) -> _Refusal:
    return _Refusal(Reason.WRONG_TYPE, f"`{name}` must be {_MUST_BE[name]}")
