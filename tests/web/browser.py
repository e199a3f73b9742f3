"""A real browser for tests: Debian's Chromium, driven by Playwright, on the UI as `make ui` builds it."""

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
CHROMIUM = next((path for name in ("chromium", "chromium-browser") if (path := shutil.which(name))), None)
STATIC = ROOT / "pstp" / "web" / "static" / "index.html"
WAIT_MS = 60_000  # a condition is waited for, however busy the machine is


def built_ui() -> None:
    """Build it if its sources are newer; one test process does, the others wait."""
    lock = ROOT / ".pytest_cache" / "ui.lock"
    lock.parent.mkdir(exist_ok=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        done = subprocess.run(
            [sys.executable, str(ROOT / "ui" / "build.py")], capture_output=True, text=True, check=False
        )
    assert done.returncode == 0 and STATIC.exists(), done.stdout[-2000:] + done.stderr[-2000:]


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser without a window."""
    from playwright.sync_api import sync_playwright

    if CHROMIUM is None:
        pytest.skip("Chromium is not installed: Debian's package `chromium` has it")
    built_ui()
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium's own sandbox refuses root
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


class Tab:
    """A page that remembers what went wrong in it."""

    def __init__(self, context: Any, url: str) -> None:
        self.page = context.new_page()
        self.page.set_default_timeout(WAIT_MS)
        self.url = url
        self.troubles: list[str] = []
        self.page.on("console", lambda said: self.troubles.append(said.text) if said.type == "error" else None)
        self.page.on("pageerror", lambda error: self.troubles.append(str(error)))

    def go(self, path: str) -> Any:
        self.page.goto(self.url + path)
        return self.page

    def live(self) -> Any:
        """Once the stream is up and the snapshot is there."""
        self.page.wait_for_selector(".dotlive.live")
        return self.page


def confirm(page: Any, title: str) -> Any:
    """Confirm the open sheet and follow the command to its answer."""
    sheet = page.locator("dialog[open]")
    sheet.get_by_role("button", name=title, exact=True).click()
    sheet.get_by_text("logged at offset").wait_for()
    sheet.locator("li.done", has_text="applied").wait_for()
    sheet.get_by_role("button", name="Close").click()
    return sheet
