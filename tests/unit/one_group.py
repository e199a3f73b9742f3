"""What an operator and a publisher do to one group in a world of logs, and what becomes of it."""

from collections.abc import Mapping
from typing import Any

from streams import protocol
from streams.murmur2 import home_partition
from streams.protocol import Command, CommandKind, Event, EventKind, HandlerPolicy, Outcome, ReportKind
from streams.retry import Policy
from tests.unit.world import Execution, N, World

K, R = CommandKind, ReportKind


def new_world(more: Mapping[str, Any] = {}, **policy: Any) -> World:
    """One scheduler, with `more` for its engine, and one worker."""
    chosen: dict[str, Any] = {"max_attempts": 2, "backoff_base_s": 0.2, "backoff_cap_s": 1.0, "jitter": False}
    world = World(policy=Policy(**chosen | policy))
    world.start("s1", **more)
    world.hire("w1")
    return world


def ask(world: World, kind: CommandKind, group: str = "g", *, partition: int | None = None, **fields: Any) -> str:
    command_id = fields.pop("id", None) or f"c{len(list(world.records('commands')))}"
    command = Command(command_id, kind, group, actor="ada", **fields)
    key = group.encode()
    world.append("commands", home_partition(key, N) if partition is None else partition, key, protocol.encode(command))
    world.step()
    return command_id


def answers(world: World, command_id: str) -> list[Event]:
    return [e for e in world.events() if e.kind is EventKind.COMMAND and e.command_id == command_id]


def answer(world: World, command_id: str) -> tuple[Outcome | None, str | None]:
    (event,) = answers(world, command_id)
    assert event.actor == "ada"
    return event.outcome, event.reason


def publish(world: World, *ids: str, group: str = "g", **fields: Any) -> None:
    for task_id in ids:
        world.publish(group, id=task_id, **fields)
    world.step()


def run_next(world: World, policy: HandlerPolicy | None = None) -> Execution:
    """The next start there is; `policy`: what its handler declares."""
    execution = world.claim(world.workers["w1"])
    assert execution is not None
    assert world.begin(execution, policy)
    world.step()
    return execution


def fail(world: World, times: int = 1) -> None:
    for _ in range(times):
        world.end(run_next(world), R.FAILED)
        world.step()
        world.pass_time(2000)
        world.step()


def ran(world: World) -> list[str | None]:
    return [e.task_id for e in world.events() if e.state is protocol.TaskState.RUNNING]


def states(world: World, task_id: str) -> list[str]:
    return [e.state.value for e in world.events() if e.task_id == task_id and e.state is not None]


def dead_letters(world: World) -> list[dict[str, str]]:
    """Their headers, oldest first, with `value` and `key` of the record."""
    return [
        {name: (data or b"").decode() for name, data in headers}
        | {"key": (key or b"").decode(), "value": (value or b"").decode()}
        for key, value, headers in world.records("dead-letters")
    ]
