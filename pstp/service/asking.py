"""Live questions to the schedulers that own the groups: over their read-only HTTP."""

import urllib.error
import urllib.request
from typing import Any, Final
from urllib.parse import urlencode

import msgspec

from streams.errors import UserError
from streams.members import MembersView
from streams.murmur2 import home_partition
from streams.protocol import Member
from streams.settings import Settings
from streams.topics import verify_identity

ANSWER_S: Final = 5.0


def ask_owner(settings: Settings, group: str, path: str, query: dict[str, Any]) -> Any:
    """The answer of the scheduler that owns this group.  Raises `UserError` if there is none."""
    count = verify_identity(settings).partitions
    home = home_partition(group.encode(errors="surrogateescape"), count)
    for scheduler in schedulers(settings).values():
        if home in scheduler.partitions:
            return ask(scheduler, path, query | {"group": group})
    raise UserError(f"no scheduler owns partition {home} of this group now: wait for a takeover, or start one")


def ask_all(settings: Settings, path: str, query: dict[str, Any]) -> list[Any]:
    """The answers of all schedulers: each knows its own groups.  Raises `UserError`."""
    return [ask(scheduler, path, query) for scheduler in schedulers(settings).values()]


def explain(settings: Settings, group: str, task_id: str | None = None) -> dict[str, Any]:
    """Why a group, or one task of it, waits: `text`, `blocker`, `expected_start` and more, as `pstp explain` shows it.

    `group` may be a task's id, if no group of that name has anything to do: then of that task.  Raises `UserError`.
    """
    answer: dict[str, Any] = ask_owner(settings, group, "/explain", {} if task_id is None else {"task": task_id})
    if task_id is None and answer.get("phase") == "idle" and "blocker" not in answer:
        holding = [name for found in ask_all(settings, "/tasks/find", {"id": group}) for name in found["groups"]]
        if len(holding) == 1:
            return explain(settings, holding[0], group)
        if holding:
            raise UserError(f"tasks of several groups have the id {group!r}: name the group, one of {sorted(holding)}")
    return answer


def list_breakers(settings: Settings) -> list[dict[str, Any]]:
    """Breakers of all schedulers, by type: `type`, `scheduler`, `state`, `until_ms` (wall time, of an open one),
    `probe` (whether one is out).  Each speaks for the groups of its scheduler's partitions.  Raises `UserError`.
    """
    found = [
        {"type": b["type"], "scheduler": answer["scheduler"], "state": b["state"], "until_ms": b.get("until_ms"),
         "probe": b["probe"] is not None}
        for answer in ask_all(settings, "/breakers", {})
        for b in answer["breakers"]
    ]  # fmt: skip
    return sorted(found, key=lambda breaker: (breaker["type"], breaker["scheduler"]))


def schedulers(settings: Settings) -> dict[str, Member]:
    """Those that are alive.  Raises `UserError` if there is none."""
    found = members(settings, "scheduler")
    if not found:
        raise UserError("no scheduler is running: start one with `pstp scheduler`, or everything with `pstp dev`")
    return found


def members(settings: Settings, role: str | None = None) -> dict[str, Member]:
    """Processes that are alive, of one role or of any.  Raises `UserError` if Kafka does not answer."""
    view = MembersView(settings)
    view.start()
    try:
        if not view.wait_caught_up(ANSWER_S):
            raise UserError(
                f"no answer from Kafka at {settings.bootstrap_servers}: is it running? `pstp dev` starts one"
            )
        return view.alive(role)
    finally:
        view.stop()


def ask(scheduler: Member, path: str, query: dict[str, Any]) -> Any:
    """Raises `UserError` if it does not answer."""
    try:
        with urllib.request.urlopen(f"{scheduler.http}{path}?{urlencode(query)}", timeout=ANSWER_S) as answer:
            return msgspec.json.decode(answer.read())
    except (urllib.error.URLError, OSError) as error:
        raise UserError(
            f"scheduler {scheduler.instance} does not answer at {scheduler.http}: {error}; it listens on loopback "
            "unless PSTP_HTTP says otherwise, so ask from its host"
        ) from error
