"""`pstp demo`: the whole system, real data, two kills, and the proof that nothing went wrong."""

import signal
import time
import webbrowser
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, Final

import msgspec
from rich.console import Console

from pstp.broker import BrokerError, EmbeddedBroker
from pstp.demo import page
from pstp.demo.checks import Check, Expected, check_dead_letters, check_logbooks, expect, show_busiest
from pstp.demo.children import Children
from pstp.demo.display import Display
from pstp.demo.folder import demo_folder
from pstp.demo.stage import SCHEDULERS, WORKERS, Stage
from pstp.verify import Options, Report, check_cluster
from pstp.verify.report import milliseconds, show
from streams.errors import UserError
from streams.settings import Settings
from streams.topics import create_topics

OK: Final = 0
FAILED: Final = 1
INTERRUPTED: Final = 130


def main(rows: int | None, data_dir: Path, seed: int, wait: bool) -> int:
    """Run the demo, and then, with `wait`, serve the web UI until Ctrl-C.

    0 if everything holds, 1 if not, 130 after Ctrl-C.  Raises `UserError`."""
    console = Console()
    try:
        with _sigterm_as_interrupt(), demo_folder(data_dir) as folder:
            return _run(console, rows, folder, seed, wait)
    except KeyboardInterrupt:
        console.print("stopped, with everything that the demo had started")
        return INTERRUPTED
    except BrokerError as error:
        raise UserError(str(error)) from error


def _run(console: Console, rows: int | None, folder: Path, seed: int, wait: bool) -> int:
    with ExitStack() as stack:
        console.print(f"Starting Apache Kafka; data and logs are in {folder}", highlight=False, soft_wrap=True)
        broker = stack.enter_context(EmbeddedBroker(folder / "kafka"))
        settings = _settings(broker, folder)
        create_topics(settings)
        expected = expect(rows)
        console.print(
            f"{expected.rows - len(expected.keyless):,} flights of {len(expected.logbooks):,} planes, and "
            f"{len(expected.keyless):,} without a tail number; {len(SCHEDULERS)} schedulers, {len(WORKERS)} workers",
            highlight=False,
            soft_wrap=True,
        )
        children = stack.enter_context(Children(settings, folder / "logs"))
        if page.installed():
            page.start(children)
        with Display(console) as display:
            stage = Stage(settings, broker, children, display, expected.rows, seed)
            stage.play(rows)
        (folder / "kills.jsonl").write_bytes(b"".join(msgspec.json.encode(kill) + b"\n" for kill in stage.kills))
        console.print("All tasks have ended. Checking the whole history …")
        verdict = check_cluster(settings, Options(kills=tuple(stage.kills)))
        checks = [
            *_history_checks(verdict, expected),
            check_logbooks(expected.logbooks, stage.states),
            check_dead_letters(settings, expected.keyless),
        ]
        address = page.wait_caught_up(children) if page.installed() else ""
        if address:
            checks.append(page.same_numbers(address, verdict))
        show(verdict, console)
        show_busiest(console, stage.states)
        code = _conclude(console, checks, verdict, stage)
        if wait and address:
            _keep_open(console, children, address)
    return code


def _keep_open(console: Console, children: Children, address: str) -> None:
    """Until Ctrl-C, which is the end of a demo that went well."""
    console.print(f"The run in your browser: [bold]{address}[/] (Ctrl-C ends it)", highlight=False, soft_wrap=True)
    webbrowser.open(address)
    with suppress(KeyboardInterrupt):
        while True:
            children.check()
            time.sleep(1)


def _settings(broker: EmbeddedBroker, folder: Path) -> Settings:
    """The demo's own, whatever is set for other clusters; PSTP_DEMO_… changes them."""
    apart: dict[str, Any] = {"_env_prefix": "PSTP_DEMO_", "_env_file": None}
    return Settings(bootstrap_servers=broker.bootstrap, data_dir=folder, **apart)


def _history_checks(verdict: Report, expected: Expected) -> list[Check]:
    figures = verdict.figures
    violations, repeats = sum(verdict.counts.values()), sum(figures.repeats.values())
    keyed = expected.rows - len(expected.keyless)
    return [
        Check(verdict.ok, f"{violations:,} violations in {figures.events:,} events of {figures.tasks:,} tasks"),
        Check(
            set(figures.repeats) <= {"worker_lost"},
            f"{repeats:,} executions were repeats, each after the worker that was killed",
        ),
        Check(
            figures.ends == {"succeeded": keyed} and figures.rejected == len(expected.keyless),
            f"{figures.ends.get('succeeded', 0):,} of {keyed:,} tasks succeeded, {figures.rejected:,} were rejected",
        ),
    ]


def _conclude(console: Console, checks: list[Check], verdict: Report, stage: Stage) -> int:
    figures = verdict.figures
    rate = figures.tasks / stage.elapsed_s
    lines = [
        f"{figures.tasks:,} tasks in {stage.elapsed_s:,.1f} s, {len(stage.kills)} kills included: {rate:,.0f} tasks/s",
        f"peak parked: {figures.peak_parked:,}",
    ]
    for name, values in (("wait until start", figures.wait), ("completion to next start", figures.gap)):
        if values is not None:
            lines.append(f"{name}: p50 {milliseconds(values.p50_s)}, p99 {milliseconds(values.p99_s)}")
    lines += [f"{'[bold green]✓' if check.ok else '[bold red]✗'}[/] {check.text}" for check in checks]
    console.print("\n".join(lines), highlight=False, soft_wrap=True)
    return OK if all(check.ok for check in checks) else FAILED


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """SIGTERM stops the demo as Ctrl-C does, so that nothing is left behind."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
