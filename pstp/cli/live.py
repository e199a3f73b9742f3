"""Commands that ask the running schedulers: groups, tasks, explain, top."""

from contextlib import suppress
from typing import Annotated, Any

import typer

from pstp.cli.console import AsJson, console, print_json, print_table, printable
from pstp.service import ask_all, ask_owner
from pstp.service import explain as why
from streams.protocol import utc
from streams.settings import Settings

Group = Annotated[str, typer.Argument(help="group id")]
Limit = Annotated[int, typer.Option(help="at most this many", min=1, max=1000)]


def register(app: typer.Typer) -> None:
    app.command()(groups)
    app.command()(tasks)
    app.command()(explain)
    app.command()(top)


def groups(
    phase: Annotated[str | None, typer.Option(help="waiting, ready, dispatched or running")] = None,
    state: Annotated[str | None, typer.Option(help="such as paused, blocked, retrying or cancelling")] = None,
    limit: Limit = 100,
    as_json: AsJson = False,
) -> None:
    """List the groups that have work, as their schedulers see them now.

    Examples: `pstp groups --phase waiting`, `pstp groups --state blocked`
    """
    query: dict[str, Any] = {"limit": limit} | ({"phase": phase} if phase else {})
    query |= {"state": state} if state else {}
    found: list[dict[str, Any]] = []
    for answer in ask_all(Settings(), "/groups", query):
        found += answer["groups"]
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
    found = ask_owner(Settings(), group, "/tasks", {"limit": limit})["tasks"]
    if as_json:
        print_json(found)
        return
    rows = [(t["task_id"], t["type"], t["state"], t.get("attempt"), t["sequence"]) for t in found]
    print_table(f"tasks of {group!r}", ("task", "type", "state", "attempt", "sequence"), rows, "no task waits or runs")


def explain(
    group: Annotated[str, typer.Argument(metavar="GROUP|TASK", help="group id, or a task's")],
    task: Annotated[str | None, typer.Argument(help="task id: why this one waits")] = None,
    as_json: AsJson = False,
) -> None:
    """Say why a group, or a task, waits: what blocks it, what limits it, when it is expected to start.

    Examples: `pstp explain customer-17`, `pstp explain customer-17 3-41`, `pstp explain 3-41`
    """
    answer = why(Settings(), group, task)
    if as_json:
        print_json(answer)
    else:
        console.print(printable(f"{answer['group']}: {answer['text']}"))


def top(
    interval_s: Annotated[float, typer.Option(help="seconds between two looks", min=0.5)] = 2.0,
    as_json: AsJson = False,
) -> None:
    """Show what all processes do, live, until Ctrl-C; with --json, once.

    Example: `pstp top`
    """
    from pstp.top import once, run

    if as_json:
        print_json(once(Settings()))
        return
    with suppress(KeyboardInterrupt):
        run(Settings(), interval_s, console)


def _since(wall_ms: int) -> str:
    return f"{utc(wall_ms):%H:%M:%S}" if wall_ms else ""
