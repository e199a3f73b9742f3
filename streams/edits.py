"""A task with another payload, and what differs.  Pure."""

from typing import Any, Final

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from streams import cloudevents, limits, rows
from streams.intake import AcceptedTask, Refused, read_task
from streams.protocol import Change, cut, utc

_encode: Final = msgspec.json.Encoder().encode
_OWN: Final = ("id", "timeout_s", "max_attempts", "idempotency_key", "priority", "labels", "on_failure")


def with_payload(
    row: rows.TaskRow, task: AcceptedTask, payload: Raw, bytes_max: int
) -> tuple[rows.TaskRow, AcceptedTask]:
    """The same task with another payload, as a plain record: an event's attributes stay as fields.  What was
    published is kept beside it.

    Raises `ValueError` with a sentence if that is no task any more.
    """
    fields: dict[str, Any] = {"type": task.type, "payload": payload, "id": task.task_id}
    for name in _OWN[1:]:
        value = getattr(task, name)
        if value is not None and value != {}:
            fields[name] = value
    if task.not_before_ms is not None:
        fields["not_before"] = utc(task.not_before_ms).isoformat()
    headers = [header for header in row.headers if not cloudevents.is_attribute(header[0])]
    original = row.original or rows.Original(row.key, row.value, row.headers)
    new = replace(row, key=task.key, value=_encode(fields | task.extra), headers=headers, original=original)
    read = read_task(
        new.key, new.value, new.headers, partition=row.origin_partition, offset=row.origin_offset, bytes_max=bytes_max
    )
    if isinstance(read, Refused):
        raise ValueError(read.detail)
    return new, read


def changes(before: Raw, after: Raw) -> tuple[Change, ...]:
    """What differs, by JSON pointer; at most so many, texts cut to a limit."""
    try:
        old, new = msgspec.json.decode(before), msgspec.json.decode(after)
    except (msgspec.DecodeError, RecursionError):  # a number that Python has none for
        return (Change("", cut(bytes(before).decode(), _MAX), cut(bytes(after).decode(), _MAX)),)
    found: list[Change] = []
    _compare("", old, new, found)
    return tuple(found)


_MAX: Final = limits.CHANGE_CHARS_MAX
_ABSENT: Final = object()


def _compare(path: str, old: Any, new: Any, found: list[Change]) -> None:
    if len(found) >= limits.CHANGES_SHOWN_MAX or (type(old) is type(new) and old == new):
        return
    if isinstance(old, dict) and isinstance(new, dict):
        for name in [*old, *(n for n in new if n not in old)]:
            step = name.replace("~", "~0").replace("/", "~1")
            _compare(f"{path}/{step}", old.get(name, _ABSENT), new.get(name, _ABSENT), found)
    elif isinstance(old, list) and isinstance(new, list):
        for i in range(max(len(old), len(new))):
            _compare(
                f"{path}/{i}", old[i] if i < len(old) else _ABSENT, new[i] if i < len(new) else _ABSENT, found
            )  # fmt: skip
    else:
        found.append(Change(cut(path, _MAX), _text(old), _text(new)))


def _text(value: Any) -> str | None:
    return None if value is _ABSENT else cut(_encode(value).decode(), _MAX)
