"""A short run of everything: what `make chaos` does, in a minute and with one seed."""

from pathlib import Path

import pytest

from tests.chaos.nemeses import NEMESES
from tests.chaos.report import show
from tests.chaos.run import Options, Run

# Each of these takes tens of seconds: only in `make chaos`.
LONG = {"broker_freeze"}


@pytest.mark.timeout(420)
def test_a_minute_of_all_nemeses_keeps_the_promise(tmp_path: Path) -> None:
    nemeses = tuple(name for name in NEMESES if name not in LONG)
    outcome = Run(Options(11, 60, 2_000, nemeses=nemeses, gap_s=3.0), tmp_path, print).play()
    print(show(outcome))
    assert outcome.ok, show(outcome)
    assert outcome.bytes_through_links > 1_000_000  # the clients really went that way
