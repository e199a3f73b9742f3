"""The dashboards' JSON is what the code makes, and follows the rules that make a dashboard useful."""

import json
import re
import sys
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import promql_parser
import pytest

from streams.catalogue import METRICS

ROOT = Path(__file__).parents[2]
GRAFANA, UI = ROOT / "deploy" / "grafana", ROOT / "ui" / "src"
sys.path.insert(0, str(GRAFANA))
import build  # noqa: E402

BOARDS = {path.stem: json.loads(text) for path, text in build.pages().items()}
PANELS = [
    pytest.param(panel, id=f"{name}: {panel['title']}") for name, board in BOARDS.items() for panel in board["panels"]
]
SAMPLES = {"counter": ("_total",), "gauge": ("",), "info": ("_info",), "histogram": ("_bucket", "_sum", "_count")}
NAMES = {metric.name + suffix: metric for metric in METRICS.values() for suffix in SAMPLES[metric.kind]}
OF_PROMETHEUS = {"cluster", "instance", "role", "job", "le"}


def filled(expr: str) -> str:
    """With Grafana's variables as it fills them when All is chosen."""
    for name, value in (("$__rate_interval", "40s"), ("$__range", "1h"), ("$cluster", ".*"), ("$instance", ".*")):
        expr = expr.replace(name, value)
    return expr


def test_the_json_in_the_repository_is_current() -> None:
    """Run `python deploy/grafana/build.py`."""
    for path, text in build.pages().items():
        assert path.read_text(encoding="utf-8") == text, path.name
    assert {path.stem for path in (GRAFANA / "dashboards").iterdir()} == BOARDS.keys()


@pytest.mark.parametrize("name", BOARDS)
def test_a_board_has_variables_for_all_and_no_panels_on_top_of_each_other(name: str) -> None:
    board = BOARDS[name]
    assert board["uid"] == name and len(name) <= 40 and board["description"]
    variables = {v["name"]: v for v in board["templating"]["list"]}
    assert variables.keys() == {"datasource", "cluster", "instance", "web"}
    assert all(variables[v]["allValue"] == ".*" and variables[v]["includeAll"] for v in ("cluster", "instance"))
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken and at["x"] + at["w"] <= 24
        taken |= cells


@pytest.mark.parametrize("panel", PANELS)
def test_a_panel_says_what_it_shows_in_which_unit_and_what_to_do(panel: dict[str, Any]) -> None:
    assert panel["title"] and panel["title"][0].isupper() and not panel["title"].endswith(".")
    assert len(panel["description"]) > 20
    defaults = panel["fieldConfig"]["defaults"]
    assert defaults["unit"] and defaults["noValue"]
    assert panel["links"][0]["url"].startswith("${web}/")
    assert panel["datasource"]["uid"] == "${datasource}"
    references = [target["refId"] for target in panel["targets"]]
    assert references and len(set(references)) == len(references)
    assert all(target["datasource"]["uid"] == "${datasource}" for target in panel["targets"])


def test_links_lead_to_pages_and_filters_of_the_web_ui() -> None:
    """Of its own router; and what stands behind the `?` is something that the page reads, with a state there is."""
    pages = dict(re.findall(r'path: "(/[^":]*)", name: "([^"]+)"', (UI / "router.ts").read_text()))
    screens = {path: UI / "screens" / f"{name.title().replace('-', '')}.vue" for path, name in pages.items()}
    states = set(re.findall(r"^  (\w+): {", (UI / "folds" / "states.ts").read_text(), re.M))
    links = {link["url"].removeprefix("${web}") for panel in PANELS for link in panel.values[0]["links"]}  # type: ignore
    assert {"/groups?state=blocked", "/dead-letters"} <= links
    for link in links:
        path, _, query = link.partition("?")
        assert path in pages, link
        for name, (value,) in parse_qs(query, strict_parsing=True).items() if query else ():
            assert f"route.query.{name} " in screens[path].read_text(), f"{path} does not read {name}"
            assert name != "state" or value in states, link


@pytest.mark.parametrize("panel", PANELS)
def test_a_query_is_valid_and_uses_metrics_as_the_catalogue_has_them(panel: dict[str, Any]) -> None:
    for target in panel["targets"]:
        expr = target["expr"]
        promql_parser.parse(filled(expr))
        used = re.findall(r"\bpstp_\w+", expr)
        assert used
        for name in used:
            metric = NAMES[name]
            kind = "counter" if name.endswith(("_total", "_bucket", "_sum", "_count")) else metric.kind
            in_rate = re.search(rf"(rate|increase)\({name}\{{[^}}]*\}}\[", expr) is not None
            assert in_rate == (kind == "counter"), f"{name}: counters under rate or increase, others not"
        for selector in re.findall(r"\{([^}]*)\}", expr):
            assert 'cluster=~"$cluster"' in selector and 'instance=~"$instance"' in selector
        known = OF_PROMETHEUS.union(*(NAMES[name].labels for name in used))
        for labels in re.findall(r"by \(([^)]*)\)", expr):
            assert set(labels.replace(" ", "").split(",")) <= known
        assert not re.search(r"\[(?!\$__)", expr), "rates span what Grafana thinks right"
        if "histogram_quantile" in expr:
            assert re.search(r"by \(le\b", expr)
