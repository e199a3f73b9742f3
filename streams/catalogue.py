"""Every metric of PSTP: its name, kind, labels and meaning, in one place.  docs/metrics.md is made from it.

Names follow Prometheus' own rules (base units; `_total`, `_seconds`, `_bytes`; https://prometheus.io/docs/practices/
naming).  No label names a group, a task or anything else that clients make up, and no path of a request: so many task
types are told apart, `TYPES_MAX`, and the rest count together.

scope: "partition" means that only the owner exports it, from what the changelog says, with the partition as a label: it
neither doubles nor starts again when partitions move, when processes die or when input is read again.  "process" means
that it counts what this process has done since it began.
"""

from collections.abc import Callable
from typing import Final, Literal, NamedTuple

TYPES_MAX: Final = 100
OTHER: Final = "(other)"  # stands for all types beyond these

Kind = Literal["counter", "gauge", "histogram", "info"]
Role = Literal["scheduler", "worker", "web", "all"]


class Metric(NamedTuple):
    """`name` without the suffix that its kind adds (`_total`, `_info`)."""

    name: str
    kind: Kind
    role: Role
    text: str
    labels: tuple[str, ...] = ()
    scope: Literal["process", "partition"] = "process"
    buckets: tuple[float, ...] = ()

    @property
    def help(self) -> str:
        """As a scrape says it: what counts for one process only is named as such."""
        is_local = self.scope == "process" and self.kind in ("counter", "histogram")
        return f"{self.text}; by this process since it began" if is_local else self.text


# Waiting spans five orders of magnitude: from a free slot at once to a night behind a slow head.
WAIT_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1_800, 7_200, 43_200)
HANDLER_S: Final = (0.001, 0.005, 0.02, 0.1, 0.5, 2, 10, 60, 600)
SHORT_S: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 5)
RECORDS: Final = (1, 5, 20, 100, 500, 2_000, 10_000, 50_000)


def _maker(kind: Kind, role: Role, prefix: str = "pstp_") -> Callable[..., Metric]:
    def make(name: str, text: str, *labels: str, buckets: tuple[float, ...] = ()) -> Metric:
        return Metric(prefix + name, kind, role, text, labels, buckets=buckets)

    return make


def _exact(name: str, text: str, *labels: str) -> Metric:
    return Metric(f"pstp_{name}", "counter", "scheduler", text, ("partition", *labels), "partition")


_counter, _gauge, _histogram = (_maker(kind, "scheduler") for kind in ("counter", "gauge", "histogram"))
SCHEDULER: Final = (
    # What became of tasks: exact.
    _exact("task_states", "Task state changes, by new state", "state"),
    _exact("tasks_ended", "Tasks that reached an end, by that end and by type", "state", "type"),
    _exact("tasks_dead_lettered", "Dead letters, by reason", "reason"),
    _exact("reports_refused", "Workers' reports that came too late or twice and changed nothing", "reason"),
    _exact("attempts_lost", "Attempts that ended because their worker was lost"),
    # What is there now.
    _gauge("groups", "Groups with work or state, by what their head does", "phase"),
    _gauge("heads", "Heads of groups, by what they do and by type", "phase", "type"),
    _gauge("groups_ready", "Heads that wait for a free slot"),
    _gauge("groups_blocked", "Groups that stand still until somebody acts, by reason", "reason"),
    _gauge("groups_paused", "Groups that an operator has paused"),
    _gauge("breaker_open", "1 where the breaker of a type is open or half open", "type"),
    _gauge("dead_letters_open", "Dead letters that can be redriven"),
    _gauge("intake_paused", "Partitions whose intake of tasks pauses because they are full"),
    _gauge("groups_without_handler", "Ready heads of types that no live worker handles", "type"),
    _gauge("tasks_parked", "Tasks behind a head"),
    _gauge("tasks_in_flight", "Heads dispatched or running; the rest of a run counts as parked", "type"),
    _gauge("oldest_unfinished_seconds", "Age of the oldest unfinished task, to a tenth of a second"),
    _gauge("slots", "Slots of live workers, as this scheduler hears of them"),
    _gauge("workers", "Live workers, as this scheduler hears of them"),
    # How long things take.
    _histogram("wait_seconds", "From acceptance to the first start of a task", "type", buckets=WAIT_S),
    _histogram("task_seconds", "From acceptance to the end of a task, retries included", "type", buckets=WAIT_S),
    # Input.
    _counter("tasks_accepted", "Tasks taken in", "type"),
    _counter("tasks_rejected", "Records of `tasks` that are no tasks", "reason"),
    _counter("tasks_forwarded", "Tasks found outside their group's partition"),
    _counter("records_already_taken", "Records below the watermark, ignored", "topic"),
    _counter("records_unreadable", "Records of other inputs that cannot be read", "topic"),
    _counter("tasks_duplicate", "Tasks whose idempotency key came before"),
    _counter("tasks_turned_away", "Tasks that became dead letters because there was no room"),
    _counter("commands", "Commands answered, by outcome", "outcome"),
    _counter("breaker_changes", "Changes of breakers, by new state", "state"),
    _gauge("lag_records", "Input records between here and the log's end", "topic"),
    _gauge("lag_seconds", "Age of the last input record read, while there are more", "topic"),
    _gauge("input_held", "1 where somebody's open transaction holds up input", "topic", "partition"),
    # Leases and dispatches.
    _counter("leases_expired", "Leases that ran out while a task was running"),
    _counter("renewals_refused", "Renewals and progress of workers that had lost their claim", "reason"),
    _counter("dispatches_lost", "Dispatches whose claimant never started them"),
    _counter("claims_looked_up", "Looks at the workers' claims for a dispatch nobody started"),
    _counter("dispatches_taken_back", "Requests to give back an unclaimed dispatch"),
    # The log.
    _counter("transactions", "Transactions, by what became of them", "result"),
    _histogram("transaction_seconds", "Writing and committing one transaction", buckets=SHORT_S),
    _histogram("transaction_records", "Records in one transaction", buckets=RECORDS),
    _counter("rebalances", "Assignments of input partitions to this instance"),
    _gauge("partitions", "Input partitions in all"),
    _gauge("partitions_owned", "Input partitions of this instance"),
    _gauge("partitions_stopped", "Input partitions that wait for a newer version of PSTP"),
    _gauge("loading_rows", "Changelog rows read so far, while partitions are loaded; else 0"),
    _gauge("loading_ratio", "Part of the changelog read so far, while partitions are loaded; else 1"),
    _gauge("load_seconds", "How long the latest loading of partitions took"),
)  # fmt: skip

_w_counter, _w_gauge, _w_histogram = (
    _maker(kind, "worker", "pstp_worker_") for kind in ("counter", "gauge", "histogram")
)  # fmt: skip
WORKER: Final = (
    _w_counter("started", "Executions begun", "type"),
    _w_counter("ended", "Reports that end a dispatch, by kind of report", "type", "outcome"),
    _w_histogram("handler_seconds", "How long handlers run", "type", buckets=HANDLER_S),
    _w_histogram("claim_seconds", "Committing a claim of one or more dispatches", buckets=SHORT_S),
    _w_counter("claimed", "Dispatches claimed"),
    _w_counter("claim_failures", "Claims that failed: refused, unknown until read back, or of another member", "why"),
    _w_counter("undecodable", "Records that cannot be read", "topic"),
    _w_gauge("running", "Slots taken"),
    _w_gauge("slots", "Slots in all"),
    _w_gauge("read_ahead", "Dispatches read and not claimed"),
    _w_gauge("partitions", "Partitions of dispatches owned"),
    _w_counter("rebalances", "Assignments of dispatch partitions to this instance"),
    _w_counter("timed_out", "Executions whose time was over", "type"),
    _w_counter("loops_blocked", "Event loops given up because a handler blocked them"),
)  # fmt: skip

# What a scheduler that runs handlers itself (`pstp run`) says as well.
RUN: Final = frozenset(f"pstp_worker_{name}" for name in (
    "started", "ended", "handler_seconds", "running", "slots", "timed_out",
))  # fmt: skip

_h_counter, _h_gauge, _h_histogram = (_maker(kind, "web", "pstp_web_") for kind in ("counter", "gauge", "histogram"))
WEB: Final = (
    _h_gauge("lag_seconds", "How old what the read model shows may be"),
    _h_gauge("caught_up", "1 once the read model has been up to where the log ended"),
    _h_gauge("events", "Events of the history in the read model"),
    _h_counter("records_unreadable", "Records of the history that cannot be read, passed over"),
    _h_gauge("streams", "Browsers that listen"),
    _h_counter("streams_dropped", "Browsers let go because they did not keep up"),
    _h_counter("requests", "Requests answered, by the route's template", "route", "method", "status"),
    _h_histogram("request_seconds", "Until an answer began, by the route's template", "route", buckets=SHORT_S),
)  # fmt: skip

_b_counter, _b_gauge, _b_info = (_maker(kind, "all") for kind in ("counter", "gauge", "info"))
ALL: Final = (
    _b_info("build", "Versions in use", "version", "confluent_kafka", "librdkafka", "python", "role"),
    _b_gauge("kafka_round_trip_seconds", "librdkafka: average round trip to a broker, lately", "client", "broker"),
    _b_gauge("kafka_queued_records", "librdkafka: records in the client's queues", "client"),
    _b_counter("kafka_sent_bytes", "librdkafka: bytes sent to brokers", "client"),
    _b_counter("kafka_received_bytes", "librdkafka: bytes received from brokers", "client"),
    _b_counter("kafka_errors", "librdkafka: failed requests and connections", "client"),
)  # fmt: skip

METRICS: Final = {metric.name: metric for metric in (*SCHEDULER, *WORKER, *WEB, *ALL)}
