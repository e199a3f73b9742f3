"""The web UI of the demo: a process like the others, with what processor time they leave."""

import json
import re
import socket
import time
import urllib.error
import urllib.request
from importlib.util import find_spec
from typing import Any, Final

from pstp.demo.checks import Check
from pstp.demo.children import Children
from pstp.verify import Report
from streams.clock import now
from streams.errors import UserError

INSTANCE: Final = "web"
PORT: Final = 8080
NICE: Final = 5
CATCH_UP_S: Final = 600.0
STILL_S: Final = 15.0
LOOK_S: Final = 0.2
_ANSWERS = re.compile(r"the web UI answers on (http://\S+);")


def installed() -> bool:
    return all(find_spec(name) is not None for name in ("fastapi", "sqlalchemy", "alembic", "uvicorn"))


def start(children: Children) -> None:
    """On its usual port if that is free, else on any."""
    with socket.socket() as probe:
        port = 0 if probe.connect_ex(("127.0.0.1", PORT)) == 0 else PORT
    children.start(INSTANCE, "web", "--address", f"127.0.0.1:{port}", nice=NICE)


def wait_caught_up(children: Children) -> str:
    """Its address, once it has read the whole history.  Raises `UserError` if it does not get there."""
    deadline_ms = now().mono_ms + int(CATCH_UP_S * 1000)
    while now().mono_ms < deadline_ms:
        children.check()
        found = _ANSWERS.search(children.log(INSTANCE))
        if found is not None and _ask(found[1], "/readyz", None) and _ask(found[1], "/api/overview", {})["lagS"] == 0:
            return found[1]
        time.sleep(LOOK_S)
    raise UserError(f"the web UI has not read the history within {CATCH_UP_S:g} s: see its log in {children.folder}")


def same_numbers(address: str, verdict: Report) -> Check:
    """Whether the UI counts what `pstp verify` counts, once its numbers stand still."""
    expected = sum(verdict.figures.ends.values())
    ended, moved_ms = -1, now().mono_ms
    while ended != expected and now().mono_ms - moved_ms < STILL_S * 1000:
        time.sleep(LOOK_S)
        before, ended = ended, sum(_ask(address, "/api/groups/columns", {}).get("done", ()))
        moved_ms = moved_ms if before == ended else now().mono_ms
    figures = _ask(address, "/api/overview", {})
    badge = figures.get("verify") or {"overlaps": -1, "executions": 0}
    return Check(
        ended == expected and badge["overlaps"] == 0 and figures["parked"] == figures["running"] == 0,
        f"the web UI counts the same: {ended:,} tasks ended, {badge['overlaps']} overlaps in "
        f"{badge['executions']:,} executions, nothing waits",
    )


def _ask(address: str, path: str, otherwise: Any) -> Any:
    try:
        with urllib.request.urlopen(address + path, timeout=30) as answer:
            body = answer.read()
    except (urllib.error.URLError, OSError):
        return otherwise
    return json.loads(body) if body.startswith((b"{", b"[")) else body
