"""What a partition remembers of what is over: open dead letters, idempotency keys, ids of commands.  Pure.

Each of them is a changelog row, and each is bounded by number; what is oldest goes first.
"""

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from streams import limits, rows
from streams.rows import DeadRow, SeenRow


class Dead(NamedTuple):
    """Where an open dead letter belongs."""

    sequence: int
    key: bytes


class Memory:
    """`forgotten` gives the keys of rows that must go to make room, or because their time is over."""

    def __init__(self) -> None:
        self.dead: OrderedDict[Dead, DeadRow] = OrderedDict()  # by age
        self.dead_of: dict[bytes, set[int]] = {}  # group -> sequences
        self.dead_bytes = 0
        self.seen: OrderedDict[tuple[bytes, str], tuple[int, SeenRow]] = OrderedDict()  # by age
        self.commands: OrderedDict[str, int] = OrderedDict()  # by number
        self.last_command = 0

    # -- dead letters

    def bury(self, place: Dead, row: DeadRow) -> None:
        self.dead[place] = row
        self.dead_of.setdefault(place.key, set()).add(place.sequence)
        self.dead_bytes += len(row.task)

    def raise_(self, place: Dead) -> DeadRow:
        """It is no longer open.  Raises `KeyError` if it was not."""
        row = self.dead.pop(place)
        sequences = self.dead_of[place.key]
        sequences.discard(place.sequence)
        if not sequences:
            del self.dead_of[place.key]
        self.dead_bytes -= len(row.task)
        return row

    def find(self, key: bytes, task_id: str, sequence: int | None) -> Dead | None:
        """The open dead letter of that id; the oldest, if several have it."""
        for found in sorted(self.dead_of.get(key, ())):
            if sequence in (None, found) and self.dead[Dead(found, key)].task_id == task_id:
                return Dead(found, key)
        return None

    def expired(self, wall_ms: int) -> Iterator[Dead]:
        """Those too old or too many; the caller raises each before it asks for the next."""
        while self.dead:
            place, row = next(iter(self.dead.items()))
            too_many = len(self.dead) > limits.DEAD_LETTERS_OPEN_MAX
            too_large = self.dead_bytes > limits.DEAD_LETTERS_OPEN_BYTES_MAX
            too_old = row.at_ms < wall_ms - limits.DEAD_LETTERS_OPEN_H * 3_600_000
            if not (too_many or too_large or too_old):
                return
            yield place

    # -- idempotency keys

    def first(self, key: bytes, idempotency_key: str, wall_ms: int, window_ms: int) -> str | None:
        """Id of the task that came with this key within the window."""
        found = self.seen.get((key, idempotency_key))
        return found[1].task_id if found is not None and found[1].at_ms > wall_ms - window_ms else None

    def remember(self, sequence: int, key: bytes, row: SeenRow) -> bytes | None:
        """Returns the key of the row that this one replaces, if its window was over."""
        old = self.seen.pop((key, row.idempotency_key), None)
        self.seen[key, row.idempotency_key] = sequence, row
        return None if old is None else rows.seen_key(old[0], key)

    # -- commands

    def note_command(self, command_id: str) -> int:
        self.last_command += 1
        self.commands[command_id] = self.last_command
        return self.last_command

    def forgotten(self, wall_ms: int, window_ms: int) -> Iterator[bytes]:
        """Keys of rows of idempotency keys and commands that are over."""
        while self.seen:
            (key, _), (sequence, row) = next(iter(self.seen.items()))
            if len(self.seen) <= limits.IDEMPOTENCY_KEYS_MAX and row.at_ms > wall_ms - window_ms:
                break
            self.seen.popitem(last=False)
            yield rows.seen_key(sequence, key)
        while len(self.commands) > limits.COMMANDS_REMEMBERED:
            yield rows.command_key(self.commands.popitem(last=False)[0])


def load_memory(memory: Memory, table: Mapping[bytes, bytes]) -> None:
    """Raises `VersionError`."""
    dead: list[tuple[Dead, DeadRow]] = []
    seen: list[tuple[int, bytes, SeenRow]] = []
    commands: list[tuple[int, str]] = []
    for key, value in table.items():
        match key[:1]:
            case b"D":
                dead.append((Dead(*rows.read_task_key(key)), rows.decode_dead(value)))
            case b"I":
                sequence, group = rows.read_task_key(key)
                seen.append((sequence, group, rows.decode_seen(value)))
            case b"C":
                commands.append((rows.decode_command(value).number, key[1:].decode()))
    for place, letter in sorted(dead, key=lambda d: (d[1].at_ms, d[0].sequence)):
        memory.bury(place, letter)
    for sequence, group, row in sorted(seen, key=lambda s: s[0]):
        memory.remember(sequence, group, row)
    for number, command_id in sorted(commands):
        memory.commands[command_id] = memory.last_command = number
