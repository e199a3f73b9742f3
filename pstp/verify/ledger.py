"""A byte for each of very many ascending numbers (offsets, sequences), in chunks: about one byte of memory each."""

from collections.abc import Iterator
from typing import Final

CHUNK_BITS: Final = 16
_MASK: Final = (1 << CHUNK_BITS) - 1


class Ledger:
    """Numbers from 0 without bound, values 0 to 255; what was never set is 0."""

    def __init__(self) -> None:
        self._chunks: dict[int, bytearray] = {}

    def __getitem__(self, number: int) -> int:
        chunk = self._chunks.get(number >> CHUNK_BITS)
        return 0 if chunk is None else chunk[number & _MASK]

    def __setitem__(self, number: int, value: int) -> None:
        chunk = self._chunks.get(number >> CHUNK_BITS)
        if chunk is None:
            chunk = self._chunks[number >> CHUNK_BITS] = bytearray(_MASK + 1)
        chunk[number & _MASK] = value

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Every number whose value is not 0, ascending, with its value."""
        for base in sorted(self._chunks):
            for index, value in enumerate(self._chunks[base]):
                if value:
                    yield (base << CHUNK_BITS) | index, value
