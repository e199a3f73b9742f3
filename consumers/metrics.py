"""Every metric of a worker.  Labels are types and partitions only: nothing that grows with groups or clients."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class WorkerMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self.started = Counter("pstp_worker_started", "executions begun", ["type"], registry=registry)
        # outcome: a kind of report: succeeded, failed, rejected, snoozed, abandoned, returned
        self.ended = Counter("pstp_worker_ended", "reports that end a dispatch", ["type", "outcome"], registry=registry)
        self.handler_s = Histogram(
            "pstp_worker_handler_seconds", "how long handlers run", ["type"], registry=registry,
            buckets=(0.001, 0.005, 0.02, 0.1, 0.5, 2, 10, 60, 600),
        )  # fmt: skip
        self.claim_s = Histogram(
            "pstp_worker_claim_seconds", "committing a claim of one or more dispatches", registry=registry,
            buckets=(0.001, 0.002, 0.005, 0.01, 0.05, 0.2, 1, 5),
        )  # fmt: skip
        self.claimed = Counter("pstp_worker_claimed", "dispatches claimed", registry=registry)
        # why: refused by the group, unknown (read back), other_member
        self.claim_failures = Counter("pstp_worker_claim_failures", "claims that failed", ["why"], registry=registry)
        self.undecodable = Counter(
            "pstp_worker_undecodable", "records that cannot be read", ["topic"], registry=registry
        )
        self.running = Gauge("pstp_worker_running", "slots taken", registry=registry)
        self.slots = Gauge("pstp_worker_slots", "slots in all", registry=registry)
        self.read_ahead = Gauge("pstp_worker_read_ahead", "dispatches read and not claimed", registry=registry)
        self.partitions = Gauge("pstp_worker_partitions", "partitions of dispatches owned", registry=registry)
        self.timed_out = Counter("pstp_worker_timed_out", "executions whose time was over", ["type"], registry=registry)
        self.loops_blocked = Counter(
            "pstp_worker_loops_blocked", "event loops given up because a handler blocked them", registry=registry
        )  # fmt: skip
