"""pyrallel-consumer, async engine, ordered by key; as its README shows, with the sizes of a busy installation."""

import asyncio
import logging

from common import BOOTSTRAP, GROUP, HANDLER_S, TASKS, TOPIC, Check
from pyrallel_consumer.config import KafkaConfig
from pyrallel_consumer.consumer import PyrallelConsumer
from pyrallel_consumer.dto import ExecutionMode, WorkItem

logging.disable(logging.CRITICAL)
check = Check()
over = asyncio.Event()


async def worker(item: WorkItem) -> None:
    group = item.key.decode() if isinstance(item.key, bytes) else str(item.key)
    check.begin(group, item.offset)
    if HANDLER_S:
        await asyncio.sleep(HANDLER_S)
    if check.end(group):
        over.set()


async def main() -> None:
    config = KafkaConfig()
    config.BOOTSTRAP_SERVERS = [BOOTSTRAP]
    config.CONSUMER_GROUP = GROUP
    config.dlq_enabled = False
    config.parallel_consumer.ordering_mode = "key_hash"
    config.parallel_consumer.worker_pool_size = 64
    config.parallel_consumer.execution.mode = ExecutionMode.ASYNC
    consumer = PyrallelConsumer(config=config, worker=worker, topic=TOPIC)
    await consumer.start()
    await over.wait()
    assert check.done == TASKS
    check.answer()


asyncio.run(main())
