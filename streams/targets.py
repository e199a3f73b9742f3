"""Where Prometheus finds this process: a file for its `file_sd_configs`, there as long as the process runs.

Format: https://prometheus.io/docs/prometheus/latest/configuration/configuration/#file_sd_config
"""

import contextlib
from pathlib import Path

import msgspec
import structlog

from streams.settings import Settings

log = structlog.get_logger("targets")
FOLDER = "targets"


class Target:
    """`write` when the process serves, `remove` when it leaves.  What a killed one leaves, its successor replaces."""

    def __init__(self, settings: Settings, role: str, instance: str) -> None:
        self._labels = {"cluster": settings.app, "role": role, "instance": instance}
        self.path = settings.data_dir / FOLDER / f"{settings.app}-{instance}.json"

    def write(self, address: str) -> None:
        """`address` as in "http://host:port".  A folder that cannot be written is a matter for the log only."""
        group = {"targets": [address.removeprefix("http://")], "labels": self._labels}
        new = self.path.with_suffix(".new")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            new.write_bytes(msgspec.json.encode([group]) + b"\n")
            new.replace(self.path)  # Prometheus never reads half a file
        except OSError as error:
            log.warning("Prometheus will not find this process", file=str(self.path), error=error.strerror)

    def remove(self) -> None:
        with contextlib.suppress(OSError):
            Path(self.path).unlink()
