"""What metrics cost: `python bench/metrics_cost.py [ROUNDS] [whole]`.

CPU seconds for the same tasks with all counting and without any, in turns: of the engine alone, by both of its ways,
and with `whole` of PSTP's processes (on an idle machine; what they use to start and stop is taken off; librdkafka's
statistics are in it).  Given are the median of the rounds' differences and a 95 % confidence interval of it
(bootstrap).  A scrape is measured by itself.
"""

import random
import statistics
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "uncounted"))

import sitecustomize as uncounted  # noqa: E402

from pstp.bench import sides  # noqa: E402
from pstp.bench.bed import Bed  # noqa: E402
from pstp.bench.flatness import VALUE, Bench  # noqa: E402
from pstp.bench.machine import cpu_s  # noqa: E402
from pstp.bench.work import WORKS  # noqa: E402
from streams import limits  # noqa: E402
from streams.clock import mono_ns, now  # noqa: E402
from streams.engine import Engine, Input  # noqa: E402
from streams.partition import Partition  # noqa: E402
from streams.placement import Here  # noqa: E402
from streams.protocol import Moment  # noqa: E402
from streams.retry import Policy  # noqa: E402

ROUNDS, TASKS, GROUPS = 7, 3_000, 1_000
KEYS = [b"g%d" % (number % GROUPS) for number in range(TASKS)]


def through_workers() -> float:
    """CPU seconds per task, handed to workers that answer at once."""
    return Bench({}).run(KEYS, TASKS)


def in_the_lane() -> float:
    """CPU seconds per task of the express lane, two hundred to a transaction, with handlers that do nothing."""
    types = frozenset({"bench"})
    here = Here("boot", 100, {}, moment, first=types, only=types, spare=types, express=types)
    here.open = True
    engine = Engine(
        instance="run", boot_id="boot", owner="o", partitions=1, lease_s=limits.LEASE_S,
        task_bytes_max=limits.TASK_BYTES_MAX, policy=Policy(), here=here,
    )  # fmt: skip
    engine.adopt(Partition(0), now())
    engine.cut()
    records = [Input("tasks", 0, number, key, VALUE, []) for number, key in enumerate(KEYS)]
    lane = engine.express
    assert lane is not None
    began_s = time.process_time()
    for at in range(0, TASKS, 200):
        engine.take_in(records[at : at + 200], {}, now())
        while (item := lane.begin(moment())) is not None:
            item.wire()
            lane.succeeded(item, moment())
        engine.step([], {}, now())
    return (time.process_time() - began_s) / TASKS


def moment() -> Moment:
    return Moment(now().wall_ms, mono_ns(), "clock")


@contextmanager
def counting_nothing() -> Iterator[None]:
    kept = [(owner, name, owner.__dict__[name]) for owner, names in uncounted.COUNTED for name in names]
    uncounted.count_nothing()
    try:
        yield
    finally:
        for owner, name, value in kept:
            setattr(owner, name, value)


def interval(values: list[float]) -> tuple[float, float]:
    """95 % of the medians of samples drawn from these."""
    chance = random.Random(1)
    medians = sorted(statistics.median(chance.choices(values, k=len(values))) for _ in range(10_000))
    return medians[250], medians[9_750]


def compare(name: str, rounds: int, run: Callable[[bool], float]) -> None:
    """`run(counted)` gives CPU seconds per task."""
    run(True), run(False)  # warm
    pairs = []
    for number in range(rounds):
        first = bool(number % 2)
        used = {counted: run(counted) for counted in (first, not first)}
        pairs.append((used[True], used[False]))
    shares = [with_ / without - 1 for with_, without in pairs]
    extra_s = statistics.median(with_ - without for with_, without in pairs) * 100_000
    low, high = interval(shares)
    print(
        f"{name}: {statistics.median(shares):+.1%} (95 %: {low:+.1%} to {high:+.1%}), {extra_s:+.3f} of "
        f"{statistics.median(without for _, without in pairs) * 100_000:.2f} CPU seconds per 100,000 tasks", flush=True,
    )  # fmt: skip


def engine(work: Callable[[], float]) -> Callable[[bool], float]:
    def run(counted: bool) -> float:
        if counted:
            return statistics.median(work() for _ in range(3))
        with counting_nothing():
            return statistics.median(work() for _ in range(3))

    return run


def whole(bed: Bed, side: Callable[..., sides.Result], tasks: int) -> Callable[[bool], float]:
    work = WORKS["0ms"]._replace(tasks=tasks)
    env: dict[str, Any] = {"PYTHONPATH": HERE / "uncounted"}
    start_s = side(bed, work._replace(tasks=100), BENCH_UNCOUNTED="1", **env).cpu_s
    return lambda counted: (side(bed, work, BENCH_UNCOUNTED=str(int(not counted)), **env).cpu_s - start_s) / tasks


def scrape(bed: Bed) -> None:
    """CPU of one scrape of an idle scheduler."""
    settings = bed.settings(bed.name(), partitions=8)
    child = bed.pstp(settings, "scheduler", PSTP_INSTANCE="scraped", PSTP_HTTP="127.0.0.1:18099")
    address = "http://127.0.0.1:18099/metrics"
    sides._wait(lambda: b"pstp_partitions_owned 8.0" in get(address), 60, "the scheduler", [child])
    marks_s = []
    for count in (0, 200):  # as long without scrapes as with them
        before_s, began_s = cpu_s(child.pid), time.monotonic()
        for _ in range(count):
            get(address)
        took_s = time.monotonic() - began_s if count else 2.0
        if not count:
            time.sleep(took_s)
        marks_s.append((cpu_s(child.pid) - before_s, took_s))
    (idle_s, idle_for_s), (used_s, used_for_s) = marks_s
    scrape_ms = (used_s - idle_s / idle_for_s * used_for_s) / 200 * 1e3
    print(f"a scrape: {scrape_ms:.1f} ms of CPU, {len(get(address)):,} bytes", flush=True)
    child.terminate()
    child.wait(30)
    bed.drop(settings.app)


def get(address: str) -> bytes:
    try:
        with urllib.request.urlopen(address, timeout=10) as answer:
            found: bytes = answer.read()
            return found
    except OSError:
        return b""


def main(rounds: int, *, is_whole: bool) -> None:
    compare("engine, through workers", rounds, engine(through_workers))
    compare("engine, express lane", rounds, engine(in_the_lane))
    if is_whole:
        with Bed() as bed:
            scrape(bed)
            compare("pstp run", rounds, whole(bed, sides.pstp_local, 100_000))
            compare("scheduler and worker", rounds, whole(bed, sides.pstp_workers, 30_000))


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[1:] if word.isdigit()]
    main(numbers[0] if numbers else ROUNDS, is_whole="whole" in sys.argv)
