"""Publishing any bytes anywhere, as a stranger's client could, and knowing where they came to lie."""

from typing import Any

import confluent_kafka as ck

from streams.settings import Settings

Place = tuple[int, int]  # partition, offset


class PlacedPublisher:
    """A producer of its own to `tasks`, without the limits and the partitioner of ours."""

    def __init__(self, settings: Settings, **conf: Any) -> None:
        self._topic = settings.topic("tasks")
        big = {"message.max.bytes": 64 * 1024 * 1024, "linger.ms": 0}
        self._producer = ck.Producer(settings.kafka(**big | {k.replace("_", "."): v for k, v in conf.items()}))

    def put(
        self,
        key: bytes | None,
        value: bytes | None,
        partition: int,
        headers: list[tuple[str, bytes | None]] | None = None,
    ) -> Place:
        """Where the record lies now that it is acknowledged."""
        found: list[Place] = []

        def delivered(error: ck.KafkaError | None, message: ck.Message) -> None:
            assert error is None, error
            found.append((message.partition() or 0, message.offset() or 0))

        self._producer.produce(self._topic, value, key, partition, headers=headers or [], on_delivery=delivered)
        assert self._producer.flush(30) == 0
        return found[0]
