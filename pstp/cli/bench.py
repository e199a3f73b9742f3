"""`pstp bench` and `pstp size`: measuring, and reckoning with what was measured."""

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from pstp.cli.console import AsJson, console, print_json
from streams.errors import UserError

Out = Annotated[Path | None, typer.Option(help="write the result there as JSON")]
Repeat = Annotated[int, typer.Option(help="rounds; figures are medians", min=1)]
Scale = Annotated[float, typer.Option(help="part of the tasks, for a quick look", min=0.001, max=1)]

commands = typer.Typer(no_args_is_help=True, help="Measure PSTP, and its peers on the same work.")


def register(app: typer.Typer) -> None:
    app.add_typer(commands, name="bench")
    app.command()(size)


def _finish(result: dict[str, Any], out: Path | None, as_json: bool) -> None:
    result = {"command": shlex.join(["pstp", *sys.argv[1:]])} | result
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=2) + b"\n")
    if as_json:
        print_json(result)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@commands.command()
def throughput(
    sides: Annotated[str, typer.Option(help="comma-separated; `all` takes every one that can run here")] = "all",
    works: Annotated[str, typer.Option(help="comma-separated: 0ms, 1ms, 10ms, zipf, one")] = "0ms,1ms,10ms,zipf,one",
    repeat: Repeat = 3,
    scale: Scale = 1.0,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Tasks per second, every side on the same preloaded work, one after the other, medians of so many rounds.

    Example: `pstp bench throughput --works 0ms,zipf --sides pc-produce,pstp-workers`
    """
    from pstp.bench.rounds import throughput as run
    from pstp.bench.sides import SIDES, available

    chosen = [name for name in SIDES if available(name)] if sides == "all" else sides.split(",")
    _finish(run(chosen, works.split(","), repeat, scale, _say), out, as_json)


@commands.command("same-records")
def same_records(
    side: Annotated[str, typer.Option(help="pstp-workers or pstp-local")] = "pstp-workers",
    repeat: Repeat = 3,
    scale: Scale = 1.0,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """PSTP against a bare transactional loop that writes as many records and bytes: rate and CPU seconds.

    Example: `pstp bench same-records --repeat 3`
    """
    from pstp.bench.rounds import same_records as run

    if side not in ("pstp-workers", "pstp-local"):
        raise UserError(f"{side} is no side of PSTP: choose pstp-workers or pstp-local")
    _finish(run(repeat, scale, side, _say), out, as_json)


@commands.command()
def engine(
    parked_max: Annotated[
        int, typer.Option(help="largest number of parked tasks and idle groups", min=1000)
    ] = 1_000_000,
    one_task_groups: Annotated[int, typer.Option(help="groups of one task each, one after the other")] = 500_000,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """The scheduler's own cost, without Kafka: CPU per task as backlog and idle groups grow, and bytes of memory.

    Example: `pstp bench engine --parked-max 100000`
    """
    from pstp.bench.flatness import run

    _finish(run(parked_max, one_task_groups, _say), out, as_json)


def size(
    rate: Annotated[float, typer.Option(help="tasks per second to be done", min=0.001)],
    handler_ms: Annotated[float, typer.Option(help="how long a handler takes on average", min=0)],
    groups: Annotated[int, typer.Option(help="groups that have work at the same time", min=1)],
    as_json: AsJson = False,
) -> None:
    """Say how many partitions, schedulers, workers and slots a wanted rate needs.  The model is in docs/sizing.md.

    Example: `pstp size --rate 500 --handler-ms 40 --groups 2000`
    """
    from pstp.sizing import plan

    needed = plan(rate, handler_ms, groups)
    if as_json:
        print_json(needed._asdict())
        return
    console.print(
        f"{rate:g} tasks/s of {handler_ms:g} ms in {groups} groups: {needed.schedulers} scheduler(s), "
        f"{needed.workers} worker(s) with {needed.slots} slots each, {needed.partitions} partitions, "
        f"{needed.dispatch_partitions} dispatch partitions; about {needed.cores:.1f} cores for schedulers and workers"
    )
    for note in needed.notes:
        console.print(f"- {note}")
