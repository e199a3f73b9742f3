"""Asks all processes, again and again, and draws what they say."""

import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table

from pstp.cli.console import printable
from pstp.service.asking import members as alive
from pstp.top.figures import Figures, Look, figures, parse
from streams.clock import now
from streams.errors import UserError
from streams.protocol import Member
from streams.settings import Settings

ANSWER_S: Final = 2.0


def once(settings: Settings) -> Figures:
    """What is there now, without rates.  Raises `UserError` if nobody is."""
    return figures(look(settings), None)


def run(settings: Settings, interval_s: float, console: Console) -> None:
    """Until Ctrl-C."""
    before = look(settings)
    with Live(draw(figures(before, None)), console=console, screen=True, auto_refresh=False) as live:
        while True:
            time.sleep(interval_s)
            latest = look(settings)
            live.update(draw(figures(latest, before)), refresh=True)
            before = latest


def look(settings: Settings) -> Look:
    members = [member for member in alive(settings).values() if member.http]
    if not members:
        raise UserError("no scheduler and no worker runs: start `pstp scheduler` and `pstp worker --handlers MODULE`")
    with ThreadPoolExecutor(len(members)) as pool:
        texts = list(pool.map(_ask, members))
    said = {m.instance: parse(text) for m, text in zip(members, texts, strict=True) if text is not None}
    silent = tuple(m.instance for m, text in zip(members, texts, strict=True) if text is None)
    return Look(now().mono_ms, said, silent)


def _ask(member: Member) -> str | None:
    try:
        with urllib.request.urlopen(f"{member.http}/metrics", timeout=ANSWER_S) as answer:
            text: str = answer.read().decode()
            return text
    except OSError:
        return None


def draw(found: Figures) -> RenderableType:
    return Group(_work(found), "", _states(found), "", _processes(found))


def _work(found: Figures) -> RenderableType:
    table = Table(
        "tasks/s", "parked", "ready", "in flight", "slots", "blocked", "no handler", "oldest", "wait p50", "p99",
        "lag", title="PSTP", title_justify="left", title_style="bold",
    )  # fmt: skip
    table.add_row(
        "…" if found.ended_per_s is None else f"{found.ended_per_s:,.0f}", f"{found.parked:,}", f"{found.ready:,}",
        f"{found.in_flight:,}", f"{found.slots:,}", _bad(found.blocked), _bad(found.without_handler),
        _seconds(found.oldest_s), _seconds(found.wait_p50_s), _seconds(found.wait_p99_s), f"{found.lag_records:,}",
    )  # fmt: skip
    return table


def _states(found: Figures) -> RenderableType:
    table = Table("state", "ever", "per second")
    for column in table.columns[1:]:
        column.justify = "right"
    for state, count in sorted(found.states.items()):
        table.add_row(state, f"{count:,}", f"{found.per_s[state]:,.1f}" if state in found.per_s else "")
    return table


def _processes(found: Figures) -> RenderableType:
    table = Table("process", "role", "partitions", "slots", "per second")
    for process in found.processes:
        slots = f"{process.used} of {process.slots}" if process.slots else ""
        table.add_row(
            printable(process.instance), process.role, str(process.owned), slots, f"{process.per_s:,.1f}"
        )  # fmt: skip
    for instance in found.missing:
        table.add_row(printable(instance), "[red]does not answer[/]", "", "", "")
    return table


def _bad(count: int) -> str:
    return f"[red]{count:,}[/]" if count else "0"


def _seconds(value: float | None) -> str:
    if value is None:
        return ""
    if value < 1:
        return f"≤ {value * 1000:.0f} ms"
    return f"{value:,.0f} s" if value < 120 else f"{value / 60:,.0f} min"
