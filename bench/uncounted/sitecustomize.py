"""Put on PYTHONPATH by `bench/metrics_cost.py`: a process of PSTP that counts nothing, if BENCH_UNCOUNTED says so.

Both kinds of process import the same, so that their starts cost the same.
"""

import os
from typing import Any

from prometheus_client import Counter, Gauge, Histogram

from streams import totals
from streams.distribution import Distribution
from streams.kafka_stats import KafkaStats
from streams.ran import Ran
from streams.standing import Tally


class Nothing:
    def inc(self, *_: Any) -> None: ...

    observe = set = inc


def nothing(*_: Any, **__: Any) -> None: ...


def count_nothing() -> None:
    """What is left is the calls themselves."""
    for owner, names in (
        (totals, ("add", "add_run_through")), (Distribution, ("add", "add_all")), (Tally, ("note", "forget")),
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
