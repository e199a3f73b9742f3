"""Times as people and other programs write them in tasks and commands."""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

# Leap seconds aside, which no clock here shows.
_RFC_3339: Final = re.compile(
    r"\d{4}-\d\d-\d\d[Tt ][0-2]\d:[0-5]\d:[0-5]\d(\.\d+)?([Zz]|[+-][0-2]\d:[0-5]\d)", re.ASCII
)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_WALL_MS_MAX: Final = (datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC) - _EPOCH) // timedelta(milliseconds=1)


def wall_ms(text: str) -> int:
    """Milliseconds since 1970 of an RFC 3339 time, any offset, rounded up so that nothing happens before it.

    Raises `ValueError` on anything else, and on what lies outside of the years 1 to 9999 in UTC.
    """
    if not _RFC_3339.fullmatch(text):
        raise ValueError(f"no RFC 3339 time: {text!r}")
    try:
        time = datetime.fromisoformat(text.upper()).astimezone(UTC)
    except OverflowError:
        raise ValueError(f"outside of the years 1 to 9999: {text!r}") from None
    return min(-((_EPOCH - time) // timedelta(milliseconds=1)), _WALL_MS_MAX)
