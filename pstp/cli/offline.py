"""Commands that read the log: dead-letters, verify; and demo, version."""

import sys
from base64 import b64encode
from collections import deque
from collections.abc import Iterator
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Annotated, Any

import confluent_kafka as ck
import typer

from pstp.cli.commands import ago_ms
from pstp.cli.console import AsJson, console, print_json, print_table
from streams.admin import Admin
from streams.rows import Headers
from streams.settings import Settings
from streams.tail import read_to_end
from streams.topics import verify_identity


def register(app: typer.Typer) -> None:
    app.command("dead-letters")(dead_letters)
    app.command()(verify)
    app.command()(demo)
    app.command()(version)


def dead_letters(
    limit: Annotated[int, typer.Option(help="the last so many", min=1)] = 50,
    group: Annotated[str | None, typer.Option(help="of this group only")] = None,
    task_type: Annotated[str | None, typer.Option("--type", help="of this type only")] = None,
    reason: Annotated[str | None, typer.Option(help="with this reason only, such as attempts_spent")] = None,
    since: Annotated[str | None, typer.Option(help="not older than 90s, 10m, 2h or 1d; reads only these")] = None,
    until: Annotated[str | None, typer.Option(help="older than 90s, 10m, 2h or 1d")] = None,
    as_json: AsJson = False,
) -> None:
    """List dead letters from the log: all there were, also those redriven since, and what was no task.

    `pstp redrivable` lists those that are open, without reading the log.  Example: `pstp dead-letters --since 1d`
    """
    settings = Settings()
    partitions = verify_identity(settings).partitions
    wanted = {"group": group, "type": task_type, "reason": reason}
    since_ms, until_ms = ago_ms(since), ago_ms(until)
    found: deque[dict[str, Any]] = deque(maxlen=limit)
    for letter in sorted(_letters(settings, partitions, since_ms), key=lambda x: x["at_ms"]):
        in_time = since_ms is None or letter["at_ms"] >= since_ms
        in_time &= until_ms is None or letter["at_ms"] < until_ms
        if in_time and all(value in (None, letter[name]) for name, value in wanted.items()):
            found.append(letter)
    if as_json:
        print_json(list(found))
        return
    rows = [(x["group"], x["task_id"], x["type"], x["reason"], x["attempts"], x["detail"]) for x in found]
    columns = ("group", "task", "type", "reason", "attempts", "error or detail")
    print_table("dead letters", columns, rows, "there are no dead letters")


def _letters(settings: Settings, partitions: int, since_ms: int | None) -> Iterator[dict[str, Any]]:
    topic, starts = settings.topic("dead-letters"), dict.fromkeys(range(partitions), 0)
    if since_ms is not None:
        found = Admin(settings).offsets([(topic, partition) for partition in starts], since_ms)
        starts = {partition: offset for (_, partition), offset in found.items() if offset >= 0}
    for message in read_to_end(settings, topic, starts):
        headers: Headers = message.headers() or []  # type: ignore[assignment]
        marks = {
            name.removeprefix("pstp."): (value or b"").decode(errors="backslashreplace")
            for name, value in headers
            if name.startswith("pstp.")
        }
        key, value = message.key(), message.value()
        yield {
            "partition": message.partition(),
            "offset": str(message.offset()),
            "at_ms": message.timestamp()[1],
            "group": None if key is None else key.decode(errors="backslashreplace"),
            "key_base64": None if key is None or _is_text(key) else b64encode(key).decode(),
            "task_id": marks.get("task-id", f"{marks.get('partition')}-{marks.get('offset')}"),
            "type": marks.get("type"),
            "reason": marks.get("reason"),
            "attempts": marks.get("attempts"),
            "detail": marks.get("detail") or marks.get("error"),
            "value": None if value is None else value.decode(errors="backslashreplace")[:1000],
        }


def _is_text(key: bytes) -> bool:
    """Whether the key says all that there is to it when it is shown as text."""
    try:
        key.decode()
    except UnicodeDecodeError:
        return False
    return True


def verify(
    dump: Annotated[Path | None, typer.Option(help="a JSON-lines dump of task-events instead of the cluster")] = None,
    journal: Annotated[list[Path] | None, typer.Option(help="a handlers' own journal; may be given often")] = None,
    kills: Annotated[Path | None, typer.Option(help="known kills: then any other lost worker is a violation")] = None,
    running: Annotated[bool, typer.Option("--running", help="work goes on: unfinished tasks are no loss")] = False,
    stall_s: Annotated[float | None, typer.Option(help="a group that stands still for longer is a violation")] = None,
    junit: Annotated[Path | None, typer.Option(help="also write the verdict to this file, as JUnit XML for CI")] = None,
    as_json: AsJson = False,
) -> None:
    """Check the promise (G1 to G8) against the whole history in `task-events`; exit code 1 on violations.

    Read-only.  Example: `pstp verify --stall-s 30`
    """
    from pstp.verify.run import run

    code = run(
        Settings(), dump=dump, journals=journal or (), kills=kills, expect_drained=not running, stall_s=stall_s,
        as_json=as_json, junit=junit,
    )  # fmt: skip
    raise typer.Exit(code)


def demo(
    rows: Annotated[int | None, typer.Option(help="the first so many flights; all 336,776 if not given", min=1)] = None,
    data_dir: Annotated[Path, typer.Option(help="folder for the broker's data and the logs")] = Path(".pstp/demo"),
    seed: Annotated[int, typer.Option(help="which worker and scheduler are killed, and when")] = 1,
    wait: Annotated[
        bool | None,
        typer.Option("--wait/--no-wait", help="keep the web UI open at the end; in a terminal unless told not"),
    ] = None,
) -> None:
    """Run the whole system on the embedded broker with real data, kill two processes, and check the result.

    The web UI shows the run, and stays open on it until Ctrl-C.

    Example: `pstp demo --rows 5000`
    """
    from pstp.demo.run import main as run_demo

    raise typer.Exit(run_demo(rows, data_dir, seed, sys.stdin.isatty() if wait is None else wait))


def version(as_json: AsJson = False) -> None:
    """Print the versions of PSTP and of the Kafka client.

    Example: `pstp version --json`
    """
    if as_json:
        print_json(
            {"pstp": package_version("pstp"), "confluent_kafka": ck.__version__, "librdkafka": ck.libversion()[0]}
        )
        return
    console.print(f"pstp {package_version('pstp')}, confluent-kafka {ck.__version__} (librdkafka {ck.libversion()[0]})")
