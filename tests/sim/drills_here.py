"""Worlds whose schedulers run handlers in their own process: drawn freely, and drills (see `drills.py`)."""

import random

from tests.sim.drills import DRILLS, Draw, _commands, _every, _scenario, _task, _troubled
from tests.sim.loop import MS
from tests.sim.scenario import HERE, STEPS_HERE, Behaviour, FaultPlan, HandlerPlan, Scenario, TaskPlan, draw_freely

QUICK = HandlerPlan("a", "auto", True, 5.0), HandlerPlan("b", "auto", True, 5.0)
LOCAL = HandlerPlan("a", "local", True, None), HandlerPlan("b", "local", False, None)
AT_A_COMMIT = ("begin", "produce", "flush", "offsets", "commit", "committed", "turn")


def draw_here(rng: random.Random, seed: int) -> Scenario:
    """A world drawn freely, in which most schedulers run handlers, all or some of them."""
    world = draw_freely(seed)
    locals_ = tuple(name for name in world.schedulers if rng.random() < 0.8) or world.schedulers[:1]
    everywhere = locals_ == world.schedulers
    workers = world.workers if not everywhere or rng.random() < 0.5 else ()
    handlers = tuple(_handler(rng, task_type, everywhere, bool(workers)) for task_type in ("a", "b"))
    kept = {*world.schedulers, *(worker.name for worker in workers)}
    faults = [_moved(rng, f, locals_) for f in world.faults if f.target in kept or f.target not in _NAMES]
    settings = (("local_slots", rng.choice([1, 2, 4, 1_000, 1_000])),)
    return world._replace(
        world=HERE, locals=locals_, handlers=handlers, workers=workers, faults=tuple(sorted(faults)),
        settings=settings, lease_s=min(10.0, world.lease_s), dispatch_partitions=max(1, world.dispatch_partitions),
    )  # fmt: skip


_NAMES = {f"{role}{number}" for role in "sw" for number in range(1, 9)}


def _handler(rng: random.Random, task_type: str, everywhere: bool, workers: bool) -> HandlerPlan:
    places = ["auto"] * 4 + ["local"] * everywhere + ["workers"] * workers
    return HandlerPlan(task_type, rng.choice(places), rng.random() < 0.75, rng.choice([None, 2.0, 5.0, 5.0]))


def _moved(rng: random.Random, fault: FaultPlan, locals_: tuple[str, ...]) -> FaultPlan:
    """To a step that a scheduler with handlers takes."""
    if fault.target in locals_ and fault.where and rng.random() < 0.6:
        return fault._replace(where=rng.choice(STEPS_HERE))
    return fault


def _here(
    seed: int, rng: random.Random, tasks: list[TaskPlan], faults: list[FaultPlan], *, lease_s: float = 4.0,
    workers: int = 0, schedulers: int = 2, partitions: int = 2, slots: int = 1_000,
    handlers: tuple[HandlerPlan, ...] = QUICK, drain_s: float = 4.0,
) -> Scenario:  # fmt: skip
    world = _scenario(
        seed, rng, tasks, faults, lease_s=lease_s, workers=workers, slots=2, schedulers=schedulers,
        partitions=partitions, drain_s=drain_s,
    )  # fmt: skip
    return world._replace(
        locals=world.schedulers, handlers=handlers, settings=(("local_slots", slots),),
        dispatch_partitions=max(1, world.dispatch_partitions),
    )  # fmt: skip


def here_cut_off(rng: random.Random, seed: int) -> Scenario:
    """A scheduler loses the broker for longer than session and lease, and what it runs does not stop when told to."""
    lease_s = rng.choice([4.0, 10.0])
    lease_ms = int(lease_s * 1_000)
    handlers = LOCAL if rng.random() < 0.7 else QUICK
    tasks = [
        _task(rng, rng.randrange(20_000), rng.randrange(4), rng.choice([5, 800, 2 * lease_ms]), stubborn=True)
        for _ in range(16)
    ]
    faults = _every(
        rng, ("cut", "cut", "freeze"), ("s1", "s2"), ("",), duration_ms=(5_500, 2 * lease_ms + 4_000),
        each_ms=lease_ms + 4_000, count=3,
    )  # fmt: skip
    return _here(seed, rng, tasks, faults, lease_s=lease_s, handlers=handlers)


def here_frozen(rng: random.Random, seed: int) -> Scenario:
    """Frozen past its session, or past its lease, somewhere between a cut and a commit, and woken."""
    tasks = [_task(rng, rng.randrange(20_000), rng.randrange(6), rng.choice([0, 20, 300, 2_000])) for _ in range(40)]
    lengths = rng.choice([(3_200, 5_800), (6_200, 9_000), (9_000, 16_000)])
    faults = _every(
        rng, ("freeze",), ("s1", "s2"), (*AT_A_COMMIT, "running", "ended"), duration_ms=lengths, first_ms=500,
        each_ms=5_000, count=4,
    )  # fmt: skip
    return _here(seed, rng, tasks, faults, handlers=rng.choice([QUICK, LOCAL]))


def here_killed(rng: random.Random, seed: int) -> Scenario:
    """Killed between run and commit, again and again."""
    tasks = [
        _task(rng, rng.randrange(20_000), rng.randrange(6), rng.choice([0, 5, 100]), failures=rng.choice([0, 0, 0, 1]))
        for _ in range(60)
    ]
    faults = _every(
        rng, ("kill",), ("s1", "s2"), (*AT_A_COMMIT, "running", "ended"), first_ms=500, each_ms=2_500, count=8
    )
    return _here(seed, rng, tasks, faults, slots=rng.choice([1, 3, 1_000]), schedulers=rng.choice([1, 2]))


def here_deadly(rng: random.Random, seed: int) -> Scenario:
    """Tasks that end their process whenever they run, or a few times."""
    tasks = [_task(rng, rng.randrange(20_000), rng.randrange(6), rng.choice([5, 100])) for _ in range(30)]
    for _ in range(3):
        script = (Behaviour("die", rng.choice([0, 5, 300, 1_200])),) * rng.choice([1, 3, 9])
        plan = TaskPlan(0, rng.randrange(12_000) * MS, f"g{rng.randrange(6)}", "a", script)
        tasks.append(plan._replace(max_attempts=rng.choice([1, 2, 3])))
    faults = _every(rng, ("kill", "freeze", "drain"), ("s1", "s2"), ("", "turn"), duration_ms=(3_000, 9_000), count=2)
    return _here(seed, rng, tasks, faults, schedulers=rng.choice([1, 2, 3]))


def here_revoked(rng: random.Random, seed: int) -> Scenario:
    """Schedulers come and go while handlers run, some of which take long or do not listen."""
    tasks = [
        _task(rng, rng.randrange(24_000), rng.randrange(8), rng.choice([5, 300, 3_000, 7_000]),
              stubborn=rng.random() < 0.15)
        for _ in range(40)
    ]  # fmt: skip
    faults = _every(
        rng, ("drain", "drain", "drain", "kill"), ("s1", "s2", "s3"), ("", "turn", "commit"), first_ms=2_000,
        each_ms=3_000, count=7,
    )  # fmt: skip
    handlers = rng.choice([QUICK, LOCAL])
    return _here(
        seed, rng, tasks, faults, partitions=3, schedulers=3, handlers=handlers, drain_s=rng.choice([1.0, 4.0])
    )


def here_in_doubt(rng: random.Random, seed: int) -> Scenario:
    """Schedulers do not hear what became of their transactions, and others end them."""
    tasks = [
        _task(rng, rng.randrange(16_000), rng.randrange(6), rng.choice([0, 5, 20, 800]), failures=rng.choice([0, 0, 1]))
        for _ in range(40)
    ]
    kinds = ("lose_answer", "lose_answer", "lose_request", "fence", "freeze")
    steps = ("commit", "commit", "offsets", "committed")
    faults = _every(rng, kinds, ("s1", "s2"), steps, duration_ms=(2_000, 12_000), first_ms=500, each_ms=2_000, count=7)
    return _here(seed, rng, tasks, faults, lease_s=10.0)


def here_taken_over_again(rng: random.Random, seed: int) -> Scenario:
    """Whoever takes over from one that is cut off, and may still be running something, goes soon, too."""
    tasks = [
        _task(rng, rng.randrange(16_000), rng.randrange(4), rng.choice([5, 9_000, 9_000]), stubborn=True)
        for _ in range(14)
    ]
    faults: list[FaultPlan] = []
    for i in range(2):
        at_ms = 3_000 + i * 22_000 + rng.randrange(2_000)
        cut, *others = rng.sample(["s1", "s2", "s3"], 3)
        faults.append(FaultPlan(at_ms * MS, "cut", cut, "", 0, rng.randint(14_000, 17_000) * MS))
        for other in others[: rng.choice([1, 2])]:
            gone_ms = at_ms + rng.randint(6_000, 11_000)
            faults.append(FaultPlan(gone_ms * MS, rng.choice(["drain", "drain", "kill"]), other, "", 0, MS))
    return _here(seed, rng, tasks, faults, lease_s=10.0, schedulers=3, partitions=2, handlers=LOCAL)


def here_crowded(rng: random.Random, seed: int) -> Scenario:
    """Bursts of one group, more than fit, few slots; workers help."""
    tasks: list[TaskPlan] = []
    for _ in range(5):
        at_ms, group = rng.randrange(12_000), rng.randrange(3)
        for _ in range(rng.choice([3, 8, 14])):
            how = rng.choice([0, 0, 0, 1]), rng.choice([0, 0, 1, 5, 40, 1_100])
            tasks.append(_task(rng, at_ms + rng.randrange(60), group, how[1], failures=how[0]))
    tasks = [t._replace(type=rng.choice("aaab"), idempotency_key=rng.choice([None] * 6 + ["k1", "k2"])) for t in tasks]
    faults = _every(
        rng, ("kill", "freeze", "drain", "lag"), ("s1", "s2"), ("", "turn", "commit"), duration_ms=(3_000, 9_000),
        count=rng.choice([0, 1, 3]),
    )  # fmt: skip
    return _here(seed, rng, tasks, faults, slots=rng.choice([1, 2, 3, 1_000]), workers=rng.choice([0, 1, 2]))


def here_operated(rng: random.Random, seed: int) -> Scenario:
    """Everything that can be asked for, of tasks in the lane and behind it, half of the time in trouble."""
    groups = rng.choice([1, 2, 4])
    tasks = [_troubled(rng, 16_000, groups, (0, 0, 5, 50, 500, 2_000)) for _ in range(30)]
    kinds, steps = ("kill", "freeze", "cut", "drain", "lose_answer"), ("", "turn", "begin", "commit", "running")
    count = rng.choice([0, 0, 3, 6])
    faults = _every(rng, kinds, ("s1", "s2"), steps, duration_ms=(500, 12_000), each_ms=3_000, count=count)
    world = _here(
        seed, rng, tasks, faults, partitions=rng.choice([1, 2]), slots=rng.choice([1, 3, 1_000]),
        workers=rng.choice([0, 0, 1]), handlers=rng.choice([QUICK, LOCAL]),
    )  # fmt: skip
    if world.workers:
        world = world._replace(handlers=QUICK)
    policy = ("on_failure", rng.choice(["skip", "block", "cascade"]))
    return world._replace(commands=_commands(rng, 40, groups, 24_000), settings=(*world.settings, policy))


def here_limited(rng: random.Random, seed: int) -> Scenario:
    """Breakers and limits on what waits: nothing takes the lane."""
    tasks = [
        _task(rng, rng.randrange(12_000), rng.randrange(4), rng.choice([5, 200]), failures=rng.choice([0, 0, 1, 3]))
        for _ in range(30)
    ]
    faults = _every(rng, ("kill", "drain", "freeze"), ("s1", "s2"), ("", "commit"), duration_ms=(3_000, 9_000), count=2)
    settings = rng.choice([
        (("breaker_rate", 0.5), ("breaker_window", 3), ("breaker_open_s", 2.0)),
        (("group_parked_max", 3), ("when_full", rng.choice(["dead_letter", "pause"]))),
        (("partition_tasks_max", 6), ("when_full", rng.choice(["dead_letter", "pause"]))),
    ])  # fmt: skip
    world = _here(seed, rng, tasks, faults, slots=4)
    return world._replace(settings=(*world.settings, *settings))


DRILLS_HERE: dict[str, Draw] = {drill.__name__: drill for drill in (
    here_cut_off, here_frozen, here_killed, here_deadly, here_revoked, here_in_doubt, here_taken_over_again,
    here_crowded, here_operated, here_limited,
)}  # fmt: skip
ALL: dict[str, Draw] = DRILLS | DRILLS_HERE
