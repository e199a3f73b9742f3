"""Worlds built around one kind of trouble, which chance alone would bring about too seldom.

Each is a scenario like any other: few tasks, long handlers, and the same fault again and again at the step where it
hurts.  What is left to chance is when, whom and for how long.
"""

import random
from collections.abc import Callable

from streams import limits
from tests.sim.loop import MS, S
from tests.sim.scenario import TYPES, Behaviour, CommandPlan, FaultPlan, Scenario, TaskPlan, WorkerPlan

Draw = Callable[[random.Random, int], Scenario]


def _scenario(
    seed: int, rng: random.Random, tasks: list[TaskPlan], faults: list[FaultPlan], *, lease_s: float,
    workers: int = 2, slots: int = 2, schedulers: int = 2, partitions: int = 1, drain_s: float = 4.0,
) -> Scenario:  # fmt: skip
    tasks.sort(key=lambda task: task.at_us)
    return Scenario(
        "", seed, partitions, workers + rng.choice([0, 1]), lease_s, drain_s,
        tuple(f"s{i + 1}" for i in range(schedulers)), tuple(WorkerPlan(f"w{i + 1}", slots, TYPES) for i in range(workers)),
        tuple(task._replace(number=n) for n, task in enumerate(tasks)), tuple(sorted(faults)),
    )  # fmt: skip


def _task(
    rng: random.Random, at_ms: int, group: int, ms: int, *, stubborn: bool = False, failures: int = 0
) -> TaskPlan:
    """Its handler takes `ms` each time, and fails so often first."""
    state = rng.choice([None, rng.randrange(1, 1_000_000)])
    script = [Behaviour("fail", ms, state, stubborn=stubborn)] * failures
    return TaskPlan(0, at_ms * MS, f"g{group}", "a", (*script, Behaviour("ok", ms, state, stubborn=stubborn)))


def _every(
    rng: random.Random, kinds: tuple[str, ...], targets: tuple[str, ...], steps: tuple[str, ...], *,
    duration_ms: tuple[int, int] = (0, 1), first_ms: int = 2_000, each_ms: int = 6_000, count: int = 4,
) -> list[FaultPlan]:  # fmt: skip
    """`count` faults, about so far apart."""
    return [
        FaultPlan(
            (first_ms + i * each_ms + rng.randrange(each_ms)) * MS, rng.choice(kinds), rng.choice(targets),
            rng.choice(steps), rng.choice([0, 0, 1, 2]) if steps != ("",) else 0, rng.randint(*duration_ms) * MS,
        )
        for i in range(count)
    ]  # fmt: skip


def cut_off_with_a_stubborn_handler(rng: random.Random, seed: int) -> Scenario:
    """A worker loses the broker for longer than its lease, and its handlers do not stop when they are told to."""
    lease_s = rng.choice([4.0, 10.0])
    lease_ms = int(lease_s * S) // MS
    tasks = [
        _task(rng, rng.randrange(8_000), rng.randrange(3), rng.choice([2, 3]) * lease_ms, stubborn=True)
        for _ in range(4)
    ]
    faults = _every(
        rng,
        ("cut",),
        ("w1", "w2"),
        ("",),
        duration_ms=(lease_ms + 1_000, 2 * lease_ms + 2_000),
        each_ms=lease_ms,
        count=3,
    )
    return _scenario(seed, rng, tasks, faults, lease_s=lease_s)


def frozen_with_a_renewal_on_its_way(rng: random.Random, seed: int) -> Scenario:
    """Frozen for a little less than a lease just after a renewal was sent; its acknowledgement comes on waking up."""
    lease_s = rng.choice([4.0, 10.0])
    lease_ms = int(lease_s * S) // MS
    tasks = [_task(rng, rng.randrange(4_000), rng.randrange(4), rng.choice([2, 3]) * lease_ms) for _ in range(5)]
    faults = _every(
        rng, ("freeze", "freeze", "cut"), ("w1", "w2"), ("send renewed", "sent renewed"), duration_ms=(lease_ms // 2, lease_ms + 2_500),
        first_ms=1_000, each_ms=2 * lease_ms, count=3,
    )  # fmt: skip
    return _scenario(seed, rng, tasks, faults, lease_s=lease_s)


def frozen_for_just_a_lease(rng: random.Random, seed: int) -> Scenario:
    """Frozen after it was decided to renew and before that has left, until the lease is out: not much longer, so that
    what is acknowledged then speaks of a time from which a lease would still last.
    """
    silence_ms = 4_000 + int(limits.GRACE_S * 1_000)
    tasks = [_task(rng, rng.randrange(2_000), group, 5 * silence_ms) for group in range(3)]
    length_ms = silence_ms - int(limits.RENEWAL_S * 1_000), silence_ms + 50
    faults = _every(
        rng, ("freeze",), ("w1", "w2"), ("send renewed",), duration_ms=length_ms, first_ms=2_000, each_ms=7_000, count=3
    )
    return _scenario(seed, rng, tasks, faults, lease_s=4.0, slots=3)


def frozen_and_then_cut_off(rng: random.Random, seed: int) -> Scenario:
    """A renewal has arrived, its acknowledgement comes after a freeze, and then the network is gone."""
    lease_s = rng.choice([4.0, 10.0])
    lease_ms = int(lease_s * S) // MS
    tasks = [
        _task(rng, 4_000 + rng.randrange(50), group, 3 * lease_ms, stubborn=rng.random() < 0.5) for group in range(4)
    ]
    freeze_ms = rng.randint(lease_ms // 2, lease_ms)
    woken_ms = 4_000 + int(limits.RENEWAL_S * 1_000) + 50 + freeze_ms
    faults = [
        FaultPlan(3_000 * MS, "freeze", "w1", "sent renewed", rng.choice([0, 0, 1]), freeze_ms * MS),
        FaultPlan((woken_ms + rng.randrange(600)) * MS, "cut", "w1", "", 0, 2 * lease_ms * MS),
    ]
    return _scenario(seed, rng, tasks, faults, lease_s=lease_s)


def frozen_between_claim_and_start(rng: random.Random, seed: int) -> Scenario:
    """Frozen past its session or its lease somewhere between a claim's commit and the handler's first line."""
    lease_s = rng.choice([4.0, 4.0, 10.0])
    lease_ms = int(lease_s * S) // MS
    tasks = [_task(rng, rng.randrange(16_000), rng.randrange(4), rng.choice([20, 1_000])) for _ in range(20)]
    faults = _every(
        rng, ("freeze",), ("w1", "w2"), ("claim", "commit claim", "claimed", "send started", "started", "started"),
        duration_ms=rng.choice([(6_000, 9_000), (lease_ms + 1_000, 2 * lease_ms + 1_000)]), first_ms=500, each_ms=3_000,
    )  # fmt: skip
    return _scenario(seed, rng, tasks, faults, lease_s=lease_s, partitions=rng.choice([1, 2]))


def claims_in_doubt(rng: random.Random, seed: int) -> Scenario:
    """Answers to claims get lost, and workers with them."""
    tasks = [_task(rng, rng.randrange(12_000), rng.randrange(6), rng.choice([5, 20, 500])) for _ in range(30)]
    kinds = ("lose_answer", "lose_request", "lose_answer", "kill", "freeze")
    steps = ("commit claim", "commit claim", "claimed", "committed")
    faults = _every(rng, kinds, ("w1", "w2"), steps, duration_ms=(3_000, 9_000), first_ms=500, each_ms=1_500, count=8)
    return _scenario(seed, rng, tasks, faults, lease_s=rng.choice([4.0, 10.0]), slots=rng.choice([1, 3]))


def a_deaf_scheduler(rng: random.Random, seed: int) -> Scenario:
    """The workers are well; a scheduler hears nothing of them for longer than a lease, then everything at once."""
    tasks = [_task(rng, rng.randrange(4_000), rng.randrange(6), rng.choice([6_000, 9_000, 12_000])) for _ in range(10)]
    faults = _every(
        rng, ("lag",), ("s1",), ("completions",), duration_ms=(8_000, 14_000), first_ms=1_000, each_ms=9_000, count=2
    )
    faults += _every(rng, ("slow_lookups",), ("s1",), ("",), duration_ms=(9_000, 18_000), first_ms=500, count=1)
    return _scenario(seed, rng, tasks, faults, lease_s=4.0, schedulers=1)


def looks_that_overlap(rng: random.Random, seed: int) -> Scenario:
    """One worker dies and one is cut off for almost a lease; the scheduler looks things up slowly and reads late."""
    tasks = [_task(rng, rng.randrange(1_500), group, 25_000) for group in range(6)]
    at_ms = rng.randint(5_000, 9_000)
    faults = [
        FaultPlan(at_ms * MS, "kill", "w1", "", 0, MS),
        FaultPlan((at_ms + 1_000) * MS, "slow_lookups", "s1", "", 0, 9 * S),
        FaultPlan((at_ms + 2_500) * MS, "lag", "s1", "completions", 0, 8 * S),
    ]
    silence_ms = 4_000 + int(limits.GRACE_S * 1_000)
    for worker in ("w2", "w3"):  # heard again after the first lease was looked after, and before its own is out
        cut_ms = rng.randrange(500, 1_500)
        healed_ms = rng.randint(silence_ms, silence_ms + cut_ms - 300)
        faults.append(FaultPlan((at_ms + cut_ms) * MS, "cut", worker, "", 0, (healed_ms - cut_ms) * MS))
    return _scenario(seed, rng, tasks, faults, lease_s=4.0, workers=3, schedulers=1)


def commits_in_doubt(rng: random.Random, seed: int) -> Scenario:
    """Schedulers do not hear what became of their transactions, or die while they commit."""
    tasks = [_task(rng, rng.randrange(14_000), rng.randrange(6), rng.choice([5, 20, 500])) for _ in range(30)]
    kinds = ("lose_answer", "lose_answer", "lose_request", "kill", "freeze")
    faults = _every(
        rng, kinds, ("s1", "s2"), ("commit", "commit", "offsets", "produce", "committed"), duration_ms=(2_000, 15_000),
        first_ms=500, each_ms=2_000, count=7,
    )  # fmt: skip
    return _scenario(seed, rng, tasks, faults, lease_s=10.0, partitions=2)


def looks_at_what_was_dispatched_anew(rng: random.Random, seed: int) -> Scenario:
    """The only worker is frozen before it claims, for a lease and no more, and again before a later claim: what was
    looked up about the first dispatch comes when the second is out, and that one waits for longer than a lease.
    """
    tasks, faults = [], [FaultPlan(1_900 * MS, "slow_lookups", "s1", "", 0, 90 * S)]
    for at_ms in (1_900, 26_000, 50_000):
        tasks += [_task(rng, at_ms + 100 + rng.randrange(200), rng.randrange(3), 5) for _ in range(9)]
        long_ms = rng.randint(8_500, 13_000)
        faults.append(FaultPlan(at_ms * MS, "freeze", "w1", "claim", 0, rng.randint(5_200, 5_900) * MS))
        faults.append(FaultPlan(at_ms * MS, "freeze", "w1", "claim", rng.choice([1, 2, 3]), long_ms * MS))
    return _scenario(seed, rng, tasks, faults, lease_s=4.0, slots=3, workers=1, schedulers=1)


def memory_that_was_kept(rng: random.Random, seed: int) -> Scenario:
    """A scheduler releases its partitions and is frozen before it knows what it may keep of them; others go on."""
    tasks = [
        _task(rng, rng.randrange(24_000), rng.randrange(6), rng.choice([5, 300]), failures=rng.choice([0, 0, 1]))
        for _ in range(40)
    ]
    faults: list[FaultPlan] = []
    for i in range(3):
        at_ms = 4_000 + i * 12_000 + rng.randrange(2_000)
        one, other = rng.sample(["s1", "s2"], 2)
        faults.append(
            FaultPlan(at_ms * MS, "freeze", one, "list offsets", rng.choice([0, 0, 1]), rng.randint(6_500, 9_500) * MS)
        )
        faults.append(FaultPlan((at_ms + 300) * MS, rng.choice(["kill", "drain"]), other, "", 0, MS))
    return _scenario(seed, rng, tasks, faults, lease_s=10.0, partitions=2)


def schedulers_come_and_go(rng: random.Random, seed: int) -> Scenario:
    """Released partitions come back, some of them after others had them; zombies among their owners."""
    tasks = [
        _task(rng, rng.randrange(24_000), rng.randrange(8), rng.choice([5, 100]), failures=rng.choice([0, 0, 1]))
        for _ in range(50)
    ]
    faults = _every(
        rng, ("drain", "drain", "freeze", "kill", "fence"), ("s1", "s2", "s3"), ("", "begin", "produce", "commit"),
        duration_ms=(6_500, 14_000), first_ms=2_000, each_ms=2_500, count=9,
    )  # fmt: skip
    return _scenario(seed, rng, tasks, faults, lease_s=10.0, partitions=3, schedulers=3)


def workers_leave(rng: random.Random, seed: int) -> Scenario:
    """SIGTERM at each step of a claim, with handlers that take longer than a drain, and a broker that is slow to answer."""
    tasks = [_task(rng, rng.randrange(16_000), rng.randrange(5), rng.choice([50, 1_500, 3_000])) for _ in range(24)]
    steps = ("claim", "commit claim", "claimed", "send started", "started", "running", "ended", "send succeeded")
    faults = _every(rng, ("drain",), ("w1", "w2"), steps, first_ms=500, each_ms=2_000, count=8)
    return _scenario(seed, rng, tasks, faults, lease_s=10.0, slots=rng.choice([1, 3]), drain_s=rng.choice([1.0, 4.0]))


def no_time_to_recover(rng: random.Random, seed: int) -> Scenario:
    """Whoever takes over is killed while it does: before and after each step of a load."""
    tasks = [
        _task(rng, rng.randrange(20_000), rng.randrange(6), rng.choice([5, 800]), failures=rng.choice([0, 0, 2]))
        for _ in range(30)
    ]
    steps = ("init_transactions", "list offsets", "committed", "begin", "produce", "commit")
    faults = _every(
        rng,
        ("kill", "kill", "freeze"),
        ("s1", "s2"),
        steps,
        duration_ms=(3_000, 9_000),
        first_ms=500,
        each_ms=2_000,
        count=9,
    )
    return _scenario(seed, rng, tasks, faults, lease_s=rng.choice([4.0, 10.0]), partitions=2)


# -- operators, failure policies, limits

COMMANDS = (
    "pause_group", "pause_group", "resume_group", "resume_group", "cancel_task", "cancel_task", "cancel_group",
    "skip_head", "skip_head", "edit_head", "retry_now", "unblock", "unblock", "release", "redrive", "redrive", "redrive",
    "edit_and_redrive", "discard_dead_letter", "forget_group",
)  # fmt: skip


def _commands(
    rng: random.Random, count: int, groups: int, until_ms: int, kinds: tuple[str, ...] = COMMANDS
) -> tuple[CommandPlan, ...]:
    plans = []
    for _ in range(count):
        plan = CommandPlan(
            0, rng.randrange(1_500, until_ms) * MS, rng.choice(kinds), f"g{rng.randrange(groups)}", rng.randrange(20),
            expects=rng.random() < 0.3, position=rng.choice(["head", "head", "tail"]), running=rng.random() < 0.5,
        )  # fmt: skip
        if plan.kind == "pause_group" and rng.random() < 0.4:
            plan = plan._replace(pause_ms=rng.choice([10, 1_000, 5_000]))
        if rng.random() < 0.1:
            plan = plan._replace(again_us=rng.choice([1, 300, 6_000]) * MS)
        if rng.random() < 0.1:
            plan = plan._replace(elsewhere=rng.randrange(4))
        plans.append(plan)
    plans.sort(key=lambda plan: plan.at_us)
    return tuple(plan._replace(number=n) for n, plan in enumerate(plans))


def _troubled(rng: random.Random, until_ms: int, groups: int, ms: tuple[int, ...] = (0, 5, 50, 500, 2_000)) -> TaskPlan:
    """A task that may fail, in a world where that has consequences."""
    kinds = rng.choice([(), (), ("fail",), ("snooze",), ("retry", "fail"), ("reject",), ("fail", "fail")])
    stubborn = rng.random() < 0.2
    script = [
        Behaviour(kind, rng.choice(ms), rng.choice([None, 7]), rng.choice([0.3, 3.0]), stubborn) for kind in kinds
    ]
    state = rng.choice([None, rng.randrange(1, 1_000_000)])
    last = Behaviour(rng.choice(["ok", "ok", "ok", "ok", "hang"]), rng.choice(ms), state, stubborn=stubborn)
    return TaskPlan(
        0, rng.randrange(until_ms) * MS, f"g{rng.randrange(groups)}", rng.choice(["a", "a", "a", "b"]), (*script, last),
        timeout_s=rng.choice([0.5, 2.0]) if last.kind == "hang" else None, max_attempts=rng.choice([None, 1, 1, 2]),
        on_failure=rng.choice([None, None, "block", "cascade", "skip"]),
        not_before_ms=rng.choice([None] * 9 + [3_000]),
    )  # fmt: skip


def operators_at_work(rng: random.Random, seed: int) -> Scenario:
    """Everything that can be asked for, of few groups whose tasks fail, while nothing else goes wrong."""
    groups = rng.choice([1, 2, 4])
    tasks = [_troubled(rng, 12_000, groups) for _ in range(24)]
    world = _scenario(seed, rng, tasks, [], lease_s=4.0, slots=rng.choice([1, 3]), partitions=rng.choice([1, 2]))
    return world._replace(
        commands=_commands(rng, 40, groups, 20_000),
        settings=(("on_failure", rng.choice(["skip", "block", "cascade"])),),
    )


def operators_in_trouble(rng: random.Random, seed: int) -> Scenario:
    """The same while processes die, freeze and are cut off."""
    groups = rng.choice([2, 4])
    tasks = [_troubled(rng, 20_000, groups) for _ in range(24)]
    steps = ("", "begin", "produce", "commit", "claim", "commit claim", "send started", "running", "ended")
    kinds = ("kill", "freeze", "cut", "drain", "lose_answer")
    faults = _every(rng, kinds, ("s1", "s2", "w1", "w2"), steps, duration_ms=(500, 12_000), each_ms=2_500, count=7)
    world = _scenario(seed, rng, tasks, faults, lease_s=4.0, slots=rng.choice([1, 3]), partitions=rng.choice([1, 2]))
    return world._replace(
        commands=_commands(rng, 40, groups, 24_000),
        settings=(("on_failure", rng.choice(["skip", "block", "cascade"])),),
    )


def released_though_they_go_on(rng: random.Random, seed: int) -> Scenario:
    """Handlers that nobody can stop, after their timeout and after a cancel; operators release them, or try to."""
    groups = rng.choice([2, 4])
    tasks: list[TaskPlan] = []
    for _ in range(16):
        task = _task(rng, rng.randrange(16_000), rng.randrange(groups), rng.choice([5, 2_500, 7_000]), stubborn=True)
        task = task._replace(timeout_s=rng.choice([None, 0.5, 0.5, 2.0]), max_attempts=rng.choice([None, 1, 2]))
        tasks.append(task)
    kinds = ("release",) * 6 + ("cancel_task", "cancel_group", "skip_head", "pause_group", "resume_group")
    faults = _every(
        rng, ("kill", "freeze", "drain"), ("s1", "s2", "w1", "w2"), ("", "commit", "running", "send started"),
        duration_ms=(500, 9_000), count=rng.choice([0, 0, 2, 4]),
    )  # fmt: skip
    world = _scenario(seed, rng, tasks, faults, lease_s=4.0, slots=rng.choice([2, 4]), partitions=rng.choice([1, 2]))
    return world._replace(
        commands=_commands(rng, 60, groups, 24_000, kinds),
        settings=(("on_failure", rng.choice(["skip", "block", "cascade"])),),
    )


def pauses_of_what_is_on_its_way(rng: random.Random, seed: int) -> Scenario:
    """Groups are paused, and heads cancelled and skipped, while workers are held up between dispatch and start."""
    tasks = [_task(rng, rng.randrange(14_000), rng.randrange(4), rng.choice([5, 300])) for _ in range(40)]
    faults = _every(
        rng, ("freeze", "freeze", "kill"), ("w1", "w2"), ("claim", "commit claim", "claimed", "send started", "started"),
        duration_ms=(300, 9_000), first_ms=500, each_ms=1_500, count=9,
    )  # fmt: skip
    kinds = ("pause_group", "pause_group", "resume_group", "cancel_task", "skip_head")
    commands = _commands(rng, 50, 4, 16_000, kinds)
    return _scenario(seed, rng, tasks, faults, lease_s=4.0, slots=rng.choice([1, 3]))._replace(commands=commands)


def asked_while_the_only_worker_is_frozen(rng: random.Random, seed: int) -> Scenario:
    """For so long that it is taken for gone, and not so long that it loses its partitions: it claims when it wakes."""
    tasks: list[TaskPlan] = []
    faults: list[FaultPlan] = []
    commands: list[CommandPlan] = []
    for i in range(4):
        at_ms = 3_000 + i * 9_000 + rng.randrange(500)
        faults.append(FaultPlan(at_ms * MS, "freeze", "w1", "", 0, rng.randint(3_400, 5_700) * MS))
        for group in range(4):
            tasks.append(_task(rng, at_ms + rng.randrange(900), group, 20))
            kind = rng.choice(["pause_group", "skip_head", "cancel_group"])
            asked_us = (at_ms + 1_000 + rng.randrange(1_800)) * MS
            commands.append(CommandPlan(0, asked_us, kind, f"g{group}"))
            commands.append(CommandPlan(0, (at_ms + 8_000) * MS, "resume_group", f"g{group}"))
    commands.sort(key=lambda command: command.at_us)
    world = _scenario(seed, rng, tasks, faults, lease_s=4.0, workers=1, slots=4, schedulers=1)
    return world._replace(commands=tuple(plan._replace(number=n) for n, plan in enumerate(commands)))


def little_room(rng: random.Random, seed: int) -> Scenario:
    """Few tasks may wait, in a group and in a partition; what is turned away is redriven; keys come twice."""
    groups = rng.choice([1, 3])
    tasks = [
        _troubled(rng, 12_000, groups, (5, 200, 1_000))._replace(
            idempotency_key=rng.choice([None, None, "k1", "k2", "k3"])
        )
        for _ in range(40)
    ]
    faults = _every(
        rng, ("kill", "freeze"), ("s1", "s2"), ("", "commit"), duration_ms=(3_000, 9_000), count=rng.choice([0, 2])
    )
    commands = _commands(
        rng, 24, groups, 18_000, ("redrive", "redrive", "edit_and_redrive", "pause_group", "resume_group")
    )
    settings = (
        ("group_parked_max", rng.choice([0, 2, 5])), ("partition_tasks_max", rng.choice([0, 4, 9])),
        ("when_full", rng.choice(["dead_letter", "pause"])),
    )  # fmt: skip
    world = _scenario(seed, rng, tasks, faults, lease_s=4.0, partitions=rng.choice([1, 2]))
    return world._replace(commands=commands, settings=settings)


def breakers_open(rng: random.Random, seed: int) -> Scenario:
    """A type fails again and again, so that its groups wait for a while."""
    tasks = [
        _task(rng, rng.randrange(12_000), rng.randrange(8), rng.choice([5, 200]), failures=rng.choice([0, 1, 2, 3]))
        for _ in range(24)
    ]
    kinds = rng.choice([("kill", "drain"), ("lose_answer", "lose_request", "fence")])
    steps = ("",) if "kill" in kinds else ("commit", "produce")
    faults = _every(rng, kinds, ("s1", "s2"), steps, first_ms=1_000, each_ms=2_000, count=rng.choice([0, 3, 8]))
    settings = (
        ("breaker_rate", 0.5),
        ("breaker_window", rng.choice([2, 5])),
        ("breaker_open_s", rng.choice([1.0, 4.0])),
    )
    return _scenario(seed, rng, tasks, faults, lease_s=4.0, slots=4, partitions=2)._replace(settings=settings)


def _quick(rng: random.Random, at_ms: int, group: int) -> TaskPlan:
    """One of a backlog: most succeed, and some do what ends a run in its middle."""
    kinds = ["ok"] * 10 + ["fail", "snooze", "reject", "retry", "die"]
    ms = (0, 0, 1, 5, 20, 100, 400)
    states = (None, None, 0, rng.randrange(1, 1_000_000))
    first = Behaviour(rng.choice(kinds), rng.choice(ms), rng.choice(states), 0.3, stubborn=rng.random() < 0.1)
    script = (
        (first,) if first.kind in ("ok", "reject") else (first, Behaviour("ok", rng.choice(ms), rng.choice(states)))
    )
    return TaskPlan(
        0, at_ms * MS, f"g{group}", "a" if rng.random() < 0.97 else "b", script,
        max_attempts=rng.choice([None] * 6 + [1, 2]), on_failure=rng.choice([None, None, None, "block", "cascade"]),
    )  # fmt: skip


RUNS = (("run_ms", 10_000),)


def runs_in_trouble(rng: random.Random, seed: int) -> Scenario:
    """Backlogs go out in runs, while processes die, freeze, drain and are cut off in the middle of them."""
    groups = rng.choice([1, 2, 3])
    tasks = [_quick(rng, rng.randrange(9) * 1_500 + rng.randrange(300), rng.randrange(groups)) for _ in range(70)]
    steps = ("", "claim", "claimed", "send started", "started", "running", "ended", "send succeeded", "sent succeeded")
    kinds = ("kill", "kill", "freeze", "cut", "drain", "lose_answer")
    faults = _every(rng, kinds, ("w1", "w2"), steps, duration_ms=(300, 9_000), each_ms=2_500, count=6)
    others = ("kill", "freeze", "drain", "lag")
    faults += _every(
        rng, others, ("s1", "s2"), ("", "produce", "commit", "committed"), duration_ms=(300, 9_000), count=3
    )
    world = _scenario(seed, rng, tasks, faults, lease_s=4.0, slots=rng.choice([1, 3]), partitions=rng.choice([1, 2]))
    return world._replace(settings=RUNS)


def runs_cut_by_operators(rng: random.Random, seed: int) -> Scenario:
    """Everything is asked of groups whose runs are out, with and without faults."""
    groups = rng.choice([1, 2, 3])
    tasks = [_quick(rng, rng.randrange(12) * 1_200 + rng.randrange(200), rng.randrange(groups)) for _ in range(80)]
    steps = ("", "claim", "claimed", "send started", "running", "ended", "send succeeded", "produce", "commit")
    faults = _every(
        rng, ("kill", "freeze", "cut", "drain"), ("s1", "s2", "w1", "w2"), steps, duration_ms=(300, 9_000), each_ms=3_000,
        count=rng.choice([0, 0, 3, 6]),
    )  # fmt: skip
    world = _scenario(seed, rng, tasks, faults, lease_s=4.0, slots=rng.choice([1, 3]), partitions=rng.choice([1, 2]))
    settings = (*RUNS, ("on_failure", rng.choice(["skip", "block", "cascade"])))
    return world._replace(commands=_commands(rng, 60, groups, 17_000), settings=settings)


DRILLS: dict[str, Draw] = {drill.__name__: drill for drill in (
    cut_off_with_a_stubborn_handler, frozen_with_a_renewal_on_its_way, frozen_for_just_a_lease, frozen_between_claim_and_start, claims_in_doubt, frozen_and_then_cut_off, a_deaf_scheduler, looks_that_overlap, looks_at_what_was_dispatched_anew, commits_in_doubt, memory_that_was_kept, schedulers_come_and_go, workers_leave, no_time_to_recover,
    operators_at_work, operators_in_trouble, released_though_they_go_on, pauses_of_what_is_on_its_way,
    asked_while_the_only_worker_is_frozen, little_room, breakers_open,
    runs_in_trouble, runs_cut_by_operators,
)}  # fmt: skip
