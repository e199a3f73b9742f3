"""The demo's folder: emptied at each start, but only if a demo made it."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from pstp.broker.filelock import try_lock
from streams.errors import UserError

MARKER: Final = ".pstp-demo"


@contextmanager
def demo_folder(path: Path) -> Iterator[Path]:
    """An empty folder, ours until the end.  Raises `UserError` if it holds anything of somebody else."""
    path = path.absolute()
    marker = path / MARKER
    if path.exists() and not path.is_dir():
        raise UserError(f"{path} is not a folder: choose another with --data-dir")
    if path.is_dir() and any(path.iterdir()) and not marker.exists():
        raise UserError(f"{path} holds other things than a demo's: choose an empty folder with --data-dir")
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = try_lock(marker)
    except OSError as error:
        raise UserError(f"{path} cannot be used ({error.strerror}): choose another with --data-dir") from error
    if lock is None:
        raise UserError(f"another demo runs in {path}: wait for it, or choose another folder with --data-dir")
    try:
        for entry in path.iterdir():
            if entry.name != MARKER:
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        yield path
    finally:
        os.close(lock)
