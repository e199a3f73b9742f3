"""The processes of a run: started, watched, and started again when something has ended them."""

import os
import signal
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from streams.settings import Settings
from tests.chaos.cluster import Cluster
from tests.support.system import Process, system_env

HANDLERS: Final = Path(__file__).with_name("handlers.py")
ROOT: Final = Path(__file__).parents[2]
BREAKERS: Final = {"PSTP_BREAKER_RATE": "0.9", "PSTP_BREAKER_WINDOW": "10", "PSTP_BREAKER_OPEN_S": "2"}
_RESTART_S: Final = 0.5
NS: Final = 1_000_000_000


@dataclass
class Life:
    """One process from its start to its end.  Times are monotonic; `ended_ns` is an upper bound."""

    name: str
    role: str
    process: Process
    began_ns: int
    ended_ns: int | None = None
    code: int | None = None
    expected: bool = False  # somebody here has ended it

    @property
    def pid(self) -> int:
        return self.process.popen.pid

    @property
    def alive(self) -> bool:
        return self.ended_ns is None


@dataclass
class Fleet:
    """`wanted` are the instances that ought to run; `busy` those that a nemesis has in hand."""

    cluster: Cluster
    settings: Settings
    folder: Path
    publisher_arguments: list[str]
    execution: str = "workers"  # or "local": `pstp run` under the names of workers, and neither they nor schedulers
    slots: int = 16
    preload: dict[str, str] = field(default_factory=dict)  # environment of a faked clock
    wanted: set[str] = field(default_factory=set)
    busy: set[str] = field(default_factory=set)
    restarted: set[str] = field(default_factory=set)  # those of the busy ones that are started again all the same
    lives: list[Life] = field(default_factory=list)
    finished: set[str] = field(default_factory=set)  # came to their own end, as they should

    def start(self, name: str) -> Life:
        role, process = role_of(name), self._spawn(name)
        life = Life(name, role, process, time.monotonic_ns())
        self.lives.append(life)
        threading.Thread(target=self._await_end, args=(life,), daemon=True).start()
        return life

    def live(self, role: str) -> list[Life]:
        """The running processes of a role that no nemesis has in hand, one per wanted instance."""
        if self.execution == "local" and role == "scheduler":
            role = "worker"
        return [
            life for life in self.lives
            if life.role == role and life.alive and life.name in self.wanted - self.busy
        ]  # fmt: skip

    def current(self, name: str) -> Life | None:
        return next((life for life in reversed(self.lives) if life.name == name and life.alive), None)

    def supervise(self) -> None:
        """Start whatever ought to run and does not.  Call it again and again."""
        for name in sorted(self.wanted - (self.busy - self.restarted) - self.finished):
            lives = [life for life in self.lives if life.name == name]
            if any(life.alive for life in lives):
                continue
            last = lives[-1] if lives else None
            if last is not None and last.role == "publisher" and last.code == 0:
                self.finished.add(name)
            elif last is None or time.monotonic_ns() - (last.ended_ns or 0) > _RESTART_S * NS:
                self.start(name)

    def kill(self, life: Life, *, tree: bool) -> None:
        """SIGKILL to its main process only, or to all that it has started as well."""
        life.expected = True
        for pid in [*(descendants(life.pid) if tree else ()), life.pid]:
            send(pid, signal.SIGKILL)

    def signal(self, life: Life, number: signal.Signals, *, tree: bool) -> None:
        for pid in [life.pid, *(descendants(life.pid) if tree else ())]:
            send(pid, number)

    def terminate(self, life: Life) -> None:
        life.expected = True
        send(life.pid, signal.SIGTERM)

    def stop_all(self, timeout_s: float = 60.0) -> list[str]:
        """SIGTERM to all; names of those that had to be killed or did not end with exit code 0."""
        self.wanted.clear()
        ending = [life for life in self.lives if life.alive]
        for life in ending:
            self.terminate(life)
        deadline = time.monotonic() + timeout_s
        while any(life.alive for life in ending) and time.monotonic() < deadline:
            time.sleep(0.05)
        for life in ending:
            if life.alive:
                self.kill(life, tree=True)
                life.process.popen.wait(10)
        return [f"{life.name} ({life.process.popen.returncode})" for life in ending if life.process.popen.returncode]

    def _spawn(self, name: str) -> Process:
        role = role_of(name)
        env = system_env(
            self.settings, self.folder, instance=name, bootstrap_servers=self.cluster.through(name.split("-")[0]),
            slots=self.slots, drain_s=5, replication_factor=self.settings.replication_factor, log_format="text",
        ) | {"CHAOS_FOLDER": str(self.folder), "PYTHONPATH": str(ROOT)}  # fmt: skip
        log_path = self.folder / f"{name}.log"
        if role == "publisher":
            return Process(name, self.publisher_arguments, env, log_path, module="tests.chaos.publisher")
        env |= {key: value.replace("INSTANCE", name) for key, value in self.preload.items()}
        if role == "worker":
            local = {"CHAOS_PLACEMENT": "local"} if self.execution == "local" else {}
            return Process(name, [str(HANDLERS), self.execution], env | local, log_path, module="tests.chaos.process")
        limits = {
            "PSTP_GROUP_PARKED_MAX": str(self.settings.group_parked_max), "PSTP_WHEN_FULL": self.settings.when_full
        }  # fmt: skip
        return Process(name, ["scheduler"], env | BREAKERS | limits, log_path)

    def _await_end(self, life: Life) -> None:
        code = life.process.popen.wait()
        life.code, life.ended_ns = code, time.monotonic_ns()


def role_of(name: str) -> str:
    return {"s": "scheduler", "w": "worker", "p": "publisher"}[name[0]]


def descendants(pid: int) -> list[int]:
    """Processes that it or its children have started, wherever their sessions."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except OSError:
                continue
            parents.setdefault(int(stat.rpartition(")")[2].split()[1]), []).append(int(entry.name))
    found, open_ends = [], [pid]
    while open_ends:
        children = parents.get(open_ends.pop(), [])
        found += children
        open_ends += children
    return found


def send(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
