"""What the routes share: the read model, the log, and who listens."""

from collections.abc import Callable
from typing import Any, NamedTuple

from producers import TaskPublisher
from pstp import service
from pstp.web import answers, models
from pstp.web.commander import Commander
from pstp.web.follower import Follower
from pstp.web.hub import Hub
from pstp.web.jobs import Jobs
from pstp.web.keys import Keys, Principal
from pstp.web.masking import Masker
from pstp.web.metrics import WebMetrics
from pstp.web.queries import Queries
from pstp.web.settings import WebSettings
from pstp.web.store import ReadModel
from streams.clock import now
from streams.errors import UserError
from streams.members import MembersView
from streams.protocol import Member
from streams.rfc3339 import wall_ms
from streams.settings import Settings


class Site(NamedTuple):
    settings: Settings
    web: WebSettings
    model: ReadModel
    queries: Queries
    follower: Follower
    members: MembersView
    commander: Commander
    publisher: TaskPublisher
    jobs: Jobs
    keys: Keys | None
    local: Principal
    mask: Masker
    hub: Hub
    metrics: WebMetrics

    def alive(self) -> list[Member]:
        return sorted(self.members.alive().values(), key=lambda m: (m.role, m.instance))

    def explain(self, group: str, partition: int) -> dict[str, Any]:
        """What only the group's scheduler knows; nothing if it does not answer."""
        for member in self.members.alive("scheduler").values():
            if partition in member.partitions:
                try:
                    found: dict[str, Any] = service.ask(member, "/explain", {"group": group})
                except UserError:
                    return {}
                if expected := found.get("expected_start"):
                    found["expected_ms"] = wall_ms(str(expected))
                return found
        return {}


def overview_of(
    settings: Settings, queries: Queries, members: MembersView, lag_s: Callable[[], float]
) -> models.Overview:
    now_ms = now().wall_ms
    figures = queries.figures(now_ms)
    running = figures.task("running") + figures.task("cancelling")
    return answers.overview(figures, list(members.alive().values()), running, lag_s(), settings.app, now_ms)
