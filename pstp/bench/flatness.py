"""Whether the scheduler stays as fast and as small as it grows: `Engine` alone, without Kafka, in CPU time.

Partitions are built from changelog rows, as a new owner builds them; then tasks go through the engine's steps with a
worker that answers at once.
"""

import gc
import os
import time
from collections.abc import Callable, Iterable
from typing import Any, Final

from pstp.bench.machine import describe, rss_bytes
from streams import limits, protocol, rows
from streams.clock import now
from streams.engine import Engine, Input, Output
from streams.partition import Partition, load
from streams.protocol import PROTOCOL, Completion, Member, Moment, Report, ReportKind
from streams.retry import Policy

VALUE: Final = b'{"type":"bench","payload":{"n":0,"pad":"' + b"x" * 180 + b'"}}'
TASKS: Final = 2_000
PARKED: Final = (10, 1_000, 100_000, 1_000_000)
IDLE: Final = (1_000, 1_000_000)


class Bench:
    """One engine with one partition, and one worker with a thousand slots."""

    def __init__(self, table: dict[bytes, bytes]) -> None:
        self.engine = Engine(
            instance="s", boot_id="boot", owner="o", partitions=1, lease_s=limits.LEASE_S,
            task_bytes_max=limits.TASK_BYTES_MAX, policy=Policy(),
        )  # fmt: skip
        self.engine.members = [
            Member(PROTOCOL, "w", "boot", "worker", "h", 1, 0, partitions=(0,), slots=1_000, types=("bench",))
        ]
        partition = load(0, table) if table else Partition(0)
        self.engine.adopt(partition, now())
        self._offsets = {"tasks": 0, "completions": 0}
        self.finished = 0
        self._left: list[Input] = []

    def publish(self, keys: Iterable[bytes]) -> list[Input]:
        return [self._input("tasks", key, VALUE) for key in keys]

    def step(self, records: list[Input]) -> list[Input]:
        """One step; what the worker answers to its dispatches."""
        return self._answers(self.engine.step(records, {}, now()))

    def run(self, keys: Iterable[bytes], tasks: int, batch: int = 500) -> float:
        """Publish, and go on until nothing is left to do: CPU seconds per task, of which there must be so many."""
        before, todo = self.finished, [*self.step([]), *self.publish(keys)]
        began_s = time.process_time()
        while todo:
            todo = [*self.step(todo[:batch]), *todo[batch:]]
        assert self.finished - before == tasks, "every dispatch is answered, so every task must have run"
        return (time.process_time() - began_s) / tasks

    def run_some(self, keys: list[bytes]) -> float:
        """Publish, and take so many tasks through, whatever is parked behind them: CPU seconds per task."""
        todo, before = [*self._left, *self.publish(keys)], self.finished
        began_s = time.process_time()
        while self.finished - before < len(keys):
            todo = self.step(todo[:500]) + todo[500:]
        cost_s = (time.process_time() - began_s) / len(keys)
        self._left = todo  # answers that the next run begins with, so that no slot is lost
        return cost_s

    def _answers(self, outputs: list[Output]) -> list[Input]:
        answers = []
        for output in outputs:
            if output.topic != "dispatches":
                continue
            dispatch = protocol.decode_dispatch(output.value or b"")
            moment = Moment(now().wall_ms, 1, "clock")
            for task in dispatch.tasks:
                started = Report(ReportKind.STARTED, task.sequence, task.token, started=moment)
                ended = Report(ReportKind.SUCCEEDED, task.sequence, task.token, started=moment, ended=moment)
                for report in (started, ended):
                    answers.append(self._completion(dispatch.group, report))
                self.finished += 1
        return answers

    def _completion(self, group: str, report: Report) -> Input:
        value = protocol.encode(Completion(PROTOCOL, group, "w", "boot", "claim", 0, 0, (report,)))
        return self._input("completions", group.encode(), value)

    def _input(self, topic: Any, key: bytes, value: bytes) -> Input:
        self._offsets[topic] += 1
        return Input(topic, 0, self._offsets[topic], key, value, [])


def parked_rows(count: int) -> dict[bytes, bytes]:
    """Changelog rows of one group with so many tasks."""
    # Copied, as the Kafka client would hand them out: an encoder leaves them in larger blocks.
    return {
        rows.task_key(n + 1, b"hot"): bytes(
            memoryview(rows.encode(rows.TaskRow(rows.ROW_FORMAT, 0, n, b"hot", VALUE, [], 1)))
        )
        for n in range(count)
    }


def idle_rows(count: int) -> dict[bytes, bytes]:
    """Changelog rows of so many groups that do nothing and have a group state."""
    return {rows.state_key(b"idle-%08d" % n): b'{"cursor":%d}' % n for n in range(count)}


def _measure(table: dict[bytes, bytes], count: int, keys: list[bytes]) -> dict[str, Any]:
    """Bytes of memory per row, seconds to build the partition, and CPU per task of a run on top of it."""
    gc.collect()
    began_s = time.process_time()
    bench = Bench(table)
    loading_s = time.process_time() - began_s
    table.clear()
    cost_s = [bench.run_some(keys) for _ in range(3)]
    return {"count": count, "cpu_us_per_task": round(sorted(cost_s)[1] * 1e6, 1), "build_cpu_s": round(loading_s, 2)}


def memory_per(make: Callable[[int], dict[bytes, bytes]], count: int) -> int:
    """Bytes of resident memory per row, by what it grows when so many are loaded."""
    gc.collect()
    before = rss_bytes(os.getpid())
    bench = Bench(make(count))
    gc.collect()
    used = rss_bytes(os.getpid()) - before
    del bench
    return round(used / count)


def one_task_groups(count: int, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Groups of one task each, one after the other: memory and entries must not grow."""
    bench, points = Bench({}), []
    part = max(1, count // 5)
    for done in range(0, count, part):
        keys = [b"once-%09d" % n for n in range(done, done + part)]
        cost_s = bench.run(keys, part)
        del keys
        gc.collect()
        bench.step([])
        entries = len(bench.engine.partitions[0].entries)
        points.append({
            "groups": done + part, "rss_mib": rss_bytes(os.getpid()) >> 20, "entries": entries,
            "cpu_us_per_task": round(cost_s * 1e6, 1),
        })  # fmt: skip
        say(f"{done + part:,} one-task groups: {points[-1]['rss_mib']} MiB, {entries} in memory")
    return points


def run(parked_max: int, groups: int, say: Callable[[str], None]) -> dict[str, Any]:
    """All of it; sizes above `parked_max` are left out."""
    result: dict[str, Any] = {"kind": "engine", "machine": describe(), "payload_bytes": len(VALUE)}
    # Memory first, in a process that has not yet grown: what is freed later is not given back.
    sizes = min(parked_max, 200_000)
    result["bytes_per_parked_task"] = memory_per(parked_rows, sizes)
    result["bytes_per_idle_group"] = memory_per(idle_rows, sizes)
    say(f"{result['bytes_per_parked_task']} B a parked task, {result['bytes_per_idle_group']} B an idle group")
    result["one_task_groups"] = one_task_groups(groups, say)
    probes = [b"probe-%04d" % (n % 100) for n in range(TASKS)]
    result["parked"] = [_measure(parked_rows(n), n, [b"hot"] * TASKS) for n in PARKED if n <= parked_max]
    result["idle"] = [_measure(idle_rows(n), n, probes) for n in IDLE if n <= parked_max]
    for name in ("parked", "idle"):
        for point in result[name]:
            say(f"{name} {point['count']:,}: {point['cpu_us_per_task']} µs of CPU a task")
    return result
