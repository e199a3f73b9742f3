"""Rounds: every side does the same work, one after the other, so many times; medians and ratios of that one run."""

import statistics
from collections.abc import Callable, Sequence
from typing import Any

from pstp.bench.bed import Bed
from pstp.bench.machine import describe
from pstp.bench.sides import SIDES, Result, Side, bare_loop
from pstp.bench.work import WORKS, Work
from streams.errors import UserError

Say = Callable[[str], None]
BASES = ("pc-produce", "pc-commit", "bare")  # what others are compared with


def throughput(sides: Sequence[str], works: Sequence[str], repeat: int, scale: float, say: Say) -> dict[str, Any]:
    """Run it.  `scale`: part of the tasks of each work, for a quick look.  Raises `UserError` on unknown names."""
    for name in [*sides, *works]:
        if name not in SIDES and name not in WORKS:
            raise UserError(f"{name} is neither a side ({', '.join(SIDES)}) nor a work ({', '.join(WORKS)})")
    machine = describe()
    found: dict[str, dict[str, list[Result]]] = {work: {} for work in works}
    failed: dict[str, str] = {}
    with Bed() as bed:
        for turn in range(repeat):
            for work_name in works:
                order = list(sides)[turn % len(sides) :] + list(sides)[: turn % len(sides)]  # nobody is always first
                for side in (SIDES[name] for name in order if not SIDES[name].works or work_name in SIDES[name].works):
                    work = share(WORKS[work_name], side, scale)
                    try:
                        result = side.run(bed, work)
                    except UserError as error:
                        failed[f"{side.name} {work_name}"] = str(error)[-600:]
                        say(f"{work_name}: {side.title}: no result: {str(error)[-200:]}")
                        continue
                    found[work_name].setdefault(side.name, []).append(result)
                    say(f"{work_name}: {side.title}: {result.rate:,.0f} tasks/s ({turn + 1} of {repeat})")
    cells = {work: {side: cell(results) for side, results in by.items()} for work, by in found.items()}
    for by in cells.values():
        add_ratios(by)
    return {
        "kind": "throughput",
        "machine": machine,
        "repeat": repeat,
        "scale": scale,
        "cells": cells,
        "failed": failed,
    }


def share(work: Work, side: Side, scale: float) -> Work:
    """The work as that side gets it: slow sides do fewer of its tasks."""
    return work._replace(tasks=max(1, min(int(work.tasks * scale), side.tasks_max)))


def cell(results: Sequence[Result]) -> dict[str, Any]:
    """Medians of one side's results for one work; the rates themselves are kept."""
    per_100k = 100_000 / results[0].tasks
    return {
        "tasks": results[0].tasks,
        "rate": round(statistics.median(r.rate for r in results)),
        "rates": [round(r.rate) for r in results],
        "order_violations": sum(r.order_violations for r in results),
        "cpu_s_per_100k": round(statistics.median(r.cpu_s for r in results) * per_100k, 2),
        "broker_cpu_s_per_100k": round(statistics.median(r.broker_cpu_s for r in results) * per_100k, 2),
        "more": dict(results[-1].more),
    }


def add_ratios(by: dict[str, dict[str, Any]]) -> None:
    """Each side's rate as a multiple of the bases' in the same run."""
    for side in by.values():
        side["ratio_to"] = {b: round(side["rate"] / by[b]["rate"], 2) for b in BASES if b in by and by[b]["rate"]}


def same_records(repeat: int, scale: float, side_name: str, say: Say) -> dict[str, Any]:
    """PSTP against the bare loop writing as many records and bytes per task: rate, and CPU seconds per 100k tasks."""
    machine = describe()
    side, results, bare = SIDES[side_name], [], []
    work = share(WORKS["0ms"], side, scale)
    with Bed() as bed:
        for _ in range(repeat):
            results.append(side.run(bed, work))
            written = results[-1].more["written"]
            per_task = written["records"] / work.tasks, written["value_bytes"] / work.tasks
            bare.append(bare_loop(bed, work, *per_task))
            say(
                f"{side.title} {results[-1].rate:,.0f} tasks/s, bare loop {bare[-1].rate:,.0f} "
                f"({per_task[0]:.1f} records and {per_task[1]:,.0f} bytes a task)"
            )
    cells = {side_name: cell(results), "bare": cell(bare)}
    add_ratios(cells)
    ratio = cells[side_name]["cpu_s_per_100k"] / max(0.01, cells["bare"]["cpu_s_per_100k"])
    return {
        "kind": "same-records", "machine": machine, "repeat": repeat, "scale": scale, "cells": {"0ms": cells},
        "records_per_task": round(per_task[0], 2), "bytes_per_task": round(per_task[1]), "cpu_ratio": round(ratio, 2),
    }  # fmt: skip
