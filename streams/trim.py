"""Removing what was read and is old: the retention of topics that carry work (see `streams.topic_plan`).

A task's payload is in the table as soon as the offset behind it is committed, a completion's effect as well, and a
claimed dispatch has done its work.  So each partition is cut at its group's committed offset or at the age limit,
whichever comes first.  What nobody has read stays, however old.
"""

from typing import Final

from streams.admin import Admin
from streams.settings import Settings, TopicName
from streams.topic_plan import HOUR_MS

# Records that only our own processes read are kept for a day, for whoever looks into a case.
INTERNAL_KEPT_H: Final = 24
CONTROL_KEPT_H: Final = 1

Offsets = dict[tuple[str, int], int]


def trim_topics(settings: Settings, wall_ms: int) -> dict[str, int]:
    """Cut topics as of `wall_ms`; returns how many partitions of each were cut.  Meant to run about hourly, anywhere.

    Raises `TopicsError`.
    """
    admin = Admin(settings)
    kept_h: dict[str, int] = {
        settings.topic("tasks"): settings.retention_hours,
        settings.topic("commands"): settings.retention_hours,
        settings.topic("completions"): min(INTERNAL_KEPT_H, settings.retention_hours),
        settings.topic("dispatches"): min(INTERNAL_KEPT_H, settings.retention_hours),
    }
    read = admin.committed(settings.scheduler_group) | (claimed := admin.committed(settings.worker_group))
