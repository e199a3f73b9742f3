"""Live questions, answered from the memory of the scheduler that owns the group: why does it wait?"""

import time
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from aiohttp import web

from streams import commands, limits, protocol, reasons
from streams.breakers import BreakerState
from streams.clock import now
from streams.engine import Engine, read_origin
from streams.group import Phase
from streams.http import Route
from streams.intake import AcceptedTask, read_task
from streams.memory import Dead
from streams.murmur2 import home_partition
from streams.partition import Entry, Partition, read_row
from streams.reasons import Blocker
from streams.rows import DeadRow

if TYPE_CHECKING:
    from streams.scheduler import Scheduler

LIST_MAX = 1000
FIND_ROWS_MAX = 10_000
ALL = 2**31


def mono_s() -> float:
    return time.monotonic()


def routes(scheduler: "Scheduler") -> dict[str, Route]:
    """GET /groups?limit=&phase=, /groups/one?group=, /tasks?group=&limit=, /tasks/find?id=, /explain?group=&task=,
    /dead-letters?group=&id=&type=&reason=&since=&until=&limit=, /breakers; /groups also takes type=, label=, state=."""
    engine = scheduler.engine

    async def groups(request: web.Request) -> tuple[int, Any]:
        limit = _limit(request)
        phase = request.query.get("phase")
        found = []
        for entry in _entries(engine):
            if phase in (None, entry.group.phase) and _fits(entry, request.query):
                found.append(summary(entry))
                if len(found) >= limit:
                    break
        return 200, {"as_of_ms": now().wall_ms, "groups": found}

    async def explain_group(request: web.Request) -> tuple[int, Any]:
        held = [(scheduler.settings.topic(topic), partition) for topic, partition in scheduler.held()]
        if task_id := request.query.get("task"):
            return 200, explain_task(engine, request.query.get("group", ""), task_id)
        return 200, explain(engine, request.query.get("group", ""), held)

    async def letters(request: web.Request) -> tuple[int, Any]:
        limit = _limit(request) if "limit" in request.query else LIST_MAX
        found = dead_letters(engine, request.query, 0 if limit == ALL else limit)
        return 200, {"as_of_ms": now().wall_ms, "dead_letters": found}

    async def breakers(request: web.Request) -> tuple[int, Any]:
        moment = now()
        found = [
            {
                "type": t, "state": b.state, "probe": b.probe,
                "until_ms": moment.wall_ms + b.until_mono_ms - moment.mono_ms if b.state is BreakerState.OPEN else None,
            }
            for t, b in engine.breakers.states().items()
        ]  # fmt: skip
        return 200, {"as_of_ms": now().wall_ms, "scheduler": engine.instance, "breakers": found}

    async def tasks(request: web.Request) -> tuple[int, Any]:
        limit = _limit(request)
        return 200, {"as_of_ms": now().wall_ms, "tasks": list_tasks(engine, request.query.get("group", ""), limit)}

    async def find(request: web.Request) -> tuple[int, Any]:
        return 200, {"as_of_ms": now().wall_ms, "groups": groups_with(engine, request.query.get("id", ""))}

    return {
        "/groups": groups,
        "/explain": explain_group,
        "/tasks": tasks,
        "/tasks/find": find,
        "/dead-letters": letters,
        "/breakers": breakers,
    }


def _fits(entry: Entry, query: Mapping[str, str]) -> bool:
    """Whether the head is of that type and carries that label (`name=value`), and the group in that state."""
    task = entry.task
    if "state" in query and query["state"] not in commands.states_of(entry.group):
        return False
    if "type" in query and (task is None or task.type != query["type"]):
        return False
    name, _, value = query.get("label", "").partition("=")
    return "label" not in query or (task is not None and task.labels.get(name) == value)


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
        "paused": entry.group.pause is not None,
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
    for sequence, row in entry.backlog():
        if len(found) >= limit:
            break
        task = read_row(row)[1]
        found.append({"task_id": task.task_id, "type": task.type, "sequence": sequence, "state": "parked"})
    return found


def groups_with(engine: Engine, task_id: str) -> list[str]:
    """Groups in which a task of this id waits or runs: any head, and of what is parked as much as takes no time."""
    found, left = [], FIND_ROWS_MAX
    for partition in engine.partitions.values():
        for entry in partition.entries.values():
            is_there = entry.task is not None and entry.task.task_id == task_id
            if not is_there and 0 < len(entry.parked) <= left:
                left -= len(entry.parked)
                is_there = commands.find_parked(entry, task_id) is not None
            if is_there:
                found.append(entry.name)
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
    if entry is None or (entry.group.head is None and entry.group.sweep is None):
        answer |= {"phase": Phase.IDLE, "text": "idle: nothing is waiting"}
        if entry is not None and entry.group.pause is not None:
            answer |= {"blocker": Blocker.PAUSED, "text": f"idle, and {reasons.paused(entry)}"}
        elif entry is not None and entry.group.blocked is not None:
            answer |= {"blocker": Blocker.BLOCKED, "text": f"idle, and blocked: {entry.group.blocked}; unblock it"}
    else:
        answer |= summary(entry) | _why(engine, entry)
        full = engine.flow.full(entry.group.parked, engine.partitions[number].tasks)
        if full is not None and not engine.flow.pauses:
            answer["full"] = full
            answer["text"] += f"; no room: {full}, and newer tasks become dead letters (group_full)"
    if waiting := engine.partitions[number].held:
        intake = reasons.of_held(engine, engine.partitions[number])
        of_group = sum((record.key or b"") == group.encode(errors="surrogatepass") for record in waiting)
        answer["intake_paused"] = {"records": len(waiting), "of_group": of_group}
        answer["text"] += f"; {intake.text}; {of_group} of the {len(waiting)} records that wait there are of this group"
        if of_group:
            answer.setdefault("blocker", intake.blocker)
    for topic, partition in held:
        if partition == number:
            answer["held_by_transaction"] = f"{topic}-{partition}"
            answer["text"] += (
                f"; what was published later to {topic}-{partition} is held up by a transaction that somebody left "
                "open there: find it with kafka-transactions.sh"
            )
    return answer


def _why(engine: Engine, entry: Entry) -> dict[str, Any]:
    why = reasons.of_group(engine, entry)
    found: dict[str, Any] = {"blocker": why.blocker, "text": why.text}
    head = entry.group.head
    if why.limiter is not None:
        found["limiter"] = why.limiter
    if why.until_ms is not None:
        found["expected_start"] = protocol.utc(why.until_ms)
    if head is not None and head.why is not None:
        found["why"] = head.why
    if why.blocker is Blocker.NO_FREE_SLOT and entry.task is not None:
        position = engine.ready.position(home_partition(entry.key, engine.partition_count), entry.key)
        found["position"] = position
        run_ms, out = engine.run_ms.get(entry.task.type), engine.out[entry.task.type]
        if position is not None and run_ms is not None and out:  # as many start in the time of one task as are out
            found["expected_start"] = protocol.utc(engine.now.wall_ms + int(run_ms * (position // out + 1)))
    if head is not None and head.last_error is not None:
        found["error"] = head.last_error
    pause = entry.group.pause
    if pause is not None:
        found["paused"] = {"actor": pause.by.actor, "note": pause.by.note, "until_ms": pause.until_wall_ms}
    return found


def explain_task(engine: Engine, group: str, task_id: str) -> dict[str, Any]:
    """Why one task of a group waits.  `position`: 0 is the head."""
    answer = explain(engine, group)
    if not answer["owned"]:
        return answer
    entry, partition = _find(engine, group), engine.partitions[answer["partition"]]
    if entry is not None and entry.task is not None and entry.task.task_id == task_id:
        return answer | {"task_id": task_id, "position_in_group": 0}
    found = None if entry is None else commands.find_parked(entry, task_id)
    if entry is None or found is None:
        if (place := _find_held(partition, group, task_id)) is not None:
            why = reasons.of_held(engine, partition)
            return answer | {
                "task_id": task_id, "blocker": why.blocker, "text": f"task {task_id} is not taken in yet, {why.text}",
                "position_in_intake": place,
            }  # fmt: skip
        return answer | {"task_id": task_id, "text": f"no task {task_id!r} waits or runs in group {group!r}"}
    why = reasons.of_parked(entry, found[0])
    text = f"task {task_id} is {why.text}; that one: {answer['text']}"
    more = {"blocker": why.blocker, "text": text, "position_in_group": found[0] + 1}
    answer.pop("expected_start", None)  # that of the head
    run_ms = engine.run_ms.get(found[1].type)
    why_head = reasons.of_group(engine, entry)
    if run_ms is not None and (why_head.until_ms is not None or why_head.blocker in reasons.MOVING):
        more["expected_wait_s"] = round(run_ms * (found[0] + 1) / 1000, 3)
        begins_ms = max(why_head.until_ms or 0, engine.now.wall_ms) + int(run_ms * (found[0] + 1))
        more["expected_start"] = protocol.utc(begins_ms)
    return answer | {"task_id": task_id} | more


def _find_held(partition: Partition, group: str, task_id: str) -> int | None:
    """How many records of the partition come before this task, which is read and not taken in."""
    key = group.encode(errors="surrogatepass")
    for place, record in enumerate(partition.held):
        if record.key == key:
            origin_partition, origin_offset, _, headers, _ = read_origin(record, 2**31)
            task = read_task(
                key, record.value, headers, partition=origin_partition, offset=origin_offset,
                bytes_max=limits.RECORD_BYTES_MAX,
            )  # fmt: skip
            if isinstance(task, AcceptedTask) and task.task_id == task_id:
                return place
    return None


def dead_letters(engine: Engine, query: Mapping[str, str], limit: int) -> list[dict[str, Any]]:
    """Open dead letters, oldest first; see `pstp.service.DeadLetterFilter` for the conditions."""
    found: list[dict[str, Any]] = []
    since, until = _number(query.get("since")), _number(query.get("until"))
    for partition in engine.partitions.values():
        places = partition.memory.dead.items()
        if (group := query.get("group")) is not None:
            key = group.encode(errors="surrogatepass")
            places = [  # type: ignore[assignment]
                (Dead(sequence, key), partition.memory.dead[Dead(sequence, key)])
                for sequence in sorted(partition.memory.dead_of.get(key, ()))
            ]
        for place, row in places:
            wanted = (
                query.get("id") in (None, row.task_id)
                and query.get("type") in (None, row.type)
                and query.get("reason") in (None, row.reason)
                and query.get("sequence") in (None, str(place.sequence))
                and (since is None or row.at_ms >= since)
                and (until is None or row.at_ms < until)
            )
            if wanted:
                found.append(_letter(place, row, full="payload" in query))
                if limit and len(found) >= limit:
                    return found
    return found


def _letter(place: Dead, row: DeadRow, *, full: bool) -> dict[str, Any]:
    letter: dict[str, Any] = {
        "group": place.key.decode(), "task_id": row.task_id, "sequence": place.sequence, "type": row.type,
        "reason": row.reason, "attempts": row.attempts, "at_ms": row.at_ms,
        "error": f"{row.error.type}: {row.error.message}" if row.error else None,
        "cascade_of": row.cascade_of or None,
    }  # fmt: skip
    if full:
        task = read_row(row.task)[1]
        letter |= {
            "payload": task.payload, "labels": task.labels, "error_info": row.error,
            "first_error": row.first_error or row.error,
        }  # fmt: skip
    return letter


def _number(text: str | None) -> int | None:
    return int(text[:18]) if text and text.isascii() and text.isdigit() else None


def _limit(request: web.Request) -> int:
    asked = request.query.get("limit", "")
    if asked == "0":
        return ALL
    return min(int(asked[:9]), LIST_MAX) if asked.isascii() and asked.isdigit() else 100


def _find(engine: Engine, group: str) -> Entry | None:
    key = group.encode(errors="surrogatepass")
    partition = engine.partitions.get(home_partition(key, engine.partition_count))
    if partition is None:
        return None
    return partition.entries.get(key) or (Entry(key) if key in partition.states else None)


def _entries(engine: Engine) -> Iterator[Entry]:
    for partition in engine.partitions.values():
        yield from partition.entries.values()
        yield from (Entry(key) for key in partition.states if key not in partition.entries)
