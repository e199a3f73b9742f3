"""Commands that act on groups: pause, resume, cancel, skip, retry, unblock, release, edit, forget; and breakers."""

import re
import sys
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from msgspec import Raw

from pstp.cli.console import AsJson, console, print_json, print_table, printable
from pstp.service import find_groups, list_breakers, new_command, send_command, send_commands
from streams.clock import now
from streams.errors import UserError
from streams.protocol import Command, CommandKind, Event, Outcome, utc
from streams.settings import Settings

Group = Annotated[str, typer.Argument(help="group id")]
OrGroup = Annotated[str | None, typer.Argument(help="group id")]
Actor = Annotated[str, typer.Option(help="who does this; the user of this process unless given")]
Note = Annotated[str, typer.Option(help="why, for the history")]
IfHead = Annotated[str | None, typer.Option(help="only if this task is the group's head")]
IfState = Annotated[str | None, typer.Option(help="only if the head is in this state, such as retrying or blocked")]
ForTime = Annotated[str | None, typer.Option("--for", help="how long, such as 90s, 10m, 2h, 1d; else until resumed")]
OfType = Annotated[str | None, typer.Option("--type", help="all groups whose head is of this type")]
OfLabel = Annotated[str | None, typer.Option("--label", help="all groups whose head has this label, name=value")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="do not ask")]
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def register(app: typer.Typer) -> None:
    for function in (pause, resume, cancel, skip, retry, unblock, release, edit, forget, breakers):
        app.command()(function)


def pause(
    group: OrGroup = None, for_time: ForTime = None, task_type: OfType = None, label: OfLabel = None,
    yes: Yes = False, actor: Actor = "", note: Note = "", as_json: AsJson = False,
) -> None:  # fmt: skip
    """Start nothing more of a group, or of all groups that a filter finds; what runs goes on.

    Example: `pstp pause customer-17 --for 10m --note "their API is down"`
    """
    until = None
    if for_time is not None:
        until = utc(now().wall_ms) + timedelta(seconds=duration_s(for_time))
    _to_each(CommandKind.PAUSE_GROUP, group, task_type, label, yes, as_json, actor=actor, note=note, until=until)


def resume(
    group: OrGroup = None, task_type: OfType = None, label: OfLabel = None,
    everything: Annotated[bool, typer.Option("--all", help="all groups that are paused")] = False,
    yes: Yes = False, actor: Actor = "", note: Note = "", as_json: AsJson = False,
) -> None:  # fmt: skip
    """Let a paused group go on, or all paused groups that a filter finds.

    Examples: `pstp resume customer-17`, `pstp resume --all`
    """
    _to_each(
        CommandKind.RESUME_GROUP, group, task_type, label, yes, as_json, everything=everything, actor=actor, note=note
    )


def cancel(
    group: Group,
    task: Annotated[str | None, typer.Argument(help="task id; without: --all")] = None,
    everything: Annotated[bool, typer.Option("--all", help="all that waits in the group")] = False,
    running: Annotated[bool, typer.Option(help="with --all: the running task too")] = False,
    if_head: IfHead = None, if_state: IfState = None, actor: Actor = "", note: Note = "", as_json: AsJson = False,
) -> None:  # fmt: skip
    """Cancel one task, waiting or running, or with --all the whole backlog of the group.

    Examples: `pstp cancel customer-17 3-41`, `pstp cancel customer-17 --all`
    """
    if everything == (task is not None):
        raise UserError("name the task to cancel, or --all for everything that waits in the group")
    kind = CommandKind.CANCEL_GROUP if everything else CommandKind.CANCEL_TASK
    _to_one(
        kind, group, as_json, task_id=task, running=running, if_head=if_head, if_state=if_state, actor=actor, note=note
    )


def skip(
    group: Group, if_head: IfHead = None, if_state: IfState = None, actor: Actor = "", note: Note = "",
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Leave out the task at the head of a group; the next one goes on.

    Example: `pstp skip customer-17 --if-head 3-41`
    """
    _to_one(CommandKind.SKIP_HEAD, group, as_json, if_head=if_head, if_state=if_state, actor=actor, note=note)


def retry(
    group: Group, if_head: IfHead = None, if_state: IfState = None, actor: Actor = "", note: Note = "",
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Run the head now instead of after its backoff, or once more if its failure blocks the group.

    Example: `pstp retry customer-17`
    """
    _to_one(CommandKind.RETRY_NOW, group, as_json, if_head=if_head, if_state=if_state, actor=actor, note=note)


def unblock(group: Group, if_head: IfHead = None, actor: Actor = "", note: Note = "", as_json: AsJson = False) -> None:
    """Let a blocked group go on; a head that failed starts anew with all its attempts.

    Example: `pstp unblock customer-17`
    """
    _to_one(CommandKind.UNBLOCK, group, as_json, if_head=if_head, actor=actor, note=note)


def release(group: Group, if_head: IfHead = None, actor: Actor = "", note: Note = "", as_json: AsJson = False) -> None:
    """Give up a running task that goes on after its timeout or a cancel: what it still does is on you.

    Its reports count no more, and the group goes on.  Example: `pstp release customer-17`
    """
    _to_one(CommandKind.RELEASE, group, as_json, if_head=if_head, actor=actor, note=note)


def edit(
    group: Group,
    payload: Annotated[str, typer.Argument(metavar="JSON", help='the new payload; "@file" or "-" reads it')],
    if_head: IfHead = None, actor: Actor = "", note: Note = "", as_json: AsJson = False,
) -> None:  # fmt: skip
    """Give the head of a group, while it waits, another payload; the difference is kept in the history.

    Example: `pstp edit customer-17 '{"to": "b@example.org"}' --if-head 3-41`
    """
    _to_one(
        CommandKind.EDIT_HEAD, group, as_json, payload=read_payload(payload), if_head=if_head, actor=actor, note=note
    )


def forget(group: Group, actor: Actor = "", note: Note = "", as_json: AsJson = False) -> None:
    """Drop the state that the handlers of a group hand on to each other.

    Example: `pstp forget customer-17`
    """
    _to_one(CommandKind.FORGET_GROUP, group, as_json, actor=actor, note=note)


def breakers(as_json: AsJson = False) -> None:
    """List the circuit breakers of all types: closed, open until when, or half open with one probe.

    Each scheduler has its own, for the groups of its partitions.  Example: `pstp breakers`
    """
    found = list_breakers(Settings())
    if as_json:
        print_json(found)
        return
    rows = [
        (
            b["type"], b["scheduler"], b["state"].replace("_", " "), "one is out" if b["probe"] else None,
            f"{utc(b['until_ms']):%H:%M:%S} UTC" if b["until_ms"] else None,
        )
        for b in found
    ]  # fmt: skip
    columns = ("type", "scheduler", "state", "probe", "until")
    print_table("breakers", columns, rows, "no type has a breaker: PSTP_BREAKER_RATE switches them on")


def _to_one(kind: CommandKind, group: str, as_json: bool, **fields: Any) -> None:
    answers = [send_command(Settings(), new_command(kind, group, **fields))]
    show(answers, as_json)


def _to_each(
    kind: CommandKind, group: str | None, task_type: str | None, label: str | None, yes: bool, as_json: bool,
    *, everything: bool = False, **fields: Any,
) -> None:  # fmt: skip
    settings = Settings()
    if (group is None) == (task_type is None and label is None and not everything):
        raise UserError("name a group, or find groups with --type or --label")
    state = "paused" if kind is CommandKind.RESUME_GROUP else None
    groups = [group] if group is not None else find_groups(settings, task_type=task_type, label=label, state=state)
    if group is None:
        confirm(f"{kind.value.replace('_', ' ')}: {len(groups)} groups", yes, as_json)
    commands: list[Command] = [new_command(kind, name, **fields) for name in groups]
    show(send_commands(settings, commands), as_json)


def confirm(what: str, yes: bool, as_json: bool) -> None:
    """Show the count before anything happens.  Raises `UserError` where nobody can be asked."""
    if yes:
        return
    if as_json or not sys.stdin.isatty():
        raise UserError(f"{what}; add --yes to do it")
    typer.confirm(f"{what}. Go on?", abort=True)


def show(answers: list[Event], as_json: bool) -> None:
    """The answers; exit code 1 if any was refused."""
    refused = [a for a in answers if a.outcome is Outcome.REFUSED]
    if as_json:
        print_json(answers[0] if len(answers) == 1 else answers)
    else:
        for answer in answers:
            console.print(printable(sentence(answer)))
    raise typer.Exit(1 if refused else 0)


def sentence(answer: Event) -> str:
    what = (answer.command or "").replace("_", " ")
    task = f", task {answer.task_id}" if answer.task_id else ""
    count = f", {answer.count} tasks" if answer.count is not None else ""
    match answer.outcome:
        case Outcome.REFUSED:
            return f"{answer.group}: {what} refused, {(answer.reason or '').replace('_', ' ')}{task}"
        case Outcome.ACCEPTED:
            return f"{answer.group}: {what} accepted{task}: it is told to stop, the history says when it has"
        case _:
            return f"{answer.group}: {what} done{task}{count}"


def duration_s(text: str) -> float:
    """Seconds of "90s", "10m", "2h" or "1d".  Raises `UserError`."""
    match = re.fullmatch(r"(\d{1,6}(?:\.\d+)?)([smhd])", text)
    if match is None:
        raise UserError(f"{text!r} is no time: write 90s, 10m, 2h or 1d")
    return float(match[1]) * _UNITS[match[2]]


def ago_ms(time: str | None) -> int | None:
    """Wall time in ms, so long ago.  Raises `UserError`."""
    return None if time is None else now().wall_ms - int(duration_s(time) * 1000)


def read_payload(text: str) -> Raw:
    """JSON from the command line, a file or standard input.  Raises `UserError`."""
    try:
        data = text.encode()
        if text == "-":
            data = sys.stdin.buffer.read()
        elif text.startswith("@"):
            data = Path(text[1:]).read_bytes()
        msgspec.json.decode(data, type=Raw)
        return Raw(data.strip())
    except OSError as error:
        raise UserError(f"{text[1:]} cannot be read: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise UserError(f"the payload is no JSON: {error}") from error
