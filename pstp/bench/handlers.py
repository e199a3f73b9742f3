"""The handler of PSTP's own sides: waits as long as BENCH_HANDLER_MS says, and checks order and one at a time.

At the end of the process it writes what it saw to BENCH_SEEN: with one worker, that is every execution there was.
"""

import asyncio
import atexit
import json
import os
from pathlib import Path

from consumers import Task, handler
from streams.clock import mono_ns

_HANDLER_S = float(os.environ.get("BENCH_HANDLER_MS", "0")) / 1000
_seen = {"executions": 0, "order_violations": 0, "repeats": 0}
_last: dict[str, int] = {}
_running: set[str] = set()
_times: dict[str, list[tuple[int, int, int]]] = {}
_TASKS = int(os.environ.get("BENCH_TASKS", "0"))
_KEEP_TIMES = bool(os.environ.get("BENCH_TIMES"))


@handler("bench", timeout_s=4)
async def bench(task: Task) -> None:
    began_ns = mono_ns()
    group, n = task.group, task.payload["n"]
    last = _last.get(group, -1)
    _seen["executions"] += 1
    if n == last:
        _seen["repeats"] += 1
    elif n < last or group in _running:
        _seen["order_violations"] += 1
    _last[group] = n
    _running.add(group)
    if _HANDLER_S:
        await asyncio.sleep(_HANDLER_S)
    _running.discard(group)
    if _KEEP_TIMES:
        _times.setdefault(group, []).append((n, began_ns, mono_ns()))
    if _seen["executions"] == _TASKS:
        Path(os.environ["BENCH_DONE"]).touch()


@atexit.register
def _write() -> None:
    if path := os.environ.get("BENCH_SEEN"):
        Path(path).write_text(json.dumps(_seen | {"times": _times}))
