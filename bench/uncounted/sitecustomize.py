"""Put on PYTHONPATH by `bench/metrics_cost.py`: a process of PSTP that counts nothing, if BENCH_UNCOUNTED says so.

Both kinds of process import the same, so that their starts cost the same.
"""

import os
from typing import Any

from prometheus_client import Counter, Gauge, Histogram

from streams import partition, totals
from streams.distribution import Distribution
from streams.engine import Engine
from streams.group import Emit
from streams.kafka_stats import KafkaStats
from streams.protocol import TaskState
from streams.ran import Ran


class Nothing:
    def inc(self, *_: Any) -> None: ...

    observe = set = inc


def nothing(*_: Any, **__: Any) -> None: ...


def time_nothing(engine: Engine, _entry: object, task_type: str, effect: Emit) -> None:
    """What is left of `Engine._time` is no metric."""
    if effect.state is TaskState.SUCCEEDED and effect.report is not None:
        engine._note_run(task_type, effect.report)


def forget_moves(engine: Engine) -> None:
    engine._moved.clear()


def count_nothing() -> None:
    """What is left is the calls themselves."""
    Engine._time = time_nothing  # type: ignore[assignment]
    Engine.count_standings = forget_moves  # type: ignore[method-assign]
    for owner, names in (
        (totals, ("told", "add_run_through")), (partition, ("add",)), (Distribution, ("add", "add_all")),
        (Ran, ("end",)), (Counter, ("inc",)), (Gauge, ("set",)), (Histogram, ("observe",)),
    ):  # fmt: skip
        for name in names:
            setattr(owner, name, nothing)
    sink = Nothing()
    for kind in (Counter, Gauge, Histogram):
        kind.labels = lambda *_, **__: sink  # type: ignore[method-assign,assignment]
    KafkaStats.conf = lambda *_: {}  # type: ignore[method-assign]


if os.environ.get("BENCH_UNCOUNTED") == "1":
    count_nothing()
