"""A model of what a wanted rate needs.  Pure; docs/sizing.md says where its constants come from."""

import math
from typing import Final, NamedTuple

# Tasks per second that one scheduler process does through workers, and one worker process with handlers of 0 ms.
SCHEDULER_RATE: Final = 2_500.0
WORKER_RATE: Final = 11_000.0
# CPU seconds of scheduler and worker together for one task, and from one task's end to the next one's start in a group.
CPU_S: Final = 0.000_2
TURN_MS: Final = 10.0
# Plan for so much of what is possible: the rest is for bursts, and for what is left when one process is lost.
USE: Final = 0.7
PARTITIONS_MIN: Final = 8


class Plan(NamedTuple):
    """`group_rate_max`: tasks per second that one group can do.  `notes`: what limits the plan, in sentences."""

    schedulers: int
    workers: int
    slots: int
    partitions: int
    dispatch_partitions: int
    cores: float
    group_rate_max: float
    notes: tuple[str, ...]


def plan(rate: float, handler_ms: float, groups: int) -> Plan:
    """What `rate` tasks per second need, if each takes `handler_ms` and `groups` groups have work at the same time."""
    group_rate_max = 1000 / (handler_ms + TURN_MS)
    busy = rate * (handler_ms + TURN_MS) / 1000  # slots taken at the same time, by Little's law
    schedulers = math.ceil(rate / (SCHEDULER_RATE * USE))
    workers = max(math.ceil(rate / (WORKER_RATE * USE)), 1)
    slots = max(1, math.ceil(busy / USE / workers))
    notes = []
    if groups * group_rate_max * USE < rate:
        notes.append(
            f"{groups} groups cannot do that: one group does at most {group_rate_max:.0f} tasks/s, since its tasks run "
            f"one after the other; {math.ceil(rate / (group_rate_max * USE))} groups or shorter handlers would"
        )
    if schedulers == 1 or workers == 1:
        notes.append("start a second scheduler and a second worker all the same: then one may fail")
    partitions = max(PARTITIONS_MIN, 2 ** math.ceil(math.log2(4 * schedulers)))
    return Plan(
        schedulers, workers, slots, partitions, max(16, 2 * workers), rate * CPU_S / USE, group_rate_max, tuple(notes)
    )
