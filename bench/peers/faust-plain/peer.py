"""A plain Faust agent as its documentation shows: one event at a time, a table set per event, one record sent."""

import asyncio
import os
import sys
import tempfile

import faust
from common import BOOTSTRAP, GROUP, HANDLER_S, OUT_TOPIC, TOPIC, Check

app = faust.App(
    GROUP,
    broker=f"kafka://{BOOTSTRAP}",
    value_serializer="raw",
    key_serializer="raw",
    topic_partitions=8,
    web_enabled=False,
    logging_config={"version": 1},
    datadir=tempfile.mkdtemp(prefix="faust-"),
)
source = app.topic(TOPIC)
sink = app.topic(OUT_TOPIC)
counts = app.Table("counts", default=int, key_type=str, partitions=8)
check = Check()


@app.agent(source)
async def agent(stream: faust.StreamT) -> None:
    async for event in stream.events():
        group = event.key.decode()
        check.begin(group, event.message.offset)
        if HANDLER_S:
            await asyncio.sleep(HANDLER_S)
        counts[group] += 1
        await sink.send(key=event.key, value=event.value)
        if check.end(group):
            check.answer()


if __name__ == "__main__":
    sys.argv = ["peer", "worker", "-l", "crit", "--without-web"]
    os.environ.setdefault("FAUST_LOGLEVEL", "crit")
    app.main()
