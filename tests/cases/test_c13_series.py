"""C-13: a metric label per tenant made new series for ever (llm-d/llm-d-batch-gateway #202).

A scrape grows with types and partitions, never with groups, tasks, keys, labels or addresses that somebody makes up.
"""

import itertools
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable
from typing import Final

import pytest
from prometheus_client.parser import text_string_to_metric_families

from streams.protocol import TaskState
from tests.metrics.scraping import addresses, figure, scrape_all
from tests.support.system import System, until

MARK: Final = "zq7"  # stands in all that clients make up
HOSTILE: Final = [
    f'{MARK}"}}\n{{', f"../../{MARK}", f"{MARK}e\u0301" * 50, MARK + "a" * 1000, f"{MARK}\\", f"{MARK}\tx",
    f"{MARK}<b>", f"{MARK}\u202e\u0000", f"{MARK}%00%2e",
]  # fmt: skip
NUMBERS: Final = itertools.count()
SERIES_MAX: Final = 700  # of one process: some forty names, and a histogram of a type has 19
BYTES_MAX: Final = 120_000


def publish(system: System, names: Iterable[str], kind: str = "echo", payload: object = None) -> None:
    for name in names:
        unique = f"{MARK}-{next(NUMBERS)}-{name[:150]}"
        system.publish(
            name, kind, payload, id=unique, idempotency_key=unique, labels={MARK: name, f"{MARK}-{name[:20]}": "x"}
        )
    system.flush()


def series(text: str) -> set[tuple[str, frozenset[tuple[str, str]]]]:
    return {
        (sample.name, frozenset(sample.labels.items()))
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.mark.parametrize("groups", [2_000, pytest.param(50_000, marks=pytest.mark.long)])
def test_a_scrape_does_not_grow_with_what_clients_make_up(system: System, groups: int) -> None:
    system.scheduler("s1")
    system.worker("w1", slots=100)
    system.start("web1", ["web"], {"web_address": "127.0.0.1:0"})
    until(lambda: addresses(system.folder).keys() == {"s1", "w1", "web1"}, what="all serve")
    # One of each kind of thing that is going to happen.
    publish(system, ["one", "other"], "outcome", {"do": "reject"})
    publish(system, ["one", "other"])
    system.history.wait_terminal(4)
    assert system.run("pause", "other").returncode == 0
    publish(system, ["other"])
    ask_web(system, ["one"])
    before = scrape_all(system.folder)

    publish(system, (f"{MARK}-{number}" for number in range(groups - len(HOSTILE))))
    publish(system, HOSTILE)
    publish(system, (f"{MARK}-fails-{number}" for number in range(5)), "outcome", {"do": "reject"})
    for number in range(2):
        paused = f"{MARK}-paused-{number}"
        assert system.run("pause", paused).returncode == 0
        publish(system, [paused])
    ask_web(system, HOSTILE)
    system.history.wait_terminal(4 + groups + 5, 60 + groups / 100)
    until(lambda: web_has(system, groups), 60 + groups / 500, "the read model has followed")
    after = scrape_all(system.folder)
    for name in ("s1", "w1", "web1"):
        assert MARK not in after[name], f"{name}: something that a client made up"
        found, earlier = series(after[name]), series(before[name])
        grown = {one for one in found - earlier if one[0] != "pstp_kafka_round_trip_seconds"}
        assert len(grown) < 40, f"{name}: {sorted(grown, key=str)[:50]}"
        assert len(found) < SERIES_MAX and len(after[name]) < BYTES_MAX, name
    # And they reconcile with the history (sidekiq #2928 is about those that did not).
    for state in (TaskState.SUCCEEDED, TaskState.DEAD_LETTERED, TaskState.PARKED):
        assert figure(after["s1"], "pstp_task_states_total", state=state) == system.history.count(state)
    assert figure(after["s1"], "pstp_groups_paused") == 3


def test_types_that_somebody_makes_up_count_together(system: System) -> None:
    """Types are named by publishers, too: beyond a hundred they share a label."""
    system.scheduler("s1")
    until(lambda: addresses(system.folder).keys() == {"s1"})
    for number, name in enumerate(HOSTILE):
        system.publish(f"g{number}", name[:150])
    system.flush()
    until(lambda: figure(scrape_all(system.folder)["s1"], "pstp_groups_ready") == len(HOSTILE), 60)
    for number in range(len(HOSTILE), 400):
        system.publish(f"g{number}", f"{number}" + "t" * 150)
    system.flush()
    until(lambda: figure(scrape_all(system.folder)["s1"], "pstp_groups_ready") == 400, 60)
    text = scrape_all(system.folder)["s1"]
    types = {dict(labels).get("type") for _, labels in series(text)} - {None}
    assert len(types) <= 101 and "(other)" in types
    assert {name[:150] for name in HOSTILE} <= types, "as they are, whatever is in them"
    assert figure(text, "pstp_tasks_accepted_total") == 400
    assert len(series(text)) < 2_000 and len(text) < 500_000


def ask_web(system: System, names: list[str]) -> None:
    """Requests about them in every form: in the query, in the path, to nowhere, refused."""
    base = web(system)
    for name in names:
        quoted = urllib.parse.quote(name, safe="")
        for path in (
            f"/api/groups/{quoted}", f"/api/groups/detail?id={quoted}", f"/api/tasks/{quoted}", f"/{quoted}/{quoted}",
            f"/api/{quoted}", f"/api/groups?q={quoted}&state={quoted}", f"/assets/{quoted}",
        ):  # fmt: skip
            for method, headers in (("GET", {}), (MARK.upper(), {}), ("POST", {"Host": MARK})):
                request = urllib.request.Request(base + path, method=method, headers=headers)
                try:
                    urllib.request.urlopen(request, timeout=10).read()
                except urllib.error.HTTPError as error:
                    error.read()


def web(system: System) -> str:
    log = (system.folder / "web1.log").read_text()
    return log.partition("answers on ")[2].partition(";")[0]


def web_has(system: System, groups: int) -> bool:
    with urllib.request.urlopen(f"{web(system)}/api/overview", timeout=10) as answer:
        return bool(json.load(answer)["groups"] >= groups)
