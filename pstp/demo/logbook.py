"""A plane's logbook, as it goes from flight to flight: the group state of the demo."""

from collections.abc import Iterable
from hashlib import sha256
from typing import Any

from pstp.demo.data import Flight

Logbook = dict[str, Any]


def add_flight(logbook: Logbook | None, flight: dict[str, Any]) -> Logbook:
    """The logbook with one more flight.  `chain` depends on every row so far and on their order."""
    before = logbook or {"flights": 0, "air_minutes": 0, "distance": 0, "chain": ""}
    return {
        "flights": before["flights"] + 1,
        # A flight that was cancelled has no time in the air.
        "air_minutes": before["air_minutes"] + (flight["air_minutes"] or 0),
        "distance": before["distance"] + flight["distance"],
        "last_dest": flight["dest"],
        "chain": sha256(f"{before['chain']}:{flight['row']}".encode()).hexdigest()[:12],
    }


def fold(flights: Iterable[Flight]) -> dict[str, Logbook]:
    """The logbooks of all planes, by a plain loop over the file: what the whole system must come to as well."""
    logbooks: dict[str, Logbook] = {}
    for flight in flights:
        if flight.plane is not None:
            logbooks[flight.plane] = add_flight(logbooks.get(flight.plane), flight.payload)
    return logbooks
