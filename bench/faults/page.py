"""Writes docs/recovery.md and its chart from what was measured: python -m bench.faults.page [JSON ...]

Files given are taken into `figures.json` first, which holds the latest of each.
"""

import json
import sys
from pathlib import Path
from typing import Any, Final

HERE: Final = Path(__file__).parent
DOCS: Final = HERE.parents[1] / "docs"
KINDS: Final = {
    "parked": "parked tasks", "state": "idle groups with state", "finished": "tasks that came and went just now",
}  # fmt: skip
GOALS: Final = {
    ("scheduler killed", "its groups"): "p95 10 s", ("scheduler killed", "other groups"): "4 s",
    ("scheduler drained", "its groups"): "2 s", ("scheduler joins", "groups that stayed"): "1 s",
    ("worker killed", "its tasks"): "lease + 1 s",
}  # fmt: skip
BAR_PX_MAX: Final = 320


def main(paths: list[str]) -> None:
    figures = json.loads((HERE / "figures.json").read_text())
    for path in paths:
        figures |= json.loads(Path(path).read_text())
    if paths:
        (HERE / "figures.json").write_text(json.dumps(figures, indent=1) + "\n")
    (DOCS / "recovery.svg").write_text(chart(figures["recovery"]))
    (DOCS / "recovery.md").write_text(page(figures))


def page(figures: dict[str, Any]) -> str:
    lines = [
        "# Recovery, in figures", "",
        "Made by `python -m bench.faults.page` from `bench/faults/figures.json`; what is in it was measured with", "",
        "    python -m bench.faults.recovery --out recovery.json",
        "    python -m bench.faults.failover --out failover.json",
        "    python -m bench.faults.operating --out operating.json",
        "    python -m bench.faults.page recovery.json failover.json operating.json", "",
        f"Machine: {figures['machine']}. There CPU seconds say more than seconds.", "",
        "## Loading the table", "",
        "From an assignment to the first step: reading the changelog, fencing a predecessor, building the groups.", "",
        "| rows | seconds | CPU seconds | resident, MiB |", "|---|---|---|---|",
        *(f"| {what(r)} | {r['seconds']} | {r['cpu_seconds']} | {r['rss_max_mib']} |"
          for r in figures["recovery"]),
        "", "![CPU seconds](recovery.svg)", "",
        "What came and went leaves nothing but the newest segments (128 MiB for all partitions together) and the",
        "tombstones that the log cleaner has not come to: it keeps each for ten minutes, and removes it when it next",
        "cleans. So recovery is bounded by the work of some minutes, not by what was ever done.",
        "",
        "Garbage collection is off while a table is loaded, and leaves it alone afterwards: searching a growing table",
        "for garbage took two thirds of the time for a million groups with state.", "",
        "## Faults, counted as starts at the workers", "",
    ]  # fmt: skip
    if not figures["failover"]:
        lines.append("Not measured on this machine: with other work on its cores these times would say nothing.")
    else:
        lines += ["| fault | whose | p50 s | p95 s | max s | goal |", "|---|---|---|---|---|---|"]
        lines += [
            f"| {fault} | {whose} | {f['p50_s']} | {f['p95_s']} | {f['max_s']} | {GOALS.get((fault, whose), '')} |"
            for fault, parts in figures["failover"].items() for whose, f in parts.items() if isinstance(f, dict)
        ]  # fmt: skip
        lines += [
            "", "A worker that says nothing for its lease and 1.25 s is taken for lost (ARCHITECTURE: an outage is",
            "shorter than silence); this one had told of its tasks in the moment before it was killed.",
        ]  # fmt: skip
    return "\n".join([*lines, *operating(figures.get("operating", {}))]) + "\n"


def operating(measured: dict[str, Any]) -> list[str]:
    if not measured:
        return []
    return [
        "", "## What an operator waits for, and what waits for its time", "",
        "Nothing else to do for PSTP; load average of the two cores, which others used as well: "
        f"{measured['load_average']}.",
        "Cancelled: from sending the command until the handler had ended, by its worker's clock, which is later than",
        "when it was reached. Due: from the end of a backoff until the next attempt ran.", "",
        "| what | p50 s | p95 s | max s | goal |", "|---|---|---|---|---|",
        *(f"| {what} | {f['p50_s']} | {f['p95_s']} | {f['max_s']} | {'1 s' if 'cancelled' in what else '0.2 s'} |"
          for what, f in measured["figures"].items()),
    ]  # fmt: skip


def what(run: dict[str, Any]) -> str:
    long_ago = f", {run['before']:,} long ago" if run.get("before") else ""
    return f"{run['count']:,} {KINDS[run['kind']]}{long_ago}"


def chart(runs: list[dict[str, Any]]) -> str:
    most = max(r["cpu_seconds"] for r in runs)
    rows = []
    for place, r in enumerate(runs):
        y, width = 8 + 26 * place, max(1, round(BAR_PX_MAX * r["cpu_seconds"] / most))
        rows.append(
            f'<text x="392" y="{y + 13}" text-anchor="end">{what(r)}</text>'
            f'<rect x="400" y="{y}" width="{width}" height="18" fill="#3b7dd8"/>'
            f'<text x="{406 + width}" y="{y + 13}">{r["cpu_seconds"]} s</text>'
        )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="780" height="{26 * len(runs) + 12}" font-family="sans-serif" '
        f'font-size="12" fill="#666" role="img" aria-label="CPU seconds to load the table">{"".join(rows)}</svg>\n'
    )


if __name__ == "__main__":
    main(sys.argv[1:])
