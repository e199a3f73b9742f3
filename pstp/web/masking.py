"""Hides members of JSON documents by their path, without reading the rest: no number loses a digit."""

from collections.abc import Iterable
from typing import Final

import msgspec
from msgspec import Raw

MASK: Final = "[masked]"
DEPTH_MAX: Final = 200
_MASK_JSON: Final = Raw(b'"[masked]"')
_object = msgspec.json.Decoder(dict[str, Raw]).decode
_array = msgspec.json.Decoder(list[Raw]).decode
_encode = msgspec.json.encode
Path = tuple[str, ...]


class Masker:
    """Patterns are dotted paths from the document's root: `card.number`, `*` for any one member or item of an array,
    `**` for any number of them, as in `**.password`."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self._patterns: tuple[Path, ...] = tuple(tuple(pattern.split(".")) for pattern in patterns if pattern)

    def __call__(self, text: str | None) -> str | None:
        """The document without what is hidden; as it came, if nothing in it is or there are no patterns.

        What cannot be read is hidden whole.
        """
        if text is None or not self._patterns:
            return text
        try:
            return bytes(self._value(Raw(text.encode()), self._patterns, 0)).decode()
        except (msgspec.DecodeError, RecursionError, UnicodeError):
            return f'"{MASK}"'

    def _value(self, value: Raw, patterns: tuple[Path, ...], depth: int) -> Raw:
        if not patterns:
            return value
        if depth > DEPTH_MAX:
            return _MASK_JSON
        first = bytes(value).lstrip()[:1]
        if first == b"{":
            members = _object(value)
            masked = {name: self._member(name, member, patterns, depth) for name, member in members.items()}
            return Raw(_encode(masked)) if masked != members else value
        if first == b"[":
            items = _array(value)
            hidden = [self._member("*", item, patterns, depth) for item in items]
            return Raw(_encode(hidden)) if hidden != items else value
        return value

    def _member(self, name: str, value: Raw, patterns: tuple[Path, ...], depth: int) -> Raw:
        below: list[Path] = []
        for pattern in patterns:
            for rest in _after(pattern, name):
                if not rest:
                    return _MASK_JSON
                below.append(rest)
        return self._value(value, tuple(dict.fromkeys(below)), depth + 1)


def _after(pattern: Path, name: str) -> list[Path]:
    """What is left of a pattern one level further down."""
    if pattern[0] == "**":
        return [pattern, *_after(pattern[1:], name)] if len(pattern) > 1 else [()]
    return [pattern[1:]] if pattern[0] in ("*", name) else []
