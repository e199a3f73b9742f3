"""After everything has been killed once, the web's numbers are those of `pstp verify` and of the metrics."""

import signal
from typing import Any

import pytest

from pstp.verify import Options, check_cluster
from streams.protocol import TERMINAL, TaskState
from tests.chaos.web_numbers import compare
from tests.metrics.test_scrape import sums
from tests.support.system import System, until
from tests.web.browser import Tab, chromium
from tests.web.conftest import Served

TASKS = 600


@pytest.mark.long
@pytest.mark.timeout(420)
def test_after_kills_the_ui_the_checker_and_the_metrics_tell_the_same(system: System) -> None:
    schedulers = {"s1": system.scheduler("s1"), "s2": system.scheduler("s2")}
    worker = system.worker("w1", slots=8)
    served = Served(system)
    for number in range(TASKS):
        kind = (
            ("fail", 1) if number % 7 == 0 else ("outcome", {"do": "reject"}) if number % 50 == 1 else ("sleep", 0.01)
        )
        system.publish(f"g{number % 30}", *kind)
    for _ in range(5):
        system.publish_raw("g", b"{")
    system.flush()
    system.history.wait(lambda h: h.count(TaskState.SUCCEEDED) > 100)
    schedulers["s1"].kill()
    worker.kill()
    served.process.send(signal.SIGKILL)
    served.process.popen.wait(10)
    system.worker("w2", slots=8)
    dead = system.http("s1")
    system.scheduler("s1")
    served.start()
    until(lambda: system.http("s1") != dead, what="s1 announces its new address")
    system.history.wait_terminal(TASKS + 5, 120)
    report = check_cluster(system.settings, Options())
    assert report.ok, report.violations
    figures = report.figures
    rejected = figures.rejected
    assert compare(system.settings, system.folder, figures) == []

    def ended() -> int:
        return int(sum(served.get("/api/groups/columns")["done"]))

    until(lambda: ended() >= TASKS, 60, "the read model has it all")
    overview = served.get("/api/overview")
    assert (overview["verify"]["begun"], overview["verify"]["overlaps"]) == (figures.executions, 0)
    assert (overview["parked"], overview["running"]) == (0, 0)
    assert figures.executions - overview["verify"]["executions"] < 30  # those of the killed worker, at most its slots
    assert overview["groups"] == figures.groups
    letters = served.get("/api/dead-letters", limit=1000)
    assert overview["deadLetters"] == figures.ends["dead_lettered"] + rejected == sum(letters["reasons"].values())
    assert ended() == sum(figures.ends.values()) == TASKS
    states = sums(system, ["s1", "s2"], "pstp_task_states")
    assert {state.value: states[state.value] for state in TERMINAL if states[state.value]} == figures.ends | (
        {"rejected": rejected} if rejected else {}
    )
    assert states["running"] == overview["verify"]["begun"]
    with chromium() as browser:
        _on_the_screen(browser, served, overview)


def _on_the_screen(browser: Any, served: Served, overview: Any) -> None:
    tab = Tab(browser.new_context(), served.url)
    tab.go("/")
    page = tab.live()

    def figure(name: str) -> str:
        return str(page.locator(".figure").filter(has=page.get_by_text(name, exact=True)).locator("b").inner_text())

    assert figure("Dead letters") == f"{overview['deadLetters']}"
    assert (figure("Ready"), figure("Running"), figure("Parked")) == ("0", "0", "0")
    page.get_by_text(f"{overview['groups']} groups, one cell each").wait_for()
    checked = f"{overview['verify']['executions']:,} executions, from worker-reported times"
    page.get_by_text(checked).wait_for()
    assert tab.troubles == []
