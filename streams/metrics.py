"""What a scheduler says about itself to Prometheus; names, labels and meanings are in `streams.catalogue`."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from streams import totals
from streams.catalogue import METRICS
from streams.clock import now
from streams.exposition import Samples, build_info, counter, gauge, histogram
from streams.group import Phase
from streams.kafka_stats import KafkaStats

if TYPE_CHECKING:
    from streams.scheduler import Scheduler

TYPES_SHOWN_MAX: Final = 100
# What a partition's totals are called outside.
TOTALS: Final = {
    totals.STATES: "pstp_task_states",
    totals.BURIED: "pstp_tasks_dead_lettered",
    totals.REFUSED: "pstp_reports_refused",
    totals.LOST: "pstp_attempts_lost",
}
# What the engine counts by (what, label).
COUNTS: Final = {
    "accepted": "pstp_tasks_accepted",
    "rejected": "pstp_tasks_rejected",
    "forwarded": "pstp_tasks_forwarded",
    "already_taken": "pstp_records_already_taken",
    "unreadable": "pstp_records_unreadable",
    "renewal_refused": "pstp_renewals_refused",
    "worker_lost": "pstp_leases_expired",
    "lost_before_start": "pstp_dispatches_lost",
    "claims_looked_up": "pstp_claims_looked_up",
    "take_back": "pstp_dispatches_taken_back",
    "commands": "pstp_commands",
    "duplicate": "pstp_tasks_duplicate",
    "group_full": "pstp_tasks_turned_away",
    "breaker": "pstp_breaker_changes",
}


class SchedulerMetrics(Collector):
    """Reads the engine when scraped; counting costs the hot path nothing but a dictionary."""

    def __init__(self, registry: CollectorRegistry, scheduler: "Scheduler") -> None:
        self._scheduler = scheduler
        self.kafka = KafkaStats()
        registry.register(self)

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        yield build_info("scheduler")
        yield from self._totals()
        yield from self._counts()
        yield from self._groups()
        yield from self._workers()
        yield from self._times()
        yield from self._log()
        yield from self.kafka.collect()

    def _totals(self) -> Iterator[Metric]:
        partitions = list(self._scheduler.engine.partitions.values())
        for what, name in TOTALS.items():
            labelled = len(METRICS[name].labels) == 2
            yield counter(name, (
                ((str(p.number), label) if labelled else (str(p.number),), count)
                for p in partitions
                for label, count in dict(p.totals.get(what, {})).items()
            ))  # fmt: skip

    def _counts(self) -> Iterator[Metric]:
        counts = dict(self._scheduler.engine.counts)
        for what, name in COUNTS.items():
            found = {label: number for (counted, label), number in counts.items() if counted == what}
            if METRICS[name].labels:
                yield counter(name, (((label,), number) for label, number in found.items()))
            else:
                yield counter(name, [((), sum(found.values()))])

    def _groups(self) -> Iterator[Metric]:
        engine = self._scheduler.engine
        phases, blocked, parked, oldest_ms = dict.fromkeys(Phase, 0), Counter[str](), 0, now().wall_ms
        paused = 0
        for partition in list(engine.partitions.values()):
            entries = list(partition.entries.values())
            phases[Phase.IDLE] += len(partition.states) - sum(entry.key in partition.states for entry in entries)
            for entry in entries:
                group = entry.group
                phases[group.phase] += 1
                parked += group.parked
                paused += group.pause is not None
                if group.blocked is not None:
                    blocked[group.blocked] += 1
                if group.head is not None:
                    oldest_ms = min(oldest_ms, entry.accepted_ms)
        yield gauge("pstp_groups", (((phase,), number) for phase, number in phases.items()))
        yield gauge("pstp_groups_paused", [((), paused)])
        yield gauge("pstp_dead_letters_open", [((), sum(len(p.memory.dead) for p in list(engine.partitions.values())))])
        yield gauge("pstp_intake_paused", [((), len(engine.full_partitions()))])
        states = {t: b.state for t, b in engine.breakers.states().items()}
        yield gauge("pstp_breaker_open", _by_type({t: int(s != "closed") for t, s in states.items()}))
        yield gauge("pstp_groups_blocked", (((reason,), number) for reason, number in blocked.items()))
        yield gauge("pstp_groups_ready", [((), len(engine.ready))])
        yield gauge("pstp_groups_without_handler", _by_type(engine.types_without_handler()))
        yield gauge("pstp_tasks_parked", [((), parked)])
        yield gauge("pstp_oldest_unfinished_seconds", [((), (now().wall_ms - oldest_ms) / 1000)])
        yield gauge("pstp_partitions", [((), engine.partition_count)])
        yield gauge("pstp_partitions_owned", [((), len(engine.partitions))])
        yield gauge("pstp_partitions_stopped", [((), len(engine.stopped))])

    def _workers(self) -> Iterator[Metric]:
        engine = self._scheduler.engine
        workers = [member for member in engine.members if member.role == "worker"]
        yield gauge("pstp_tasks_in_flight", _by_type(dict(engine.out)))
        yield gauge("pstp_workers", [((), len(workers))])
        yield gauge("pstp_slots", [((), sum(worker.slots for worker in workers))])

    def _times(self) -> Iterator[Metric]:
        engine, transactor = self._scheduler.engine, self._scheduler.transactor
        yield histogram("pstp_wait_seconds", {(t,): d for t, d in list(engine.waits.items())})
        yield histogram("pstp_task_seconds", {(t,): d for t, d in list(engine.durations.items())})
        yield histogram("pstp_transaction_seconds", {(): transactor.figures.seconds})
        yield histogram("pstp_transaction_records", {(): transactor.figures.records})
        figures = transactor.figures
        yield counter("pstp_transactions", [(("committed",), figures.committed), (("failed",), figures.failed)])

    def _log(self) -> Iterator[Metric]:
        scheduler = self._scheduler
        yield gauge("pstp_lag_records", (((topic,), records) for topic, records in scheduler.lag().items()))
        yield gauge("pstp_lag_seconds", (((topic,), age_s) for topic, age_s in scheduler.lag_s().items()))
        yield gauge("pstp_input_held", (((topic, str(number)), 1) for topic, number in scheduler.held()))
        yield counter("pstp_rebalances", [((), scheduler.assignments)])
        yield gauge("pstp_loading_rows", [((), scheduler.loading or 0)])
        yield gauge("pstp_load_seconds", [((), scheduler.store.load_s)])


def _by_type(numbers: Mapping[str, int]) -> Samples:
    """Types are invented by publishers: only so many are told apart."""
    largest = sorted(numbers.items(), key=lambda item: -item[1])
    kept = [((task_type,), float(number)) for task_type, number in largest[:TYPES_SHOWN_MAX]]
    if rest := sum(number for _, number in largest[TYPES_SHOWN_MAX:]):
        kept.append((("(other)",), float(rest)))
    return kept
