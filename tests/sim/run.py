"""Playing scenarios, and shrinking one that fails."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

from tests.sim import ending, patching
from tests.sim.loop import S, Violation
from tests.sim.scenario import Scenario
from tests.sim.world import World

T = TypeVar("T")
SHRINK_S = 60.0
LINES_MAX = 120


class Result(NamedTuple):
    """`violation` None: the promise held."""

    scenario: Scenario
    steps: int
    violation: Violation | None
    counts: Counter[str]
    trace: list[str]


def play(scenario: Scenario, *, trace: bool = False) -> Result:
    """Play it to its end or to the first violation.  Other exceptions of the code under test are violations too."""
    patching.install()
    world = World(scenario, trace=trace)
    violation = None
    try:
        world.play()
    except Violation as found:
        violation = found
    except Exception as error:
        violation = Violation("errors", repr(error))
        violation.__cause__ = error
    finally:
        world.bury()
    return Result(scenario, world.loop.steps, violation, Counter(world.truth.counts), world.trace)


def verdict(scenario: Scenario) -> list[str]:
    """What `pstp verify` finds in the whole history of a world in which nobody else judges."""
    patching.install()
    world = World(scenario, is_blind=True)
    try:
        world.play()
    except (Violation, Exception):
        return []  # the code under test has stopped by itself
    finally:
        world.bury()
    return sorted({f"{found.guarantee} {found.kind}" for found in ending.verify(world)})


# -- shrinking


def shrink(result: Result, budget_s: float = SHRINK_S) -> Result:
    """The smallest scenario found in that time that breaks the same guarantee, played with its trace."""
    assert result.violation is not None
    wanted, until_s = result.violation.guarantee, time.monotonic() + budget_s
    best = result.scenario

    def fails(scenario: Scenario) -> bool:
        if time.monotonic() > until_s:
            return False
        violation = play(scenario).violation
        return violation is not None and violation.guarantee == wanted

    for field in ("commands", "faults", "tasks", "workers", "schedulers", "commands", "faults", "tasks"):
        kept = _drop(getattr(best, field), lambda rest, f=field: fails(best._replace(**{f: rest})))  # type: ignore[misc]
        best = best._replace(**{field: kept})
    return play(best, trace=True)


def _drop(items: Sequence[T], fails: Callable[[tuple[T, ...]], bool]) -> tuple[T, ...]:
    """Leave out ever smaller parts while it still fails."""
    kept = tuple(items)
    size = max(1, len(kept) // 2)
    while kept:
        at = 0
        while at < len(kept):
            rest = kept[:at] + kept[at + size :]
            if fails(rest):
                kept = rest
            else:
                at += size
        if size == 1:
            break
        size //= 2
    return kept


def describe(result: Result) -> str:
    """A failure for people: the scenario, what happened, and what is wrong about it."""
    scenario, violation = result.scenario, result.violation
    lines = [
        f"world {scenario.world}, seed {scenario.seed}, {scenario.partitions} partitions, {scenario.dispatch_partitions} of dispatches, "
        f"lease {scenario.lease_s} s, schedulers {', '.join(scenario.schedulers)}",
        *(f"  {worker}" for worker in scenario.workers),
        *(f"  at {fault.at_us / S:.3f} s {fault}" for fault in scenario.faults),
        *(f"  {task}" for task in scenario.tasks),
        *(f"  {command}" for command in scenario.commands),
        *_relevant(result.trace, violation),
        f"{violation}",
    ]
    return "\n".join(lines)


def _relevant(trace: list[str], violation: Violation | None) -> list[str]:
    group = violation.group if violation is not None else None
    kept = [line for line in trace if group is None or _concerns(line, group)]
    renewed = [" says renewed " in line for line in kept]
    kept = [line for i, line in enumerate(kept) if not (renewed[i] and i and renewed[i - 1])]
    left_out = [f"  … {len(kept) - LINES_MAX} lines before …"] if len(kept) > LINES_MAX else []
    return [*left_out, *kept[-LINES_MAX:]]


def _concerns(line: str, group: str) -> bool:
    words: list[Any] = line.split()
    about_groups = any(word[:1] == "g" and word[1:].isdigit() for word in words)
    return group in words or not about_groups
