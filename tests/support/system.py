"""The whole system for one test: real processes, killed with real signals, watched through the public history."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import confluent_kafka as ck

from streams.murmur2 import home_partition
from streams.protocol import TERMINAL, Event, EventKind, TaskState, decode_events, decode_member
from streams.settings import Settings
from streams.topics import create_topics

T = TypeVar("T")
HANDLERS = Path(__file__).with_name("handlers.py")


def until(condition: Callable[[], T], timeout_s: float = 30.0, what: str = "") -> T:
    """Wait for a truthy result and return it; fail, with its last value, when the time is over."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s} s: {what or condition.__name__}, last: {value!r}")
        time.sleep(0.02)


class Process:
    """One PSTP process, or one of another module.  `log()` is what it wrote so far."""

    def __init__(
        self, name: str, arguments: list[str], env: dict[str, str], log_path: Path, *, module: str = "pstp"
    ) -> None:
        self.name, self._log_path = name, log_path
        with log_path.open("ab") as log:
            self.popen = subprocess.Popen(
                [sys.executable, "-m", module, *arguments], env=env, stdout=log, stderr=log, start_new_session=True
            )

    def kill(self) -> None:
        """SIGKILL, and be sure that it is gone."""
        self.popen.kill()
        self.popen.wait(10)

    def terminate(self, timeout_s: float = 30.0) -> int:
        self.popen.send_signal(signal.SIGTERM)
        return self.popen.wait(timeout_s)

    def send(self, number: signal.Signals) -> None:
        self.popen.send_signal(number)

    def alive(self) -> bool:
        return self.popen.poll() is None

    def log(self) -> str:
        return self._log_path.read_text(errors="replace")


class History:
    """A reader of `task-events` that keeps everything."""

    def __init__(self, settings: Settings) -> None:
        self._consumer = _reader(settings, settings.topic("task-events"), settings.partitions)
        self.events: list[Event] = []
        self.of: dict[str, list[Event]] = defaultdict(list)  # task id -> its state changes

    def read(self) -> list[Event]:
        """All that there is; while more arrives, it goes on."""
        while self._read_some():
            pass
        return self.events

    def _read_some(self) -> bool:
        messages = self._consumer.consume(2000, 0.05)
        for message in messages:
            if message.error() is None:
                for event in decode_events(message.value() or b""):
                    self.events.append(event)
                    if event.kind is EventKind.TASK and event.task_id:
                        self.of[event.task_id].append(event)
        return bool(messages)

    def states(self, task_id: str) -> list[TaskState]:
        return [e.state for e in self.of[task_id] if e.state]

    def count(self, state: TaskState) -> int:
        return sum(e.state is state for e in self.events if e.kind is EventKind.TASK)

    def terminal(self) -> int:
        return sum(e.state in TERMINAL for e in self.events if e.kind is EventKind.TASK)

    def wait_terminal(self, count: int, timeout_s: float = 60.0) -> None:
        def done() -> bool:
            self.read()
            return self.terminal() >= count

        until(done, timeout_s, f"{count} terminal tasks")

    def wait(self, condition: Callable[["History"], T], timeout_s: float = 30.0, what: str = "") -> T:
        def check() -> T:
            self.read()
            return condition(self)

        return until(check, timeout_s, what)

    def wait_in_the_middle(self, condition: Callable[["History"], T]) -> T:
        """Look after each few records, for a test that wants to act before all is over."""

        def check() -> T:
            self._read_some()
            return condition(self)

        return until(check)

    def started_order(self, group: str) -> list[str]:
        """Task ids in the order in which they began, repeats included."""
        return [e.task_id or "" for e in self.events if e.group == group and e.state is TaskState.RUNNING]

    def close(self) -> None:
        self._consumer.close()


class System:
    """Topics, processes and a publisher for one app."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings, self.folder = settings, folder
        self.processes: list[Process] = []
        self.journal_path = folder / "journal.jsonl"
        create_topics(settings)
        self._producers = {
            partitioner: ck.Producer(settings.kafka(**{"partitioner": partitioner, "linger.ms": 2}))
            for partitioner in ("murmur2_random", "consistent_random")
        }
        self.history = History(settings)
        self._undelivered: list[str] = []

    def __enter__(self) -> "System":
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            if process.alive():
                process.kill()
        self.history.close()
        self._producers.clear()

    # -- processes

    def scheduler(self, name: str = "s1", **settings: Any) -> Process:
        return self.start(name, ["scheduler"], settings)

    def worker(self, name: str = "w1", handlers: Path = HANDLERS, **settings: Any) -> Process:
        return self.start(name, ["worker", "--handlers", str(handlers)], settings)

    def run_here(self, name: str = "r1", handlers: Path = HANDLERS, **settings: Any) -> Process:
        """A scheduler that runs handlers itself."""
        return self.start(name, ["run", "--handlers", str(handlers)], settings)

    def start(
        self, name: str, arguments: list[str], settings: dict[str, Any] | None = None, module: str = "pstp"
    ) -> Process:  # fmt: skip
        process = Process(
            name, arguments, self.env(name, **(settings or {})), self.folder / f"{name}.log", module=module
        )
        self.processes.append(process)
        return process

    def env(self, name: str = "", **settings: Any) -> dict[str, str]:
        """The environment that makes a process part of this system."""
        return system_env(self.settings, self.folder, **{"instance": name} | settings)

    def run(self, *arguments: str, timeout_s: float = 60.0, **settings: Any) -> "subprocess.CompletedProcess[str]":
        """A command of the CLI, to its end."""
        return run_pstp(list(arguments), self.env(**settings), timeout_s)

    # -- publishing

    def publish(self, group: str | bytes | None, task_type: str = "echo", payload: Any = None, **fields: Any) -> None:
        self.publish_raw(group, json.dumps({"type": task_type, "payload": payload, **fields}).encode())

    def publish_raw(
        self, key: str | bytes | None, value: bytes | None, *, partition: int | None = None,
        headers: list[tuple[str, str | bytes | None]] | None = None, partitioner: str = "murmur2_random",
        topic: Any = "tasks",
    ) -> None:  # fmt: skip
        raw = key.encode() if isinstance(key, str) else key
        producer = self._producers[partitioner]
        producer.produce(
            self.settings.topic(topic), value, raw, -1 if partition is None else partition, headers=headers or [],
            on_delivery=self._delivered,
        )  # fmt: skip
        producer.poll(0)

    def _delivered(self, error: ck.KafkaError | None, message: ck.Message) -> None:
        if error is not None:
            self._undelivered.append(f"{message.topic()} [{message.partition()}] {message.key()!r}: {error}")

    def flush(self) -> None:
        """Every publish so far is acknowledged."""
        for producer in self._producers.values():
            assert producer.flush(30) == 0
        assert self._undelivered == []

    # -- looking

    def home(self, group: str) -> int:
        return home_partition(group.encode(), self.settings.partitions)

    def journal(self) -> list[dict[str, Any]]:
        """What handlers wrote, fsynced, as they began and ended."""
        if not self.journal_path.exists():
            return []
        return [json.loads(line) for line in self.journal_path.read_text().splitlines()]

    def dead_letters(self) -> list[ck.Message]:
        return self.read_all("dead-letters", self.settings.partitions)

    def read_all(self, topic: Any, partitions: int) -> list[ck.Message]:
        """Every committed record of a topic as it is now."""
        consumer = _reader(self.settings, self.settings.topic(topic), partitions)
        found: list[ck.Message] = []
        open_ends = set(range(partitions))
        while open_ends:
            for message in consumer.consume(1000, 0.05):
                if message.error() is None:
                    found.append(message)
                else:
                    open_ends.discard(message.partition())
        consumer.close()
        return found

    def http(self, instance: str) -> str:
        """The address that this instance announced last."""
        address = ""
        for message in self.read_all("members", 1):
            if message.key() == instance.encode() and message.value():
                address = decode_member(message.value()).http
        return address

    def get(self, instance: str, path: str) -> Any:
        base = until(lambda: self.http(instance), what=f"{instance} announces its address")
        with urllib.request.urlopen(base + path, timeout=5) as answer:
            text = answer.read().decode()
        return json.loads(text) if text.startswith(("{", "[")) else text

    def metric(self, instance: str, name: str) -> float:
        """The sum over the labels of one metric, as /metrics shows it now."""
        lines = self.get(instance, "/metrics").splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.split("{")[0].split(" ")[0] == name)


def system_env(settings: Settings, folder: Path, **more: Any) -> dict[str, str]:
    """The environment of a process: no PSTP_ variable of ours but these."""
    chosen = {
        "app": settings.app, "bootstrap_servers": settings.bootstrap_servers, "partitions": settings.partitions,
        "dispatch_partitions": settings.dispatch_partitions, "lease_s": settings.lease_s, "data_dir": folder,
    } | more  # fmt: skip
    env = {k: v for k, v in os.environ.items() if not k.startswith("PSTP_")}
    env |= {f"PSTP_{k.upper()}": str(v) for k, v in chosen.items()}
    return env | {"JOURNAL": str(folder / "journal.jsonl"), "CLOCK_OFFSET": str(folder / "clock")}


def run_pstp(arguments: list[str], env: dict[str, str], timeout_s: float) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "pstp", *arguments]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=timeout_s, check=False)


def _reader(settings: Settings, topic: str, partitions: int) -> ck.Consumer:
    consumer = ck.Consumer(settings.kafka(**{
        "group.id": f"{settings.app}-test-reader", "enable.auto.commit": False, "isolation.level": "read_committed",
        "enable.partition.eof": True, "fetch.queue.backoff.ms": 5, "fetch.wait.max.ms": 20,
    }))  # fmt: skip
    consumer.list_topics(topic, 10)  # else the assignment waits half a second for the next look
    consumer.assign([ck.TopicPartition(topic, p, ck.OFFSET_BEGINNING) for p in range(partitions)])
    return consumer
