"""What a scheduler says about itself to Prometheus; names, labels and meanings are in `streams.catalogue`."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from streams import totals
from streams.catalogue import METRICS, OTHER, TYPES_MAX
from streams.clock import now
from streams.exposition import Samples, build_info, counter, gauge, histogram
from streams.kafka_stats import KafkaStats
from streams.placement import Here
from streams.standing import look

if TYPE_CHECKING:
    from streams.scheduler import Scheduler

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
        if self._scheduler.engine.here is not None:
            yield from self._handlers(self._scheduler.engine.here)
        yield from self._times()
        yield from self._log()
        yield from self.kafka.collect()

    def _totals(self) -> Iterator[Metric]:
        partitions = list(self._scheduler.engine.partitions.values())
        yield counter("pstp_tasks_ended", (
            ((str(p.number), *totals.read_end(label)), count)
            for p in partitions
            for label, count in p.totals.get(totals.ENDS, {}).items()
        ))  # fmt: skip
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
        found = look(engine)
        yield gauge("pstp_groups", (((phase,), number) for phase, number in found.phases.items()))
        yield gauge("pstp_heads", found.heads.items())
        yield gauge("pstp_groups_paused", [((), found.paused)])
        yield gauge("pstp_dead_letters_open", [((), sum(len(p.memory.dead) for p in engine.partitions.values()))])
        yield gauge("pstp_intake_paused", [((), len(engine.full_partitions()))])
        states = {t: b.state for t, b in engine.breakers.states().items()}
        yield gauge("pstp_breaker_open", _by_type({t: int(s != "closed") for t, s in states.items()}))
        yield gauge("pstp_groups_blocked", (((reason,), number) for reason, number in found.blocked.items()))
        yield gauge("pstp_groups_ready", [((), len(engine.ready))])
        yield gauge("pstp_groups_without_handler", _by_type(engine.types_without_handler()))
        yield gauge("pstp_tasks_parked", [((), found.parked)])
        age_ms = 0 if found.oldest_ms is None else max(0, now().wall_ms - found.oldest_ms)
        yield gauge("pstp_oldest_unfinished_seconds", [((), age_ms / 1000)])
        yield gauge("pstp_partitions", [((), engine.partition_count)])
        yield gauge("pstp_partitions_owned", [((), len(engine.partitions))])
        yield gauge("pstp_partitions_stopped", [((), len(engine.stopped))])

    def _workers(self) -> Iterator[Metric]:
        engine = self._scheduler.engine
        workers = [member for member in engine.members if member.role == "worker"]
        out = Counter(engine.out)
        if engine.express is not None:
            out.update(item.task.type for item in engine.express.running)  # no more than there are slots
        yield gauge("pstp_tasks_in_flight", _by_type(out))
        yield gauge("pstp_workers", [((), len(workers))])
        yield gauge("pstp_slots", [((), sum(worker.slots for worker in workers))])

    def _handlers(self, here: Here) -> Iterator[Metric]:
        """Of one that runs handlers itself: what a worker would say."""
        ran = self._scheduler.engine.ran
        yield counter("pstp_worker_started", (((t,), n) for t, n in ran.started.items()))
        yield counter("pstp_worker_ended", ran.ended.items())
        yield histogram("pstp_worker_handler_seconds", {(t,): d for t, d in ran.seconds.items()})
        yield gauge("pstp_worker_running", [((), here.slots - here.free)])
        yield gauge("pstp_worker_slots", [((), here.slots)])

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
        loading = scheduler.loading is not None
        yield gauge("pstp_loading_ratio", [((), scheduler.store.read_part if loading else 1)])
        yield gauge("pstp_load_seconds", [((), scheduler.store.load_s)])


def _by_type(numbers: Mapping[str, int]) -> Samples:
    """Types are invented by publishers: only so many are told apart."""
    largest = sorted(numbers.items(), key=lambda item: -item[1])
    kept = [((task_type,), float(number)) for task_type, number in largest[:TYPES_MAX]]
    if rest := sum(number for _, number in largest[TYPES_MAX:]):
        kept.append(((OTHER,), float(rest)))
    return kept
