"""Live questions, answered from the memory of the scheduler that owns the group: why does it wait?"""

import time
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any

from aiohttp import web

from streams import protocol
from streams.clock import now
from streams.engine import Engine
from streams.group import Phase
from streams.http import Route
from streams.murmur2 import home_partition
from streams.partition import Entry, read_row

if TYPE_CHECKING:
    from streams.scheduler import Scheduler

LIST_MAX = 1000


def mono_s() -> float:
    return time.monotonic()


def routes(scheduler: "Scheduler") -> dict[str, Route]:
    """GET /groups?limit=&phase=, /groups/one?group=, /tasks?group=&limit=, /explain?group=."""
    engine = scheduler.engine

    async def groups(request: web.Request) -> tuple[int, Any]:
        limit = _limit(request)
        phase = request.query.get("phase")
        found = []
        for entry in _entries(engine):
            if phase in (None, entry.group.phase):
                found.append(summary(entry))
                if len(found) >= limit:
                    break
        return 200, {"as_of_ms": now().wall_ms, "groups": found}

    async def explain_group(request: web.Request) -> tuple[int, Any]:
        held = [(scheduler.settings.topic(topic), partition) for topic, partition in scheduler.held()]
        return 200, explain(engine, request.query.get("group", ""), held)

    async def tasks(request: web.Request) -> tuple[int, Any]:
        limit = _limit(request)
        return 200, {"as_of_ms": now().wall_ms, "tasks": list_tasks(engine, request.query.get("group", ""), limit)}

    return {"/groups": groups, "/explain": explain_group, "/tasks": tasks}


def summary(entry: Entry) -> dict[str, Any]:
    head = entry.group.head
    return {
        "group": entry.name,
        "phase": entry.group.phase,
        "parked": entry.group.parked,
        "since_ms": entry.since_ms,
        "task_id": entry.task.task_id if entry.task else None,
        "type": entry.task.type if entry.task else None,
        "attempt": head.attempt if head else None,
        "worker": head.worker if head and head.phase is Phase.RUNNING else None,
        "blocked": entry.group.blocked,
    }


def list_tasks(engine: Engine, group: str, limit: int) -> list[dict[str, Any]]:
    """The head of a group and what is parked behind it, in order."""
    entry = _find(engine, group)
    if entry is None:
        return []
    found: list[dict[str, Any]] = []
    if entry.task is not None and entry.group.head is not None:
        head = entry.group.head
        found.append({
            "task_id": entry.task.task_id, "type": entry.task.type, "sequence": head.sequence,
            "state": head.phase, "attempt": head.attempt,
        })  # fmt: skip
    for sequence, row in entry.parked:
        if len(found) >= limit:
            break
        task = read_row(row)[1]
        found.append({"task_id": task.task_id, "type": task.type, "sequence": sequence, "state": "parked"})
    return found


def explain(engine: Engine, group: str, held: Collection[tuple[str, int]] = ()) -> dict[str, Any]:
    """Why a group waits: blocker, limiter, expected start, in words and fields."""
    number = home_partition(group.encode(errors="surrogatepass"), engine.partition_count)
    answer: dict[str, Any] = {"group": group, "partition": number, "as_of_ms": now().wall_ms}
    if number in engine.stopped:
        return answer | {"owned": False, "text": f"its partition is stopped: {engine.stopped[number]}"}
    if number not in engine.partitions:
        return answer | {"owned": False, "text": "another scheduler owns this group"}
    answer["owned"] = True
    entry = _find(engine, group)
    if entry is None or entry.group.head is None:
        answer |= {"phase": Phase.IDLE, "text": "idle: nothing is waiting"}
    else:
        answer |= summary(entry) | _why(engine, entry)
    for topic, partition in held:
        if partition == number:
            answer["held_by_transaction"] = f"{topic}-{partition}"
            answer["text"] += (
                f"; what was published later to {topic}-{partition} is held up by a transaction that somebody left "
                "open there: find it with kafka-transactions.sh"
            )
    return answer


def _why(engine: Engine, entry: Entry) -> dict[str, Any]:
    head, task = entry.group.head, entry.task
    assert head is not None and task is not None
    behind = f"; {entry.group.parked} parked behind it" if entry.group.parked else ""
    if entry.group.blocked:
        return {"blocker": entry.group.blocked, "text": f"blocked: {entry.group.blocked}{behind}"}
    match head.phase:
        case Phase.RUNNING:
            doing = entry.overdue or f"runs on {head.worker}"
            return {"blocker": "running", "text": f"task {task.task_id} {doing}{behind}"}
        case Phase.DISPATCHED:
            owner = engine.capacity.owner_of.get(head.dispatch_partition)
            where = f"worker {owner}" if owner else f"dispatch partition {head.dispatch_partition}, which nobody owns"
            return {"blocker": "dispatched", "text": f"task {task.task_id} is on its way to {where}{behind}"}
        case Phase.WAITING:
            due = protocol.utc(head.due_wall_ms)
            why = f"after {head.why}" if head.why else "not before its time"
            text = f"task {task.task_id} waits until {due:%Y-%m-%d %H:%M:%S} UTC, {why}{behind}"
            return {"blocker": "time", "expected_start": due, "why": head.why, "text": text}
        case _:
            return _why_ready(engine, entry, behind)


def _why_ready(engine: Engine, entry: Entry, behind: str) -> dict[str, Any]:
    assert entry.task is not None
    task_type = entry.task.type
    if not engine.capacity.handles(task_type):
        text = f"no worker handles type {task_type!r}: start one whose handlers include it{behind}"
        return {"blocker": "no_handler", "limiter": task_type, "text": text}
    text = f"ready: every slot for type {task_type!r} is taken, {len(engine.ready)} groups wait for one{behind}"
    return {"blocker": "no_free_slot", "limiter": "slots", "text": text}


def _limit(request: web.Request) -> int:
    asked = request.query.get("limit", "")
    return min(int(asked[:9]), LIST_MAX) if asked.isascii() and asked.isdigit() else 100


def _find(engine: Engine, group: str) -> Entry | None:
    key = group.encode(errors="surrogatepass")
    partition = engine.partitions.get(home_partition(key, engine.partition_count))
    return partition.entries.get(key) if partition else None


def _entries(engine: Engine) -> Iterator[Entry]:
    for partition in engine.partitions.values():
        yield from partition.entries.values()
