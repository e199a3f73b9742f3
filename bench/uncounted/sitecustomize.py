"""Put on PYTHONPATH by `bench/metrics_cost.py`: a process of PSTP that counts nothing, if BENCH_UNCOUNTED says so.

Both kinds of process import the same, so that their starts cost the same.
"""

import os
from typing import Any, Final

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase

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


def sink(*_: Any, _one: Nothing = Nothing(), **__: Any) -> Nothing:
    return _one


def no_conf(*_: Any) -> dict[str, Any]:
    return {}


def time_nothing(engine: Engine, _entry: object, task_type: str, effect: Emit) -> None:
    """What is left of `Engine._time` is no metric."""
    if effect.state is TaskState.SUCCEEDED and effect.report is not None:
        engine._note_run(task_type, effect.report)


def forget_moves(engine: Engine) -> None:
    engine._moved.clear()


# What counts, by its owner, and what stands in its place.
INSTEAD: Final[list[tuple[Any, str, Any]]] = [
    (Engine, "_time", time_nothing), (Engine, "count_standings", forget_moves), (totals, "told", nothing),
    (totals, "add_run_through", nothing), (partition, "add", nothing), (Distribution, "add", nothing),
    (Distribution, "add_all", nothing), (Ran, "end", nothing), (Counter, "inc", nothing), (Gauge, "set", nothing),
    (Histogram, "observe", nothing), (MetricWrapperBase, "labels", sink), (KafkaStats, "conf", no_conf),
]  # fmt: skip
COUNTED: Final = [(owner, (name,)) for owner, name, _ in INSTEAD]


def count_nothing() -> None:
    """What is left is the calls themselves."""
    for owner, name, other in INSTEAD:
        setattr(owner, name, other)


if os.environ.get("BENCH_UNCOUNTED") == "1":
    count_nothing()
