"""Dashboards and alerts against a real Prometheus that scrapes a live, loaded system with failures in it."""

import math
import re
import shlex
import subprocess
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from pstp.cli.app import app
from streams.protocol import PROTOCOL, Completion, Report, ReportKind, encode
from tests.deploy.prometheus import RULES, Prometheus, executable, open_transaction
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


def test_commands_that_are_named_are_there() -> None:
    """In runbooks and in what panels say to do: the command, and each of its options."""
    texts = [path.read_text() for path in RUNBOOKS.iterdir()]
    texts += [panel["description"] for board in BOARDS.values() for panel in board["panels"]]
    inline = [line for text in texts for line in re.findall(r"`(pstp [^`\n]+)`", text)]
    blocks = [block for text in texts for block in re.findall(r"```\n(.*?)```", text, re.S)]
    named = {line for line in [*inline, *"\n".join(blocks).splitlines()] if re.search(r"(^| )pstp ", line)}
    assert len(named) > 10
    for line in named:
        words = shlex.split(re.sub(r"^([A-Z_]+=\S+ )+", "", line), comments=True)
        command: Any = get_command(app)
        assert words[0] == "pstp"
        for word in words[1:]:
            if word.startswith("--"):
                assert word in {option for parameter in command.params for option in parameter.opts}, line
            elif hasattr(command, "commands"):
                command = command.commands[word]


def load(system: System, first: int, count: int) -> None:
    for number in range(first, first + count):
        system.publish(f"g{number % 20}", *(("fail", 1) if number % 10 == 0 else ("sleep", 0.005)))
    system.flush()


def ask_web(system: System) -> None:
    """Something to count: an answer, and a refusal."""
    said = until(lambda: re.search(r"answers on (http://\S+);", (system.folder / "web1.log").read_text()))
    urllib.request.urlopen(f"{said[1]}/api/overview", timeout=10).read()
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(f"{said[1]}/api/nowhere", timeout=10)


@pytest.fixture
def target(system: System) -> Path:
    return system.folder / "targets"


def test_every_query_of_every_panel_finds_data(system: System, target: Path, tmp_path: Path) -> None:
    with Prometheus(tmp_path / "prometheus", target) as prometheus:
        system.scheduler("s1")
        system.scheduler("s2")
        worker = system.worker("w1", slots=4)
        system.worker("w2", slots=4)
        system.start("web1", ["web"], {"web_address": "127.0.0.1:0"})
        until(lambda: prometheus.query("sum(pstp_partitions_owned) == 4"), 60, "scraped, and all owned")
        stats = [p for board in BOARDS.values() for p in board["panels"] if p["type"] == "stat"]
        for panel in stats:  # also of a system that has done nothing yet
            for query in panel["targets"]:
                assert len(prometheus.query(filled(query["expr"]))) == 1, panel["title"]
        system.publish("unhandled", "nobody")
        system.publish("g1", "outcome", {"do": "reject"})
        system.publish_raw("g1", b"{")
        load(system, 0, 100)
        system.publish("stands", "fail", 9, max_attempts=1, on_failure="block")
        stale = Report(ReportKind.SUCCEEDED, 1, 1)
        system.publish_raw(
            "g1", encode(Completion(PROTOCOL, "g1", "w9", "boot", "claim", 0, 0, (stale,))), topic="completions"
        )
        worker.kill()
        published = 100
        lacking = {
            (panel["title"], query["refId"]): query
            for board in BOARDS.values() for panel in board["panels"] for query in panel["targets"]
        }  # fmt: skip

        def complete() -> bool:
            nonlocal published
            load(system, published, 20)
            ask_web(system)
            published += 20
            for place, query in [*lacking.items()]:
                # A quantile of a type that was idle lately is no number.
                found = [s for s in prometheus.query(filled(query["expr"])) if not math.isnan(float(s["value"][1]))]
                shown = set(re.findall(r"{{(\w+)}}", query["legendFormat"]))
                if any(shown <= sample["metric"].keys() for sample in found):  # "or vector(0)" has no labels
                    del lacking[place]
            return not lacking

        try:
            with open_transaction(system, "tasks"):
                until(complete, 60)
        except AssertionError:
            pytest.fail(f"no data for {lacking.keys()}")
        wanted = {"cluster": {system.settings.app}, "instance": {"s1", "s2", "w2", "web1"}}
        for board in BOARDS.values():
            asked = [v for v in board["templating"]["list"] if v["type"] == "query"]
            assert {v["name"] for v in asked} == wanted.keys()
            for variable in asked:
                query = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"])
                assert query is not None
                assert set(prometheus.label_values(query[2], filled(query[1]))) >= wanted[variable["name"]]
