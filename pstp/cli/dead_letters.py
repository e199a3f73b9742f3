"""Dead letters: list, read, redrive, discard."""

from typing import Annotated, Any

import msgspec
import typer
from rich.progress import Progress

from pstp.cli.commands import Actor, Group, Note, Yes, ago_ms, confirm, read_payload, show
from pstp.cli.console import AsJson, console, print_json, print_table
from pstp.service import (
    DeadLetterFilter,
    RedriveJob,
    list_dead_letters,
    new_command,
    read_dead_letter,
    send_command,
)
from streams.errors import UserError
from streams.protocol import CommandKind, utc
from streams.settings import Settings

OfGroup = Annotated[str | None, typer.Option("--group", help="of this group")]
OfType = Annotated[str | None, typer.Option("--type", help="of this type")]
OfReason = Annotated[str | None, typer.Option("--reason", help="with this reason, such as attempts_spent")]
Since = Annotated[str | None, typer.Option(help="not older than 90s, 10m, 2h or 1d")]
Until = Annotated[str | None, typer.Option("--until", help="older than 90s, 10m, 2h or 1d")]
TaskId = Annotated[str, typer.Argument(metavar="TASK", help="task id")]
Sequence = Annotated[int | None, typer.Option(help="which one, if several of the group have this id")]


def register(app: typer.Typer) -> None:
    app.command()(redrivable)
    app.command("dead-letter")(dead_letter)
    app.command()(redrive)
    app.command()(discard)


def redrivable(
    group: OfGroup = None, task_type: OfType = None, reason: OfReason = None, since: Since = None, until: Until = None,
    limit: Annotated[int, typer.Option(min=1, help="at most this many")] = 100, as_json: AsJson = False,
) -> None:  # fmt: skip
    """List the dead letters that can be redriven, oldest first.

    Example: `pstp redrivable --type mail.send --since 1d`
    """
    found = list_dead_letters(Settings(), _filter(group, None, task_type, reason, since, until), limit)
    if as_json:
        print_json(found)
        return
    rows = [
        (x.group, x.task_id, x.type, x.reason, x.attempts, f"{utc(x.at_ms):%m-%d %H:%M:%S}", x.error) for x in found
    ]
    columns = ("group", "task", "type", "reason", "attempts", "at", "error")
    print_table("dead letters", columns, rows, "no dead letter is open")


def dead_letter(group: Group, task: TaskId, sequence: Sequence = None, as_json: AsJson = False) -> None:
    """Show one open dead letter: its payload and its error.

    Example: `pstp dead-letter customer-17 3-41`
    """
    found = read_dead_letter(Settings(), group, task, sequence)
    if found is None:
        raise UserError(f"no open dead letter {task!r} in group {group!r}: see `pstp redrivable --group {group}`")
    if as_json:
        print_json(found)
    else:
        console.print_json(msgspec.json.encode(found).decode())


def redrive(
    group: OfGroup = None, task: Annotated[str | None, typer.Option("--id", help="this task id")] = None,
    task_type: OfType = None, reason: OfReason = None, since: Since = None, until: Until = None,
    to: Annotated[str, typer.Option(help="head: before all that waits; tail: behind it")] = "head",
    payload: Annotated[str | None, typer.Option(help='another payload; "@file" or "-" reads it; needs --id')] = None,
    per_s: Annotated[float, typer.Option(min=0, help="at most so many a second; 0: no limit")] = 0,
    dry_run: Annotated[bool, typer.Option(help="only say how many")] = False,
    yes: Yes = False, actor: Actor = "", note: Note = "", as_json: AsJson = False,
) -> None:  # fmt: skip
    """Put dead letters back into their groups, in their original order.  Ctrl-C stops between two of them.

    Examples: `pstp redrive --group customer-17`, `pstp redrive --type mail.send --dry-run`
    """
    if to not in ("head", "tail"):
        raise UserError(f"--to is head or tail, not {to!r}")
    if payload is not None and (task is None or group is None):
        raise UserError("another payload is for one dead letter: name it with --group and --id")
    settings = Settings()
    letters = list_dead_letters(settings, _filter(group, task, task_type, reason, since, until))
    if dry_run:
        if as_json:
            print_json({"count": len(letters)})
        else:
            console.print(f"{len(letters)} dead letters would be redriven")
        return
    if len(letters) > 1:
        confirm(f"redrive {len(letters)} dead letters to the {to} of their groups", yes, as_json)
    job = RedriveJob(
        settings, letters, position="head" if to == "head" else "tail", actor=actor, note=note, per_s=per_s,
        payload=None if payload is None else read_payload(payload),
    )  # fmt: skip
    with Progress(console=console, disable=as_json, transient=True) as progress:
        bar = progress.add_task("redriving", total=job.total)
        try:
            for state in job.run():
                progress.update(bar, completed=state.done + sum(state.refused.values()))
        except KeyboardInterrupt:
            job.abort()
    result: dict[str, Any] = {
        "count": job.total, "redriven": job.done, "refused": dict(job.refused), "aborted": job.aborted,
    }  # fmt: skip
    if as_json:
        print_json(result)
    else:
        refused = "".join(f", {n} refused ({why})" for why, n in job.refused.items())
        console.print(f"redriven: {job.done} of {job.total}{refused}{', stopped' if job.aborted else ''}")
    raise typer.Exit(1 if job.refused or job.aborted else 0)


def discard(
    group: Group, task: TaskId, sequence: Sequence = None, actor: Actor = "", note: Note = "", as_json: AsJson = False
) -> None:
    """Close a dead letter for good: it can no longer be redriven.

    Example: `pstp discard customer-17 3-41 --note "sent by hand"`
    """
    command = new_command(
        CommandKind.DISCARD_DEAD_LETTER, group, task_id=task, sequence=sequence, actor=actor, note=note
    )
    show([send_command(Settings(), command)], as_json)


def _filter(
    group: str | None, task: str | None, task_type: str | None, reason: str | None, since: str | None, until: str | None
) -> DeadLetterFilter:
    return DeadLetterFilter(group, task, task_type, reason, ago_ms(since), ago_ms(until))
