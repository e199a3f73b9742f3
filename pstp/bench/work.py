"""The work that every side gets: so many tasks, over so many groups, preloaded into a topic.

A task is what any client would publish: key = group, value = `{"type": "bench", "payload": {"n": …, "pad": …}}`, `n`
counting within the group, so that handlers can see whether they are called in order.
"""

import itertools
import random
from collections.abc import Iterator
from typing import Final, NamedTuple

import confluent_kafka as ck
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

PAYLOAD_BYTES: Final = 200
SEED: Final = 6


class Work(NamedTuple):
    """`skew`: s of Zipf's law, 0 gives every group as many tasks.  `handler_ms`: how long a handler waits."""

    name: str
    tasks: int = 100_000
    groups: int = 1_000
    handler_ms: float = 0
    skew: float = 0.0
    partitions: int = 8

    def keys(self) -> Iterator[str]:
        """The group of each task, in the order of publishing; the same in every run."""
        if not self.skew:
            return (f"group-{i % self.groups:05}" for i in range(self.tasks))
        weights = list(itertools.accumulate(1 / rank**self.skew for rank in range(1, self.groups + 1)))
        chosen = random.Random(SEED).choices(range(self.groups), cum_weights=weights, k=self.tasks)
        return (f"group-{i:05}" for i in chosen)

    def records(self) -> Iterator[tuple[bytes, bytes]]:
        """(key, value) of each task."""
        counts: dict[str, int] = {}
        for key in self.keys():
            n = counts[key] = counts.get(key, -1) + 1
            head = f'{{"n":{n},"pad":"'
            pad = "x" * (PAYLOAD_BYTES - len(head) - 2)
            yield key.encode(), f'{{"type":"bench","payload":{head}{pad}"}}}}'.encode()


WORKS: Final = {
    work.name: work
    for work in (
        Work("0ms"),
        Work("1ms", handler_ms=1),
        Work("10ms", handler_ms=10),
        Work("zipf", skew=1.0),
        Work("one", tasks=20_000, groups=1),
    )
}


def create_topic(bootstrap: str, name: str, partitions: int) -> None:
    """An ordinary topic, and wait until it has leaders."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_topics([NewTopic(name, num_partitions=partitions, replication_factor=1)])[name].result(30)


def preload(bootstrap: str, topic: str, work: Work) -> None:
    """Publish all of it, each group where Java's partitioner puts it.  Raises RuntimeError if it is not taken."""
    producer = ck.Producer({
        "bootstrap.servers": bootstrap, "partitioner": "murmur2_random", "linger.ms": 20,
        "queue.buffering.max.messages": 1_000_000, "enable.idempotence": True,
    })  # fmt: skip
    for number, (key, value) in enumerate(work.records()):
        producer.produce(topic, value, key)
        if number % 10_000 == 0:
            producer.poll(0)
    if producer.flush(120):
        raise RuntimeError(f"{topic} did not take all tasks within 120 s")
