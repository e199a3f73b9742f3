"""`TaskPublisher` and `AsyncTaskPublisher`: tasks enter PSTP."""

import asyncio
import builtins
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from types import TracebackType
from typing import Any, Final, NamedTuple, Self, TypedDict, Unpack

import confluent_kafka as ck

from producers.bulk import Bulk, BulkSummary, OnProgress
from producers.connection import Connection
from producers.message import InvalidTaskError, OnFailure, Record, TaskMessage, encode_task
from streams.protocol import Reason
from streams.settings import Settings

_POLL_S: Final = 0.01  # in one thread, another thread's acknowledgement is noticed this late
_LOOP_POLL_S: Final = 0.001


class TaskOptions(TypedDict, total=False):
    """What a task may carry besides group, type and payload."""

    id: str
    not_before: datetime | str  # aware, or RFC 3339
    timeout_s: float
    max_attempts: int
    on_failure: OnFailure
    labels: Mapping[str, str]
    idempotency_key: str
    priority: int
    headers: Mapping[str, str | bytes]
    extra: Mapping[str, Any]  # unknown fields, for the handler


class Published(NamedTuple):
    """An acknowledged task: where it stands in `tasks`, and its id."""

    partition: int
    offset: int
    task_id: str


class _Publisher:
    """What both publishers are made of; they differ only in how they wait."""

    def __init__(self, settings: Settings | str | None = None) -> None:
        """`settings`, or the address of a broker, or None for the environment's.  Connects on first use."""
        if isinstance(settings, str):
            settings = Settings(bootstrap_servers=settings)
        self.settings = settings or Settings()
        # Someone waits for each task, so none waits for others to fill a batch.
        self._connection = Connection(self.settings, **{"linger.ms": 0})

    def _message(self, group: str, type: str, payload: Any, options: TaskOptions) -> TaskMessage:
        if unknown := sorted(options.keys() - TaskOptions.__annotations__):
            raise TypeError(
                f"publish() got an unexpected keyword argument {unknown[0]!r}: unknown fields go in `extra`"
            )
        known: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
        extra = dict(known.pop("extra", {}))
        if twice := sorted(extra.keys() & TaskMessage.model_fields):
            raise InvalidTaskError(Reason.WRONG_TYPE, f"`{twice[0]}` is a known field: pass it outside of `extra`")
        return TaskMessage.of(extra | known | {"group": group, "type": type, "payload": payload})


class TaskPublisher(_Publisher):
    """Publishes tasks and waits for each to be acknowledged.  Threads may share one.

    Every method raises `InvalidTaskError` (a `ValueError`; nothing was sent) and `PublishError`.
    """

    def publish(self, group: str, type: str, payload: Any = None, **options: Unpack[TaskOptions]) -> Published:
        """Publish one task.  `payload`: any JSON value, a pydantic model, or `bytes` that are JSON already."""
        return self.publish_task(self._message(group, type, payload, options))

    def publish_task(self, task: TaskMessage) -> Published:
        delivery = _Delivery(record := encode_task(task, self.settings.task_bytes_max))
        producer = self._connection.open()
        while not self._connection.send(producer, record, delivery):
            self._connection.poll(producer, _POLL_S)
        while delivery.published is None:
            self._connection.poll(producer, _POLL_S)
        return delivery.outcome(self._connection)

    def publish_many(self, tasks: Iterable[TaskMessage], on_progress: OnProgress | None = None) -> BulkSummary:
        """Publish tasks in this order, without waiting for each; returns when all are acknowledged.

        `on_progress` is told, some ten times a second, how many are.  Stops at the first that fails, with a
        `BulkError` that says what is stored.
        """
        return Bulk(self.settings, on_progress).run(tasks)

    def close(self) -> None:
        """Nothing is outstanding between two calls; this only frees the connection."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: builtins.type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncTaskPublisher(_Publisher):
    """The same for one event loop.  Tasks keep the order in which `publish` was called, concurrent calls included."""

    def __init__(self, settings: Settings | str | None = None) -> None:
        super().__init__(settings)
        self._turn = asyncio.Lock()
        self._pumps: dict[ck.Producer, asyncio.Task[None]] = {}

    async def publish(self, group: str, type: str, payload: Any = None, **options: Unpack[TaskOptions]) -> Published:
        """Publish one task.  `payload`: any JSON value, a pydantic model, or `bytes` that are JSON already."""
        return await self.publish_task(self._message(group, type, payload, options))

    async def publish_task(self, task: TaskMessage) -> Published:
        arrived = asyncio.Event()
        delivery = _Delivery(record := encode_task(task, self.settings.task_bytes_max), arrived.set)
        async with self._turn:
            producer = self._connection.current
            if producer is None:
                producer = await asyncio.to_thread(self._connection.open)
            while not self._connection.send(producer, record, delivery):
                await asyncio.sleep(_LOOP_POLL_S)
        if producer not in self._pumps:
            self._pumps[producer] = asyncio.create_task(self._pump(producer))
        await arrived.wait()
        return delivery.outcome(self._connection)

    async def publish_many(self, tasks: Iterable[TaskMessage], on_progress: OnProgress | None = None) -> BulkSummary:
        """As `TaskPublisher.publish_many`, with `tasks` consumed in a thread and `on_progress` called in the loop."""
        loop = asyncio.get_running_loop()

        def tell(acknowledged: int) -> None:
            if on_progress is not None:
                loop.call_soon_threadsafe(on_progress, acknowledged)

        bulk = Bulk(self.settings, tell)
        try:
            return await asyncio.to_thread(bulk.run, tasks)
        except asyncio.CancelledError:
            bulk.stop()
            raise

    async def close(self) -> None:
        """Wait until everything that was handed over is acknowledged or has failed."""
        await asyncio.gather(*self._pumps.values())
        self._connection.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: builtins.type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _pump(self, producer: ck.Producer) -> None:
        """Serve acknowledgements while some are outstanding: in the loop, since a thread would fight it for the GIL."""
        while len(producer):
            self._connection.poll(producer, 0)
            await asyncio.sleep(_LOOP_POLL_S)
        del self._pumps[producer]


class _Delivery:
    """The broker's answer about one record, once it is there."""

    def __init__(self, record: Record, arrived: Callable[[], None] = lambda: None) -> None:
        self._task_id, self._arrived = record.task_id, arrived
        self.error: ck.KafkaError | None = None
        self.published: Published | None = None

    def __call__(self, error: ck.KafkaError | None, message: ck.Message) -> None:
        partition, offset = message.partition() or 0, message.offset() or 0
        self.error = error
        self.published = Published(partition, offset, self._task_id or f"{partition}-{offset}")
        self._arrived()

    def outcome(self, connection: Connection) -> Published:
        if self.error is not None:
            raise connection.failure(self.error)
        assert self.published is not None
        return self.published
