"""What people do in the UI, done in a real browser on the real system: broker, scheduler, workers, server."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import expect

from streams.protocol import TaskState, encode
from tests.support.system import System, until
from tests.web.browser import WAIT_MS, Tab, confirm
from tests.web.conftest import Served
from tests.web.lives import Log


@pytest.fixture
def tab(browser: Any, served: Served) -> Iterator[Tab]:
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    yield Tab(context, served.url)
    context.close()


def test_a_task_submitted_in_the_ui_moves_the_lane(tab: Tab, served: Served) -> None:
    tab.go("/")
    page = tab.live()
    page.get_by_role("button", name="Submit…").click()
    sheet = page.locator("dialog[open]")
    sheet.get_by_label("Group").fill("by hand")
    sheet.get_by_label("Type").fill("echo")
    sheet.get_by_label("Payload, JSON").fill('{"big": 90071992547409931}')
    sheet.get_by_role("button", name="Submit", exact=True).click()
    sheet.get_by_text("Logged as").wait_for()
    sheet.get_by_role("button", name="Close").click()
    served.settled("by hand", "idle")
    tab.go("/group?id=by%20hand")
    tab.live()
    page.get_by_text("0 overlaps in 1 executions").wait_for()
    served.system.publish("by hand")
    served.system.flush()
    page.get_by_text("0 overlaps in 2 executions").wait_for()  # without a reload
    page.locator("canvas[aria-label*='2 executions']").wait_for()
    task = served.get("/api/tasks", group="by hand", limit=10)["items"][-1]["taskId"]
    tab.go(f"/task?id={task}")
    page.get_by_text("90071992547409931").first.wait_for()
    assert tab.troubles == []


def test_a_killed_worker_shows_as_a_retry_and_the_next_one_ends_it(tab: Tab, served: Served) -> None:
    served.system.publish("killed")
    served.system.flush()
    served.settled("killed", "idle")
    tab.go("/group?id=killed")
    page = tab.live()
    page.get_by_text("0 overlaps in 1 executions").wait_for()
    served.system.publish("killed", "sleep", 8)  # begins while the page is open: it is killed long before its end
    served.system.publish("killed")
    served.system.flush()
    page.get_by_text("runs on").wait_for()
    page.get_by_text("1 task is parked behind it").wait_for()
    worker = next(p for p in served.system.processes if p.name.startswith("w1"))
    worker.kill()
    served.system.worker("w2")
    page.get_by_text("Idle: nothing waits, nothing runs.").wait_for()
    page.get_by_text("0 overlaps in 4 executions").wait_for()
    ended = page.locator("#lane-list li")
    expect(ended).to_contain_text(["succeeded", "retrying", "succeeded", "succeeded"])
    tab.go(f"/task?id={served.get('/api/groups/detail', id='killed')['executions'][1]['taskId']}")
    page.get_by_role("heading", name="Attempts · 2").wait_for()
    assert tab.troubles == []


def test_pause_skip_and_redrive_to_the_head(tab: Tab, served: Served) -> None:
    for payload in (9, 0):
        served.system.publish("acted", "fail", payload, max_attempts=1)
    served.system.flush()
    until(lambda: served.get("/api/dead-letters", group="acted")["items"])
    served.settled("acted", "idle")
    tab.go("/group?id=acted")
    page = tab.live()
    page.get_by_role("button", name="Pause", exact=True).click()
    confirm(page, "Pause")
    page.get_by_text("Paused by").wait_for()
    for n in range(2):
        served.system.publish("acted", payload=n, id=f"later-{n}")
    served.system.flush()
    page.get_by_role("heading", name="Parked line, in order · 1").wait_for()
    page.get_by_role("button", name="Skip head").click()
    confirm(page, "Skip head")
    page.get_by_role("heading", name="Parked line, in order · 0").wait_for()
    tab.go("/dead-letters")
    letter = page.get_by_role("button").filter(has_text="acted").first
    letter.click()
    page.get_by_label("to the head").check()
    page.get_by_label("Payload", exact=True).fill("0")  # so that it succeeds this time
    page.get_by_role("button", name="Redrive edited…").click()
    confirm(page, "Redrive to head")
    line = served.get("/api/groups/detail", id="acted")
    assert line["explanation"]["head"]["type"] == "fail" and [t["taskId"] for t in line["parked"]] == ["later-1"]
    tab.go("/group?id=acted")
    page.get_by_role("button", name="Resume", exact=True).click()
    confirm(page, "Resume")
    page.get_by_text("Idle: nothing waits, nothing runs.").wait_for()
    order = served.get("/api/groups/detail", id="acted")["executions"][-2:]
    assert [(e["type"], e["state"]) for e in order] == [("fail", "succeeded"), ("echo", "succeeded")]
    assert tab.troubles == []


def test_a_restart_of_the_server_is_shown_and_nothing_is_missed_or_doubled(tab: Tab, served: Served) -> None:
    tab.go("/groups?q=restart-")
    page = tab.live()
    for n in range(20):
        served.system.publish(f"restart-{n % 4}")
    served.system.flush()
    page.get_by_text("4 of").wait_for()
    served.process.terminate()
    for n in range(20):
        served.system.publish(f"restart-{n % 4}")
    served.system.flush()
    page.wait_for_selector(".dotlive.late, .dotlive.lost")
    served.start()
    page.wait_for_selector(".dotlive.live")
    expect(page.locator("[role=row]").filter(has_text="10 done")).to_have_count(4, timeout=WAIT_MS)
    done = dict(zip(*[served.get("/api/groups/columns")[name] for name in ("ids", "done")], strict=True))
    assert [done[f"restart-{n}"] for n in range(4)] == [10] * 4
    told = [text for text in tab.troubles if "net::ERR_" not in text]  # nobody answered for a while
    assert told == []


def test_twelve_tabs_of_one_browser_are_all_live(browser: Any, served: Served) -> None:
    context = browser.new_context()
    tabs = [Tab(context, served.url) for _ in range(12)]
    for tab in tabs:
        tab.page.goto(served.url + "/groups?q=tabs-", wait_until="commit")
    for tab in tabs:
        tab.live()
    served.system.publish("tabs-1")
    served.system.flush()
    for tab in tabs:
        tab.page.get_by_text("tabs-1").first.wait_for()
        assert tab.troubles == []
    assert "pstp_web_streams 1.0" in served.client.get("/metrics").text.splitlines()
    context.close()


def test_a_planted_overlap_turns_red(browser: Any, served: Served, system: System) -> None:
    """Two executions of one group at once cannot be made to happen; so a history is written that says so."""
    log = Log()
    log.ms = int(time.time() * 1000)  # a history of long ago would have left the read model already
    log.park(0, "broken", 1)
    _, first = log.start(0, "broken", 1)
    log.park(0, "broken", 2)
    _, second = log.start(0, "broken", 2)
    log.ms += 900
    log.end(0, "broken", 1, first, TaskState.SUCCEEDED)
    log.end(0, "broken", 2, second, TaskState.SUCCEEDED)
    for record in log.records:
        for event in record.events:
            system.publish_raw("broken", encode(event), partition=0, topic="task-events")
    system.flush()
    planted = Served(system)
    context = browser.new_context()
    tab = Tab(context, planted.url)
    tab.go("/group?id=broken")
    page = tab.live()
    page.get_by_text("2 overlapping executions").wait_for()
    page.locator("header .badge.broken", has_text="1 overlaps").wait_for()
    red = page.evaluate("""() => {
        const canvas = document.querySelector('.lane canvas');
        const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
        let red = 0;
        for (let i = 0; i < data.length; i += 4) if (data[i] > 200 && data[i + 1] < 90 && data[i + 2] < 90) red++;
        return red;
    }""")
    assert red > 100
    context.close()
