"""The limit: consume, transform, produce in Kafka transactions with confluent-kafka, and nothing else.

One transaction per fetch, `flush` before the offsets, as PSTP does.  BENCH_RECORDS and BENCH_BYTES: how many records
per task, and of how many bytes in all, so that it can write as much as another side does.  Nothing is kept per group,
so there is no order to check beyond the partition's.
"""

import os

import confluent_kafka as ck
from common import BOOTSTRAP, GROUP, OUT_TOPIC, TASKS, TOPIC, Check

RECORDS = max(1, round(float(os.environ.get("BENCH_RECORDS", "1"))))
BYTES = int(float(os.environ.get("BENCH_BYTES", "0")))
FETCH = int(os.environ.get("BENCH_FETCH", "1000"))

assigned: list[int] = []
consumer = ck.Consumer({
    "bootstrap.servers": BOOTSTRAP, "group.id": GROUP, "auto.offset.reset": "earliest", "enable.auto.commit": False,
    "isolation.level": "read_committed", "fetch.queue.backoff.ms": 5, "fetch.wait.max.ms": 10,
    "enable.auto.offset.store": False,
})  # fmt: skip
producer = ck.Producer({
    "bootstrap.servers": BOOTSTRAP, "transactional.id": GROUP, "linger.ms": 0, "retry.backoff.ms": 5,
    "retry.backoff.max.ms": 100, "compression.type": "lz4", "queue.buffering.max.messages": 1_000_000,
})  # fmt: skip
producer.init_transactions(30)
consumer.subscribe([TOPIC], on_assign=lambda _, partitions: assigned.extend(p.partition for p in partitions))
while not assigned:
    consumer.poll(0.1)
consumer.assign([ck.TopicPartition(TOPIC, p, ck.OFFSET_BEGINNING) for p in assigned])

check = Check()
while check.done < TASKS:
    messages = consumer.consume(FETCH, 0.05)
    if not messages:
        continue
    offsets: dict[int, int] = {}
    producer.begin_transaction()
    for message in messages:
        group = message.key().decode()
        check.begin(group, message.offset())
        value = message.value()
        share = value if not BYTES else (value * (BYTES // RECORDS // len(value) + 1))[: BYTES // RECORDS]
        for _ in range(RECORDS):
            producer.produce(OUT_TOPIC, share, message.key(), message.partition())
        offsets[message.partition()] = message.offset() + 1
        check.end(group)
    producer.flush()
    producer.send_offsets_to_transaction(
        [ck.TopicPartition(TOPIC, p, o) for p, o in offsets.items()], consumer.consumer_group_metadata()
    )
    producer.commit_transaction()
check.answer()
