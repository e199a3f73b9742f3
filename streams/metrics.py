"""What a scheduler says about itself to Prometheus.  Labels are types of things, never groups, tasks or clients."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from streams.clock import now
from streams.group import Phase

if TYPE_CHECKING:
    from streams.scheduler import Scheduler

# Counted by the engine: what -> (metric, its label, help).
COUNTERS = {
    "accepted": ("pstp_tasks_accepted", "type", "Tasks taken in"),
    "state": ("pstp_task_states", "state", "Task state changes, by new state"),
    "rejected": ("pstp_tasks_rejected", "reason", "Records of `tasks` that are no tasks"),
    "dead_lettered": ("pstp_tasks_dead_lettered", "reason", "Tasks that went to `dead-letters`"),
    "forwarded": ("pstp_tasks_forwarded", "", "Tasks found outside their group's partition"),
    "already_taken": ("pstp_records_already_taken", "topic", "Records below the watermark, ignored"),
    "report_refused": ("pstp_reports_refused", "reason", "Workers' reports that came too late or twice"),
    "unreadable": ("pstp_records_unreadable", "topic", "Records of other inputs that cannot be read"),
    "worker_lost": ("pstp_workers_lost", "", "Leases that ran out while a task was running"),
    "lost_before_start": ("pstp_dispatches_lost", "", "Dispatches whose claimant never started them"),
    "claims_looked_up": ("pstp_claims_looked_up", "", "Looks at the workers' claims for a dispatch nobody started"),
    "take_back": ("pstp_dispatches_taken_back", "", "Requests to give back an unclaimed dispatch"),
}


class SchedulerMetrics(Collector):
    """Reads the engine when scraped; counting costs the hot path nothing but a dictionary."""

    def __init__(self, registry: CollectorRegistry, scheduler: "Scheduler") -> None:
        self._scheduler = scheduler
        registry.register(self)

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        yield from self._counters()
        yield from self._gauges()

    def _counters(self) -> Iterator[Metric]:
        counts = dict(self._scheduler.engine.counts)
        for what, (name, label, text) in COUNTERS.items():
            family = CounterMetricFamily(name, text, labels=[label] if label else [])
            for (counted, value), number in counts.items():
                if counted == what:
                    family.add_metric([value] if label else [], number)
            yield family
        yield CounterMetricFamily("pstp_transactions", "Committed transactions", self._scheduler.transactor.committed)

    def _gauges(self) -> Iterator[Metric]:
        engine = self._scheduler.engine
        phases, parked, oldest_ms = dict.fromkeys(Phase, 0), 0, now().wall_ms
        for partition in list(engine.partitions.values()):
            for entry in list(partition.entries.values()):
                phases[entry.group.phase] += 1
                parked += entry.group.parked
                if entry.group.head is not None:
                    oldest_ms = min(oldest_ms, entry.accepted_ms)
        groups = GaugeMetricFamily("pstp_groups", "Groups in memory, by what their head does", labels=["phase"])
        for phase, number in phases.items():
            groups.add_metric([phase], number)
        yield groups
        yield GaugeMetricFamily("pstp_tasks_parked", "Tasks behind a head", parked)
        yield GaugeMetricFamily("pstp_groups_ready", "Heads that wait for a free slot", len(engine.ready))
        waiting = sum(engine.types_without_handler().values())
        yield GaugeMetricFamily(
            "pstp_groups_without_handler", "Ready heads of types that no live worker handles", waiting
        )
        yield GaugeMetricFamily("pstp_tasks_in_flight", "Dispatched or running", len(engine.watch))
        age_s = (now().wall_ms - oldest_ms) / 1000
        yield GaugeMetricFamily("pstp_oldest_unfinished_seconds", "Age of the oldest unfinished task", age_s)
        yield GaugeMetricFamily("pstp_partitions_owned", "Input partitions of this instance", len(engine.partitions))
        lag = GaugeMetricFamily("pstp_lag_records", "Input records between here and the log's end", labels=["topic"])
        for topic, records in self._scheduler.lag().items():
            lag.add_metric([topic], records)
        yield lag
        held = GaugeMetricFamily(
            "pstp_input_held", "1 where somebody's open transaction holds up input", labels=["topic", "partition"]
        )
        for topic, number in self._scheduler.held():
            held.add_metric([topic, str(number)], 1)
        yield held
