"""A small disk for a broker, so that it can be filled: a tmpfs, which only root may mount."""

import errno
import os
import subprocess
from pathlib import Path
from typing import Final

SIZE_MB: Final = 2_048
_MIB: Final = 1024 * 1024


def mount(folder: Path) -> str | None:
    """Mount one at `folder`; None, or why that is not possible."""
    if os.geteuid() != 0:
        return "only root may mount a tmpfs"
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_MB}m", "tmpfs", str(folder)]
    try:
        run = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        return str(error)
    return None if run.returncode == 0 else run.stderr.strip()


def unmount(folder: Path) -> None:
    subprocess.run(["umount", "--lazy", str(folder)], check=False, capture_output=True)


def fill(path: Path) -> None:
    """Take all the room there is on the disk of `path`."""
    with path.open("wb") as file:
        size = 0
        for step in (64 * _MIB, _MIB, 4096):
            while True:
                try:
                    os.posix_fallocate(file.fileno(), size, step)
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    break
                size += step
