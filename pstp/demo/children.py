"""The schedulers and workers of the demo: real processes, killed and started again, never left behind."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from streams.clock import now
from streams.errors import UserError
from streams.settings import Settings

STOP_S: Final = 20.0
TAIL_LINES: Final = 15
_PR_SET_PDEATHSIG: Final = 1


class ChildFailedError(UserError):
    """A child ended that nobody had ended."""


class Children:
    """Processes by instance name, each with a log of its own.  Use it as a context: at its end all have ended."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._settings = settings
        self.folder = folder
        self._commands: dict[str, tuple[str, ...]] = {}
        self._nice: dict[str, int] = {}
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> "Children":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self.stop("worker", "scheduler", "web")
        except ChildFailedError:
            if kind is None:  # else there is a better reason already
                raise

    def start(self, instance: str, *command: str, nice: int = 0) -> int:
        """`pstp COMMAND` under this instance name; returns its process id.  `nice`: how far behind the others."""
        self._commands[instance] = command
        self._nice[instance] = nice
        return self._spawn(instance)

    def log(self, instance: str) -> str:
        """What it has written so far."""
        path = self._log(instance)
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    def kill(self, instance: str) -> int:
        """kill -9; returns the id of the process that was.  It has ended when this returns."""
        child = self._running.pop(instance)
        child.kill()
        child.wait()
        return child.pid

    def restart(self, instance: str) -> int:
        return self._spawn(instance)

    def check(self) -> None:
        """Raises `ChildFailedError` if one has ended by itself."""
        for instance, child in self._running.items():
            if (code := child.poll()) is not None:
                raise ChildFailedError(f"{instance} ended with code {code}; {self._log_end(instance)}")

    def stop(self, *roles: str) -> None:
        """SIGTERM to all of these roles, in this order, and SIGKILL to what stays: workers go before schedulers, so
        that their last words are heard.

        Raises `ChildFailedError` if one does not end well; all have ended nevertheless.
        """
        failures = [failure for role in roles for failure in self._stop(role)]
        if failures:
            raise ChildFailedError(failures[0])

    def _stop(self, role: str) -> list[str]:
        names = [name for name in self._running if self._commands[name][0] == role]
        stopping = {name: self._running.pop(name) for name in names}
        for child in stopping.values():
            child.terminate()
        deadline_ms = now().mono_ms + int(STOP_S * 1000)
        failures = []
        for name, child in stopping.items():
            try:
                code = child.wait(max(0.0, (deadline_ms - now().mono_ms) / 1000))
                if code not in (0, -signal.SIGTERM):  # one that had only just been started ends by the signal itself
                    failures.append(f"{name} ended with code {code}; {self._log_end(name)}")
            except subprocess.TimeoutExpired:
                failures.append(f"{name} did not end within {STOP_S:g} s; {self._log_end(name)}")
            finally:
                if child.poll() is None:
                    child.kill()
                    child.wait()
        return failures

    def _spawn(self, instance: str) -> int:
        with self._log(instance).open("ab") as log:
            child = subprocess.Popen(
                [sys.executable, "-m", "pstp", *self._commands[instance]],
                env=self._environment(instance),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C in this terminal is ours; we stop them in order
                preexec_fn=_in_child(self._nice[instance]),
            )
        self._running[instance] = child
        return child.pid

    def _environment(self, instance: str) -> dict[str, str]:
        """The demo's own settings only, whatever else is set here."""
        env = {name: value for name, value in os.environ.items() if not name.startswith("PSTP_")}
        for name, value in self._settings.model_dump(mode="json", exclude_defaults=True).items():
            env[f"PSTP_{name.upper()}"] = str(value)
        return env | {"PSTP_INSTANCE": instance, "PSTP_LOG_FORMAT": "text"}

    def _log(self, instance: str) -> Path:
        return self.folder / f"{instance}.log"

    def _log_end(self, instance: str) -> str:
        path = self._log(instance)
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL_LINES:]
        return f"the end of its log ({path}) says:\n" + "\n".join(lines)


def _in_child(nice: int) -> Callable[[], object]:
    """Where the system can do that, no child outlives a demo that was killed."""
    # Looked up before the fork, so that the child only calls it.
    prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None

    def run() -> None:
        os.nice(nice)
        if prctl is not None:
            prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    return run
