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
from pstp.verify.reader import TopicReader, dump_line, dump_values, read_dump
from pstp.verify.report import Report, show
from pstp.verify.shared import Options
from pstp.verify.split import Split
from streams.engine import ORIGIN_HEADER
from streams.errors import UserError
from streams.settings import Settings

OK: Final = 0
VIOLATIONS: Final = 1
NOT_ALL_READ: Final = 2


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
    """Check and print; returns the exit code: 1 on violations, 2 if there are none in what could be read of a history
    that a newer version wrote to, else 0.  Raises `UserError` (exit code 2) when it cannot read.  junit: also write
    the verdict there.

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
    if not verdict.ok:
        return VIOLATIONS
    return NOT_ALL_READ if verdict.unread else OK


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
        witnesses = stack.enter_context(Journals(options.partitions, options.untold()))
        witnesses.read_all(journals)
        history = History(options, truncated, witnesses.executed if journals else None)
        bar = progress.add_task(events.topic, total=len(events))
        for partition in events.bounds:
            witnesses.begin(partition)
            for message in events.read(partition, lambda offsets: progress.advance(bar, offsets)):
                history.record(partition, message.offset() or 0, message.value())
            history.close_partition(partition)
            witnesses.judge(with_events=partition not in history.unread)
        _warn_of_held(history, events)
        if tasks is not None and not history.unread:
            _warn_of_held(history, tasks)
            starts = {partition: bounds.low for partition, bounds in tasks.bounds.items()}
            history.shared.compare_with_tasks(_offsets(tasks, progress), starts)
        verdict = _end(history, witnesses)
        return verdict.with_records(events.values(sorted(verdict.places())))


def check_dump(path: Path, options: Options, *, journals: Sequence[Path] = ()) -> Report:
    """Check the history in a dump file, whose partitions may be mixed."""
    with ExitStack() as stack:
        progress = stack.enter_context(_progress())
        witnesses = stack.enter_context(Journals(options.partitions, options.untold()))
        witnesses.read_all(journals)
        history = History(options, (), witnesses.executed if journals else None)
        split = stack.enter_context(Split())
        size = path.stat().st_size if path.exists() else None
        bar = progress.add_task(path.name, total=None if size is None else 2 * size)  # it is read twice
        for number, line in read_dump(path, lambda size: progress.advance(bar, size)):
            split.add(number, line)
        for number in split.numbers():
            witnesses.begin(number)
            for data in split.read(number, lambda size: progress.advance(bar, size)):
                record = dump_line(data)
                history.record(number, record.offset, bytes(record.value))
            history.close_partition(number)
            if options.partitions is not None:
                witnesses.judge(with_events=number not in history.unread)
        if options.partitions is None:
            witnesses.judge(with_events=not history.unread)
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


def _end(history: History, witnesses: Journals) -> Report:
    history.close()
    history.shared.violations.extend(witnesses.violations)
    history.shared.warnings.extend(witnesses.warnings)
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
    except KafkaException as error:
        raise UserError(f"{name} cannot be read: {error.args[0].str()}") from error


def _progress() -> Progress:
    """On standard error, so that the verdict can be piped; silent where nobody watches."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, disable=not console.is_terminal, transient=True)
