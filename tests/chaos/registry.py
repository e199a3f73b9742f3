"""All nemeses by name, wherever they are written."""

from collections.abc import Callable
from typing import Final

from tests.chaos.stage import Stage, Steps

Nemesis = Callable[[Stage], Steps]
NEMESES: Final[dict[str, Nemesis]] = {}


def nemesis(function: Nemesis) -> Nemesis:
    NEMESES[function.__name__] = function
    return function
