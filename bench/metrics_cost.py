"""What metrics cost: `python bench/metrics_cost.py [ROUNDS [SIDE]]`, on an idle machine.

CPU seconds of PSTP's processes for the same tasks, with all counting and without any, in turns; what processes use to
start and stop is taken off.  Given are the median of the rounds' differences and a 95 % confidence interval of it
(bootstrap).  Counting includes librdkafka's statistics; a scrape is measured by itself and added as often as one comes
each ten seconds.
"""

import random
import statistics
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pstp.bench import sides
from pstp.bench.bed import Bed
from pstp.bench.machine import cpu_s
from pstp.bench.work import WORKS, Work
from streams.errors import UserError

Run = Callable[..., sides.Result]
ROUNDS, TRIES = 7, 4
SCRAPE_EVERY_S = 10
HERE = Path(__file__).parent
SIDES = {"pstp run": (sides.pstp_local, 100_000), "scheduler and worker": (sides.pstp_workers, 30_000)}


def interval(values: list[float]) -> tuple[float, float]:
    """95 % of the medians of samples drawn from these."""
    chance = random.Random(1)
    medians = sorted(statistics.median(chance.choices(values, k=len(values))) for _ in range(10_000))
    return medians[250], medians[9_750]


def scrape_cost_s(bed: Bed) -> tuple[float, int]:
    """CPU seconds of one scrape of a scheduler with some types, and its bytes."""
    settings = bed.settings(bed.name(), partitions=8)
    child = bed.pstp(settings, "scheduler", PSTP_INSTANCE="scraped", PSTP_HTTP="127.0.0.1:18099")
    address = "http://127.0.0.1:18099/metrics"
    sides._wait(lambda: b"pstp_partitions_owned 8.0" in get(address), 60, "the scheduler", [child])
    before, count = cpu_s(child.pid), 200
    began_s = time.monotonic()
    for _ in range(count):
        size = len(get(address))
    took_s = time.monotonic() - began_s
    used_s = cpu_s(child.pid) - before
    idle_before = cpu_s(child.pid)
    time.sleep(took_s)
    used_s -= cpu_s(child.pid) - idle_before
    child.terminate()
    child.wait(30)
    bed.drop(settings.app)
    return used_s / count, size


def ran(run: Run, bed: Bed, work: Work, **env: Any) -> sides.Result:
    """Once more where the machine was too busy to see it to its end."""
    for left in range(TRIES - 1, -1, -1):
        try:
            return run(bed, work, **env)
        except UserError as error:
            print(f"not counted: {error}", flush=True)
            if not left:
                raise
    raise AssertionError


def get(address: str) -> bytes:
    try:
        with urllib.request.urlopen(address, timeout=10) as answer:
            found: bytes = answer.read()
            return found
    except OSError:
        return b""


def main(rounds: int, wanted: set[str]) -> None:
    with Bed() as bed:
        scrape_s, size = scrape_cost_s(bed)
        print(f"one scrape of a scheduler: {scrape_s * 1e3:.1f} ms of CPU, {size:,} bytes", flush=True)
        for name in [name for name in SIDES if name in wanted]:
            run, tasks = SIDES[name]
            work = WORKS["0ms"]._replace(tasks=tasks)
            env = {"PYTHONPATH": HERE / "uncounted"}
            start_s = ran(run, bed, work._replace(tasks=100), BENCH_UNCOUNTED="1", **env).cpu_s
            shares, extras, spent = [], [], []
            for number in range(rounds + 1):  # the first one warms up
                used = {}
                order = ("0", "1") if number % 2 else ("1", "0")
                for uncounted in order:
                    result = ran(run, bed, work, BENCH_UNCOUNTED=uncounted, **env)
                    scrapes = result.seconds / SCRAPE_EVERY_S if uncounted == "0" else 0
                    used[uncounted] = (result.cpu_s - start_s + scrapes * scrape_s) * 100_000 / result.tasks
                print(f"{name}, round {number}: {used['0']:.2f} s counting, {used['1']:.2f} s not", flush=True)
                if number:
                    shares.append(used["0"] / used["1"] - 1)
                    extras.append(used["0"] - used["1"])
                    spent.append(used["1"])
            low, high = interval(shares)
            print(
                f"{name}: {statistics.median(shares):+.1%} (95 %: {low:+.1%} to {high:+.1%}), "
                f"{statistics.median(extras):+.3f} of {statistics.median(spent):.2f} CPU seconds per 100,000 tasks"
            )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS, set(sys.argv[2:]) or set(SIDES))
