"""The bed on which one side after the other is measured: a broker, topics that come and go, child processes."""

import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from confluent_kafka.admin import AdminClient

from pstp.bench.machine import cpu_s
from pstp.broker import EmbeddedBroker
from streams.settings import Settings
from streams.topics import create_topics

HEAP_MB = 512


class Bed:
    """Use it as a context.  Everything that it started or wrote is gone at the end."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="pstp-bench-"))
        self.broker = EmbeddedBroker(self.folder / "kafka", heap_mb=HEAP_MB)
        self._children: list[subprocess.Popen[str]] = []
        self._logs: list[IO[str]] = []
        self._number = 0

    def __enter__(self) -> Self:
        self.broker.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for child in self._children:
            if child.poll() is None:
                child.kill()
                child.wait()
        for log in self._logs:
            log.close()
        self.broker.stop()
        if kind is None:
            shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def bootstrap(self) -> str:
        return self.broker.bootstrap

    def name(self) -> str:
        """A fresh name for an app, a topic or a group."""
        self._number += 1
        return f"b{self._number}"

    def broker_cpu_s(self) -> float:
        return cpu_s(self.broker.pid)

    def settings(self, app: str, **more: Any) -> Settings:
        """Settings of a PSTP app of its own, with its topics made."""
        settings = Settings(
            app=app, bootstrap_servers=self.bootstrap, data_dir=self.folder / app, _env_file=None, **more
        )
        create_topics(settings)
        return settings

    def pstp(self, settings: Settings, *arguments: str, **env: Any) -> "subprocess.Popen[str]":
        """A PSTP process of that app; `env` adds variables."""
        chosen = settings.model_dump(include=set(settings.model_fields_set))
        variables = {f"PSTP_{name.upper()}": str(value) for name, value in chosen.items()}
        return self.child(
            [sys.executable, "-m", "pstp", *arguments], f"{settings.app}-{arguments[0]}",
            variables | {name: str(value) for name, value in env.items()},
        )  # fmt: skip

    def child(self, command: list[str], name: str, env: Mapping[str, str]) -> "subprocess.Popen[str]":
        """A process whose standard output is read by us and whose errors go to a log in the folder."""
        log = (self.folder / f"{name}.log").open("a")
        self._logs.append(log)
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("PSTP_", "BENCH_"))}
        child = subprocess.Popen(
            command,
            env=clean | dict(env),
            stdout=subprocess.PIPE if "pstp" not in command else log,
            stderr=log,
            text=True,
        )
        self._children.append(child)
        return child

    def log_of(self, name: str) -> str:
        path = self.folder / f"{name}.log"
        return path.read_text(errors="replace")[-2000:] if path.exists() else ""

    def drop(self, prefix: str) -> None:
        """Delete the topics of an app, or one topic: the next side must not pay for them."""
        admin = AdminClient({"bootstrap.servers": self.bootstrap})
        names = [t for t in admin.list_topics(timeout=10).topics if t == prefix or t.startswith(f"{prefix}-")]
        for future in (admin.delete_topics(names) if names else {}).values():
            future.result(30)


def ended(child: "subprocess.Popen[str]", timeout_s: float) -> tuple[str, float]:
    """Wait for a child's end: (its standard output, the CPU seconds that it and its children used).

    One at a time, since the kernel adds up the children that have ended.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    out, _ = child.communicate(timeout=timeout_s)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return out or "", after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
