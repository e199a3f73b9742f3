"""What happens in one world, drawn from its seed before it begins, so that parts of it can be left out."""

import random
from typing import Any, NamedTuple

from tests.sim.loop import MS, S

TYPES = ("a", "b")
FREE, HERE = "free", "here"


class Behaviour(NamedTuple):
    """One execution of a handler.  `state`: what it sets the group state to; 0 clears it, None leaves it alone."""

    kind: str  # ok, fail, retry, snooze, reject, die, hang
    ms: int
    state: int | None = None
    after_s: float = 0.0
    stubborn: bool = False
    progress: bool = False


class TaskPlan(NamedTuple):
    """One record that somebody publishes to `tasks`.  After its behaviours are used up, executions succeed at once."""

    number: int
    at_us: int
    group: str
    type: str
    behaviours: tuple[Behaviour, ...]
    elsewhere: int | None = None  # published to this partition rather than to its home
    rubbish: bool = False
    not_before_ms: int | None = None  # from its publication
    max_attempts: int | None = None
    timeout_s: float | None = None
    stranger: str = ""  # published in a stranger's transaction that is later committed or aborted
    stranger_ms: int = 0
    on_failure: str | None = None
    idempotency_key: str | None = None


class CommandPlan(NamedTuple):
    """Somebody asks something of a group.  `which`: of the tasks or dead letters there are at that moment, counted
    round.  `expects`: it names the head that it means.  `again_us`: sent once more after so long, under the same id.
    """

    number: int
    at_us: int
    kind: str
    group: str
    which: int = 0
    expects: bool = False
    position: str = "head"
    running: bool = False
    pause_ms: int | None = None
    again_us: int | None = None
    elsewhere: int | None = None


class FaultPlan(NamedTuple):
    """`where` and `countdown`: at which step of the target, for those kinds that wait for one."""

    at_us: int
    kind: str
    target: str
    where: str
    countdown: int
    duration_us: int


class WorkerPlan(NamedTuple):
    name: str
    slots: int
    types: tuple[str, ...]


class HandlerPlan(NamedTuple):
    """`in_loop`: an `async def` one."""

    type: str
    placement: str
    in_loop: bool
    timeout_s: float | None


class Scenario(NamedTuple):
    """`world`: a drill's name, `free` or `here`.  `locals`: which schedulers run handlers, that are declared then."""

    world: str
    seed: int
    partitions: int
    dispatch_partitions: int
    lease_s: float
    drain_s: float
    schedulers: tuple[str, ...]
    workers: tuple[WorkerPlan, ...]
    tasks: tuple[TaskPlan, ...]
    faults: tuple[FaultPlan, ...]
    commands: tuple[CommandPlan, ...] = ()
    settings: tuple[tuple[str, Any], ...] = ()
    locals: tuple[str, ...] = ()
    handlers: tuple[HandlerPlan, ...] = ()

    @property
    def heal_us(self) -> int:
        """When the last fault is over."""
        return max((f.at_us + f.duration_us for f in self.faults), default=0) + 2 * S


# Steps at which a process is hit more often than by chance.
STEPS = {
    "s": ("begin", "produce", "flush", "offsets", "commit", "committed", "list offsets", "list topics", "init_transactions"),
    "w": ("claim", "commit claim", "claimed", "committed", "started", "running", "ended", "watermarks",
          "send started", "send renewed", "sent renewed", "send succeeded", "send failed", "send returned"),
}  # fmt: skip
# The same of a scheduler that runs handlers.
STEPS_HERE = (*STEPS["s"], "turn", "turn", "running", "ended", "commit", "committed")
# kind -> (weight, whom it hits, which lengths)
FAULTS: dict[str, tuple[int, str, str]] = {
    "kill": (9, "any", ""),
    "freeze": (9, "any", "any"),
    "drain": (5, "any", ""),
    "cut": (5, "any", "any"),
    "lose_answer": (5, "any", ""),
    "lose_request": (4, "any", ""),
    "lag": (4, "scheduler", "long"),
    "slow_lookups": (1, "scheduler", "long"),
    "wall_jump": (3, "any", ""),
    "fence": (2, "scheduler", ""),
    "replace": (2, "any", "long"),
    "outage": (1, "broker", "any"),
    "reset_offsets": (1, "schedulers", ""),
    "reset_claims": (1, "workers", ""),
}
# Lengths in ms around those that mean something: a few seconds until a member counts as silent, 6 s until its session
# is over, 8 and 10 s until a lease is; 10 to 20 s until a transaction is.
LENGTHS = {
    "": ((0, 1),),
    "any": ((100, 2_500), (3_000, 5_500), (6_000, 8_500), (9_000, 16_000)),
    "long": ((9_000, 20_000),),
}


def draw(seed: int, world: str | None = None) -> Scenario:
    """The scenario of this seed in that world.  None: every second seed is a drill, the others are drawn freely, half of
    them with schedulers that run handlers.
    """
    from tests.sim.drills_here import ALL, draw_here

    if world is None:
        world = list(ALL)[seed // 2 % len(ALL)] if seed % 2 else (HERE if seed % 4 else FREE)
    if world == FREE:
        return with_runs(draw_freely(seed))
    if world == HERE:
        return with_runs(draw_here(random.Random(f"here {seed}"), seed))
    return with_runs(ALL[world](random.Random(f"drill {world} {seed}"), seed)._replace(world=world))


def with_runs(scenario: Scenario) -> Scenario:
    """In most worlds several tasks go out in one dispatch, also where handlers are slower than would be worth it."""
    if "run_ms" in dict(scenario.settings):
        return scenario
    run_ms = random.Random(f"runs {scenario.seed}").choice([0, 50, 2_000, 10_000, 10_000])
    return scenario._replace(settings=(("run_ms", run_ms), *scenario.settings))


def draw_freely(seed: int) -> Scenario:
    """About half a minute of tasks and faults.

    There are at least as many dispatch partitions as workers, as the settings demand.
    """
    rng = random.Random(f"scenario {seed}")
    schedulers = tuple(f"s{i + 1}" for i in range(rng.choice([1, 2, 2, 2, 3])))
    workers = tuple(_worker(rng, i) for i in range(rng.choice([1, 2, 2, 3, 3])))
    partitions = rng.choice([1, 2, 3, 4])
    until_us = rng.choice([12, 20, 30]) * S
    groups = [f"g{i}" for i in range(rng.choice([2, 4, 6, 10]))]
    slow = rng.random() < 0.25  # handlers take seconds, and many do not listen
    count = 15 if slow else rng.choice([15, 40, 80])
    tasks = sorted((_task(rng, groups, partitions, until_us, slow) for _ in range(count)), key=lambda t: t.at_us)
    names = [*schedulers, *(w.name for w in workers)]
    faults = _faults(rng, names, until_us) if rng.random() < 0.95 else ()
    return Scenario(
        FREE, seed, partitions, len(workers) + rng.choice([0, 0, 1, 2]), rng.choice([10.0] * 6 + [4.0, 20.0]),
        rng.choice([1.0, 4.0, 10.0]), schedulers, workers, tuple(t._replace(number=n) for n, t in enumerate(tasks)), faults,
    )  # fmt: skip


def _worker(rng: random.Random, i: int) -> WorkerPlan:
    types = TYPES if i == 0 or rng.random() < 0.7 else (rng.choice(TYPES),)
    return WorkerPlan(f"w{i + 1}", rng.choice([1, 1, 2, 4]), types)


def _task(rng: random.Random, groups: list[str], partitions: int, until_us: int, slow: bool) -> TaskPlan:
    plan = TaskPlan(
        0, rng.randrange(until_us), rng.choice(groups[: rng.choice([1, 2, len(groups)])]),
        TYPES[0] if rng.random() < 0.8 else TYPES[1], _behaviours(rng, slow),
    )  # fmt: skip
    roll = rng.random()
    if roll < 0.12:
        plan = plan._replace(elsewhere=rng.randrange(partitions))
    elif roll < 0.15:
        plan = plan._replace(rubbish=True)
    elif roll < 0.20:
        plan = plan._replace(not_before_ms=rng.choice([-5_000, 100, 4_000]))
    elif roll < 0.26:
        plan = plan._replace(max_attempts=rng.choice([1, 2]))
    elif roll < 0.30:
        outcome = rng.choice(["commit", "abort"])
        plan = plan._replace(stranger=outcome, stranger_ms=rng.choice([1, 50, 3_000]))
    if any(b.kind == "hang" for b in plan.behaviours) or rng.random() < 0.05:
        plan = plan._replace(timeout_s=rng.choice([0.5, 2.0]))
    return plan


def _behaviours(rng: random.Random, slow: bool) -> tuple[Behaviour, ...]:
    """Mostly one quick success; else some failures first."""
    kinds = ["fail", "retry", "snooze", "hang", "die", "fail", "snooze"]
    script = [_behaviour(rng, rng.choice(kinds), slow) for _ in range(rng.choice([0] * 12 + [1, 1, 1, 2, 3]))]
    return (*script, _behaviour(rng, "reject" if rng.random() < 0.04 else "ok", slow))


def _behaviour(rng: random.Random, kind: str, slow: bool) -> Behaviour:
    ms = rng.choice([500, 4_000, 9_000, 14_000] if slow else [0, 1, 5, 20, 20, 100, 100, 500, 2_000, 50, 50, 6_000])
    state = None if rng.random() < 0.4 else (0 if rng.random() < 0.1 else rng.randrange(1, 1_000_000))
    return Behaviour(
        kind, ms, state, rng.choice([0.05, 0.3, 1.0]), stubborn=rng.random() < (0.5 if slow else 0.1),
        progress=rng.random() < 0.05,
    )  # fmt: skip


def _faults(rng: random.Random, names: list[str], until_us: int) -> tuple[FaultPlan, ...]:
    """Some worlds see many kinds of faults, some only one or two again and again, some see calm ones."""
    kinds = list(FAULTS)
    if rng.random() < 0.5:
        kinds = rng.sample(kinds, rng.choice([1, 2, 3]))
    weights = [FAULTS[k][0] for k in kinds]
    count = rng.choice([2, 5, 10, 16])
    plans = [_fault(rng, k, names, until_us) for k in rng.choices(kinds, weights, k=count)]
    return tuple(sorted(plans))


def _fault(rng: random.Random, kind: str, names: list[str], until_us: int) -> FaultPlan:
    _, whom, lengths = FAULTS[kind]
    targets = [n for n in names if whom != "scheduler" or n.startswith("s")] if whom in ("any", "scheduler") else [whom]
    duration_ms = rng.randint(*rng.choice(LENGTHS[lengths]))
    target = rng.choice(targets)
    where = rng.choice(STEPS[target[0]]) if target in names and rng.random() < 0.6 else ""
    countdown = rng.choice([0, 0, 0, 1, 2, 4]) if where else rng.choice([0, 1, 2, 3, 4, 5, 6, 8, 10, 13, 17, 25])
    return FaultPlan(rng.randrange(until_us), kind, target, where, countdown, duration_ms * MS)
