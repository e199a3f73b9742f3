"""What processes say at /metrics is what the catalogue says, and what the history tells."""

import json
import urllib.request
from collections import Counter

from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from pstp.verify import Options, check_cluster
from streams.catalogue import METRICS
from streams.protocol import TERMINAL, EventKind, TaskState
from tests.support.system import System, until

HOSTILE = ['"}\n{', "../../etc", "e\u0301" * 50, "a" * 1000, "\\", "tab\there"]


def scrape(system: System, instance: str) -> dict[str, Metric]:
    text = system.get(instance, "/metrics")
    return {family.name: family for family in text_string_to_metric_families(text)}


def test_every_process_says_what_the_catalogue_says(system: System) -> None:
    """Names, kinds and labels; and no label tells of a group (elsewhere they did, and the number of series grew)."""
    system.scheduler()
    system.worker()
    for name in HOSTILE:
        system.publish(name, name[:100])
        system.publish(name, "echo")
    for group in range(50):
        system.publish(f"many-{group}", "fail", 1)
    system.publish_raw("g", b"{")
    system.flush()
    system.history.wait_terminal(51)  # what is behind a type without handler waits
    for instance, roles in (("s1", {"scheduler", "both"}), ("w1", {"worker", "both"})):
        found = until(lambda i=instance: seen if "pstp_kafka_queued_records" in (seen := scrape(system, i)) else None)
        # The text format knows no infos: they are gauges of 1.
        wanted = {f"{m.name}_info" if m.kind == "info" else m.name for m in METRICS.values() if m.role in roles}
        ours = {name: family for name, family in found.items() if name.startswith("pstp_")}
        assert ours.keys() == wanted
        for name, family in ours.items():
            metric = METRICS[name.removesuffix("_info")]
            assert family.documentation == metric.text
            assert family.type == ("gauge" if metric.kind == "info" else metric.kind), name
            for sample in family.samples:
                assert sample.labels.keys() - {"le"} == set(metric.labels), name
                assert not any(value.startswith("many-") for value in sample.labels.values())


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


def sums(system: System, instances: list[str], name: str) -> Counter[str]:
    found: Counter[str] = Counter()
    for instance in instances:
        for sample in scrape(system, instance)[name].samples:
            found[sample.labels.get("state") or sample.labels.get("reason") or ""] += int(sample.value)
    return found


def test_each_process_tells_prometheus_where_it_is(system: System) -> None:
    scheduler, worker = system.scheduler("s1"), system.worker("w1")
    folder = system.folder / "targets"
    until(lambda: len(list(folder.glob("*.json"))) == 2)
    for path in folder.glob("*.json"):
        (group,) = json.loads(path.read_text())
        assert group["labels"]["instance"] in ("s1", "w1") and group["labels"]["cluster"] == system.settings.app
        with urllib.request.urlopen(f"http://{group['targets'][0]}/metrics", timeout=5) as answer:
            assert f'role="{group["labels"]["role"]}"' in answer.read().decode()
    assert scheduler.terminate() == 0 == worker.terminate()
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
