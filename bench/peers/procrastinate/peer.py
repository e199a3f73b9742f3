"""procrastinate on PostgreSQL: `lock` is the group, 100 jobs at once.  BENCH_DSN says where the database is.

The jobs are deferred first (BENCH_FILE: one group a line), then the worker runs until all are done.
"""

import asyncio
import logging
import os
from pathlib import Path

import procrastinate
from common import HANDLER_S, Check

logging.disable(logging.CRITICAL)
app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=os.environ["BENCH_DSN"], max_size=20))
check = Check()


@app.task(name="work")
async def work(group: str, n: int, pad: str) -> None:
    check.begin(group, n)
    if HANDLER_S:
        await asyncio.sleep(HANDLER_S)
    check.end(group)


async def main() -> None:
    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        groups = Path(os.environ["BENCH_FILE"]).read_text().split()
        for n, group in enumerate(groups):  # one after the other: jobs of one lock run in the order of their ids
            await work.configure(lock=group).defer_async(group=group, n=n, pad="x" * 180)
        await app.run_worker_async(concurrency=100, wait=False, install_signal_handlers=False, listen_notify=False)
    check.answer()


asyncio.run(main())
