"""A worker without a scheduler: dispatches and control records are written by hand, reports are read raw."""

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import confluent_kafka as ck
from msgspec import Raw

from consumers.handlers import Registry
from consumers.worker import Worker
from streams.clock import new_id
from streams.protocol import (
    PROTOCOL,
    Completion,
    Control,
    Dispatch,
    DispatchedTask,
    Report,
    ReportKind,
    decode_completion,
    encode,
)
from streams.settings import Settings
from streams.topics import create_topics
from tests.support.system import until

END = {
    ReportKind.SUCCEEDED, ReportKind.FAILED, ReportKind.REJECTED, ReportKind.SNOOZED, ReportKind.RETURNED,
    ReportKind.ABANDONED,
}  # fmt: skip


@dataclass
class InThread:
    """A worker in this process, in a thread with an event loop of its own."""

    worker: Worker
    exits: list[int]
    error: BaseException | None = None
    thread: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            asyncio.run(self.worker.run())
        except BaseException as error:
            self.error = error

    def stop(self, timeout_s: float = 30) -> None:
        self.worker.request_stop()
        self.wait(timeout_s)

    def wait(self, timeout_s: float = 30) -> None:
        self.thread.join(timeout_s)
        assert not self.thread.is_alive(), "the worker does not end"


class Rig:
    """One app on the broker: what schedulers would write, and what the workers say."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        create_topics(settings)
        self._producer = ck.Producer(settings.kafka(**{"linger.ms": 1}))
        self._consumer = ck.Consumer(settings.kafka(**{
            "group.id": f"{settings.app}-rig", "fetch.queue.backoff.ms": 5, "fetch.wait.max.ms": 20,
        }))  # fmt: skip
        self._consumer.list_topics(settings.topic("completions"), 10)
        self._consumer.assign(
            [ck.TopicPartition(settings.topic("completions"), p, 0) for p in range(settings.partitions)]
        )
        self._claim_nothing()
        self.completions: list[Completion] = []
        self.workers: list[InThread] = []
        self.handlers = Registry()  # of its workers, unless they are given others
        self._token = 1000
        self._group_of: dict[int, str] = {}

    def __enter__(self) -> "Rig":
        return self

    def __exit__(self, *_: object) -> None:
        for running in self.workers:
            running.worker.request_stop()
        for running in self.workers:
            running.thread.join(20)
        self._consumer.close()

    # -- what schedulers write

    def dispatch(
        self,
        group: str,
        task_type: str = "ok",
        payload: bytes = b"null",
        *,
        partition: int = 0,
        run: int = 1,
        state: bytes | None = None,
        timeout_s: float | None = None,
    ) -> list[int]:
        """A run of `run` tasks; returns their tokens.  Reports go to partition 1 of `completions`."""
        first = self._token + 1
        self._token += run
        tasks = tuple(
            DispatchedTask(i, f"{group}-{i}", task_type, first + i, 1, Raw(payload), timeout_s) for i in range(run)
        )
        record = Dispatch(PROTOCOL, group, 1, "s1", tasks, None if state is None else Raw(state))
        self.raw("dispatches", partition, encode(record))
        self._group_of |= {task.token: group for task in tasks}
        return [task.token for task in tasks]

    def take_back(self, partition: int, token: int, group: str | None = None) -> None:
        """`group`: another than the token was dispatched for."""
        named = group or self._group_of[token]
        self.raw("control", 0, encode(Control(PROTOCOL, "take_back", partition, named, token, "s1")))

    def raw(self, topic: Any, partition: int, value: bytes) -> None:
        self._producer.produce(self.settings.topic(topic), value, b"g", partition)
        assert self._producer.flush(10) == 0

    # -- what workers say

    def reports(self, *tokens: int) -> list[Report]:
        """All that was said so far about these tokens (none: about all), in order."""
        while messages := self._consumer.consume(1000, 0.05):
            self.completions += [decode_completion(m.value() or b"") for m in messages if m.error() is None]
        return [r for c in self.completions for r in c.reports if not tokens or r.token in tokens]

    def kinds(self, *tokens: int) -> list[str]:
        return [report.kind.value for report in self.reports(*tokens)]

    def ends(self, *tokens: int, timeout_s: float = 20) -> list[Report]:
        """The reports that end these tasks, in the order of `tokens`; waits for them."""

        def found() -> dict[int, Report] | None:
            by_token = {r.token: r for r in self.reports(*tokens) if r.kind in END}
            return by_token if by_token.keys() >= set(tokens) else None

        by_token = until(found, timeout_s, f"ends of {tokens}") or {}
        return [by_token[token] for token in tokens]

    def end(self, token: int, timeout_s: float = 20) -> Report:
        return self.ends(token, timeout_s=timeout_s)[0]

    def wait_kind(self, token: int, kind: ReportKind, timeout_s: float = 20) -> Report:
        def found() -> list[Report]:
            return [r for r in self.reports(token) if r.kind is kind]

        return until(found, timeout_s, f"{kind} of {token}")[0]

    def _claim_nothing(self) -> None:
        """As if some worker had been here: else what is there before the first one is given back unread."""
        topic, claim_id = self.settings.topic("dispatches"), new_id()
        group = ck.Consumer(self.settings.kafka(**{"group.id": self.settings.worker_group}))
        places = [ck.TopicPartition(topic, p, 0, claim_id) for p in range(self.settings.dispatch_partitions)]
        group.commit(offsets=places, asynchronous=False)
        group.close()

    def claimed(self, partition: int = 0) -> tuple[int, str | None]:
        """The group's committed offset and its metadata: the last claim."""
        group = ck.Consumer(self.settings.kafka(**{"group.id": self.settings.worker_group}))
        try:
            found = group.committed([ck.TopicPartition(self.settings.topic("dispatches"), partition)], 10)[0]
            return found.offset, found.metadata
        finally:
            group.close()

    # -- workers

    def worker(
        self,
        registry: Registry | None = None,
        instance: str = "w1",
        *,
        step: Callable[[str], None] = lambda name: None,
        **more: Any,
    ) -> InThread:
        """A worker in this process, with these settings changed.  Where it would end the process, it notes the code."""
        settings = self.settings.model_copy(update=more)
        exits: list[int] = []
        handlers = registry or self.handlers
        running = InThread(Worker(settings, handlers, instance, exit_process=exits.append, step=step), exits)
        self.workers.append(running)
        return running


class Gate:
    """Lets handlers of a test wait, in loops and in threads, until it is opened."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.entered: list[str] = []

    async def pass_async(self, name: str) -> None:
        self.entered.append(name)
        while not self.opened.is_set():
            await asyncio.sleep(0.01)

    def pass_blocking(self, name: str) -> None:
        self.entered.append(name)
        self.opened.wait(60)

    def wait_entered(self, count: int) -> None:
        until(lambda: len(self.entered) >= count, what=f"{count} handlers run")
