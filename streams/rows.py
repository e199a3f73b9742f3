"""The changelog's rows: what of a partition survives its owner.

Key = kind byte + fields + group; value = MessagePack array, first field the row format's version.

| kind | key after the kind | holds |
|---|---|---|
| P | nothing | the partition: counter, watermarks, owner stamp |
| T | 8-byte sequence, group | one accepted task, as its record came |
| H | group | what the head is doing, unless it is simply ready for its first attempt |
| S | group | group state (JSON) |
| D | 8-byte sequence, group | an open dead letter: its task, and why it is one |
| I | 8-byte sequence, group | an idempotency key and the task that came with it first |
| C | command id | a command that was taken in |
| W | 8-byte number, group | a command that waits for the end of its group's run |

An S row is the group's own JSON; a new form of it would be a new kind, and a kind that is not known is refused.

An idle group without state has no row.  A parked task costs one row and no other: a million parked tasks in one group
cost no more per step than ten.
"""

from collections.abc import Callable
from typing import Final, NamedTuple, TypeVar

import msgspec
from msgspec import Struct

from streams.group import Head, Held
from streams.protocol import ErrorInfo, Reason, VersionError
from streams.totals import Totals

ROW_FORMAT: Final = 1
# Of a head with a run: who does not know runs would send its tasks out a second time, so it must refuse such a row.
RUN_FORMAT: Final = 2
NEWEST_FORMAT: Final = RUN_FORMAT
PARTITION_KEY: Final = b"P"
KINDS: Final = frozenset({b"P", b"T", b"H", b"D", b"I", b"C", b"W"})  # those whose value begins with a version

Headers = list[tuple[str, bytes | None]]


class PartitionRow(Struct, array_like=True):
    """One per partition.  `next_offsets`: per input topic; what lies below was taken in.  `origins`: the same for
    forwarded tasks, per partition that they came from.  `owner`: transactional id and boot id of who writes; `released`
    when that owner let go cleanly.  `totals`: see `streams.totals`.
    """

    v: int
    counter: int
    next_offsets: dict[str, int]
    origins: dict[int, int]
    owner: str
    boot_id: str
    released: bool
    input_ids: dict[str, str] = {}  # Kafka's id of each input topic to which the offsets belong
    totals: Totals = {}
    runs_tasks: bool = False  # the owner also runs handlers, and may have begun what no row tells
    may_run: tuple[str, ...] = ()  # boot ids of earlier owners that did so, did not let go, and may not have ended
    careful: tuple[int, int] = (0, 0)  # what they may have begun: up to this sequence, and below this offset of `tasks`


class Original(Struct, array_like=True, gc=False):
    """A record as its publisher wrote it."""

    key: bytes | None
    value: bytes
    headers: Headers


class TaskRow(Struct, array_like=True, gc=False):
    """A task's record byte for byte: what a dead letter gives back, and what is parsed again when it is promoted.

    Once somebody has given it another payload, `value` and `headers` are what runs, and `original` is what was
    published.
    """

    v: int
    origin_partition: int
    origin_offset: int
    key: bytes | None
    value: bytes
    headers: Headers
    accepted_ms: int = 0  # wall time
    original: Original | None = None


class HeadRow(Struct, array_like=True):
    v: int
    head: Head | None
    blocked: Reason | None
    held: Held | None = None


class DeadRow(Struct, array_like=True, gc=False):
    """An open dead letter, until it is redriven, discarded or expired.  `task`: its `TaskRow`, encoded."""

    v: int
    task: bytes
    at_ms: int  # wall time
    reason: Reason
    task_id: str
    type: str
    attempts: int
    error: ErrorInfo | None = None
    cascade_of: int = 0  # sequence of the task whose failure took this one along
    first_error: ErrorInfo | None = None


class SeenRow(Struct, array_like=True, gc=False):
    """The task that was accepted first under an idempotency key of its group."""

    v: int
    idempotency_key: str
    task_id: str
    at_ms: int  # wall time


class CommandRow(Struct, array_like=True, gc=False):
    v: int
    number: int  # rises with each command of the partition


class WaitingRow(Struct, array_like=True, gc=False):
    """`command`: the value of its record."""

    v: int
    command: bytes


def head_format(head: Head | None) -> int:
    return RUN_FORMAT if head is not None and head.run else ROW_FORMAT


def dead_key(sequence: int, group: bytes) -> bytes:
    return b"D" + sequence.to_bytes(8, "big") + group


def seen_key(sequence: int, group: bytes) -> bytes:
    return b"I" + sequence.to_bytes(8, "big") + group


def command_key(command_id: str) -> bytes:
    return b"C" + command_id.encode()


def waiting_key(number: int, group: bytes) -> bytes:
    return b"W" + number.to_bytes(8, "big") + group


class TaskKey(NamedTuple):
    sequence: int
    group: bytes


def task_key(sequence: int, group: bytes) -> bytes:
    return b"T" + sequence.to_bytes(8, "big") + group


def head_key(group: bytes) -> bytes:
    return b"H" + group


def state_key(group: bytes) -> bytes:
    return b"S" + group


def read_task_key(key: bytes) -> TaskKey:
    return TaskKey(int.from_bytes(key[1:9], "big"), key[9:])


encode = msgspec.msgpack.Encoder().encode


class _Version(Struct, array_like=True):
    v: int = 0


_version = msgspec.msgpack.Decoder(_Version).decode
Row = TypeVar("Row", PartitionRow, TaskRow, HeadRow, DeadRow, SeenRow, CommandRow, WaitingRow)


def _decoder(model: type[Row]) -> Callable[[bytes], Row]:
    decode = msgspec.msgpack.Decoder(model).decode

    def checked(data: bytes) -> Row:
        try:
            row = decode(data)
        except msgspec.ValidationError:  # a newer row may have any shape behind its version
            _refuse_newer(_version(data).v)
            raise
        _refuse_newer(row.v)
        return row

    return checked


# Each raises `VersionError`, or `msgspec.DecodeError` on anything that is no such row.
decode_partition = _decoder(PartitionRow)
decode_task = _decoder(TaskRow)
decode_head = _decoder(HeadRow)
decode_dead = _decoder(DeadRow)
decode_seen = _decoder(SeenRow)
decode_command = _decoder(CommandRow)
decode_waiting = _decoder(WaitingRow)


def _refuse_newer(version: int) -> None:
    if version > NEWEST_FORMAT:
        raise VersionError(
            f"a changelog row of format {version}, and this process reads {NEWEST_FORMAT}: upgrade it to the version "
            "of PSTP that wrote the row"
        )


def refuse_newer(key: bytes, value: bytes) -> None:
    """Raises `VersionError` for a row that this process cannot read.  Looks at two bytes: there are a million rows."""
    kind = key[:1]
    if kind == b"S":
        return
    if kind not in KINDS:
        raise VersionError(
            f"changelog rows of kind {kind!r}, which this process does not know: upgrade it to the version of PSTP "
            "that wrote them"
        )
    # A short array of MessagePack, and in it a small number: all that this version writes.
    if not (value[:1] and value[0] & 0xF0 == 0x90 and value[1:2] and value[1] <= NEWEST_FORMAT):
        _refuse_newer(_version(value).v)
