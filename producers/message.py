"""A task on its way in: the model that people fill in, and the record that goes to Kafka.

Whatever is encoded here is read back by the scheduler's own intake before it is sent, so nothing that the publisher
takes is refused later.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal, NamedTuple

import msgspec
from msgspec import Raw
from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import to_jsonable_python

from streams import limits, rfc3339
from streams.cloudevents import Headers
from streams.errors import UserError
from streams.intake import Refused, read_task
from streams.protocol import Reason, utc


class InvalidTaskError(UserError, ValueError):
    """A task that PSTP would refuse; nothing was sent.  The text says what to do."""

    def __init__(self, reason: Reason, text: str) -> None:
        super().__init__(text)
        self.reason = reason


def _time(value: Any) -> Any:
    return utc(rfc3339.wall_ms(value)) if isinstance(value, str) else value


_Name = Annotated[str, Field(min_length=1, max_length=limits.NAME_CHARS_MAX)]


OnFailure = Literal["skip", "block", "cascade"]


class TaskMessage(BaseModel):
    """One task to publish.  Fields that are not listed here are unknown to PSTP and kept for the handler.

    `payload` is any JSON value, a pydantic model, or `bytes` that hold JSON already.
    """

    model_config = ConfigDict(extra="allow", strict=True)

    group: str = Field(min_length=1, description="tasks of one group run one at a time, in the order of publishing")
    type: _Name
    payload: Any = None
    id: _Name | None = Field(None, description="else made from where the task stands: `<partition>-<offset>`")
    not_before: Annotated[AwareDatetime, BeforeValidator(_time)] | None = None
    timeout_s: float | None = Field(None, gt=0, allow_inf_nan=False)
    max_attempts: int | None = Field(None, ge=1, le=limits.MAX_ATTEMPTS_MAX)
    on_failure: OnFailure | None = Field(None, description="when its attempts are spent; goes over group and type")
    labels: dict[str, str] = {}
    idempotency_key: _Name | None = None
    priority: int | None = None
    headers: dict[str, str | bytes] = {}

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> "TaskMessage":
        """Checked fields.  Raises `InvalidTaskError` where pydantic's own error would take several lines."""
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            name = ".".join(map(str, first["loc"]))
            reason = Reason.NO_GROUP if name == "group" else Reason.WRONG_TYPE
            raise InvalidTaskError(reason, f"`{name}` is wrong: {first['msg']}") from None

    @classmethod
    def from_json(cls, text: bytes) -> "TaskMessage":
        """A line of `tasks.jsonl`, or a request's body.  Payload and unknown fields stay bytes: numbers survive.

        Raises `InvalidTaskError`.
        """
        try:
            text.decode()
            fields: dict[str, Any] = dict(_decode_object(text))
            for name in cls.model_fields.keys() & fields.keys() - {"payload"}:
                fields[name] = msgspec.json.decode(fields[name])
        except UnicodeDecodeError as error:
            raise InvalidTaskError(
                Reason.VALUE_NOT_UTF8, f"no UTF-8 text at byte {error.start}: save it as UTF-8"
            ) from None
        except msgspec.ValidationError:
            raise InvalidTaskError(Reason.NOT_AN_OBJECT, f"JSON, but no object: {_AN_EXAMPLE}") from None
        except msgspec.DecodeError as error:
            raise InvalidTaskError(Reason.BAD_JSON, f"no strict JSON ({error}): {_AN_EXAMPLE}") from None
        except RecursionError:
            raise _too_deep() from None
        return cls.of({name: value for name, value in fields.items() if value is not None})


_AN_EXAMPLE: Final = 'write {"group": "tenant-1", "type": "mail.send", "payload": {}}'
_decode_object = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_any = msgspec.json.Decoder(Raw).decode
_NULL: Final = Raw(b"null")


class Record(NamedTuple):
    """What goes to Kafka.  `task_id` is None where the broker's answer will give it."""

    key: bytes
    value: bytes
    headers: list[tuple[str, str | bytes | None]]
    task_id: str | None


def encode_task(task: TaskMessage, bytes_max: int = limits.TASK_BYTES_MAX) -> Record:
    """The task's record.  Raises `InvalidTaskError`."""
    fields: dict[str, Any] = {"type": task.type, "payload": _json(task.payload, "payload")}
    for name in ("id", "timeout_s", "max_attempts", "on_failure", "labels", "idempotency_key", "priority"):
        if value := getattr(task, name):
            fields[name] = value
    if task.priority == 0:
        fields["priority"] = 0
    if task.not_before is not None:
        fields["not_before"] = _rfc3339(task.not_before)
    for name, value in (task.model_extra or {}).items():
        fields[name] = _json(value, name)
    try:
        key, value = task.group.encode(), _encode(fields)
        headers: Headers = [(_utf8(name).decode(), _utf8(data)) for name, data in task.headers.items()]
    except UnicodeEncodeError as error:
        raise InvalidTaskError(
            Reason.BAD_JSON, f"{error.object!r} has half a surrogate pair, which UTF-8 cannot say: replace it"
        ) from None
    read = read_task(key, value, headers, partition=0, offset=0, bytes_max=bytes_max)
    if isinstance(read, Refused):
        raise InvalidTaskError(read.reason, read.detail)
    return Record(key, value, [*headers], task.id)


_encode = msgspec.json.Encoder().encode
_encode_strictly = json.JSONEncoder(
    ensure_ascii=False,
    allow_nan=False,  # msgspec and pydantic would turn NaN into null
    separators=(",", ":"),
    default=lambda value: to_jsonable_python(value, by_alias=True),  # models, times, UUIDs ...
).encode


def _json(value: Any, name: str) -> Raw:
    """JSON of a value, or the JSON that it is already, checked to be one whole value."""
    try:
        match value:
            case None:
                return _NULL
            case Raw():
                return _decode_any(value)
            case bytes() | bytearray() | memoryview():
                return _decode_any(bytes(value))
            case _:
                return Raw(_encode_strictly(value).encode())
    except RecursionError:
        raise _too_deep() from None
    except (ValueError, TypeError) as error:  # msgspec's and pydantic's errors are ValueErrors too
        raise InvalidTaskError(
            Reason.BAD_JSON, f"`{name}` cannot be JSON ({error}): give strings, finite numbers, lists and objects"
        ) from None


def _utf8(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text


def _rfc3339(time: datetime) -> str:
    try:
        return time.astimezone(UTC).isoformat().replace("+00:00", "Z")
    except OverflowError:
        raise InvalidTaskError(
            Reason.WRONG_TYPE, "`not_before` is outside of the years 1 to 9999: correct it"
        ) from None


def _too_deep() -> InvalidTaskError:
    return InvalidTaskError(Reason.TOO_DEEP, f"nests deeper than {limits.JSON_DEPTH_MAX} levels: flatten it")
