"""Dashboards and alerts against a real Prometheus that scrapes a live, loaded system with failures in it."""

import math
import re
import subprocess
from pathlib import Path

import confluent_kafka as ck
import pytest

from streams.protocol import TaskState
from tests.deploy.prometheus import RULES, Prometheus, executable, faster
from tests.deploy.test_dashboards import BOARDS, filled
from tests.support.system import System, until

RUNBOOKS = Path(__file__).parents[2] / "docs" / "runbooks"
ALERTS = re.findall(r"alert: (\w+)", RULES.read_text())


def test_promtool_accepts_the_rules_and_their_unit_tests_pass() -> None:
    promtool = executable("promtool")
    for arguments in (["check", "config", "prometheus.yml"], ["test", "rules", "rules_test.yml"]):
        done = subprocess.run(
            [promtool, *arguments], cwd=RULES.parent, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    tested = set(re.findall(r"alertname: (\w+)\n +exp_alerts", (RULES.parent / "rules_test.yml").read_text()))
    assert tested == set(ALERTS)


def test_each_alert_has_a_runbook_and_each_runbook_its_alert() -> None:
    assert {path.stem for path in RUNBOOKS.iterdir()} == set(ALERTS)
    for alert in ALERTS:
        text = (RUNBOOKS / f"{alert}.md").read_text()
        assert re.findall(r"^## (.*)$", text, re.M) == ["What users feel", "How to confirm", "What to do"], alert
        assert text.rstrip().endswith("```"), "the command comes last"
        assert f"runbook_url: docs/runbooks/{alert}.md" in RULES.read_text()


def load(system: System, first: int, count: int) -> None:
    for number in range(first, first + count):
        system.publish(f"g{number % 20}", *(("fail", 1) if number % 10 == 0 else ("sleep", 0.005)))
    system.flush()


@pytest.fixture
def target(system: System) -> Path:
    return system.folder / "targets"


def test_every_query_of_every_panel_finds_data(system: System, target: Path, tmp_path: Path) -> None:
    with Prometheus(tmp_path / "prometheus", target) as prometheus:
        system.scheduler("s1")
        system.scheduler("s2")
        worker = system.worker("w1", slots=4)
        system.worker("w2", slots=4)
        until(lambda: prometheus.query("sum(pstp_partitions_owned) == 4"), 60, "scraped, and all owned")
        stats = [p for board in BOARDS.values() for p in board["panels"] if p["type"] == "stat"]
        for panel in stats:  # also of a system that has done nothing yet
            for query in panel["targets"]:
                assert prometheus.query(filled(query["expr"])), panel["title"]
        system.publish("unhandled", "nobody")
        system.publish("g1", "outcome", {"do": "reject"})
        system.publish_raw("g1", b"{")
        load(system, 0, 100)
        worker.kill()
        published = 100
        queries = [
            (panel["title"], filled(query["expr"]))
            for board in BOARDS.values() for panel in board["panels"] for query in panel["targets"]
        ]  # fmt: skip
        lacking = dict(queries)

        def complete() -> bool:
            nonlocal published
            load(system, published, 20)
            published += 20
            for title, expr in [*lacking.items()]:
                found = prometheus.query(expr)
                # A quantile of a type that was idle lately is no number.
                if any(not math.isnan(float(sample["value"][1])) for sample in found):
                    del lacking[title]
            return not lacking

        try:
            until(complete, 60)
        except AssertionError:
            pytest.fail(f"no data for {lacking}")
        assert prometheus.label_values("cluster", "pstp_build_info") == [system.settings.app]
        assert set(prometheus.label_values("instance", 'pstp_build_info{cluster=~".*"}')) >= {"s1", "s2", "w2"}


def test_alerts_fire_when_something_breaks_and_not_before(system: System, target: Path, tmp_path: Path) -> None:
    """An hour in a minute."""
    rules = faster(RULES.read_text())
    with Prometheus(tmp_path / "prometheus", target, rules) as prometheus:
        until(lambda: "PstpNoScheduler" in prometheus.firing(), what="nobody is there yet")
        scheduler = system.scheduler("s1")
        worker = system.worker("w1", slots=30)  # More than are ever on their way at once, until all are taken below.
        until(lambda: prometheus.query("sum(pstp_partitions_owned) == 4") and not prometheus.firing(), 60, "all calm")
        fired: set[str] = set()

        def goes_well() -> bool:
            load(system, system.history.terminal(), 20)
            system.history.read()
            fired.update(prometheus.firing())
            return system.history.count(TaskState.SUCCEEDED) > 500

        until(goes_well, 90)
        assert fired == set()

        system.publish("unhandled", "nobody")
        for number in range(40):
            system.publish(f"busy{number}", "sleep", 60)

        def fires(*names: str) -> None:
            def all_fire() -> bool:
                system.publish_raw("g1", b"{")
                system.flush()
                fired.update(prometheus.firing())
                return fired >= set(names)

            until(all_fire, 60, f"{names} fire")

        fires("PstpTypeWithoutHandler", "PstpNoFreeSlot", "PstpDeadLetters")
        stranger = ck.Producer(system.settings.kafka(**{"transactional.id": "stranger"}))
        stranger.init_transactions(10)
        stranger.begin_transaction()
        stranger.produce(system.settings.topic("tasks"), b"{}", b"g", partition=0)
        stranger.flush(10)
        fires("PstpInputHeld")
        worker.kill()
        fires("PstpProcessDown", "PstpWorkersLost")
        scheduler.kill()
        fires("PstpNoScheduler")
        stranger.abort_transaction(10)
