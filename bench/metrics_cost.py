"""What metrics cost the scheduler: `python bench/metrics_cost.py`.

CPU seconds of the engine for the same work with and without counting, in turns; the median of 7 differences and their
spread.
"""

import json
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from msgspec import Raw

from streams import protocol, totals
from streams.clock import Now
from streams.engine import Engine, Input
from streams.murmur2 import home_partition
from streams.partition import Partition
from streams.protocol import PROTOCOL, Completion, Member, Moment, Report, ReportKind
from streams.retry import Policy

PARTITIONS, TASKS, GROUPS, BATCH, ROUNDS = 8, 20_000, 2_000, 500, 7
AT = Moment(1, 1, "c")


class Work:
    """One engine, fed until all tasks have ended."""

    def __init__(self) -> None:
        self.engine = Engine(
            instance="s", boot_id="b", owner="o", partitions=PARTITIONS, lease_s=10, task_bytes_max=768 * 1024,
            policy=Policy(),
        )  # fmt: skip
        for number in range(PARTITIONS):
            self.engine.adopt(Partition(number), Now(1, 1))
        self.engine.members = [
            Member(PROTOCOL, f"w{i}", "b", "worker", "h", 1, 0, partitions=(i,), slots=200, types=("t",))
            for i in range(3)
        ]
        self._ends: dict[tuple[str, int], int] = {}

    def run(self) -> float:
        """CPU seconds in the engine."""
        waiting = [self._task(number) for number in range(TASKS)][::-1]  # taken from its end
        reports: list[Input] = []
        wall_ms, spent_s, ended = 1_000, 0.0, 0
        while ended < TASKS:
            batch = [waiting.pop() for _ in range(min(BATCH, len(waiting)))] + reports
            reports = []
            wall_ms += 50
            began_s = time.process_time()
            outputs = self.engine.step(batch, {}, Now(wall_ms, wall_ms))
            spent_s += time.process_time() - began_s
            for output in outputs:
                if output.topic == "dispatches":
                    reports += self._reports(output.key, output.value or b"")
                    ended += 1
        return spent_s

    def _task(self, number: int) -> Input:
        key = b"g%d" % (number % GROUPS)
        value = json.dumps({"type": "t", "payload": {"number": number, "text": "x" * 120}}).encode()
        return self._record("tasks", home_partition(key, PARTITIONS), key, value)

    def _reports(self, key: bytes | None, value: bytes) -> Iterator[Input]:
        dispatch = protocol.decode_dispatch(value)
        task = dispatch.tasks[0]
        for report in (
            Report(ReportKind.STARTED, task.sequence, task.token, started=AT),
            Report(
                ReportKind.SUCCEEDED, task.sequence, task.token, started=AT, ended=AT, state=Raw(b"1"), state_set=True
            ),
        ):
            said = Completion(PROTOCOL, dispatch.group, "w1", "b", "c", 0, 0, (report,))
            yield self._record("completions", dispatch.partition, key, protocol.encode(said))

    def _record(self, topic: Any, partition: int, key: bytes | None, value: bytes) -> Input:
        offset = self._ends.get((topic, partition), 0)
        self._ends[topic, partition] = offset + 1
        return Input(topic, partition, offset, key, value, [])


@contextmanager
def uncounted() -> Iterator[None]:
    """The engine without its counts of outcomes and its histograms."""
    add, timed = totals.add, Engine._time
    nothing: Callable[..., None] = lambda *_: None  # noqa: E731
    totals.add, Engine._time = nothing, nothing  # type: ignore[method-assign]
    try:
        yield
    finally:
        totals.add, Engine._time = add, timed  # type: ignore[method-assign]


def main() -> None:
    Work().run()  # warm
    counted_s, uncounted_s = [], []
    for number in range(ROUNDS):
        print(f"round {number + 1} of {ROUNDS}", flush=True)
        counted_s.append(Work().run())
        with uncounted():
            uncounted_s.append(Work().run())
    shares = sorted((a - b) / b for a, b in zip(counted_s, uncounted_s, strict=True))
    print(f"engine: {statistics.median(counted_s) / TASKS * 1e6:.1f} µs CPU per task")
    print(
        f"counting: {statistics.median(shares):+.1%} of the engine's CPU (median of {ROUNDS}, from {shares[0]:+.1%} to "
        f"{shares[-1]:+.1%}), {(statistics.median(counted_s) - statistics.median(uncounted_s)) * 1e5 / TASKS:.3f} CPU "
        "seconds per 100,000 tasks"
    )


if __name__ == "__main__":
    main()
