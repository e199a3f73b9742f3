"""CloudEvents 1.0 told in our own fields.  Pure renaming: what is wrong with a field is found by `streams.intake`.

Sources: CloudEvents core and JSON format 1.0.2, Kafka protocol binding 1.0.2, partitioning and distributed tracing
extensions.  `type` and `id` are ours too, `data` is the payload, `partitionkey` the group.  Attribute names may only
have lower-case letters and digits, so our other fields ride as extension attributes without their underscores:
`notbefore`, `timeouts`, `maxattempts`, `idempotencykey`, `onfailure`, `priority`, `labels`.  Attributes have no maps
and no fractions, so numbers and `labels` may also come as text that holds their JSON.  Everything else (`source`,
`subject`, `time` ...) is an unknown field and kept for the handler; `data_base64` becomes the payload
`{"data_base64": "..."}`.
"""

from enum import Enum, auto
from typing import Final

import msgspec
from msgspec import Raw

Headers = list[tuple[str, bytes | None]]

_PREFIX: Final = "ce_"
_OURS: Final = {
    name.replace("_", ""): name for name in ("not_before", "timeout_s", "max_attempts", "idempotency_key", "on_failure")
}
_MAY_BE_TEXT: Final = frozenset({"timeout_s", "max_attempts", "priority", "labels"})

_text = msgspec.json.Decoder(str).decode
_encode = msgspec.json.Encoder().encode


class Mode(Enum):
    STRUCTURED = auto()
    BINARY = auto()


def mode_of(headers: Headers) -> Mode | None:
    """How the record's headers say that it carries an event; None if they do not."""
    mode = None
    for name, data in headers:
        if name == "content-type" and data is not None and data.lower().startswith(b"application/cloudevents"):
            return Mode.STRUCTURED
        if name == "ce_specversion" and data is not None:
            mode = Mode.BINARY
    return mode


def looks_structured(fields: dict[str, Raw]) -> bool:
    """Whether an object is an event whose publisher forgot the `content-type`: else its `data` would go unseen."""
    return "specversion" in fields and "payload" not in fields and bool(fields.keys() & {"data", "data_base64"})


def from_structured(event: dict[str, Raw]) -> dict[str, Raw]:
    """The fields of an event whose value is the whole event as a JSON object; there, null is like absent."""
    fields = _renamed({name: raw for name, raw in event.items() if bytes(raw) != b"null"})
    if (data := fields.pop("data", None)) is not None:
        fields["payload"] = data
    elif (data := fields.pop("data_base64", None)) is not None:
        fields["payload"] = Raw(b'{"data_base64":' + bytes(data) + b"}")
    return fields


def from_binary(headers: Headers, data: Raw) -> dict[str, Raw]:
    """The fields of an event whose attributes are headers and whose value is its data.

    Raises `UnicodeDecodeError` on a header that is not UTF-8.
    """
    event: dict[str, Raw] = {}
    for name, text in headers:
        if text is None:
            continue
        if name.startswith(_PREFIX):
            event[name.removeprefix(_PREFIX)] = Raw(_encode(text.decode()))
        elif name == "content-type":
            event["datacontenttype"] = Raw(_encode(text.decode()))
    fields = _renamed(event)
    fields["payload"] = data
    return fields


def is_attribute(name: str) -> bool:
    """Whether a header of that name belongs to an event."""
    return name.startswith(_PREFIX) or name == "content-type"


def _renamed(event: dict[str, Raw]) -> dict[str, Raw]:
    fields: dict[str, Raw] = {}
    for name, raw in event.items():
        name = _OURS.get(name, name)
        if name in _MAY_BE_TEXT and bytes(raw).startswith(b'"'):
            raw = Raw(_text(raw).encode())
        fields[name] = raw
    return fields
