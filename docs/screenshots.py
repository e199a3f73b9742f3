"""Pictures of the web UI for the README, from a running `pstp web` (best: the one that `make demo` leaves open).

    .venv/bin/python docs/screenshots.py [--url http://127.0.0.1:8080] [--folder docs/ui] [--narrow]
        [--screens wall lane dead-letters]

The wall, the busiest group's lane and the dead letters, light and dark, at 1440 px; with --narrow at 375 px too.  The
wall is best taken while the demo runs, the others at its end.  Wants Debian's Chromium and the extra `dev`.
"""

import argparse
import json
import os
import shutil
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import quote

from playwright.sync_api import expect, sync_playwright


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    parser.add_argument("--folder", type=Path, default=Path(__file__).parent / "ui")
    parser.add_argument("--narrow", action="store_true")
    parser.add_argument("--screens", nargs="+", default=["wall", "lane", "dead-letters"])
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    group = busiest(asked.url)
    screens = {"wall": "/", "lane": f"/group?id={quote(group, safe='')}", "dead-letters": "/dead-letters"}
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=arguments)
        for width in (1440, 375) if asked.narrow else (1440,):
            for scheme in ("light", "dark"):
                size = {"width": width, "height": 900 if width > 400 else 812}
                context: Any = browser.new_context(viewport=size, color_scheme=scheme)
                page = context.new_page()
                for name in asked.screens:
                    take(
                        page,
                        asked.url + screens[name],
                        asked.folder / f"{name}-{scheme}{'' if width > 400 else '-narrow'}.png",
                    )
                context.close()
        browser.close()


def busiest(url: str) -> str:
    """The group with the most tasks that ended."""
    with urllib.request.urlopen(f"{url}/api/groups/columns") as answer:
        columns = json.load(answer)
    return str(columns["ids"][columns["done"].index(max(columns["done"]))])


def take(page: Any, address: str, path: Path) -> None:
    page.goto(address)
    page.wait_for_selector(".dotlive")
    expect(page.locator("[aria-busy=true]")).to_have_count(0)
    letter = page.locator("button.letter").first
    if letter.count():
        letter.click()
    page.evaluate("document.activeElement?.blur()")
    page.wait_for_timeout(700)  # the tint of rows that changed fades
    page.screenshot(path=path)
    print(path)


if __name__ == "__main__":
    main()
