"""How deep JSON nests, found before a parser has to recurse into it."""

import re
from itertools import accumulate
from typing import Final

# The closing quote is optional, so that a string without an end is passed over once and not once per quote in it.
_STRINGS: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_STEPS: Final = dict.fromkeys(b"[{", 1) | dict.fromkeys(b"]}", -1)
_NO_BRACKETS: Final = bytes(set(range(256)) - _STEPS.keys())


def is_deeper(json: bytes, depth_max: int) -> bool:
    """Whether brackets outside of strings nest deeper than `depth_max`.  Costs next to nothing where few are open."""
    if len(json) <= depth_max or json.count(b"[") + json.count(b"{") <= depth_max:
        return False
    brackets = _STRINGS.sub(b"", json).translate(None, _NO_BRACKETS)
    return max(accumulate(map(_STEPS.__getitem__, brackets)), default=0) > depth_max
