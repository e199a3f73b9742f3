"""How the groups of an engine stand, counted afresh by walking over all of them: what the tallies must say."""

from collections import Counter

from streams.engine import Engine
from streams.group import Phase
from streams.partition import Partition
from streams.standing import TICK_MS, Look, look


def recount(engine: Engine) -> Look:
    found = Look(dict.fromkeys(Phase, 0), {}, Counter(), 0, 0, None)
    for partition in engine.partitions.values():
        found = _with_lines(engine, partition, _with_groups(partition, found))
    return found


def difference(engine: Engine) -> str:
    """Empty if the tallies say the same.  They are counted at the end of a step, so only then."""
    if engine._dirty:
        return ""
    told, true = look(engine), recount(engine)
    return "" if told == true else f"the tallies say {told}, in memory is {true}"


def _with_groups(partition: Partition, found: Look) -> Look:
    phases, heads, blocked = dict(found.phases), Counter(found.heads), Counter(found.blocked)
    paused, parked, oldest_ms = found.paused, found.parked, found.oldest_ms
    for entry in partition.entries.values():
        group = entry.group
        phases[group.phase] += 1
        parked += group.parked
        paused += group.pause is not None
        if group.blocked is not None:
            blocked[group.blocked] += 1
        if group.head is not None:
            assert entry.task is not None
            heads[group.phase, entry.task.type] += 1
            oldest_ms = _older(oldest_ms, entry.accepted_ms // TICK_MS * TICK_MS)
    phases[Phase.IDLE] += sum(key not in partition.entries for key in partition.states)
    return Look(phases, dict(heads), blocked, paused, parked, oldest_ms)


def _with_lines(engine: Engine, partition: Partition, found: Look) -> Look:
    """The express lane."""
    lane, phases, parked, oldest_ms = engine.express, dict(found.phases), found.parked, found.oldest_ms
    for key, line in partition.lines.items():
        assert lane is not None
        phases[Phase.RUNNING if line.items[0] in lane.running else Phase.READY] += 1
        parked += len(line.items) - 1
        if key in partition.states and key not in partition.entries:
            phases[Phase.IDLE] -= 1
        for item in line.items:
            oldest_ms = _older(oldest_ms, item.accepted.wall_ms)
    return found._replace(phases=phases, parked=parked, oldest_ms=oldest_ms)


def _older(one_ms: int | None, other_ms: int) -> int:
    return other_ms if one_ms is None else min(one_ms, other_ms)
