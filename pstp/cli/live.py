"""Commands that ask the running schedulers: groups, tasks, explain."""

import urllib.error
import urllib.request
from typing import Annotated, Any
from urllib.parse import urlencode

import msgspec
import typer

from pstp.cli.console import AsJson, console, print_json, print_table, printable
from streams.errors import UserError
from streams.members import MembersView
from streams.murmur2 import home_partition
from streams.protocol import Member, utc
from streams.settings import Settings
from streams.topics import verify_identity

Group = Annotated[str, typer.Argument(help="group id")]
Limit = Annotated[int, typer.Option(help="at most this many", min=1, max=1000)]

ANSWER_S = 5.0


def register(app: typer.Typer) -> None:
    app.command()(groups)
    app.command()(tasks)
    app.command()(explain)


def groups(
    phase: Annotated[str | None, typer.Option(help="waiting, ready, dispatched or running")] = None,
    limit: Limit = 100,
    as_json: AsJson = False,
) -> None:
    """List the groups that have work, as their schedulers see them now.

    Example: `pstp groups --phase waiting`
    """
    query: dict[str, Any] = {"limit": limit} | ({"phase": phase} if phase else {})
    found: list[dict[str, Any]] = []
    for scheduler in _schedulers(Settings()).values():
        found += _ask(scheduler, "/groups", query)["groups"]
    found = found[:limit]
    if as_json:
        print_json(found)
        return
    rows = [
        (g["group"], g["phase"], g["task_id"], g["type"], g["attempt"], g["parked"], g["worker"], _since(g["since_ms"]))
        for g in found
    ]
    columns = ("group", "phase", "task", "type", "attempt", "parked", "worker", "since")
    print_table("groups with work", columns, rows, "no group has work")


def tasks(group: Group, limit: Limit = 100, as_json: AsJson = False) -> None:
    """List the tasks of one group in the order in which they run: its head and what is parked behind it.

    Example: `pstp tasks customer-17`
    """
    found = _ask_owner(group, "/tasks", {"limit": limit})["tasks"]
    if as_json:
        print_json(found)
        return
    rows = [(t["task_id"], t["type"], t["state"], t.get("attempt"), t["sequence"]) for t in found]
    print_table(f"tasks of {group!r}", ("task", "type", "state", "attempt", "sequence"), rows, "no task waits or runs")


def explain(group: Group, as_json: AsJson = False) -> None:
    """Say why a group waits: what blocks it, what limits it, when it is expected to start.

    Example: `pstp explain customer-17`
    """
    answer = _ask_owner(group, "/explain", {})
    if as_json:
        print_json(answer)
    else:
        console.print(printable(f"{group}: {answer['text']}"))


def _ask_owner(group: str, path: str, query: dict[str, Any]) -> Any:
    """The scheduler that owns this group knows."""
    settings = Settings()
    count = verify_identity(settings).partitions
    home = home_partition(group.encode(errors="surrogateescape"), count)
    for scheduler in _schedulers(settings).values():
        if home in scheduler.partitions:
            return _ask(scheduler, path, query | {"group": group})
    raise UserError(f"no scheduler owns partition {home} of this group now: wait for a takeover, or start one")


def _schedulers(settings: Settings) -> dict[str, Member]:
    view = MembersView(settings)
    view.start()
    try:
        if not view.wait_caught_up(ANSWER_S):
            raise UserError(
                f"no answer from Kafka at {settings.bootstrap_servers}: is it running? `pstp dev` starts one"
            )
        found = view.alive("scheduler")
    finally:
        view.stop()
    if not found:
        raise UserError("no scheduler is running: start one with `pstp scheduler`, or everything with `pstp dev`")
    return found


def _ask(scheduler: Member, path: str, query: dict[str, Any]) -> Any:
    try:
        with urllib.request.urlopen(f"{scheduler.http}{path}?{urlencode(query)}", timeout=ANSWER_S) as answer:
            return msgspec.json.decode(answer.read())
    except (urllib.error.URLError, OSError) as error:
        raise UserError(
            f"scheduler {scheduler.instance} does not answer at {scheduler.http}: {error}; it listens on loopback "
            "unless PSTP_HTTP says otherwise, so ask from its host"
        ) from error


def _since(wall_ms: int) -> str:
    return f"{utc(wall_ms):%H:%M:%S}" if wall_ms else ""
