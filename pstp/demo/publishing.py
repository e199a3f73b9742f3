"""Publishing the file: flights with a tail number by `TaskPublisher`, those without as a client that forgot the key."""

import threading
from collections.abc import Iterator

import confluent_kafka as ck
import msgspec

from producers import TaskMessage, TaskPublisher
from pstp.demo.data import TASK_TYPE, Flight, read_flights
from streams.settings import Settings


class Publishing(threading.Thread):
    """Publishes the first `rows` flights in order.  `published` grows meanwhile; `error` is set if it stops early."""

    def __init__(self, settings: Settings, rows: int | None) -> None:
        super().__init__(name="publishing", daemon=True)
        self.published = 0
        self.error: Exception | None = None
        self._settings = settings
        self._rows = rows
        self._keyless_acknowledged = 0
        self._keyed_acknowledged = 0
        self._stopping = False
        self._keyless = ck.Producer(settings.kafka(**{"enable.idempotence": True, "linger.ms": 20, "log_level": 2}))

    def stop(self) -> None:
        self._stopping = True

    def run(self) -> None:
        try:
            with TaskPublisher(self._settings) as publisher:
                publisher.publish_many(self._tasks(read_flights(self._rows)), self._on_keyed)
            if self._keyless.flush(30.0):
                raise RuntimeError("the broker did not acknowledge the flights without a key")
        except Exception as error:
            if not self._stopping:
                self.error = error

    def _tasks(self, flights: Iterator[Flight]) -> Iterator[TaskMessage]:
        for flight in flights:
            if self._stopping:
                return
            if flight.plane is None:
                self._send_without_key(flight)
            else:
                # Of our own making, so there is nothing to validate here; the publisher checks each record anyway.
                yield TaskMessage.model_construct(
                    group=flight.plane, type=TASK_TYPE, payload=msgspec.Raw(flight.payload_json)
                )

    def _send_without_key(self, flight: Flight) -> None:
        value = b'{"type":"%s","payload":%s}' % (TASK_TYPE.encode(), flight.payload_json)
        while True:
            try:
                self._keyless.produce(self._settings.topic("tasks"), value, on_delivery=self._on_keyless)
                break
            except BufferError:
                self._keyless.poll(0.05)
        self._keyless.poll(0)

    def _on_keyed(self, acknowledged: int) -> None:
        self._keyed_acknowledged = acknowledged
        self.published = acknowledged + self._keyless_acknowledged

    def _on_keyless(self, error: ck.KafkaError | None, _: ck.Message) -> None:
        if error is not None:
            self.error = ck.KafkaException(error)
            return
        self._keyless_acknowledged += 1
        self.published = self._keyed_acknowledged + self._keyless_acknowledged
