"""The screens one by one in a real browser: rules of accessibility, keys, every designed state, hostile texts."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from playwright.sync_api import expect

from tests.support.system import System, until
from tests.web.browser import ROOT, WAIT_MS, Tab, confirm
from tests.web.conftest import Served

pytestmark = pytest.mark.long  # the flows of test_browser are what `make test` runs in a browser

AXE = ROOT / "ui" / "node_modules" / "axe-core" / "axe.min.js"


@pytest.fixture
def tab(browser: Any, served: Served) -> Iterator[Tab]:
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    context.grant_permissions(["clipboard-read", "clipboard-write"], origin=served.url)
    yield Tab(context, served.url)
    context.close()


@pytest.fixture(scope="module")
def seen(served: Served) -> str:
    """A group that has had tasks, one of them a dead letter; the id of that one."""
    served.system.publish("seen")
    served.system.publish("seen", "fail", 9, max_attempts=2, id="seen-dead")
    served.system.publish("seen")
    served.system.flush()
    until(lambda: served.get("/api/dead-letters", group="seen")["items"])
    served.settled("seen", "idle")
    return "seen-dead"


def axe(page: Any) -> list[Any]:
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate("axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21aa']})")["violations"]
    return [(v["id"], [n["html"][:200] for n in v["nodes"]][:3]) for v in found]


@pytest.mark.parametrize("width", [1440, 375])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_screen_passes_axe_and_fits(browser: Any, served: Served, seen: str, scheme: str, width: int) -> None:
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    tab = Tab(context, served.url)
    for path in ("/", "/groups", "/group?id=seen", f"/task?id={seen}", "/dead-letters", "/workers"):
        tab.go(path)
        page = tab.live()
        page.wait_for_selector("h1")
        expect(page.locator("[aria-busy=true]")).to_have_count(0)
        if path == "/dead-letters":
            page.locator("button.letter").first.click()
            page.get_by_label("Payload", exact=True).wait_for()
        assert axe(page) == [], (path, scheme, width)
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= width, (path, wide)
    for opened in ("Control+k", "?"):
        page.keyboard.press(opened)
        page.locator("dialog[open]").wait_for()
        assert axe(page) == [], (opened, scheme, width)
        page.keyboard.press("Escape")
    assert tab.troubles == []
    context.close()


def test_the_keyboard_goes_everywhere(tab: Tab, served: Served, seen: str) -> None:
    tab.go("/")
    page = tab.live()
    for keys, place in (("gg", "/groups"), ("gd", "/dead-letters"), ("gw", "/workers"), ("go", "/")):
        for pressed in keys:
            page.keyboard.press(pressed)
        page.wait_for_url(served.url + place)
    page.keyboard.press("Control+k")
    page.keyboard.type("seen")
    page.get_by_role("option").first.wait_for()
    page.keyboard.press("Enter")
    page.wait_for_url("**/group?id=seen")
    page.get_by_role("heading", name="seen").wait_for()
    page.keyboard.press("c")
    assert page.evaluate("navigator.clipboard.readText()") == "pstp explain seen"
    page.keyboard.press("y")
    until(lambda: page.evaluate("navigator.clipboard.readText()") == f"{served.url}/group?id=seen")
    page.keyboard.press("p")
    page.locator("dialog[open]").get_by_role("heading", name="Pause").wait_for()
    page.keyboard.press("Escape")  # nothing was sent
    expect(page.locator("dialog[open]")).to_have_count(0)
    assert served.get("/api/groups/detail", id="seen")["state"] == "idle"
    dark = page.locator(".v-application.v-theme--dark").count()
    page.keyboard.press("t")
    expect(page.locator(".v-application.v-theme--dark")).to_have_count(0 if dark else 1)
    page.locator(".lane canvas").focus()
    page.keyboard.press("ArrowLeft")
    page.get_by_text("selected", exact=True).wait_for()
    page.keyboard.press("g")
    page.keyboard.press("g")
    page.get_by_label("Find a group").fill("seen")
    page.get_by_role("grid").focus()
    page.keyboard.press("j")
    page.keyboard.press("k")
    page.keyboard.press("r")
    page.locator("dialog[open]").get_by_role("heading", name="Resume").wait_for()
    page.keyboard.press("Escape")
    page.get_by_role("grid").focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/group?id=seen")
    assert tab.troubles == []


def test_single_keys_can_be_switched_off_and_never_act_while_typing(tab: Tab, served: Served, seen: str) -> None:
    tab.go("/groups")
    page = tab.live()
    page.get_by_label("Find a group").click()
    page.keyboard.type("gd p")
    assert page.url.startswith(f"{served.url}/groups")
    page.locator("main h1").first.click()
    page.keyboard.press("?")
    page.get_by_label("Single keys are on").uncheck()
    page.keyboard.press("Escape")
    page.keyboard.press("t")
    page.keyboard.press("g")
    page.keyboard.press("d")
    assert page.url.startswith(f"{served.url}/groups")
    page.keyboard.press("Control+k")  # with a modifier it is no single key
    page.locator("dialog[open]").wait_for()
    assert tab.troubles == []


def test_views_are_kept_and_bulk_commands_count_first(tab: Tab, served: Served) -> None:
    for n in range(3):
        served.system.publish(f"view-{n}")
    served.system.flush()
    for n in range(3):
        served.settled(f"view-{n}", "idle")
    tab.go("/groups?q=view-&state=idle&sort=done")
    page = tab.live()
    page.get_by_text("3 of").wait_for()
    page.get_by_label("Name of this view").fill("mine")
    page.get_by_role("button", name="Keep").click()
    tab.go("/groups")
    page.get_by_role("button", name="mine").click()
    page.wait_for_url("**/groups?q=view-&state=idle&sort=done")
    page.get_by_label("Act on all that pass the filter").select_option("pause_group")
    sheet = page.locator("dialog[open]")
    sheet.get_by_text("3 groups pass this filter").wait_for()
    sheet.get_by_text("/api/bulk").wait_for()
    sheet.get_by_role("button", name="Pause all").click()
    sheet.get_by_text("done: 3 of 3").wait_for()
    sheet.get_by_role("button", name="Close").click()
    for n in range(3):
        served.settled(f"view-{n}", "paused")
    assert tab.troubles == []


def test_older_executions_are_asked_for_and_the_last_hour_can_be_scrubbed(tab: Tab, served: Served) -> None:
    for n in range(230):
        served.system.publish("long lane", payload=n)
    served.system.flush()
    until(lambda: (found := served.get("/api/groups", q="long lane")["items"]) and found[0]["done"] == 230, 90)
    tab.go("/group?id=long%20lane")
    page = tab.live()
    page.get_by_text("0 overlaps in 200 executions").wait_for()
    older = page.get_by_role("button", name="Older executions")
    while page.get_by_text("0 overlaps in 230 executions").count() == 0:
        older.click()
    expect(older).to_be_disabled()
    page.get_by_role("button", name="Fit").click()
    expect(page.get_by_role("button", name="Newer executions")).to_be_disabled()
    page.locator("#scrub").fill("0")
    page.get_by_text("0 overlaps in 0 executions").wait_for()  # an hour ago there was nothing
    page.get_by_role("button", name="Play").click()
    page.get_by_role("button", name="Stop").wait_for()
    page.locator("#scrub").fill("100")
    page.get_by_text("0 overlaps in 230 executions").wait_for()
    assert tab.troubles == []


def test_a_redrive_is_shown_as_a_ghost_before_it_is_confirmed(tab: Tab, served: Served) -> None:
    served.system.publish("ghost", "fail", 9, max_attempts=1, id="ghost-dead")
    served.system.flush()
    until(lambda: served.get("/api/dead-letters", group="ghost")["items"])
    assert served.command("ghost", "pause_group")["outcome"] == "done"
    for n in range(4):
        served.system.publish("ghost", payload=n)
    served.system.flush()
    until(lambda: served.get("/api/groups/detail", id="ghost")["explanation"]["parked"] == 3)
    tab.go("/dead-letters?group=ghost")
    page = tab.live()
    page.locator("button.letter").first.click()
    page.locator("canvas[aria-label*='would start before the 4 parked']").wait_for()
    page.get_by_label("to the tail").check()
    page.locator("canvas[aria-label*='would start after the 4 parked']").wait_for()
    page.get_by_role("button", name="Redrive…").click()
    confirm(page, "Redrive to tail")
    line = served.get("/api/groups/detail", id="ghost")["parked"]
    assert line[-1]["taskId"] == "ghost-dead"
    assert tab.troubles == []


def test_an_attempt_that_failed_says_why(tab: Tab, served: Served, seen: str) -> None:
    tab.go(f"/task?id={seen}")
    page = tab.live()
    page.get_by_role("heading", name="Attempts · 2").wait_for()
    page.get_by_text("ValueError: attempt 1 fails").first.wait_for()
    page.get_by_text("ValueError: attempt 2 fails").first.wait_for()
    page.locator("svg[aria-label*='Path taken: parked, then dispatched, then running, then retrying']").wait_for()
    assert tab.troubles == []


def test_a_server_that_is_gone_is_shown_after_three_seconds_and_stops_commands_after_ten(
    tab: Tab, served: Served, seen: str
) -> None:
    tab.go("/group?id=seen")
    page = tab.live()
    page.get_by_role("button", name="Pause", exact=True).click()
    served.process.terminate()
    page.wait_for_selector(".dotlive.late")
    page.locator("header").get_by_text("no data for").wait_for()
    page.wait_for_selector(".shell.lost")
    page.get_by_role("alert").get_by_text("The server has not been heard").wait_for()
    sheet = page.locator("dialog[open]")
    expect(sheet.get_by_role("button", name="Pause", exact=True)).to_be_disabled()
    sheet.get_by_text("commands wait until it can").wait_for()
    assert axe(page) == []
    served.start()
    page.wait_for_selector(".dotlive.live")
    expect(sheet.get_by_role("button", name="Pause", exact=True)).to_be_enabled()
    assert [text for text in tab.troubles if "net::ERR_" not in text] == []


def test_what_cannot_be_loaded_says_so_and_is_tried_again(tab: Tab, served: Served, seen: str) -> None:
    def broken(route: Any) -> None:
        body = '{"title": "failed", "status": 500, "detail": "an error of ours"}'
        route.fulfill(status=500, content_type="application/problem+json", headers={"x-request-id": "r-17"}, body=body)

    for path, request in (("/group?id=seen", "**/api/groups/detail*"), (f"/task?id={seen}", "**/api/tasks/detail*"),
                          ("/dead-letters", "**/api/dead-letters*"), ("/workers", "**/api/members"),
                          ("/", "**/api/overview"), ("/groups", "**/api/groups/columns")):  # fmt: skip
        tab.page.route(request, broken)
        page = tab.go(path)
        alert = page.get_by_role("alert")
        alert.get_by_text("an error of ours").wait_for()
        alert.get_by_text("request r-17").wait_for()
        assert axe(page) == [], path
        page.unroute(request)
        if path != "/workers":  # that one tries again by itself
            page.get_by_role("button", name="Try again").click()
        expect(page.get_by_text("an error of ours")).to_have_count(0)
        tab.live()
    page = tab.go("/group?id=never-heard-of")
    page.get_by_text("no such group in the read model").wait_for()


HOLD = """
const real = window.fetch;
const gate = new Promise((open) => { window.release = open; });
window.fetch = async (...asked) => { await gate; return real(...asked); };
"""


def test_what_is_on_its_way_is_a_skeleton(tab: Tab, served: Served, seen: str) -> None:
    tab.page.add_init_script(HOLD)
    for path in ("/group?id=seen", f"/task?id={seen}", "/dead-letters", "/workers", "/groups", "/"):
        page = tab.go(path)
        page.locator("[aria-busy=true]").first.wait_for()
        page.evaluate("window.release()")
        expect(page.locator("[aria-busy=true]")).to_have_count(0, timeout=WAIT_MS)
    assert tab.troubles == []


def test_a_system_without_tasks_offers_how_to_begin(browser: Any, system: System) -> None:
    served = Served(system)
    tab = Tab(browser.new_context(), served.url)
    for path, words in (("/", "No group has had a task yet"), ("/groups", "No group has had a task yet"),
                        ("/dead-letters", "No dead letters"), ("/workers", "None is running")):  # fmt: skip
        tab.go(path)
        page = tab.live()
        page.get_by_text(words).first.wait_for()
        page.get_by_role("button", name="Copy").first.wait_for()
        assert axe(page) == [], path
    assert tab.troubles == []


HOSTILE = ["<img src=x onerror=alert(1)>", "a/b?c#d&e=%2F", "..", "\u202eevil", "{{7*7}}", "'\"`\\ \t$(id)", "😀" * 60]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_are_shown_as_they_are_on_every_screen(tab: Tab, served: Served, text: str) -> None:
    """As a group's name, a task's id, a member of payload and state, a type without handler, a note."""
    task = f"{text} task"
    served.system.publish(text, "fail", 9, max_attempts=1, id=task, labels={text: text})
    served.system.publish(text, payload={text: text})
    served.system.flush()
    until(lambda: served.get("/api/dead-letters", group=text)["items"])
    served.settled(text, "idle")
    tab.go("/")
    page = tab.live()
    page.locator(".wall canvas").first.focus()
    page.keyboard.press("ArrowRight")
    tab.go("/groups")
    page = tab.live()
    page.get_by_label("Find a group").fill(text)
    page.locator("[role=row]").filter(has_text=text[:8]).first.click()
    page.locator("main h1.big").wait_for()
    assert page.evaluate("new URL(location.href).searchParams.get('id')") == text
    page.get_by_role("button", name="Pause", exact=True).click()
    page.locator("dialog[open]").get_by_label("Note for the history").fill(text)
    confirm(page, "Pause")
    paused = served.settled(text, "paused")
    assert (paused["group"], paused["explanation"]["paused"]["note"]) == (text, text)
    tab.go(f"/task?id={quote(task, safe='')}")
    page.get_by_role("heading", name="Attempts · 1").wait_for()
    tab.go(f"/dead-letters?group={quote(text, safe='')}")
    page.locator("button.letter").first.click()
    page.get_by_label("Payload", exact=True).wait_for()
    tab.go("/workers")
    tab.live()
    page.keyboard.press("Control+k")
    page.keyboard.type(text)
    page.get_by_role("option").first.wait_for()
    assert page.locator("img, script:not([src])").count() == 0 and tab.troubles == []
    assert page.evaluate("Object.keys(Object.prototype).length") == 0
