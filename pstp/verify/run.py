"""`pstp verify`: read a history, judge it, print the verdict."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Final

import msgspec
from confluent_kafka import KafkaException
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from pstp.verify.findings import Guarantee, Kill, Violation
from pstp.verify.history import History
from pstp.verify.journal import Journals
from pstp.verify.junit import to_junit
from pstp.verify.reader import TopicReader, dump_values, read_dump
from pstp.verify.report import Report, show
from pstp.verify.shared import Options
from streams.engine import ORIGIN_HEADER
from streams.errors import UserError
from streams.protocol import VersionError
from streams.settings import Settings

OK: Final = 0
VIOLATIONS: Final = 1


def run(
    settings: Settings,
    *,
    dump: Path | None = None,
    journals: Sequence[Path] = (),
    kills: Path | None = None,
    expect_drained: bool = True,
    compare_tasks: bool = True,
    stall_s: float | None = None,
    as_json: bool = False,
    junit: Path | None = None,
) -> int:
    """Check, print, and write a JUnit file if asked; returns the exit code, 0 or 1.

    Raises `UserError` (exit code 2) when it cannot read.

    compare_tasks: also read `tasks`, and hold every record of it against the history; needs a cluster, and a history
    that is drained.
    """
    options = Options(
        expect_drained=expect_drained, kills=None if kills is None else read_kills(kills), stall_s=stall_s
    )
    if dump is None:
        verdict = check_cluster(settings, options, journals=journals, compare_tasks=compare_tasks)
    else:
        verdict = check_dump(dump, options, journals=journals)
    if junit is not None:
        _write_junit(junit, verdict)
    if as_json:
        sys.stdout.write(verdict.to_json().decode() + "\n")
    else:
        show(verdict, Console())
    return OK if verdict.ok else VIOLATIONS


def check_cluster(
    settings: Settings, options: Options, *, journals: Sequence[Path] = (), compare_tasks: bool = True
) -> Report:
    """Check the history in `task-events` of the cluster, up to where it ends now."""
    with ExitStack() as stack:
        tasks = None
        if compare_tasks and options.expect_drained:
            # Looked up first: what is in `tasks` by then must be in the history.
            tasks = stack.enter_context(closing(TopicReader(settings, settings.topic("tasks"))))
        events = stack.enter_context(closing(TopicReader(settings, settings.topic("task-events"))))
        progress = stack.enter_context(_progress())
        stack.enter_context(_readable(events.topic))
        options = msgspec.structs.replace(options, partitions=len(events.bounds))
        truncated = [partition for partition, bounds in events.bounds.items() if bounds.low > 0]
        history, witnesses = _begin(options, truncated, journals)
        bar = progress.add_task(events.topic, total=len(events))
        for partition in events.bounds:
            for message in events.read(partition, lambda offsets: progress.advance(bar, offsets)):
                history.record(partition, message.offset() or 0, message.value())
            history.close_partition(partition)
        _warn_of_held(history, events)
        if tasks is not None:
            _warn_of_held(history, tasks)
            starts = {partition: bounds.low for partition, bounds in tasks.bounds.items()}
            history.shared.compare_with_tasks(_offsets(tasks, progress), starts)
        verdict = _end(history, witnesses)
        return verdict.with_records(events.values(sorted(verdict.places())))


def check_dump(path: Path, options: Options, *, journals: Sequence[Path] = ()) -> Report:
    """Check the history in a dump file."""
    history, witnesses = _begin(options, (), journals)
    with _progress() as progress, _readable(str(path)):
        bar = progress.add_task(path.name, total=path.stat().st_size if path.exists() else None)
        for line in read_dump(path, lambda size: progress.advance(bar, size)):
            history.record(line.partition, line.offset, bytes(line.value))
    verdict = _end(history, witnesses)
    return verdict.with_records(dump_values(path, verdict.places()))


def _write_junit(path: Path, verdict: Report) -> None:
    try:
        path.write_bytes(to_junit(verdict))
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; name another file with --junit") from error


def read_kills(path: Path) -> tuple[Kill, ...]:
    """The known faults, one JSON object per line: {"instance": "worker-1", "at": "2031-05-01T08:00:00Z"}."""
    try:
        return tuple(_kill(line) for line in path.read_bytes().splitlines() if line.strip())
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UserError(
            f'{path} is no list of kills ({error}): each line is like {{"instance": "worker-1", "at": '
            '"2031-05-01T08:00:00Z"}'
        ) from error


_kill = msgspec.json.Decoder(Kill).decode


def _begin(options: Options, truncated: Sequence[int], journals: Sequence[Path]) -> tuple[History, Journals | None]:
    if not journals:
        return History(options, truncated), None
    witnesses = Journals()
    for path in journals:
        witnesses.read(path)
    return History(options, truncated, witnesses.executed), witnesses


def _end(history: History, witnesses: Journals | None) -> Report:
    history.close()
    if witnesses is not None:
        witnesses.judge()
        history.shared.violations.extend(witnesses.violations)
    return history.verdict()


def _warn_of_held(history: History, reader: TopicReader) -> None:
    for partition in reader.held:
        text = f"a transaction on partition {partition} of {reader.topic!r} stays open: what is behind it is not judged"
        history.shared.warnings.add(Violation(Guarantee.G7, "open_transaction", text))


def _offsets(tasks: TopicReader, progress: Progress) -> Iterator[tuple[int, int]]:
    """Of every record of `tasks`; a forwarded copy is answered under the place of its original."""
    bar = progress.add_task(tasks.topic, total=len(tasks))
    for partition in tasks.bounds:
        for message in tasks.read(partition, lambda offsets: progress.advance(bar, offsets)):
            headers = message.headers()
            if not any(name == ORIGIN_HEADER for name, _ in dict(headers or ()).items()):
                yield partition, message.offset() or 0


@contextmanager
def _readable(name: str) -> Iterator[None]:
    """Failures of reading, in words for the one who asked."""
    try:
        yield
    except VersionError as error:
        raise UserError(f"{name} holds a {error}") from error
    except KafkaException as error:
        raise UserError(f"{name} cannot be read: {error.args[0].str()}") from error


def _progress() -> Progress:
    """On standard error, so that the verdict can be piped; silent where nobody watches."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, disable=not console.is_terminal, transient=True)
