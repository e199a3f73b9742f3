"""Removing what was read and is old: the retention of topics that carry work (see `streams.topic_plan`).

A task's payload is in the table as soon as the offset behind it is committed, a completion has had its effect, and a
claimed dispatch has done its work.  So each partition is cut at its group's committed offset or at the age limit,
whichever comes first.  What nobody has read stays, however old.
"""

from typing import Final

from streams.admin import Admin
from streams.settings import Settings, TopicName
from streams.tail import read_to_end
from streams.topic_plan import HOUR_MS

# Records that only our own processes read are kept for whoever looks into a case.
INTERNAL_KEPT_H: Final = 24

Offsets = dict[tuple[str, int], int]


def trim_topics(settings: Settings, wall_ms: int) -> Offsets:
    """Cut the topics as of `wall_ms`; returns the new beginnings by topic and partition.

    Meant to run about hourly, in any process.  Raises `TopicsError`.
    """
    admin = Admin(settings)
    claimed = admin.committed(settings.worker_group)
    read = admin.committed(settings.scheduler_group) | claimed
    task_ms = wall_ms - settings.retention_hours * HOUR_MS
    internal_ms = max(task_ms, wall_ms - INTERNAL_KEPT_H * HOUR_MS)
    before_ms: dict[TopicName, int] = {
        "tasks": task_ms, "commands": task_ms, "completions": internal_ms, "dispatches": internal_ms,
    }  # fmt: skip
    cuts: Offsets = {}
    for name, limit_ms in before_ms.items():
        committed = {place: offset for place, offset in read.items() if place[0] == settings.topic(name)}
        cuts |= _cuts(admin, committed, limit_ms)
    cuts |= _control_cut(settings, admin, claimed, internal_ms)
    admin.delete_before(cuts)
    return cuts


def _cuts(admin: Admin, committed: Offsets, limit_ms: int) -> Offsets:
    young = admin.offsets(committed, limit_ms)
    cuts = {place: offset if young[place] < 0 else min(offset, young[place]) for place, offset in committed.items()}
    return {place: offset for place, offset in cuts.items() if offset > 0}


def _control_cut(settings: Settings, admin: Admin, claimed: Offsets, limit_ms: int) -> Offsets:
    """`control` speaks of dispatches older than itself: it may go once all dispatches of its time are claimed."""
    control, dispatches = settings.topic("control"), settings.topic("dispatches")
    ends = admin.offsets((dispatches, partition) for partition in range(settings.dispatch_partitions))
    unread = {place[1]: at for place, end in ends.items() if (at := claimed.get(place, 0)) < end}
    if any(message.timestamp()[1] < limit_ms for message in read_to_end(settings, dispatches, unread)):
        return {}
    return _cuts(admin, admin.offsets([(control, 0)]), limit_ms)
