"""What the web UI would show of a run's history, compared with what `pstp verify` counts in it."""

from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Final

from pstp.verify.figures import Figures
from pstp.verify.reader import TopicReader
from pstp.web.database import open_database
from pstp.web.folding import Record
from pstp.web.queries import Queries
from pstp.web.store import ReadModel
from streams.protocol import decode_events
from streams.settings import Settings

BATCH: Final = 5000


def compare(settings: Settings, folder: Path, figures: Figures) -> list[str]:
    """Folds the whole history into a read model in `folder`; a sentence for each number that differs."""
    engine = open_database(f"sqlite:///{folder / 'web-numbers.sqlite'}")
    try:
        _fold(settings, ReadModel(engine))
        shown = Queries(engine).figures(0, 0)
    finally:
        engine.dispose()
    pairs = {
        "groups": (shown.groups, figures.groups),
        "executions": (shown.counts.get("begun", 0), figures.executions),
        "overlaps": (shown.counts.get("overlaps", 0), 0),
        "unfinished": (shown.unfinished, figures.unfinished),
        "ends": (shown.counts.get("ended", 0), sum(figures.ends.values())),  # of redriven ones too
        "rejected": (shown.task("rejected"), figures.rejected),
    } | {state: (shown.task(state), count) for state, count in figures.ends.items() if state != "dead_lettered"}
    return [
        f"the web UI shows {web} {name}, `pstp verify` {found}" for name, (web, found) in pairs.items() if web != found
    ]


def _fold(settings: Settings, model: ReadModel) -> None:
    with closing(TopicReader(settings, settings.topic("task-events"))) as reader:
        for partition in reader.bounds:
            records = _records(reader, partition)
            while part := list(islice(records, BATCH)):
                model.apply(part, {partition: part[-1].offset + 1})


def _records(reader: TopicReader, partition: int) -> Iterator[Record]:
    for message in reader.read(partition):
        yield Record(partition, message.offset() or 0, decode_events(message.value() or b""))
