"""External split: records of many partitions, mixed, into one temporary file for each, so that one partition after the
other can be judged and forgotten.  On disk it takes what was put in; in memory nothing but the files' buffers.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import BinaryIO, Final, Self

TELL_BYTES: Final = 1 << 20


class Split:
    """Lines by number.  `add` them all, then `read` each number as often as needed; the files go with the context."""

    def __init__(self) -> None:
        self._folder = TemporaryDirectory(prefix="pstp-verify-")
        self._files: dict[int, BinaryIO] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        for file in self._files.values():
            file.close()
        self._folder.cleanup()

    def add(self, number: int, line: bytes) -> None:
        """`line` without its end."""
        file = self._files.get(number)
        if file is None:
            file = self._files[number] = (Path(self._folder.name) / str(number)).open("w+b")
        file.write(line + b"\n")

    def numbers(self) -> list[int]:
        return sorted(self._files)

    def read(self, number: int, on_progress: Callable[[int], None] = lambda size: None) -> Iterator[bytes]:
        """The lines of that number, in the order in which they were added; `on_progress` is told the bytes read."""
        file = self._files.get(number)
        if file is None:
            return
        file.flush()
        file.seek(0)
        yield from (line[:-1] for line in told(file, on_progress))


def told(file: BinaryIO, on_progress: Callable[[int], None]) -> Iterator[bytes]:
    """The file's lines; every megabyte or so, `on_progress` is told how many bytes were read since."""
    size = 0
    for line in file:
        size += len(line)
        if size >= TELL_BYTES:
            on_progress(size)
            size = 0
        yield line
    on_progress(size)
