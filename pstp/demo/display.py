"""What the demo shows while it runs: a live table in a terminal, else a line every few seconds."""

from collections import deque
from typing import Final

from msgspec import Struct
from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

LINE_INTERVAL_S: Final = 3.0
LIVE_INTERVAL_S: Final = 0.25
RATE_WINDOW_S: Final = 3.0


class Snapshot(Struct, frozen=True):
    """How far the demo is, `at_s` seconds after it began."""

    at_s: float
    total: int
    published: int
    done: int
    parked: int
    moving: int
    repeats: int


class Display:
    """Use it as a context.  `update` may be called as often as one likes."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None
        self._interval_s = LIVE_INTERVAL_S if self._live else LINE_INTERVAL_S
        self._shown_s = -self._interval_s
        self._recent: deque[tuple[float, int]] = deque()

    def __enter__(self) -> "Display":
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def say(self, at_s: float, text: str) -> None:
        """Something happened."""
        self.console.print(f"[dim]{at_s:6.1f} s[/]  {text}", highlight=False, soft_wrap=True)

    def update(self, snapshot: Snapshot, *, final: bool = False) -> None:
        if snapshot.at_s - self._shown_s < self._interval_s and not final:
            return
        self._shown_s = snapshot.at_s
        self._recent.append((snapshot.at_s, snapshot.done))
        while len(self._recent) > 2 and snapshot.at_s - self._recent[0][0] > RATE_WINDOW_S:
            self._recent.popleft()
        if self._live and not final:
            self._live.update(table(snapshot, self._rate()), refresh=True)
        else:
            self.say(snapshot.at_s, line(snapshot, self._rate()))

    def _rate(self) -> float:
        """Tasks per second, over the last few seconds."""
        (first_s, first), (last_s, last) = self._recent[0], self._recent[-1]
        return (last - first) / (last_s - first_s) if last_s > first_s else 0.0


def line(snapshot: Snapshot, rate: float) -> str:
    return (
        f"published {snapshot.published:,}/{snapshot.total:,}, done {snapshot.done:,}, parked {snapshot.parked:,}, "
        f"{snapshot.moving:,} groups moving, {rate:,.0f} tasks/s, {snapshot.repeats:,} repeats"
    )


def table(snapshot: Snapshot, rate: float) -> Table:
    grid = Table.grid(padding=(0, 2))
    for name, count in (("published", snapshot.published), ("done", snapshot.done)):
        grid.add_row(name, _number(count), ProgressBar(snapshot.total, count, width=40))
    for name, text in (
        ("parked", f"{snapshot.parked:,}"),
        ("groups moving", f"{snapshot.moving:,}"),
        ("tasks/s", f"{rate:,.0f}"),
        ("repeats", f"{snapshot.repeats:,}"),
        ("seconds", f"{snapshot.at_s:,.0f}"),
    ):
        grid.add_row(name, Text(text, justify="right"), "")
    return grid


def _number(count: int) -> Text:
    return Text(f"{count:,}", justify="right")
