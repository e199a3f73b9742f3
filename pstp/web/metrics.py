"""What the web process says about itself to Prometheus; names, labels and meanings are in `streams.catalogue`.

It serves them twice: at `/metrics` beside the UI, for whoever may look at that, and at `PSTP_HTTP`, as schedulers and
workers do, where Prometheus finds it by its file.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from pstp.web.follower import Follower
from pstp.web.hub import Hub
from pstp.web.store import ReadModel
from streams import distribution
from streams.catalogue import OTHER, SHORT_S
from streams.distribution import Distribution
from streams.exposition import build_info, counter, gauge, histogram
from streams.kafka_stats import KafkaStats

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
TURNED_AWAY: Final = "(turned away)"  # before it came to a route
NO_ROUTE: Final = "(none)"


class Requests:
    """Counts requests; its methods are called in the event loop."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str, str]] = Counter()  # (route, method, status)
        self.seconds: dict[str, Distribution] = {}

    def note(self, route: str, method: str, status: int, seconds: float) -> None:
        self.counts[route, method if method in METHODS else OTHER, str(status)] += 1
        distribution.of(self.seconds, route, SHORT_S).add(seconds)


def route_of(scope: Any) -> str:
    """The template of the route that a request came to, as it stands in the code: never its path."""
    return str(getattr(scope.get("route"), "path", NO_ROUTE))


class WebMetrics(Collector):
    """One for the process.  `watch` tells it whose figures it shows, once they are there."""

    def __init__(self) -> None:
        self.kafka, self.requests = KafkaStats(), Requests()
        self.registry = CollectorRegistry()
        self._parts: tuple[Follower, ReadModel, Hub] | None = None

    def watch(self, follower: Follower, model: ReadModel, hub: Hub) -> None:
        self._parts = follower, model, hub
        self.registry.register(self)

    def text(self) -> bytes:
        """Call it in the event loop."""
        return generate_latest(self.registry)

    def is_live(self) -> tuple[bool, str]:
        """One that has stopped with a reason still answers, and says so at /readyz."""
        follower = self._follower()
        alive = follower.is_alive() or bool(follower.fault)
        return alive, "follows" if alive else "the follower has ended"

    def is_ready(self) -> tuple[bool, str]:
        """It follows, and has read up to where the log ended once since it began."""
        follower = self._follower()
        if follower.fault:
            return False, follower.fault
        ready = follower.caught_up.is_set()
        return ready, "caught up" if ready else "still reading the history"

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        assert self._parts is not None
        follower, model, hub = self._parts
        yield build_info("web")
        yield gauge("pstp_web_lag_seconds", [((), follower.lag_s())])
        yield gauge("pstp_web_caught_up", [((), int(follower.caught_up.is_set()))])
        yield gauge("pstp_web_events", [((), model.version.events)])
        yield counter("pstp_web_records_unreadable", [((), follower.unreadable)])
        yield gauge("pstp_web_streams", [((), len(hub.clients))])
        yield counter("pstp_web_streams_dropped", [((), hub.drops)])
        yield counter("pstp_web_requests", self.requests.counts.items())
        yield histogram("pstp_web_request_seconds", {(r,): d for r, d in self.requests.seconds.items()})
        yield from self.kafka.collect()

    def _follower(self) -> Follower:
        assert self._parts is not None
        return self._parts[0]
