"""Everything that is done to the system.  A nemesis is a generator: it acts, yields seconds, and heals at its end.

What operators do to single groups is in `operators.py`.
"""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from tests.chaos import clock
from tests.chaos.disk import fill
from tests.chaos.faults import EVERYBODY
from tests.chaos.fleet import Life
from tests.chaos.operating import ask, insist
from tests.chaos.operators import OPERATIONS
from tests.chaos.proxy import Proxy
from tests.chaos.registry import NEMESES, nemesis
from tests.chaos.stage import Stage, Steps, aside, until

__all__ = ["NEMESES", "NOT_HERE", "REPEATS_NOTHING", "REPEATS_NOTHING_HERE"]
# Where schedulers run the handlers: breakers are not set there, since with them nothing takes the express lane.
NOT_HERE: Final = frozenset({"dependency_down"})
ALONE_S: Final = 4.0  # less than the broker's session with its controller
# After these alone no task may run twice: nothing happens to a worker.
REPEATS_NOTHING: Final = frozenset({
    "scheduler_kill", "scheduler_freeze", "scheduler_lag", "scheduler_rolling", "publisher_kill", "publisher_freeze",
    "poison", "operator", *OPERATIONS,
})  # fmt: skip
# The same where schedulers run the handlers.
REPEATS_NOTHING_HERE: Final = frozenset({"publisher_kill", "publisher_freeze", "poison", "operator", *OPERATIONS})


@contextmanager
def in_hand(stage: Stage, life: Life, *, restart: bool = False) -> Iterator[None]:
    """No other nemesis touches that instance meanwhile; nor is it started again, unless `restart`."""
    stage.fleet.busy.add(life.name)
    if restart:
        stage.fleet.restarted.add(life.name)
    try:
        yield
    finally:
        stage.fleet.busy.discard(life.name)
        stage.fleet.restarted.discard(life.name)


# -- killed


@nemesis
def worker_kill_tree(stage: Stage) -> Steps:
    if (life := stage.pick("worker")) is None:
        return
    yield from _kill(stage, life, "worker_kill_tree", tree=True)


@nemesis
def worker_kill_main(stage: Stage) -> Steps:
    """Only the main process, while a child of it runs a handler: the child must die with it."""
    task_id = stage.publish("process", {"s": 2.0})
    yield from until(lambda: stage.began(task_id), 20)
    line = stage.began(task_id)
    life = next((w for w in stage.fleet.live("worker") if line and w.pid == line["ppid"]), None)
    if life is not None:
        yield from _kill(stage, life, "worker_kill_main", tree=False)


def _kill(stage: Stage, life: Life, name: str, *, tree: bool) -> Steps:
    fault = stage.faults.note(name, life.name)
    stage.fleet.kill(life, tree=tree)
    yield from until(lambda: not life.alive, 10)
    stage.faults.over(fault)


@nemesis
def worker_kill_between(stage: Stage) -> Steps:
    """Between the commit of a claim and its `started`, while the others are full for longer than a lease."""
    if (life := stage.pick("worker")) is None:
        return
    fault = stage.faults.note("worker_kill_between", life.name)
    order = stage.folder / f"die-{life.name}-claimed"
    order.touch()
    life.expected = True
    for _ in range(stage.fleet.slots * 3):
        stage.publish("quick", {"s": stage.settings.lease_s * 1.5})
    yield from until(lambda: not life.alive, 20)
    order.unlink(missing_ok=True)
    stage.faults.over(fault)


@nemesis
def scheduler_kill(stage: Stage) -> Steps:
    if (life := stage.pick("scheduler")) is None:
        return
    yield from _kill(stage, life, "scheduler_kill", tree=True)


@nemesis
def publisher_kill(stage: Stage) -> Steps:
    if (life := stage.pick("publisher")) is None:
        return
    yield from _kill(stage, life, "publisher_kill", tree=True)


@nemesis
def broker_kill(stage: Stage) -> Steps:
    """SIGKILL, and a restart on the same data.  In a cluster its partitions' leaders move."""
    node = stage.rng.choice(stage.cluster.nodes)
    yield from until(lambda: stage.cluster.whole, 60)
    with stage.cluster.hurting():
        fault = stage.faults.note("broker_kill", EVERYBODY)
        node.kill()
        yield stage.rng.uniform(0, 2)
        yield from aside(lambda: node.start(120))
        stage.faults.over(fault)


# -- frozen


@nemesis
def worker_freeze(stage: Stage) -> Steps:
    yield from _freeze(stage, "worker", tree=stage.rng.random() < 0.5)


@nemesis
def scheduler_freeze(stage: Stage) -> Steps:
    yield from _freeze(stage, "scheduler", tree=False)


@nemesis
def publisher_freeze(stage: Stage) -> Steps:
    yield from _freeze(stage, "publisher", tree=False)


def _freeze(stage: Stage, role: str, *, tree: bool) -> Steps:
    """SIGSTOP for longer than lease and session, then SIGCONT."""
    if (life := stage.pick(role)) is None:
        return
    with in_hand(stage, life):
        fault = stage.faults.note(f"{role}_freeze", life.name, frozen=True)
        life.expected = True  # what it does when it wakes is its own decision
        stage.fleet.signal(life, signal.SIGSTOP, tree=tree)
        yield stage.freeze_s
        stage.fleet.signal(life, signal.SIGCONT, tree=tree)
        stage.faults.over(fault)


@nemesis
def broker_freeze(stage: Stage) -> Steps:
    """In a cluster for longer than its session: leaders move.  A broker that is alone is frozen for less: fenced by
    itself, its partitions have no leader for a moment, and librdkafka does not bear that (see docs/faults.md).
    """
    node = stage.rng.choice(stage.cluster.nodes)
    yield from until(lambda: stage.cluster.whole, 60)
    with stage.cluster.hurting():
        stage.leave()
        fault = stage.faults.note("broker_freeze", EVERYBODY)
        stage.cluster.signal(node, signal.SIGSTOP)
        yield stage.freeze_s if len(stage.cluster.nodes) > 1 else ALONE_S
        stage.cluster.signal(node, signal.SIGCONT)
        yield 3.0  # until it is unfenced
        stage.faults.over(fault)
        stage.come_back()


@nemesis
def scheduler_lag(stage: Stage) -> Steps:
    """It stands still nine tenths of the time, for two leases: alive, and far behind."""
    if (life := stage.pick("scheduler")) is None:
        return
    with in_hand(stage, life):
        fault = stage.faults.note("scheduler_lag", life.name)
        life.expected = True
        for _ in range(int(stage.settings.lease_s * 2)):
            stage.fleet.signal(life, signal.SIGSTOP, tree=False)
            yield 0.9
            stage.fleet.signal(life, signal.SIGCONT, tree=False)
            yield 0.1
        stage.faults.over(fault)


@nemesis
def disk_full(stage: Stage) -> Steps:
    """A broker's disk is full until it has given up, then there is room again and it is started on the same data."""
    mounts = stage.cluster.mounts
    if not mounts:
        stage.skipped.add(f"disk_full ({stage.cluster.no_mounts})")
        return
    number = stage.rng.randrange(len(mounts))
    node, filler = stage.cluster.nodes[number], mounts[number] / "filler"
    yield from until(lambda: stage.cluster.whole, 60)
    with stage.cluster.hurting():
        fault = stage.faults.note("disk_full", EVERYBODY)
        fill(filler)
        yield from until(lambda: not node.running, 20)
        filler.unlink()
        node.kill()
        yield from aside(lambda: node.start(120))
        stage.faults.over(fault)


@nemesis
def clock_step(stage: Stage) -> Steps:
    """The wall clock of a process jumps ahead or back by a minute, and home again; the monotonic one is left alone."""
    if not stage.fleet.preload:
        stage.skipped.add(f"clock_step ({clock.missing()})")
        return
    life = stage.pick(stage.rng.choice(("worker", "scheduler")))
    if life is None:
        return
    life.expected = True
    step_s = stage.rng.choice((-1, 1)) * clock.STEP_S
    fault = stage.faults.note("clock_step", life.name)  # librdkafka's heartbeats may wait with the clock
    clock.turn(stage.folder, life.name, step_s)
    yield stage.freeze_s
    clock.turn(stage.folder, life.name, 0)
    stage.faults.over(fault)


# -- the network


@nemesis
def net_delay(stage: Stage) -> Steps:
    """Everything of some client comes up to 0.3 s late, each way."""
    yield from _network(stage, "net_delay", lambda proxy, name: proxy.delay(name, stage.rng.uniform(0.05, 0.3)))


@nemesis
def net_stall(stage: Stage) -> Steps:
    """Nothing moves for longer than lease and session, then everything does."""
    yield from _network(stage, "net_stall", lambda proxy, name: proxy.stall(name))


@nemesis
def net_cut_up(stage: Stage) -> Steps:
    """What a client sends disappears; it goes on hearing."""
    yield from _network(stage, "net_cut_up", lambda proxy, name: proxy.cut(name, "up"))


@nemesis
def net_cut_down(stage: Stage) -> Steps:
    """What a client is told disappears; it goes on being heard."""
    yield from _network(stage, "net_cut_down", lambda proxy, name: proxy.cut(name, "down"))


def _network(stage: Stage, name: str, hurt: Callable[[Proxy, str], None]) -> Steps:
    life = stage.pick(stage.rng.choice(("worker", "worker", "scheduler", "scheduler", "publisher")))
    if life is None:
        return
    yield from _cut_off(stage, life, name, hurt)


def _cut_off(stage: Stage, life: Life, name: str, hurt: Callable[[Proxy, str], None]) -> Steps:
    proxy = stage.cluster.proxy
    with in_hand(stage, life, restart=True):
        fault = stage.faults.note(name, life.name)
        life.expected = True  # a worker that is cut off ends by itself
        hurt(proxy, life.name)
        yield stage.freeze_s
        proxy.heal(life.name)
        stage.faults.over(fault)


@nemesis
def net_cut_off_thread(stage: Stage) -> Steps:
    """A worker that runs a thread handler, which cannot be stopped, hears and says nothing for longer than a lease."""
    task_id = stage.publish("thread", {"s": stage.freeze_s * 2})
    yield from until(lambda: stage.began(task_id), 20)
    line = stage.began(task_id)
    life = next((w for w in stage.fleet.live("worker") if line and w.pid == line["pid"]), None)
    if life is not None:
        yield from _cut_off(stage, life, "net_cut_off_thread", lambda proxy, name: proxy.cut(name, "up", "down"))
        if life.alive:
            stage.wrong.append(f"{life.name} ran a thread handler without a lease and is still there")


# -- asked to stop


@nemesis
def worker_rolling(stage: Stage) -> Steps:
    yield from _rolling(stage, "worker")


@nemesis
def scheduler_rolling(stage: Stage) -> Steps:
    yield from _rolling(stage, "scheduler")


def _rolling(stage: Stage, role: str) -> Steps:
    for life in stage.fleet.live(role):
        if not life.alive or life.name in stage.fleet.busy:
            continue
        fault = stage.faults.note(f"{role}_rolling", life.name, drains=True, loses=False)
        stage.fleet.terminate(life)
        yield from until(lambda life=life: not life.alive, 30)  # type: ignore[misc]
        stage.faults.over(fault)
        yield 2.0


@nemesis
def scale(stage: Stage) -> Steps:
    """Down to one of each, up to three, and back to what it was."""
    wanted = stage.fleet.wanted
    before = set(wanted)
    roles = (("scheduler", ("s1", "s2", "s3")), ("worker", ("w1", "w2", "w3")))
    for role, names in roles[1 if stage.fleet.execution == "local" else 0 :]:
        for name in names[1:]:
            wanted.discard(name)
            if (life := stage.fleet.current(name)) is not None and name not in stage.fleet.busy:
                fault = stage.faults.note(f"scale_{role}", name, drains=True, loses=False)
                stage.fleet.terminate(life)
                yield from until(lambda life=life: not life.alive, 30)  # type: ignore[misc]
                stage.faults.over(fault)
        yield 2.0
        wanted.update(names)
        yield 3.0
    for name in sorted(wanted - before):
        wanted.discard(name)
        if (life := stage.fleet.current(name)) is not None:
            fault = stage.faults.note("scale_back", name, drains=True, loses=False)
            stage.fleet.terminate(life)
            yield from until(lambda life=life: not life.alive, 30)  # type: ignore[misc]
            stage.faults.over(fault)
    wanted.update(before)


@nemesis
def twins(stage: Stage) -> Steps:
    """A second process under the name of a running one: one of them must go, by itself."""
    if (life := stage.pick(stage.rng.choice(("worker", "scheduler")))) is None:
        return
    with in_hand(stage, life):
        fault = stage.faults.note("twins", life.name)
        twin = stage.fleet.start(life.name)
        life.expected = twin.expected = True
        yield from until(lambda: not (life.alive and twin.alive), 30)
        if life.alive and twin.alive:
            stage.wrong.append(f"two processes named {life.name} live side by side")
            stage.fleet.kill(twin, tree=True)
        stage.faults.over(fault)


# -- input and handlers


@nemesis
def poison(stage: Stage) -> Steps:
    """Records that are no tasks."""
    stage.faults.over(stage.faults.note("poison"))
    for key, value in (
        (None, b"{}"), (b"", b'{"type": "chaos.quick"}'), (b"g1", b"{"), (b"g1", b"\xff\xfe"), (b"g1", None),
        (b"\xff", b'{"type": "chaos.quick"}'), (b"g1", b"[1]"), (b"g1", b'{"type": 7}'), (b"g1", b'{"a":' * 5000),
        (b"g1", b"x" * 900_000),
    ):  # fmt: skip
        stage.publish_raw(key, value)
    yield 0


@nemesis
def bad_handlers(stage: Stage) -> Steps:
    """Handlers that hang in every way there is, leak threads, or take their process with them."""
    stage.faults.over(stage.faults.note("bad_handlers"))
    for kind in ("hangs", "hangs_thread", "hangs_process", "leaks", "exits", "exits_child"):
        for group in ("", "", f"g{stage.rng.randrange(20)}"):
            stage.publish(kind, group=group)
    yield 0


# -- operators


@nemesis
def operator(stage: Stage) -> Steps:
    """Two busy groups are paused; heads are told to go on at once, dead letters are redriven; then they are resumed."""
    fault = stage.faults.note("operator", loses=False)
    groups = [f"g{stage.rng.randrange(10)}", f"g{stage.rng.randrange(10, 40)}"]
    for group in groups:
        yield from ask(stage, "pause", group, "--note", "chaos", code=[])
    yield from ask(stage, "retry", f"g{stage.rng.randrange(10)}", code=[])
    to = stage.rng.choice(("head", "tail"))
    yield from ask(stage, "redrive", "--type", "chaos.rejects", "--to", to, "--yes", code=[])
    yield stage.rng.uniform(0, 2)
    for group in groups:
        yield from insist(stage, "resume", group)
    stage.faults.over(fault)
