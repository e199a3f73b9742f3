"""What a worker says about itself to Prometheus; names, labels and meanings are in `streams.catalogue`."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from streams.catalogue import METRICS
from streams.exposition import build_info
from streams.kafka_stats import KafkaStats

disable_created_metrics()  # type: ignore[no-untyped-call]  # one more series for each, and nobody asks


def counter(name: str, registry: CollectorRegistry | None) -> Counter:
    metric = METRICS[f"pstp_worker_{name}"]
    return Counter(metric.name, metric.help, metric.labels, registry=registry)


class LocalMetrics:
    """Of a scheduler that runs handlers itself: what it cannot count by the reports that it takes in."""

    def __init__(self) -> None:
        self.timed_out = counter("timed_out", None)

    def register(self, registry: CollectorRegistry) -> None:
        registry.register(self.timed_out)


class WorkerMetrics(Collector):
    """One for the process.  What runs in child processes is counted here, too, by its reports."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def gauge(name: str) -> Gauge:
            metric = METRICS[f"pstp_worker_{name}"]
            return Gauge(metric.name, metric.help, metric.labels, registry=registry)

        def histogram(name: str) -> Histogram:
            metric = METRICS[f"pstp_worker_{name}"]
            return Histogram(metric.name, metric.help, metric.labels, registry=registry, buckets=metric.buckets)

        self.started, self.ended = counter("started", registry), counter("ended", registry)
        self.handler_s, self.claim_s = histogram("handler_seconds"), histogram("claim_seconds")
        self.claimed, self.claim_failures = counter("claimed", registry), counter("claim_failures", registry)
        for why in ("refused", "unknown", "other_member"):
            self.claim_failures.labels(why)  # 0, from the beginning
        self.undecodable, self.timed_out = counter("undecodable", registry), counter("timed_out", registry)
        self.loops_blocked, self.rebalances = counter("loops_blocked", registry), counter("rebalances", registry)
        self.running, self.slots = gauge("running"), gauge("slots")
        self.read_ahead, self.partitions = gauge("read_ahead"), gauge("partitions")
        self.kafka = KafkaStats()
        registry.register(self)

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        yield build_info("worker")
        yield from self.kafka.collect()
