"""Which nemesis strikes when: drawn from the seed, before anything runs."""

import random
from collections.abc import Sequence
from typing import NamedTuple


class Strike(NamedTuple):
    at_s: float
    nemesis: str


def draw(seed: int, duration_s: float, nemeses: Sequence[str], gap_s: float) -> list[Strike]:
    """Every nemesis once in random order, and so again, some `gap_s` apart, until the time is over."""
    rng = random.Random(f"plan-{seed}")
    strikes: list[Strike] = []
    at_s = rng.uniform(2, 4)
    while at_s < duration_s:
        for name in rng.sample(list(nemeses), len(nemeses)):
            if at_s >= duration_s:
                break
            strikes.append(Strike(round(at_s, 2), name))
            at_s += rng.uniform(0.5, 1.5) * gap_s
    return strikes
