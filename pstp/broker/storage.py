"""The data folder of one broker: its files, its lock, and Kafka's format of it."""

import json
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from pstp.broker.errors import BrokerError, DataDirInUseError, StartError
from pstp.broker.filelock import is_locked_by_record, lock_within
from pstp.broker.settings import LOG_FOLDER, STORAGE_FOLDER

_FORMAT_TIMEOUT_S = 60.0
_LOCK_TIMEOUT_S = 2.0  # the JVM of an owner that was just killed needs a moment to be gone
_EXCERPT_LINES = 25
_ERROR_LINE = re.compile(r"\S+ \S+ (ERROR|FATAL) ")


@dataclass(frozen=True, slots=True)
class DetachedState:
    """What another process needs to know of a detached broker."""

    pid: int
    port: int


class DataDir:
    """Paths inside the data folder, and what is read from them."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.lock_path = self.path / "broker.lock"
        self.properties_path = self.path / "server.properties"
        self.detached_path = self.path / "detached.json"
        self.output_path = self.path / LOG_FOLDER / "jvm.out"
        self.log_path = self.path / LOG_FOLDER / "broker.log"
        self.meta_path = self.path / STORAGE_FOLDER / "meta.properties"
        self.kafka_lock_path = self.path / STORAGE_FOLDER / ".lock"

    def make(self) -> None:
        """Make the folder; raises BrokerError if it cannot be written."""
        try:
            self.log_path.parent.mkdir(parents=True, exist_ok=True)
            self.lock_path.touch()
        except OSError as error:
            raise BrokerError(
                f"The data folder {self.path} cannot be used ({error.strerror}): choose one that you may write to."
            ) from error

    @contextmanager
    def locked(self) -> Iterator[int]:
        """Hold the folder's lock, as a descriptor for the JVM to inherit; raises DataDirInUseError."""
        descriptor = lock_within(self.lock_path, _LOCK_TIMEOUT_S)
        if descriptor is None:
            raise in_use(self.path)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def kafka_runs(self) -> bool:
        """Whether some Kafka holds its own lock on the data, whoever started it.

        One that is started beside it would find that out only after it has opened, and perhaps mended, the metadata log
        that the other one writes: in combined mode Kafka takes this lock late.
        """
        return is_locked_by_record(self.kafka_lock_path)

    def cluster_id(self) -> str | None:
        """The cluster id that the folder was formatted with; None before the first start."""
        if not self.meta_path.exists():
            return None
        lines = self.meta_path.read_text(encoding="utf-8").splitlines()
        return next((line.removeprefix("cluster.id=") for line in lines if line.startswith("cluster.id=")), None)

    def save_detached(self, state: DetachedState) -> None:
        """Note the detached broker that now runs here."""
        self.detached_path.write_text(json.dumps(asdict(state)), encoding="utf-8")

    def detached_state(self) -> DetachedState | None:
        """The last detached broker here; it may have ended. None if none was, or a later one was not detached."""
        try:
            return DetachedState(**json.loads(self.detached_path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None

    def clear_last_run(self) -> None:
        """Forget the last detached broker, and begin new logs; the last three are kept."""
        self.detached_path.unlink(missing_ok=True)

    def log_text(self) -> str:
        """The log of the last start (at most 10 MB) and what the JVM itself printed."""
        paths = (self.log_path, self.output_path)
        return "".join(path.read_text(encoding="utf-8", errors="replace") for path in paths if path.exists())

    def log_excerpt(self) -> str:
        """The lines that tell best why the last start failed: from the first error on, or else the last ones."""
        lines = self.log_text().splitlines()
        first_error = next((number for number, line in enumerate(lines) if _ERROR_LINE.match(line)), -_EXCERPT_LINES)
        return "\n".join(lines[first_error:][:_EXCERPT_LINES])


def in_use(path: Path) -> DataDirInUseError:
    """The error for a data folder that another broker has."""
    return DataDirInUseError(f"Another broker runs on the data folder {path}: stop it, or choose another folder.")


def format_storage(data_dir: DataDir, java_command: list[str], cluster_id: str) -> None:
    """Write Kafka's metadata into a new folder (about 0.8 s); raises StartError if Kafka refuses."""
    tool = ["kafka.tools.StorageTool", "format", "--ignore-formatted", "--cluster-id", cluster_id, "--config"]
    try:
        run = subprocess.run(
            [*java_command, *tool, data_dir.properties_path.name],
            cwd=data_dir.path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_FORMAT_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired as error:
        raise StartError(
            f"Formatting {data_dir.path} took longer than {_FORMAT_TIMEOUT_S:g} s: try again on a less busy machine."
        ) from error
    if run.returncode != 0:
        raise StartError(f"Kafka could not format {data_dir.path}; its own words:\n{(run.stdout + run.stderr).strip()}")
