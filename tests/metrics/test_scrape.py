"""What processes say at /metrics is what the catalogue says, and what the history tells."""

import json
import shutil
import subprocess
import urllib.request
from collections import Counter

from prometheus_client.metrics_core import Metric

from pstp.verify import Options, check_cluster
from streams.catalogue import METRICS, RUN
from streams.protocol import TERMINAL, EventKind, TaskState
from tests.metrics.scraping import addresses, families, figure, scrape_all
from tests.support.system import System, until

ROLES = {"s1": {"scheduler"}, "w1": {"worker"}, "r1": {"scheduler"}, "web1": {"web"}}


def scrape(system: System, instance: str) -> dict[str, Metric]:
    return families(system.get(instance, "/metrics"))


def test_every_process_says_what_the_catalogue_says(system: System) -> None:
    """Names, kinds, labels and words; and Prometheus' own tool has nothing to say against them."""
    system.scheduler("s1")
    system.run_here("r1")
    system.worker("w1")
    system.start("web1", ["web"], {"web_address": "127.0.0.1:0"})
    for group in range(50):
        system.publish(f"g{group}", "fail", 1)
    system.publish("other", "nobody")
    system.publish_raw("g", b"{")
    system.flush()
    system.history.wait_terminal(51)  # what is behind a type without handler waits
    until(lambda: addresses(system.folder).keys() == ROLES.keys(), what="all serve")
    for instance, text in scrape_all(system.folder).items():
        roles = ROLES[instance] | {"all"}
        # The text format knows no infos: they are gauges of 1.
        wanted = {
            f"{m.name}_info" if m.kind == "info" else m.name
            for m in METRICS.values()
            if m.role in roles or (instance == "r1" and m.name in RUN)
        }
        assert families(text).keys() == wanted
        for name, family in families(text).items():
            metric = METRICS[name.removesuffix("_info")]
            assert family.documentation == metric.help
            assert family.type == ("gauge" if metric.kind == "info" else metric.kind), name
            for sample in family.samples:
                assert sample.labels.keys() - {"le"} == set(metric.labels), name
        if promtool := shutil.which("promtool"):
            done = subprocess.run(
                [promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stdout + done.stderr


def test_librdkafka_tells_of_its_clients(system: System) -> None:
    system.scheduler("s1")
    system.worker("w1")
    system.start("web1", ["web"], {"web_address": "127.0.0.1:0"})
    clients = {"s1": {"input", "transactions"}, "w1": {"dispatches", "completions"}, "web1": {"history"}}

    def told() -> bool:
        """A producer tells nothing while nobody produces."""
        system.publish("g", "echo")
        system.flush()
        said = {
            instance: {s.labels["client"] for s in families(text)["pstp_kafka_received_bytes"].samples if s.value}
            for instance, text in scrape_all(system.folder).items()
        }
        return said == clients

    until(told, 40, "all clients have told their statistics")


def test_what_child_processes_do_is_counted_by_their_worker(system: System) -> None:
    """They report to it, and it exports: nothing to merge, nothing that doubles when a child is replaced."""
    system.scheduler("s1")
    system.worker("w1", slots=4)
    for number in range(6):
        system.publish(f"g{number}", "process", 0.02)
    system.flush()
    system.history.wait_terminal(6)
    text = system.get("w1", "/metrics")
    assert figure(text, "pstp_worker_started_total", type="process") == 6
    assert figure(text, "pstp_worker_ended_total", type="process", outcome="succeeded") == 6
    assert figure(text, "pstp_worker_handler_seconds_count", type="process") == 6
    assert figure(text, "pstp_worker_handler_seconds_sum", type="process") >= 6 * 0.02
    assert figure(text, "pstp_worker_running") == 0 and figure(text, "pstp_worker_slots") == 4


def test_who_runs_handlers_itself_says_what_a_worker_would(system: System) -> None:
    """In the express lane and outside of it."""
    system.run_here("r1")
    for number in range(20):
        system.publish(f"g{number % 4}", "sleep", 0.01)
    system.publish("f", "fail", 1)
    system.publish("p", "process", 0.01)
    system.flush()
    system.history.wait_terminal(22)

    def told() -> bool:
        text = system.get("r1", "/metrics")
        started = figure(text, "pstp_worker_started_total")
        ends = {
            outcome: figure(text, "pstp_worker_ended_total", outcome=outcome) for outcome in ("succeeded", "failed")
        }
        timed = figure(text, "pstp_worker_handler_seconds_count")
        running, slots = figure(text, "pstp_worker_running"), figure(text, "pstp_worker_slots")
        return (started, ends, timed, running) == (23, {"succeeded": 22, "failed": 1}, 23, 0) and slots > 0

    until(told)


def test_a_scrape_is_answered_whatever_the_process_is_doing(system: System) -> None:
    """Also while it joins, loads and polls in vain: elsewhere in the process somebody holds what it asks about."""
    system.publish("g", "echo")
    system.flush()
    scheduler = system.scheduler("s1")
    address = until(lambda: system.http("s1"), what="s1 announces its address")
    ready = False
    for _ in range(300):
        with urllib.request.urlopen(f"{address}/metrics", timeout=5) as answer:
            ready = ready or b"pstp_partitions_owned 4.0" in answer.read()
    until(lambda: ready or system.metric("s1", "pstp_partitions_owned") == 4)
    assert scheduler.alive()


def test_counts_of_outcomes_are_exact_whoever_dies(system: System) -> None:
    """They equal the history, and what `pstp verify` finds in it, after kills and changes of owner."""
    schedulers = {"s1": system.scheduler("s1"), "s2": system.scheduler("s2")}
    worker = system.worker("w1", slots=8)
    for number in range(600):
        system.publish(f"g{number % 30}", *(("fail", 1) if number % 7 == 0 else ("sleep", 0.01)))
    for _ in range(5):
        system.publish_raw("g", b"{")
    system.publish("g1", "outcome", {"do": "reject"})
    system.flush()
    system.history.wait(lambda h: h.count(TaskState.SUCCEEDED) > 100)
    schedulers["s1"].kill()
    worker.kill()
    system.worker("w2", slots=8)
    dead = system.http("s1")
    schedulers["s1"] = system.scheduler("s1")
    until(lambda: system.http("s1") != dead, what="s1 announces its new address")
    system.history.wait_terminal(606, 90)

    def exact() -> bool:
        system.history.read()
        states = sums(system, [*schedulers], "pstp_task_states")
        return states == Counter(e.state.value for e in system.history.events if e.kind is EventKind.TASK and e.state)

    until(exact, 30, "totals equal the history")
    report = check_cluster(system.settings, Options())
    assert report.ok, report.violations
    totals = {name: sums(system, [*schedulers], name) for name in ("pstp_task_states", "pstp_reports_refused")}
    ends = {state.value: totals["pstp_task_states"][state.value] for state in TERMINAL - {TaskState.REJECTED}}
    assert {state: count for state, count in ends.items() if count} == report.figures.ends
    assert totals["pstp_task_states"]["rejected"] == report.figures.rejected == 5
    assert totals["pstp_task_states"]["running"] == report.figures.executions
    assert totals["pstp_reports_refused"].total() == report.figures.stale_reports
    # The same by type, as far as types are known.
    assert sums(system, [*schedulers], "pstp_tasks_ended") == Counter(report.figures.ends)
    types: Counter[str] = Counter()
    for instance in schedulers:
        for sample in scrape(system, instance)["pstp_tasks_ended"].samples:
            types[sample.labels["type"]] += int(sample.value)
    assert types == Counter(
        e.type for e in system.history.events
        if e.kind is EventKind.TASK and e.state in TERMINAL - {TaskState.REJECTED}
    )  # fmt: skip


def sums(system: System, instances: list[str], name: str) -> Counter[str]:
    found: Counter[str] = Counter()
    for instance in instances:
        for sample in scrape(system, instance)[name].samples:
            found[sample.labels.get("state") or sample.labels.get("reason") or ""] += int(sample.value)
    return found


def test_each_process_tells_prometheus_where_it_is(system: System) -> None:
    scheduler, worker = system.scheduler("s1"), system.worker("w1")
    web = system.start("web1", ["web"], {"web_address": "127.0.0.1:0"})
    folder = system.folder / "targets"
    until(lambda: len(list(folder.glob("*.json"))) == 3)
    for path in folder.glob("*.json"):
        (group,) = json.loads(path.read_text())
        assert group["labels"]["instance"] in ("s1", "w1", "web1") and group["labels"]["cluster"] == system.settings.app
        with urllib.request.urlopen(f"http://{group['targets'][0]}/metrics", timeout=5) as answer:
            assert f'role="{group["labels"]["role"]}"' in answer.read().decode()
    assert scheduler.terminate() == worker.terminate() == web.terminate() == 0
    assert list(folder.iterdir()) == []


def test_top_shows_what_all_processes_say(system: System) -> None:
    nobody = system.run("top", "--json")
    assert nobody.returncode == 2 and "start `pstp scheduler`" in nobody.stderr
    system.scheduler("s1")
    system.worker("w1", slots=3)
    system.publish("g", "echo")
    system.flush()
    system.history.wait_terminal(1)

    def shown() -> bool:
        found = json.loads(system.run("top", "--json").stdout)
        return found["states"].get("succeeded") == 1 and [p["instance"] for p in found["processes"]] == ["s1", "w1"]

    until(shown)
