"""`make chaos SEED=1 DURATION_S=120 TASKS=10000 BROKERS=1`, or `python -m tests.chaos --help`."""

import argparse
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.chaos.nemeses import NEMESES, NOT_HERE
from tests.chaos.report import show, write_row
from tests.chaos.run import Options, Run


@contextmanager
def _folder(kept: Path | None, seed: int) -> Iterator[Path]:
    if kept is None:
        with tempfile.TemporaryDirectory(prefix="pstp-chaos-") as name:
            yield Path(name)
        return
    folder = kept.absolute() / f"seed-{seed}"
    folder.mkdir(parents=True)
    yield folder


def _say(text: str) -> None:
    print(text, flush=True)


def _stop(number: int, _frame: object) -> None:
    """On the way out everything that was started is stopped and unmounted; a second signal must not get in between."""
    for other in (signal.SIGTERM, signal.SIGINT):
        signal.signal(other, signal.SIG_IGN)
    raise SystemExit(128 + number)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=1, help="how many, from --seed on")
    parser.add_argument("--duration-s", type=float, default=120, help="how long nemeses strike")
    parser.add_argument("--tasks", type=int, default=10_000, help="published over that time")
    parser.add_argument("--brokers", type=int, choices=(1, 3), default=1)
    parser.add_argument("--nemeses", default="all", help=f"of {', '.join(NEMESES)}; separated by commas")
    parser.add_argument("--gap-s", type=float, default=6.0, help="between two strikes, on average")
    parser.add_argument("--lease-s", type=float, default=5.0)
    where = "local: `pstp run` processes, which hand their groups' tasks to handlers of their own"
    parser.add_argument("--execution", choices=("workers", "local"), default="workers", help=where)
    parser.add_argument("--folder", type=Path, help="keeps journals, logs and the broker's data")
    parser.add_argument("--table", type=Path, help="add the outcome to the table in this file")
    chosen = parser.parse_args()
    nemeses = tuple(NEMESES) if chosen.nemeses == "all" else tuple(chosen.nemeses.split(","))
    if chosen.nemeses == "all" and chosen.execution == "local":
        nemeses = tuple(name for name in nemeses if name not in NOT_HERE)
    if unknown := [name for name in nemeses if name not in NEMESES]:
        parser.error(f"no such nemesis: {', '.join(unknown)}; there are {', '.join(NEMESES)}")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)
    failed = 0
    for seed in range(chosen.seed, chosen.seed + chosen.seeds):
        options = Options(
            seed, chosen.duration_s, chosen.tasks, chosen.brokers, nemeses, chosen.gap_s, chosen.lease_s,
            chosen.execution,
        )  # fmt: skip
        with _folder(chosen.folder, seed) as folder:
            outcome = Run(options, folder, _say).play()
        print(show(outcome), flush=True)
        if chosen.table:
            write_row(chosen.table, outcome)
        failed += not outcome.ok
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
