"""PostgreSQL for one side: a cluster of its own in a folder, on a socket, from the system's packages."""

import os
import shutil
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

from streams.errors import UserError


def _binaries() -> Path | None:
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: int(p.parent.name))
    return folders[-1] if folders else None


class Postgres:
    """Use it as a context.  As root it runs under the system's `postgres` user, since PostgreSQL refuses root."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._bin = _binaries()

    @staticmethod
    def found() -> bool:
        return _binaries() is not None

    @property
    def dsn(self) -> str:
        return f"host={self._folder} dbname=postgres user=postgres"

    def __enter__(self) -> Self:
        if self._bin is None:
            raise UserError(
                "procrastinate needs PostgreSQL: install Debian's package `postgresql`, or leave this side out"
            )
        self._folder.mkdir()
        if os.geteuid() == 0:
            shutil.chown(self._folder, "postgres")
            for parent in self._folder.parents:
                if parent.stat().st_uid == 0 and not parent.stat().st_mode & 0o001:
                    parent.chmod(parent.stat().st_mode | 0o011)
        self._run("initdb", "-D", str(self._folder / "data"), "-U", "postgres", "--auth=trust")
        options = f"-k {self._folder} -c listen_addresses= -c shared_buffers=256MB"
        self._run(
            "pg_ctl", "-D", str(self._folder / "data"), "-w", "-l", str(self._folder / "log"), "-o", options, "start"
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._run("pg_ctl", "-D", str(self._folder / "data"), "-m", "immediate", "-w", "stop")

    def _run(self, program: str, *arguments: str) -> None:
        assert self._bin is not None
        command = [str(self._bin / program), *arguments]
        if os.geteuid() == 0:
            command = ["runuser", "-u", "postgres", "--", *command]
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            raise UserError(f"{program} failed: {done.stderr.strip()[-500:]}")
