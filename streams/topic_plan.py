"""What each topic is made of, and why.

Kafka's own retention deletes by age and knows nothing of what has been read.  So topics that carry work (`tasks`,
`commands`, `completions`, `dispatches`, `control`) have none; `streams.trim` removes what was read and is old.
"""

from typing import Final, NamedTuple

from streams import limits
from streams.settings import Settings, TopicName

HOUR_MS: Final = 3_600_000
DEAD_LETTERS_KEPT_H: Final = 90 * 24
FOREVER: Final = "-1"

_MIB: Final = 1024 * limits.KIB
_BASE: Final = {
    # A client's odd clock must not decide what retention deletes, nor where a search by time begins.
    "message.timestamp.type": "LogAppendTime",
    # A task at its size limit, in our envelope, still fits everywhere; in `tasks` the scheduler is the one to refuse.
    "max.message.bytes": str(limits.RECORD_BYTES_MAX),
    # Whatever a cluster's defaults are: age alone decides, and no replica that lags may lose acknowledged records.
    "retention.bytes": FOREVER,
    "unclean.leader.election.enable": "false",
}
_COMPACTED: Final = {
    "cleanup.policy": "compact",
    "min.compaction.lag.ms": "0",
    # A tombstone must outlive the slowest reader that has already seen the row before it; one that stands still for
    # longer than a poll interval has lost its partitions and starts again.
    "delete.retention.ms": str(2 * limits.POLL_INTERVAL_MS_MAX),
}


class TopicPlan(NamedTuple):
    """A topic as it should be.  `config`: every setting that we mean, as Kafka spells it."""

    topic: str
    partitions: int
    config: dict[str, str]


def plan_topics(settings: Settings) -> dict[TopicName, TopicPlan]:
    """All topics of an app, in the order in which they are created."""
    n, m = settings.partitions, settings.dispatch_partitions
    replicated = min_insync(settings.replication_factor)

    def plan(name: TopicName, partitions: int, config: dict[str, str]) -> tuple[TopicName, TopicPlan]:
        return name, TopicPlan(settings.topic(name), partitions, _BASE | replicated | config)

    return dict((
        plan("tasks", n, _kept(None)),
        plan("commands", n, _kept(None)),
        plan("completions", n, _kept(None)),
        plan("dispatches", m, _kept(None)),
        plan("control", 1, _kept(None)),
        # Announcements repeat every second and a starting process reads them all: only the last ones may lie around.
        plan("members", 1, _compacted(segment_bytes=_MIB, segment_ms=600_000, dirty_ratio=0.1)),
        plan("task-events", n, _kept(settings.retention_hours)),
        # A dead letter is what an operator still has of a task: kept long after its events.
        plan("dead-letters", n, _kept(max(DEAD_LETTERS_KEPT_H, settings.retention_hours))),
        # Recovery reads all of it, so it has to cost what the live rows cost: what is never compacted (the newest
        # segments) is small, for all partitions together, and at most a quarter of the rest is dead.  Less would write
        # every row ten times.
        plan("changelog", n, _compacted(segment_bytes=_segment_bytes(n), segment_ms=300_000, dirty_ratio=0.25)),
    ))  # fmt: skip


def min_insync(replicas: int) -> dict[str, str]:
    """With three replicas one may be away and an acknowledged record is still in two places."""
    return {"min.insync.replicas": "2" if replicas >= 3 else "1"}


def _segment_bytes(partitions: int) -> int:
    """Of the changelog: one owner may have to read the newest segments of all its partitions."""
    return max(_MIB, min(16 * _MIB, 128 * _MIB // partitions))


def _kept(hours: int | None) -> dict[str, str]:
    """Deleted by age after this many hours; by `streams.trim` alone if None."""
    retention_ms = FOREVER if hours is None else str(hours * HOUR_MS)
    return {
        "cleanup.policy": "delete",
        "retention.ms": retention_ms,
        # Only whole segments are deleted, and a quiet one must end some day.
        "segment.bytes": str(128 * _MIB),
        "segment.ms": str(24 * HOUR_MS if hours is None else max(HOUR_MS // 2, hours * HOUR_MS // 7)),
    }


def _compacted(*, segment_bytes: int, segment_ms: int, dirty_ratio: float) -> dict[str, str]:
    return _COMPACTED | {
        "segment.bytes": str(segment_bytes),
        "segment.ms": str(segment_ms),
        "min.cleanable.dirty.ratio": str(dirty_ratio),
    }
