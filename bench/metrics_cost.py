"""What metrics cost the scheduler: `python bench/metrics_cost.py`.

CPU of the engine for the same work with and without counting, in turns; the median of 7 differences and their spread.
"""

import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pstp.bench.flatness import Bench
from streams import totals
from streams.engine import Engine

TASKS, GROUPS, ROUNDS = 20_000, 2_000, 7
KEYS = [b"g%d" % (number % GROUPS) for number in range(TASKS)]


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
    Bench({}).run(KEYS, TASKS)  # warm
    counted_s, uncounted_s = [], []
    for number in range(ROUNDS):
        print(f"round {number + 1} of {ROUNDS}", flush=True)
        counted_s.append(Bench({}).run(KEYS, TASKS))
        with uncounted():
            uncounted_s.append(Bench({}).run(KEYS, TASKS))
    shares = sorted((a - b) / b for a, b in zip(counted_s, uncounted_s, strict=True))
    extra_s = (statistics.median(counted_s) - statistics.median(uncounted_s)) * 1e5
    print(f"engine: {statistics.median(counted_s) * 1e6:.1f} µs CPU per task")
    print(
        f"counting: {statistics.median(shares):+.1%} of the engine's CPU (median of {ROUNDS}, from {shares[0]:+.1%} to "
        f"{shares[-1]:+.1%}), {extra_s:.3f} CPU seconds per 100,000 tasks"
    )


if __name__ == "__main__":
    main()
