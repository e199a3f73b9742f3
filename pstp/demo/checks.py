"""What must hold at the end, beside the history itself: every logbook, every flight without a tail number."""

from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from typing import NamedTuple

import msgspec
from msgspec import Struct
from rich.console import Console
from rich.table import Table

from pstp.demo.data import Flight, read_flights
from pstp.demo.logbook import Logbook, fold
from pstp.verify.reader import TopicReader
from streams.protocol import Reason
from streams.settings import Settings


class Expected(NamedTuple):
    """What the file says, by a plain loop over it."""

    rows: int
    keyless: frozenset[int]  # rows without a tail number
    logbooks: dict[str, Logbook]


class Check(NamedTuple):
    ok: bool
    text: str


class _Payload(Struct):
    row: int


class _Value(Struct):
    payload: _Payload


_value = msgspec.json.Decoder(_Value).decode


def expect(rows: int | None) -> Expected:
    count = 0
    keyless: set[int] = set()

    def counted() -> Iterable[Flight]:
        nonlocal count
        for flight in read_flights(rows):
            count += 1
            if flight.plane is None:
                keyless.add(flight.row)
            yield flight

    logbooks = fold(counted())
    return Expected(count, frozenset(keyless), logbooks)


def check_logbooks(expected: dict[str, Logbook], states: dict[str, bytes]) -> Check:
    """The group states that the history ends with are the logbooks of the plain fold, all of them, and no others."""
    found = {group: msgspec.json.decode(state) for group, state in states.items()}
    equal = sum(found.get(plane) == logbook for plane, logbook in expected.items())
    text = f"{equal:,} of {len(expected):,} logbooks equal a plain single-threaded fold of the file"
    if strangers := found.keys() - expected.keys():
        return Check(False, f"{text}; {len(strangers):,} belong to no plane, such as {min(strangers)!r}")
    wrong = next((plane for plane, logbook in expected.items() if found.get(plane) != logbook), None)
    if wrong is not None:
        return Check(False, f"{text}; {wrong!r} has {found.get(wrong)} and not {expected[wrong]}")
    return Check(True, text)


def check_dead_letters(settings: Settings, keyless: frozenset[int]) -> Check:
    """Every flight without a tail number is a dead letter with its reason, once, and nothing else is."""
    rows: Counter[int] = Counter()
    others: Counter[str] = Counter()
    with closing(TopicReader(settings, settings.topic("dead-letters"))) as letters:
        for partition in letters.bounds:
            for message in letters.read(partition):
                reason = dict(message.headers() or ()).get("pstp.reason")
                if reason == Reason.NO_GROUP.encode() and message.key() is None:
                    rows[_value(message.value() or b"").payload.row] += 1
                else:
                    others[str(reason)] += 1
    found = len(rows.keys() & keyless)
    text = f"{found:,} of {len(keyless):,} flights without a tail number are dead letters with the reason no_group"
    if others:
        text += f"; {others.total():,} other dead letters: {dict(others)}"
    return Check(rows == Counter(keyless) and not others, text)


def show_busiest(console: Console, states: dict[str, bytes], count: int = 5) -> None:
    """The planes with most flights, from the history."""
    logbooks = {group: msgspec.json.decode(state) for group, state in states.items()}
    table = Table("plane", "flights", "hours in the air", "miles", "last seen at", "chain", title_justify="left")
    table.title = f"The {count} busiest of {len(logbooks):,} planes"
    for column in table.columns[1:4]:
        column.justify = "right"
    for plane, book in sorted(logbooks.items(), key=lambda item: (-item[1]["flights"], item[0]))[:count]:
        hours, miles = f"{book['air_minutes'] / 60:,.0f}", f"{book['distance']:,}"
        table.add_row(plane, f"{book['flights']:,}", hours, miles, book["last_dest"], book["chain"])
    console.print(table)
