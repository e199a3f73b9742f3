"""Sending commands and hearing their answers: both are records, so any Kafka client can do the same."""

from collections.abc import Iterable, Iterator
from typing import Final

import confluent_kafka as ck
import msgspec

from producers.connection import PublishError
from streams import limits
from streams.clock import now
from streams.errors import UserError
from streams.logs import kafka_logger
from streams.murmur2 import home_partition
from streams.protocol import Command, Event, EventKind, decode_events, encode
from streams.settings import Settings

ANSWER_S: Final = 30.0
_LOOK_UP_S: Final = 10.0


class NoAnswerError(UserError):
    """No scheduler has answered in time.  The command stands in the log and is answered when one reads it."""


class CommandSender:
    """Sends commands and waits for their answers on `task-events`.  Use it in one thread, and close it.

    Answers are read from where the partition ended before the command was sent, so none is missed.
    """

    def __init__(self, settings: Settings, partitions: int) -> None:
        """`partitions`: how many `commands` has, as `verify_identity` says."""
        self._commands, self._events = settings.topic("commands"), settings.topic("task-events")
        self._partitions = partitions
        self._producer = ck.Producer(settings.kafka(**{
            "enable.idempotence": True, "acks": "all", "message.max.bytes": limits.RECORD_BYTES_MAX,
            "message.timeout.ms": int(_LOOK_UP_S * 1000),
        }), logger=kafka_logger())  # fmt: skip
        self._reader = ck.Consumer(settings.kafka(**{
            "group.id": f"{settings.app}-answers", "enable.auto.commit": False, "isolation.level": "read_committed",
            "auto.offset.reset": "latest", "fetch.queue.backoff.ms": 5, "fetch.wait.max.ms": 50,
        }), logger=kafka_logger())  # fmt: skip
        self._reading: set[int] = set()
        self._answers: dict[str, Event] = {}
        self._refused: list[ck.KafkaError] = []

    def __enter__(self) -> "CommandSender":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._reader.close()

    def ask(self, command: Command, timeout_s: float = ANSWER_S) -> Event:
        """Send one command, return its answer.  Raises `NoAnswerError`, or `PublishError` if Kafka does not take it."""
        return next(iter(self.ask_all([command], timeout_s)))

    def ask_all(self, commands: Iterable[Command], timeout_s: float = ANSWER_S) -> Iterator[Event]:
        """Send them all, then give their answers in the same order.  Raises as `ask` does."""
        sent = list(commands)
        for command in sent:
            self._send(command)
        if self._producer.flush(_LOOK_UP_S) or self._refused:
            why = self._refused[0].str() if self._refused else "it did not answer"
            raise PublishError(f"Kafka did not take the command: {why}; it may be sent again under the same id")
        deadline_ms = now().mono_ms + int(timeout_s * 1000)
        for command in sent:
            yield self._await(command.id, deadline_ms)

    def _send(self, command: Command) -> None:
        if not command.group:
            raise UserError("a command needs the group that it is for")
        key = command.group.encode(errors="surrogatepass")
        home = home_partition(key, self._partitions)
        self._listen(home)
        self._producer.produce(self._commands, encode(command), key, home, on_delivery=self._delivered)
        self._producer.poll(0)

    def _delivered(self, error: ck.KafkaError | None, _message: ck.Message) -> None:
        if error is not None:
            self._refused.append(error)

    def _listen(self, partition: int) -> None:
        if partition in self._reading:
            return
        try:
            _low, end = self._reader.get_watermark_offsets(
                ck.TopicPartition(self._events, partition), timeout=_LOOK_UP_S
            )
        except ck.KafkaException as error:
            raise UserError(f"Kafka does not answer: {error.args[0].str()}; is it running?") from error
        self._reader.incremental_assign([ck.TopicPartition(self._events, partition, end)])
        self._reading.add(partition)

    def _await(self, command_id: str, deadline_ms: int) -> Event:
        while command_id not in self._answers:
            left_s = (deadline_ms - now().mono_ms) / 1000
            if left_s <= 0:
                raise NoAnswerError(
                    f"no answer to command {command_id} yet: it is in the log and will be answered on `task-events` "
                    "once the scheduler of its group has read it, or the worker that holds the task has confirmed it"
                )
            first = self._reader.poll(min(left_s, 0.2))  # `consume` alone would wait until it has so many
            for message in [first, *self._reader.consume(500, 0)] if first is not None else []:
                if message.error() is None:
                    self._take(message.value() or b"")
        return self._answers.pop(command_id)

    def _take(self, value: bytes) -> None:
        try:
            events = decode_events(value)
        except msgspec.DecodeError:
            return
        for event in events:
            if event.kind is EventKind.COMMAND and event.command_id:
                self._answers.setdefault(event.command_id, event)
