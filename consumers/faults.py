"""Exceptions as people read them, whatever they hold: bounded in length, in chain and in time."""

import traceback as tb
from collections.abc import Iterable, Iterator
from typing import Final

from streams import limits
from streams.protocol import ErrorInfo, cut

_CHAIN_MAX: Final = 8
_FRAMES_MAX: Final = 25
_LINE_CHARS_MAX: Final = 1_000


_secrets: tuple[str, ...] = ()


def mask(secrets: Iterable[str]) -> None:
    """From now on none of these texts is shown in what this process says of an error."""
    global _secrets
    _secrets = tuple(sorted(secrets, key=len, reverse=True))  # one that holds another goes first


def secrets() -> tuple[str, ...]:
    """What is masked now."""
    return _secrets


def masked(text: str) -> str:
    for secret in _secrets:
        text = text.replace(secret, "***")
    return text


def describe(error: BaseException, *, traceback: bool = True) -> ErrorInfo:
    """Its type, message and traceback, cut to the limits."""
    text = cut(masked(_traceback(error)), limits.TRACEBACK_CHARS_MAX) if traceback else None
    return ErrorInfo(_name(error), printable(error, limits.ERROR_TEXT_CHARS_MAX), text)


def printable(error: BaseException, chars_max: int = _LINE_CHARS_MAX) -> str:
    """Its message, cut.  `str(error)` runs foreign code: it may raise, or give text that UTF-8 cannot carry."""
    try:
        text = str(error)
    except BaseException:
        text = "(its message cannot be shown)"
    return encodable(cut(masked(text), chars_max))


def encodable(text: str) -> str:
    """`text` without lone surrogates, which UTF-8 cannot carry."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _name(error: BaseException) -> str:
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return encodable(cut(name, limits.NAME_CHARS_MAX))


def _chain(error: BaseException) -> Iterator[tuple[BaseException, str]]:
    """The error and what led to it, newest first, each with the words that join it to the next."""
    seen: set[int] = set()
    link: BaseException | None = error
    words = ""
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link, words
        if link.__cause__ is not None:
            link, words = link.__cause__, "The above exception was caused by:"
        elif link.__suppress_context__:
            return
        else:
            link, words = link.__context__, "While handling this one:"


def _traceback(error: BaseException) -> str:
    """Newest exception first, so that what is cut off is the least interesting."""
    parts: list[str] = []
    for depth, (link, words) in enumerate(_chain(error)):
        if depth == _CHAIN_MAX:
            parts.append("… and further exceptions before it")
            break
        if words:
            parts.append(words)
        parts.append(
            "".join(tb.format_tb(link.__traceback__, limit=-_FRAMES_MAX)) + f"{_name(link)}: {printable(link)}"
        )
        if isinstance(link, BaseExceptionGroup):
            parts.extend(f"  | {_name(inner)}: {printable(inner)}" for inner in link.exceptions[:_CHAIN_MAX])
    return encodable("\n".join(parts))
