"""What the dashboards show: one per question that people have, one panel per smaller one.

In expressions, SEL stands for the chosen cluster and instances; rates span `$__rate_interval`.  Counts of partitions
are summed over whoever owns them; `or vector(0)` says 0 where nothing of the kind has happened yet.
"""

from typing import Literal, NamedTuple

SEL = 'cluster=~"$cluster",instance=~"$instance"'
ENDED = 'state=~"succeeded|dead_lettered|cancelled|skipped"'
RATE = "[$__rate_interval]"


class Query(NamedTuple):
    expr: str
    legend: str = ""


class Panel(NamedTuple):
    """`text`: what it shows and what to do about it.  `link`: the web UI's page with that filter.  Widths are of 24."""

    title: str
    unit: str
    text: str
    queries: tuple[Query, ...]
    kind: Literal["stat", "timeseries"] = "timeseries"
    width: int = 12
    link: str = "/groups"
    bad_above: float | None = None


class Board(NamedTuple):
    uid: str
    title: str
    text: str
    panels: tuple[Panel, ...]


def total(name: str, *, by: str = "", where: str = "", zero: bool = True) -> str:
    """A gauge summed over instances."""
    inner = f"sum by ({by}) ({name}{{{_sel(where)}}})" if by else f"sum({name}{{{_sel(where)}}})"
    return f"{inner} or vector(0)" if zero else inner


def rate(name: str, *, by: str = "", where: str = "", zero: bool = True) -> str:
    """A counter's rate a second, summed over instances."""
    inner = f"rate({name}{{{_sel(where)}}}{RATE})"
    summed = f"sum by ({by}) ({inner})" if by else f"sum({inner})"
    return f"{summed} or vector(0)" if zero else summed


def quantile(q: float, name: str, *, by: str = "", where: str = "") -> str:
    """A quantile of a histogram of ours."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({q:g}, sum by ({labels}) (rate({name}_bucket{{{_sel(where)}}}{RATE})))"


def _sel(where: str) -> str:
    return f"{SEL},{where}" if where else SEL


def quantiles(name: str) -> tuple[Query, ...]:
    return tuple(Query(quantile(q, name), f"p{q * 100:g}") for q in (0.5, 0.95, 0.99))


HEALTH = Board("pstp-health", "PSTP / Is it healthy?", "The first look: does work flow, is anything stuck, is everybody there?", (
    Panel("Tasks finished", "ops", "Tasks that reached an end, per second. If it falls while tasks are parked, look at `Who waits and why?`.",
          (Query(rate("pstp_task_states_total", where=ENDED), "tasks"),), "stat", 4),
    Panel("Oldest unfinished task", "s", "Age of the oldest task without an end. A group may wait on purpose (not_before, backoff): `pstp explain GROUP` says.",
          (Query(f"max(pstp_oldest_unfinished_seconds{{{SEL}}}) or vector(0)", "age"),), "stat", 4, bad_above=3600),
    Panel("Blocked groups", "short", "Groups that stand still until somebody acts. `pstp groups` lists them, `pstp explain GROUP` says why.",
          (Query(total("pstp_groups_blocked"), "groups"),), "stat", 4, "/groups?state=blocked", bad_above=1),
    Panel("Dead letters", "short", "Tasks that failed for good in the chosen time. Read them with `pstp dead-letters`.",
          (Query(f"sum(increase(pstp_tasks_dead_lettered_total{{{SEL}}}[$__range])) or vector(0)", "tasks"),), "stat", 4, "/dead-letters"),
    Panel("Workers", "short", "Live workers, as the schedulers hear of them. None: start `pstp worker`.",
          (Query(f"max(pstp_workers{{{SEL}}}) or vector(0)", "workers"),), "stat", 4, "/workers"),
    Panel("Partitions with an owner", "short", "Owned input partitions of all. Fewer than all of them for more than ten seconds: look at the schedulers' logs.",
          (Query(total("pstp_partitions_owned"), "owned"), Query(f"max(pstp_partitions{{{SEL}}}) or vector(0)", "of")), "stat", 4, "/workers"),
    Panel("What becomes of tasks", "ops", "State changes per second. Many `retrying` or `dead_lettered`: see `What broke?`.",
          (Query(rate("pstp_task_states_total", by="state", zero=False), "{{state}}"),)),
    Panel("Work at hand", "short", "Parked: behind another of their group. Ready: waiting for a slot. In flight: at the workers.",
          (Query(total("pstp_tasks_parked"), "parked"), Query(total("pstp_groups_ready"), "ready"), Query(total("pstp_tasks_in_flight"), "in flight"))),
    Panel("Input not read yet", "short", "Records behind which schedulers are. If it only grows, they are too slow or stopped: see their logs.",
          (Query(total("pstp_lag_records", by="topic", zero=False), "{{topic}}"),)),
    Panel("Processes", "short", "Processes that Prometheus reaches, by role.",
          (Query(f"count by (role) (pstp_build_info{{{SEL}}})", "{{role}}"),), link="/workers"),
    Panel("Taking over partitions", "percentunit", "Part of the changelog that was read, per scheduler: 100 % when nothing is being loaded. It grows slowly: the broker is slow, or very much is parked.",
          (Query(total("pstp_loading_ratio", by="instance", zero=False), "{{instance}}"),), link="/workers"),
    Panel("How old is what the web UI shows?", "s", "Age of the read model. It grows: the web process cannot keep up or has stopped; its log and /readyz say why. Work itself goes on.",
          (Query(f"max by (instance) (pstp_web_lag_seconds{{{SEL}}})", "{{instance}}"),), link="/"),
))  # fmt: skip

WAITING = Board("pstp-waiting", "PSTP / Who waits and why?", "Work that does not move, by what it waits for.", (
    Panel("Groups by what their head does", "short", "Waiting: backoff, snooze or not_before. Ready: no slot is free, or no worker handles the type. `pstp explain GROUP` names the reason.",
          (Query(total("pstp_groups", by="phase", zero=False), "{{phase}}"),)),
    Panel("Blocked groups, by reason", "short", "They wait for a person. internal_error: look at the scheduler's log for the traceback.",
          (Query(total("pstp_groups_blocked", by="reason"), "{{reason}}"),), link="/groups?state=blocked"),
    Panel("Heads without a handler, by type", "short", "No live worker handles these types: deploy a worker that does, or fix the type's name at the publisher.",
          (Query(total("pstp_groups_without_handler", by="type"), "{{type}}"),), link="/groups?state=ready"),
    Panel("Ready heads and free slots", "short", "Ready heads while no slot is free: more workers or slots help. Ready heads while slots are free: their type has none.",
          (Query(total("pstp_groups_ready"), "ready"), Query(f"(sum(pstp_worker_slots{{{SEL}}}) - sum(pstp_worker_running{{{SEL}}})) or vector(0)", "free slots"))),
    Panel("Held back on purpose", "short", "Groups that an operator has paused, types whose breaker is open, partitions that are full. `pstp explain GROUP` says which holds a group.",
          (Query(total("pstp_groups_paused"), "paused groups"), Query(total("pstp_breaker_open"), "open breakers"), Query(total("pstp_intake_paused"), "full partitions")), link="/groups?state=paused"),
    Panel("Heads that have not begun, by type", "short", "Which types stand at the front and wait: for a slot, for a time, or for a handler.",
          (Query(total("pstp_heads", by="type", where='phase=~"ready|waiting"'), "{{type}}"),)),
    Panel("Wait until the first start", "s", "From acceptance to the first start, over all types. In one group tasks wait for each other: that is the point.",
          quantiles("pstp_wait_seconds")),
    Panel("Wait until the first start, by type (p95)", "s", "The types whose tasks wait longest.",
          (Query(f"topk(10, {quantile(0.95, 'pstp_wait_seconds', by='type')})", "{{type}}"),)),
    Panel("Input held by an open transaction", "short", "Somebody's producer left a transaction open: end it, or wait for its time-out. Only its partition waits.",
          (Query(total("pstp_input_held", by="topic"), "{{topic}}"),)),
    Panel("Age of the input being read", "s", "How long ago the records had been published that are read now, while there are more.",
          (Query(f"max by (topic) (pstp_lag_seconds{{{SEL}}})", "{{topic}}"),)),
))  # fmt: skip

TIME = Board("pstp-time", "PSTP / Where is the time going?", "From publish to end: waiting, handlers, claims, transactions, Kafka.", (
    Panel("From acceptance to the end", "s", "The whole life of tasks, retries included.", quantiles("pstp_task_seconds")),
    Panel("In handlers", "s", "How long handlers run. Slow ones hold their group and a slot: look into them first.",
          quantiles("pstp_worker_handler_seconds")),
    Panel("In handlers, by type (p95)", "s", "The types whose handlers take longest: they hold their groups, and a slot each.",
          (Query(f"topk(10, {quantile(0.95, 'pstp_worker_handler_seconds', by='type')})", "{{type}}"),)),
    Panel("Handler seconds per second, by type", "short", "How many slots each type keeps busy.",
          (Query(rate("pstp_worker_handler_seconds_sum", by="type", zero=False), "{{type}}"),)),
    Panel("In claims", "s", "Committing a claim: one round trip to the group's coordinator. Slow: the broker is busy or far.",
          quantiles("pstp_worker_claim_seconds"), link="/workers"),
    Panel("In transactions", "s", "Writing and committing one step of a scheduler. Slow: the broker's disk or network.",
          quantiles("pstp_transaction_seconds"), link="/workers"),
    Panel("Records in a transaction", "short", "More records each: the scheduler is busy, and cheaper per task.",
          (Query(quantile(0.5, "pstp_transaction_records"), "p50"), Query(quantile(0.95, "pstp_transaction_records"), "p95")), link="/workers"),
    Panel("Round trip to Kafka", "s", "librdkafka's average over its last window, the slowest broker of each client.",
          (Query(f"max by (client) (pstp_kafka_round_trip_seconds{{{SEL}}})", "{{client}}"),), link="/workers"),
    Panel("Answers of the web UI, by route (p95)", "s", "Until an answer began. Slow routes: look at the database of the read model.",
          (Query(f"topk(10, {quantile(0.95, 'pstp_web_request_seconds', by='route')})", "{{route}}"),), link="/"),
))  # fmt: skip

BROKE = Board("pstp-broke", "PSTP / What broke?", "Failures of handlers, of workers, of publishers and of Kafka.", (
    Panel("Dead letters, by reason", "ops", "Per second. attempts_spent: the handler; no_group, bad_json and the like: the publisher. `pstp dead-letters` shows each.",
          (Query(rate("pstp_tasks_dead_lettered_total", by="reason"), "{{reason}}"),), link="/dead-letters"),
    Panel("Ends other than success, by type", "ops", "Dead letters, cancelled and skipped tasks per second: which types are in trouble?",
          (Query(rate("pstp_tasks_ended_total", by="type", where='state!="succeeded"'), "{{type}}"),), link="/dead-letters"),
    Panel("Retries", "ops", "Attempts that failed and will run again, per second; their groups wait meanwhile.",
          (Query(rate("pstp_task_states_total", where='state="retrying"'), "retries"),)),
    Panel("Attempts lost with their worker", "ops", "A worker died or was cut off. Look at its log and its memory limit.",
          (Query(rate("pstp_attempts_lost_total"), "attempts"), Query(rate("pstp_leases_expired_total"), "leases")), link="/workers"),
    Panel("Reports refused", "ops", "A worker spoke that had lost its claim; nothing came of it. Many: workers freeze or are cut off from Kafka.",
          (Query(rate("pstp_reports_refused_total", by="reason"), "{{reason}}"),), link="/workers"),
    Panel("Time-outs and blocked loops", "ops", "Handlers over their time, and async handlers that blocked their event loop: make those plain functions.",
          (Query(rate("pstp_worker_timed_out_total"), "timed out"), Query(rate("pstp_worker_loops_blocked_total"), "loops blocked"))),
    Panel("Claims that failed", "ops", "Refused ones come with rebalances. A steady rate: workers come and go.",
          (Query(rate("pstp_worker_claim_failures_total", by="why"), "{{why}}"),), link="/workers"),
    Panel("Transactions that failed", "ops", "Each costs a reload of the instance's partitions. Look at the broker, and for two schedulers of one name.",
          (Query(rate("pstp_transactions_total", where='result="failed"'), "failed"),), link="/workers"),
    Panel("Rebalances", "short", "Assignments of input partitions in the chosen time. Many: schedulers restart or cannot keep their session.",
          (Query(f"sum(increase(pstp_rebalances_total{{{SEL}}}{RATE})) or vector(0)", "assignments"),), link="/workers"),
    Panel("Records that are no tasks", "ops", "Publishers that do not follow the contract; `pstp dead-letters --reason …` shows what they sent.",
          (Query(rate("pstp_tasks_rejected_total", by="reason"), "{{reason}}"), Query(rate("pstp_tasks_forwarded_total"), "forwarded: wrong partitioner")), link="/dead-letters"),
    Panel("Kafka client errors", "ops", "Failed requests and connections of librdkafka.",
          (Query(rate("pstp_kafka_errors_total", by="client"), "{{client}}"),), link="/workers"),
    Panel("Refusals and errors of the web UI", "ops", "Answers with a status of 400 and more. 401 and 403: keys; 5xx: the log of `pstp web` has the request.",
          (Query(rate("pstp_web_requests_total", by="status", where='status!~"2..|3.."'), "{{status}}"),), link="/"),
))  # fmt: skip

CAPACITY = Board("pstp-capacity", "PSTP / Do I need more workers?", "Slots, how busy they are, and what waits for one.", (
    Panel("Slots in use", "percentunit", "Near 100 % while heads are ready: add workers or slots.",
          (Query(f"(sum(pstp_worker_running{{{SEL}}}) / sum(pstp_worker_slots{{{SEL}}})) or vector(0)", "in use"),), "stat", 6, "/workers", bad_above=0.9),
    Panel("Heads waiting for a slot", "short", "Groups that could go on and have no slot. Always 0: there are slots enough.",
          (Query(total("pstp_groups_ready"), "ready"),), "stat", 6, "/groups?state=ready"),
    Panel("Slots wanted", "short", "In flight plus ready: as many slots would leave nobody waiting.",
          (Query(f"((sum(pstp_tasks_in_flight{{{SEL}}}) or vector(0)) + (sum(pstp_groups_ready{{{SEL}}}) or vector(0)))", "wanted"),), "stat", 6, "/workers"),
    Panel("Slots there", "short", "Slots of live workers.", (Query(total("pstp_worker_slots"), "slots"),), "stat", 6, "/workers"),
    Panel("Slots in use, by worker", "short", "A worker that is always full beside idle ones: it alone handles a type.",
          (Query(total("pstp_worker_running", by="instance", zero=False), "{{instance}}"),), link="/workers"),
    Panel("Executions, by worker", "ops", "Executions begun per second.",
          (Query(rate("pstp_worker_started_total", by="instance", zero=False), "{{instance}}"),), link="/workers"),
    Panel("Dispatches read and not claimed", "short", "They wait at a worker for a free slot; taken back when another has one.",
          (Query(total("pstp_worker_read_ahead", by="instance", zero=False), "{{instance}}"),), link="/workers"),
    Panel("Partitions of dispatches, by worker", "short", "0: more workers than partitions of `dispatches`; add some with `pstp topics create`.",
          (Query(total("pstp_worker_partitions", by="instance", zero=False), "{{instance}}"),), link="/workers"),
    Panel("Work in flight, by type", "short", "What the slots are used for.",
          (Query(total("pstp_tasks_in_flight", by="type"), "{{type}}"),)),
    Panel("Steps of schedulers", "ops", "Transactions per second and instance. A scheduler that makes about 10 of a thousand records each is at its limit: add one.",
          (Query(rate("pstp_transactions_total", by="instance", where='result="committed"', zero=False), "{{instance}}"),), link="/workers"),
))  # fmt: skip

BOARDS = (HEALTH, WAITING, TIME, BROKE, CAPACITY)
