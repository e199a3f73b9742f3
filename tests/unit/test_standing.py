"""Counts kept as groups move equal a recount, and take no more room than what there is to count.

`tests/unit/world.py`, `test_express.py` and the simulator compare them after every step of the real engine.
"""

import random
from collections import Counter

from streams.group import Group, Head, Phase
from streams.intake import AcceptedTask, read_task
from streams.partition import Entry
from streams.protocol import Reason, TaskState
from streams.standing import TICK_MS, Tally
from streams.totals import ENDS, ENDS_MAX, TYPE_CHARS_MAX, Totals, add_ends, read_end


def task() -> AcceptedTask:
    found = read_task(b"g", b'{"type":"t"}', [], partition=0, offset=0, bytes_max=1000)
    assert isinstance(found, AcceptedTask)
    return found


def stand(entry: Entry, phase: Phase, accepted_ms: int) -> None:
    entry.task, entry.accepted_ms = task(), accepted_ms
    entry.group = Group(Head(sequence=1, phase=phase)) if phase is not Phase.IDLE else Group(blocked=Reason.FAILED)


def test_any_moves_leave_what_a_recount_finds() -> None:
    for seed in range(20):
        chance = random.Random(seed)
        tally, there = Tally(), [Entry(b"%d" % n) for n in range(30)]
        for moment in range(2_000):
            entry = chance.choice(there)
            if chance.random() < 0.3:
                tally.forget(entry)
                entry.group = Group()
            else:
                accepted_ms = moment * 37 if chance.random() < 0.9 else entry.accepted_ms
                stand(entry, chance.choice(list(Phase)), accepted_ms)
                tally.note(entry, chance.random() < 0.5, str)
            counted = [e for e in there if e.standing is not None]
            assert tally.groups == Counter(e.standing for e in counted)
            ticks = [e.accepted_ms // TICK_MS for e in counted if e.group.head is not None]
            assert tally.oldest_ms() == (min(ticks) * TICK_MS if ticks else None)


def test_a_head_that_stays_for_days_does_not_keep_what_came_after_it() -> None:
    tally, old, busy = Tally(), Entry(b"old"), Entry(b"busy")
    stand(old, Phase.WAITING, 0)
    tally.note(old, False, str)
    for moment in range(20_000):
        stand(busy, Phase.RUNNING, moment * TICK_MS)
        tally.note(busy, False, str)
        tally.forget(busy)
    assert tally.oldest_ms() == 0
    assert len(tally._heap) == len(tally._heads) < 2_000


def test_types_that_somebody_makes_up_take_only_so_much_of_a_partitions_row() -> None:
    totals: Totals = {}
    for number in range(3 * ENDS_MAX):
        add_ends(totals, TaskState.SUCCEEDED, f"type {number}", 1)
        add_ends(totals, TaskState.CANCELLED, "x" * (TYPE_CHARS_MAX + 1), 2)
    assert len(totals[ENDS]) <= ENDS_MAX + len(TaskState)
    assert sum(totals[ENDS].values()) == 9 * ENDS_MAX
    ends = {read_end(label): count for label, count in totals[ENDS].items()}
    assert ends["succeeded", "type 7"] == 1 and ends["cancelled", "(other)"] == 6 * ENDS_MAX
