"""Publishing many tasks in order, as fast as the broker takes them, and knowing what arrived when it does not."""

import contextlib
from collections.abc import Callable, Iterable
from functools import partial
from typing import Final, NamedTuple

import confluent_kafka as ck

from producers.connection import ACK_S, Connection, PublishError
from producers.message import TaskMessage, encode_task
from streams.clock import now
from streams.settings import Settings

POLL_EVERY: Final = 500  # records
PROGRESS_INTERVAL_MS: Final = 100
# The oldest record may wait this long.  Less than its own time-out: records are given up all at once, never one by
# one with those behind it still being sent.
STALL_MS: Final = int(ACK_S * 1000 * 2 / 3)

OnProgress = Callable[[int], object]


class BulkSummary(NamedTuple):
    """What `publish_many` did: all of it acknowledged."""

    acknowledged: int
    value_bytes: int
    elapsed_s: float


class BulkError(PublishError):
    """A bulk publish that stopped.  The cause, if it was not Kafka, is its `__cause__`.

    `acknowledged`: how many tasks are stored for certain.  `first_missing`: the index of the first one that is not,
    or may not be; tasks before it are all stored, some after it may be, in groups other than its own.
    """

    def __init__(self, text: str, acknowledged: int, first_missing: int) -> None:
        super().__init__(
            f"{text} ({acknowledged} tasks are stored for certain; the first that may not be is number "
            f"{first_missing}, counting from 0)"
        )
        self.acknowledged, self.first_missing = acknowledged, first_missing


class Bulk:
    """One bulk publish with a producer of its own, so that its failure concerns nobody else."""

    def __init__(self, settings: Settings, on_progress: OnProgress | None = None) -> None:
        # With the guarantee, a record that fails takes all behind it with it, rather than leave a hole in its group.
        self._connection = Connection(settings, **{"enable.gapless.guarantee": True, "linger.ms": 20})
        self._bytes_max = settings.task_bytes_max
        self._on_progress = on_progress
        self._waiting: dict[int, None] = {}  # indices in order, neither acknowledged nor given up
        self._sent = self._acknowledged = self._value_bytes = 0
        self._failure: ck.KafkaError | None = None
        self._stopping = False
        self._oldest, self._oldest_since_ms, self._progress_ms = -1, 0, 0

    def run(self, tasks: Iterable[TaskMessage]) -> BulkSummary:
        """Publish all of them.  Raises `BulkError`, and `PublishError` if there is no Kafka to begin with."""
        begun_ms = now().mono_ms
        producer = self._connection.open()
        try:
            try:
                for task in tasks:
                    self._send(producer, task)
            except BulkError:
                raise
            except Exception as error:  # a task that is wrong, or no more tasks to be had
                self._drain(producer)
                raise self._stopped(str(error) or repr(error)) from error
            self._drain(producer)
        finally:
            producer.purge()
            with contextlib.suppress(
                ck.KafkaException
            ):  # what was in flight is lost on purpose, and that is fatal to it
                producer.flush(0)
        return BulkSummary(self._acknowledged, self._value_bytes, (now().mono_ms - begun_ms) / 1000)

    def stop(self) -> None:
        """Make `run`, in its thread, give up soon."""
        self._stopping = True

    def _send(self, producer: ck.Producer, task: TaskMessage) -> None:
        record = encode_task(task, self._bytes_max)
        acknowledged = partial(self._on_delivery, self._sent)
        while not self._connection.send(producer, record, acknowledged):
            self._serve(producer, 0.05)
        self._waiting[self._sent] = None
        self._value_bytes += len(record.value)
        self._sent += 1
        if self._sent % POLL_EVERY == 0:
            self._serve(producer, 0)

    def _drain(self, producer: ck.Producer) -> None:
        while self._waiting:
            self._serve(producer, 0.05)
        self._tell(now().mono_ms + PROGRESS_INTERVAL_MS)

    def _on_delivery(self, index: int, error: ck.KafkaError | None, _: ck.Message) -> None:
        if error is None:
            self._acknowledged += 1
            del self._waiting[index]
        elif self._failure is None:
            self._failure = error

    def _serve(self, producer: ck.Producer, timeout_s: float) -> None:
        """Take acknowledgements in.  Raises `BulkError` on a failure, and when the oldest record waits too long."""
        fatal = self._connection.poll(producer, timeout_s)
        self._failure = self._failure or fatal
        if self._failure is not None:
            raise self._stopped(str(self._connection.failure(self._failure)))
        if self._stopping:
            raise self._stopped("publishing was stopped")
        mono_ms = now().mono_ms
        if self._oldest != (oldest := next(iter(self._waiting), self._sent)):
            self._oldest, self._oldest_since_ms = oldest, mono_ms
        elif oldest != self._sent and mono_ms - self._oldest_since_ms > STALL_MS:
            raise self._stopped(str(self._connection.silence()))
        self._tell(mono_ms)

    def _tell(self, mono_ms: int) -> None:
        if self._on_progress is not None and mono_ms - self._progress_ms >= PROGRESS_INTERVAL_MS:
            self._progress_ms = mono_ms
            self._on_progress(self._acknowledged)

    def _stopped(self, text: str) -> BulkError:
        return BulkError(text, self._acknowledged, next(iter(self._waiting), self._sent))
