"""Reading a topic up to its present end, once, outside of any consumer group."""

from collections.abc import Iterator, Mapping
from typing import Any

import confluent_kafka as ck

from streams.admin import DEADLINE_S, TopicsError, silent_logger
from streams.clock import now
from streams.settings import Settings


def read_to_end(settings: Settings, topic: str, starts: Mapping[int, int]) -> Iterator[ck.Message]:
    """Committed records of a topic, of each given partition from its offset on.

    Raises `TopicsError` if the end is not reached within `DEADLINE_S`.
    """
    conf: dict[str, Any] = settings.kafka(**{
        "group.id": f"{settings.app}-tail", "enable.auto.commit": False, "enable.partition.eof": True,
        "auto.offset.reset": "earliest", "fetch.queue.backoff.ms": 5, "fetch.wait.max.ms": 10,
    })  # fmt: skip
    consumer = ck.Consumer(conf, logger=silent_logger)
    try:
        consumer.list_topics(topic, DEADLINE_S)  # else the assignment waits half a second for the next look
        consumer.assign([ck.TopicPartition(topic, partition, offset) for partition, offset in starts.items()])
        unfinished = set(starts)
        deadline_ms = now().mono_ms + DEADLINE_S * 1000
        while unfinished:
            if now().mono_ms > deadline_ms:
                raise TopicsError(f"`{topic}` cannot be read to its end: look at the cluster's health, then try again")
            for message in consumer.consume(1000, 0.05):
                error = message.error()
                if error is None:
                    yield message
                elif error.code() == ck.KafkaError._PARTITION_EOF:
                    unfinished.discard(message.partition() or 0)
                elif not error.retriable():
                    raise ck.KafkaException(error)
    except ck.KafkaException as error:
        raise TopicsError(f"cannot read `{topic}` ({error.args[0].str()}): mend that in the cluster") from None
    finally:
        consumer.close()
