"""What operators and failure policies do to a group, while everything else goes wrong as well.

Each of these publishes tasks to a group of its own, acts on it as a person at the command line would, and says how its
tasks must end (`Stage.ends`); whether they did, and whether anything began that must not, is seen by the judge in the
history and the journals.  No worker is touched.
"""

from collections.abc import Callable, Iterable
from typing import Any, Final

from streams.protocol import TaskState
from tests.chaos.operating import insist
from tests.chaos.registry import nemesis
from tests.chaos.stage import Stage, Steps, until

S = TaskState
OPERATIONS: Final = frozenset({"cancels", "skips", "blocks", "cascades", "releases", "forgets", "dependency_down"})
ENDLESS: Final = ("endless", "endless_thread", "endless_process")
_WAIT_S: Final = 60.0
_PATIENCE_S: Final = 180.0  # while others kill what they can


def _publish(stage: Stage, group: str, kinds: Iterable[str], end: S, payload: Any = None, **fields: Any) -> list[str]:
    """Tasks of one group, and how all of them must end."""
    ids = [stage.publish(kind, {"s": 0.01} if payload is None else payload, group, **fields) for kind in kinds]
    stage.ends |= dict.fromkeys(ids, end)
    return ids


def _begun(stage: Stage, task_id: str) -> Steps:
    """Until it runs for the first time."""
    yield from until(lambda: task_id in stage.watcher.begun, _WAIT_S)


def _look_after(stage: Stage, is_done: Callable[[], bool], act: Callable[[], Steps]) -> Steps:
    """Do something again and again until it has come to this."""
    for _ in range(int(_PATIENCE_S)):
        yield from until(is_done, 1.0)
        if is_done():
            return
        yield from act()
    stage.wrong.append("somebody has looked after a group in vain")


def _group(stage: Stage, name: str) -> str:
    return f"{name}-{stage.rng.getrandbits(40):x}"


@nemesis
def cancels(stage: Stage) -> Steps:
    """A running task of each kind of handler, one that is parked, and a backlog with what runs of it."""
    fault = stage.faults.note("cancels", loses=False)
    for kind in ENDLESS:
        group = _group(stage, "cancels")
        head, parked = _publish(stage, group, [kind, "quick"], S.CANCELLED)
        _publish(stage, group, ["quick"], S.SUCCEEDED)
        yield from _begun(stage, head)
        stage.never_begun.add(parked)
        yield from insist(stage, "cancel", group, parked)
        yield from insist(stage, "cancel", group, head)
    group = _group(stage, "cancels")
    head, *backlog = _publish(stage, group, ["endless", *["quick"] * 5], S.CANCELLED)
    yield from _begun(stage, head)
    stage.never_begun |= set(backlog)
    yield from insist(stage, "cancel", group, "--all", "--running")
    yield from until(lambda: head in stage.watcher.ended, _WAIT_S)
    _publish(stage, group, ["quick"], S.SUCCEEDED)
    stage.faults.over(fault)


@nemesis
def skips(stage: Stage) -> Steps:
    """A head that fails again and again is skipped; the same skip, sent again, never hits the next."""
    fault = stage.faults.note("skips", loses=False)
    group = _group(stage, "skips")
    (head,) = _publish(stage, group, ["breaks"], S.SKIPPED, {"ok": False}, max_attempts=1_000)
    (endless,) = _publish(stage, group, ["endless"], S.CANCELLED)
    _publish(stage, group, ["quick"], S.SUCCEEDED)
    yield from _begun(stage, head)
    for _ in range(3):
        yield from insist(stage, "skip", group, "--if-head", head)
    yield from _begun(stage, endless)
    yield from insist(stage, "cancel", group, endless)
    stage.faults.over(fault)


@nemesis
def blocks(stage: Stage) -> Steps:
    """A head blocks its group until somebody edits, skips or cancels it."""
    fault = stage.faults.note("blocks", loses=False)
    group = _group(stage, "blocks")
    how, end = stage.rng.choice((("edit", S.SUCCEEDED), ("skip", S.SKIPPED), ("cancel", S.CANCELLED)))
    (head,) = _publish(stage, group, ["breaks"], end, {"ok": False}, max_attempts=1, on_failure="block")
    _publish(stage, group, ["quick", "quick"], S.SUCCEEDED)
    words = {"edit": ['{"ok": true}', "--if-head", head], "skip": ["--if-head", head], "cancel": [head]}[how]

    def act() -> Steps:  # a worker that dies with it uses its one attempt up, and blocks the group again
        if group in stage.watcher.blocked:
            yield from insist(stage, "retry", group)
            yield from until(lambda: group in stage.watcher.blocked, 5.0)
            yield from insist(stage, how, group, *words)

    yield from _look_after(stage, lambda: head in stage.watcher.ended, act)
    stage.faults.over(fault)


@nemesis
def cascades(stage: Stage) -> Steps:
    """A head takes its backlog along; what can be used of it is redriven, or discarded for good."""
    fault = stage.faults.note("cascades", loses=False)
    group, to = _group(stage, "cascades"), stage.rng.choice(("head", "tail"))
    is_kept = stage.rng.random() < 0.7
    end = S.SUCCEEDED if is_kept else S.DEAD_LETTERED
    (head,) = _publish(stage, group, ["breaks"], end, {"ok": False}, max_attempts=1, on_failure="cascade")
    backlog = _publish(stage, group, ["quick"] * 4, S.SUCCEEDED)
    ended = stage.watcher.ended
    yield from until(lambda: ended.get(head) == S.DEAD_LETTERED, _WAIT_S)
    if not is_kept:
        yield from insist(stage, "discard", group, head)

    def redrive() -> Steps:
        if any(ended.get(task_id) == S.DEAD_LETTERED for task_id in backlog):
            yield from insist(stage, "redrive", "--group", group, "--reason", "cascade", "--to", to, "--yes")
        if is_kept and ended.get(head) == S.DEAD_LETTERED:
            payload = ["--payload", '{"ok": true}']
            yield from insist(stage, "redrive", "--group", group, "--id", head, "--to", to, *payload)

    ids = {*backlog, *([head] if is_kept else ())}
    yield from _look_after(stage, lambda: all(ended.get(task_id) == S.SUCCEEDED for task_id in ids), redrive)
    if not is_kept:
        yield from insist(stage, "redrive", "--group", group, "--id", head)  # nothing is open under this id
    stage.faults.over(fault)


@nemesis
def releases(stage: Stage) -> Steps:
    """A thread goes on after its timeout, and an operator lets its group go on beside it."""
    fault = stage.faults.note("releases", loses=False)
    group = _group(stage, "releases")
    (head,) = _publish(stage, group, ["stubborn"], S.SUCCEEDED, {"s": 25.0})
    _publish(stage, group, ["quick", "quick"], S.SUCCEEDED)
    yield from until(lambda: head in stage.watcher.stubborn or head in stage.watcher.ended, _WAIT_S)
    yield from insist(stage, "release", group)
    stage.faults.over(fault)


@nemesis
def forgets(stage: Stage) -> Steps:
    """The state of a group is dropped while it is idle."""
    fault = stage.faults.note("forgets", loses=False)
    group = _group(stage, "forgets")
    for _ in range(2):
        ids = _publish(stage, group, ["quick", "thread"], S.SUCCEEDED)
        yield from until(lambda ids=ids: all(i in stage.watcher.ended for i in ids), _WAIT_S)  # type: ignore[misc]
        yield from insist(stage, "forget", group)
    _publish(stage, group, ["quick"], S.SUCCEEDED)
    stage.faults.over(fault)


@nemesis
def dependency_down(stage: Stage) -> Steps:
    """What all tasks of a type need is away: breakers open, groups wait in order, and go on when it is back."""
    down, before = stage.folder / "dependency-down", stage.watcher.breakers_opened
    if down.exists():
        return
    fault = stage.faults.note("dependency_down", loses=False)
    down.touch()
    for _ in range(2):
        for number in range(20):
            _publish(stage, f"depends-{number}", ["depends"], S.SUCCEEDED)
        yield stage.rng.uniform(1, 4)
    yield from until(lambda: stage.watcher.breakers_opened > before, 30.0)
    yield stage.rng.uniform(0, 4)  # some probes fail
    down.unlink()
    stage.faults.over(fault)
