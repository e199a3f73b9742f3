"""What the history of a PSTP run says: when it began and ended, whether all is there, and whether order was kept."""

from collections import Counter, defaultdict
from itertools import pairwise
from typing import NamedTuple

from streams.protocol import TERMINAL, EventKind, TaskState, decode_events
from streams.settings import Settings, TopicName
from streams.tail import read_to_end


class Seen(NamedTuple):
    """`seconds`: from the first record of history to the last outcome, by the timestamps of their records."""

    seconds: float
    terminal: int
    order_violations: int
    states: dict[str, int]
    begun_ms: int
    ended_ms: int


def read(settings: Settings) -> Seen:
    """Read `task-events` to its end."""
    places = dict.fromkeys(range(settings.partitions), 0)
    first_ms, last_ms, terminal = 2**62, 0, 0
    started: dict[str, list[int]] = defaultdict(list)
    finished: dict[str, list[int]] = defaultdict(list)
    states: Counter[str] = Counter()
    for message in read_to_end(settings, settings.topic("task-events"), places):
        at_ms = message.timestamp()[1]
        first_ms = min(first_ms, at_ms)
        for event in decode_events(message.value() or b""):
            if event.kind is not EventKind.TASK or event.state is None:
                continue
            states[event.state] += 1
            if event.state is TaskState.RUNNING:
                started[event.group or ""].append(event.sequence or 0)
            if event.state in TERMINAL:
                terminal += 1
                last_ms = max(last_ms, at_ms)
                finished[event.group or ""].append(event.sequence or 0)
    wrong = sum(a >= b for lists in (started, finished) for line in lists.values() for a, b in pairwise(line))
    return Seen((last_ms - first_ms) / 1000, terminal, wrong, dict(states), first_ms, last_ms)


class Written(NamedTuple):
    """What stands in the topics of an app."""

    records: int
    value_bytes: int


def written(settings: Settings) -> Written:
    """Records and bytes (keys and values) that PSTP itself wrote for its tasks."""
    counts: dict[TopicName, int] = dict.fromkeys(("completions", "task-events", "changelog"), settings.partitions)
    counts["dispatches"] = settings.dispatch_partitions
    topics = {settings.topic(topic): count for topic, count in counts.items()}
    records = size = 0
    for topic, count in topics.items():
        for message in read_to_end(settings, topic, dict.fromkeys(range(count), 0)):
            records += 1
            size += len(message.key() or b"") + len(message.value() or b"")
    return Written(records, size)
