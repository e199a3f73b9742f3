"""`pstp submit`: one task, or a file of them."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from producers import BulkError, InvalidTaskError, TaskMessage, TaskPublisher
from pstp.cli.console import AsJson, console, print_json, printable
from streams.errors import UserError
from streams.settings import Settings
from streams.topics import verify_identity


def register(app: typer.Typer) -> None:
    app.command()(submit)


def submit(
    group: Annotated[str | None, typer.Argument(help="group id: tasks of one group run one after the other")] = None,
    task_type: Annotated[str | None, typer.Argument(metavar="TYPE", help="which handler runs it")] = None,
    payload: Annotated[str, typer.Argument(metavar="[JSON]", help="what the handler gets")] = "null",
    file: Annotated[
        Path | None,
        typer.Option(help='one task a line: {"group": …, "type": …, "payload": …}; "-" reads standard input'),
    ] = None,
    task_id: Annotated[str | None, typer.Option("--id", help="a name of your own for the task")] = None,
    not_before: Annotated[str | None, typer.Option(help="time before which it must not run, RFC 3339")] = None,
    max_attempts: Annotated[int | None, typer.Option(min=1)] = None,
    timeout_s: Annotated[float | None, typer.Option()] = None,
    on_failure: Annotated[
        str | None, typer.Option(help="skip, block or cascade, when its attempts are spent; else as its type says")
    ] = None,
    label: Annotated[list[str] | None, typer.Option(help="name=value; may be given often")] = None,
    idempotency_key: Annotated[str | None, typer.Option(help="a second task with it is a duplicate")] = None,
    as_json: AsJson = False,
) -> None:
    """Publish a task, or all tasks of a file in their order.

    Examples: `pstp submit customer-17 mail.send '{"to": "a@example.org"}'`, `pstp submit --file tasks.jsonl`
    """
    settings = Settings()
    verify_identity(settings)
    with TaskPublisher(settings) as publisher:
        if file is not None:
            if group is not None:
                raise UserError("give a group and a type, or --file, not both")
            _submit_file(publisher, file, as_json)
            return
        if group is None or task_type is None:
            raise UserError("give a group and a type, as in `pstp submit customer-17 mail.send '{}'`, or --file")
        options: dict[str, Any] = {
            "id": task_id, "not_before": not_before, "max_attempts": max_attempts, "timeout_s": timeout_s,
            "on_failure": on_failure, "idempotency_key": idempotency_key, "labels": _labels(label or []),
        }  # fmt: skip
        published = publisher.publish(group, task_type, payload.encode(), **options)
    if as_json:
        print_json(published._asdict())
    else:
        place = f"partition {published.partition}, offset {published.offset}"
        console.print(printable(f"published task {published.task_id} of group {group!r} ({place})"))


def _labels(pairs: list[str]) -> dict[str, str]:
    """Raises `UserError`."""
    if wrong := [pair for pair in pairs if "=" not in pair]:
        raise UserError(f"{wrong[0]!r} is no label: give it as name=value")
    return {name: value for name, _, value in (pair.partition("=") for pair in pairs)}


def _submit_file(publisher: TaskPublisher, file: Path, as_json: bool) -> None:
    size = file.stat().st_size if str(file) != "-" and file.is_file() else None
    columns = (
        TextColumn("publishing"),
        BarColumn(),
        TextColumn("{task.fields[done]} acknowledged"),
        TimeRemainingColumn(),
    )
    try:
        with (
            sys.stdin.buffer if str(file) == "-" else file.open("rb") as lines,
            Progress(*columns, console=console, disable=as_json, transient=True) as progress,
        ):
            bar = progress.add_task("", total=size, done=0)
            tasks = _tasks(lines, str(file), lambda read: progress.update(bar, completed=read))
            summary = publisher.publish_many(tasks, lambda done: progress.update(bar, done=done))
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from error
    except BulkError as error:
        raise UserError(f"{error}; continue with line {error.first_missing + 1} of {file}") from error
    if as_json:
        print_json(summary._asdict())
    else:
        console.print(f"published {summary.acknowledged} tasks")


def _tasks(lines: BinaryIO, name: str, on_read: Any) -> Iterator[TaskMessage]:
    read = 0
    for number, line in enumerate(lines, 1):
        read += len(line)
        if number % 1000 == 0:
            on_read(read)
        if not line.strip():
            continue
        try:
            yield TaskMessage.from_json(line)
        except InvalidTaskError as error:
            raise UserError(f"{name}, line {number}: {error}; the lines before it are published") from error
