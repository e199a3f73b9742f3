"""`python -m tests.sim --seeds 200`: play that many worlds; a failure prints its seed and a shrunk trace."""

import argparse
import os
import sys
import time
import warnings
from collections import Counter

from tests.sim import planted  # nothing else of ours yet: a bug can be planted only into what is not imported


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--seeds", type=int, default=200, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--world", help="always this one: `free`, or the name of a drill")
    parser.add_argument("--plant", metavar="BUG", help="with this bug of mutations.py in our code")
    parser.add_argument("--seconds", type=float, default=None, help="stop after this long")
    parser.add_argument("--trace", action="store_true", help="print everything that happens")
    parser.add_argument("--no-shrink", action="store_true", help="print a failure as it is")
    parser.add_argument("--counts", action="store_true", help="print what has happened how often")
    options = parser.parse_args()
    if os.environ.get("PYTHONHASHSEED") != "0":  # else a seed would not always play the same
        environment = os.environ | {"PYTHONHASHSEED": "0"}
        os.execve(sys.executable, [sys.executable, "-m", "tests.sim", *sys.argv[1:]], environment)
    warnings.filterwarnings("ignore", "coroutine .* was never awaited")  # of processes that have died
    if options.plant is not None:
        planted.plant_here(options.plant)
    return _play(options)


def _play(options: argparse.Namespace) -> int:
    from tests.sim.run import describe, play, shrink
    from tests.sim.scenario import draw

    counts: Counter[str] = Counter()
    steps = played = 0
    began_s, began_cpu_s = time.monotonic(), time.process_time()
    for seed in range(options.first, options.first + options.seeds):
        if options.seconds is not None and time.monotonic() - began_s > options.seconds:
            break
        result = play(draw(seed, options.world), trace=options.trace)
        steps, played = steps + result.steps, played + 1
        counts.update(result.counts)
        if options.trace:
            print("\n".join(result.trace))
        if result.violation is not None:
            print(f"seed {seed} after {result.steps} steps: {result.violation}", flush=True)
            smaller = result if options.no_shrink else shrink(result)
            print(describe(smaller))
            plant = f"--plant {options.plant} " if options.plant else ""
            print(f"again: python -m tests.sim {plant}--world {result.scenario.world} --first {seed} --seeds 1 --trace")
            return 1
    seconds, cpu_s = time.monotonic() - began_s, time.process_time() - began_cpu_s
    print(f"{played} seeds, {steps} steps in {seconds:.1f} s, {cpu_s:.1f} s of CPU: {steps / cpu_s:.0f} steps a second")
    if options.counts:
        for name, count in sorted(counts.items()):
            print(f"{count:9} {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
