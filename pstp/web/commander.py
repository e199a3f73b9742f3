"""Commands over HTTP: sent as any client sends them, answered from the log through the read model."""

import threading
from collections import OrderedDict
from typing import Final

import confluent_kafka as ck

from producers.connection import PublishError
from streams import limits
from streams.errors import UserError
from streams.logs import kafka_logger
from streams.murmur2 import home_partition
from streams.protocol import Command, encode
from streams.settings import Settings

ACKNOWLEDGED_S: Final = 10.0
KEPT: Final = 10_000


class Commander:
    """Sends commands; threads may share one.  Remembers where the last ones stand in `commands`."""

    def __init__(self, settings: Settings, partitions: int) -> None:
        self._topic, self._partitions = settings.topic("commands"), partitions
        self._producer = ck.Producer(settings.kafka(**{
            "enable.idempotence": True, "acks": "all", "linger.ms": 0, "message.max.bytes": limits.RECORD_BYTES_MAX,
            "message.timeout.ms": int(ACKNOWLEDGED_S * 1000),
        }), logger=kafka_logger())  # fmt: skip
        self._sent: OrderedDict[str, tuple[int, int]] = OrderedDict()
        self._lock = threading.Lock()

    def send(self, command: Command) -> tuple[int, int]:
        """Partition and offset at which it stands in the log.  Raises `UserError` if Kafka does not take it."""
        assert command.group
        key = command.group.encode(errors="surrogatepass")
        value = encode(command)
        if len(value) + len(key) > limits.TASK_BYTES_MAX:
            raise UserError(f"the command has {len(value)} bytes, and {limits.TASK_BYTES_MAX} are allowed")
        arrived = threading.Event()
        outcome: list[ck.KafkaError | int] = []

        def delivered(error: ck.KafkaError | None, message: ck.Message) -> None:
            outcome.append(error if error is not None else message.offset() or 0)
            arrived.set()

        home = home_partition(key, self._partitions)
        self._producer.produce(self._topic, value, key, home, on_delivery=delivered)
        while not arrived.is_set():
            self._producer.poll(0.05)
        place = outcome[0]
        if not isinstance(place, int):
            raise PublishError(f"Kafka did not take the command: {place.str()}; it may be sent again under the same id")
        with self._lock:
            self._sent[command.id] = (home, place)
            while len(self._sent) > KEPT:
                self._sent.popitem(last=False)
        return home, place

    def place(self, command_id: str) -> tuple[int, int] | None:
        with self._lock:
            return self._sent.get(command_id)
