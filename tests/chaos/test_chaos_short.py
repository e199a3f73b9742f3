"""A short run of everything: what `make chaos` does, in a minute and with one seed."""

from pathlib import Path

import pytest

from tests.chaos.report import show
from tests.chaos.run import Options, Run


@pytest.mark.timeout(420)
def test_a_minute_of_all_nemeses_keeps_the_promise(tmp_path: Path) -> None:
    outcome = Run(Options(11, 45, 1_500, gap_s=1.9), tmp_path, print).play()
    print(show(outcome))
    assert outcome.ok, show(outcome)
    assert outcome.bytes_through_links > 1_000_000  # the clients really went that way
