"""Free ports, asked for by processes that run side by side."""

import subprocess
import sys

import pytest

from pstp.broker import ports
from pstp.broker.errors import BrokerError

RANGE = range(31_900, 31_920)
ASK = f"""
from pstp.broker import ports
ports._FREE_PORTS, ports._FREE_PORT_TRIES = range({RANGE.start}, {RANGE.stop}), {len(RANGE)}
print(ports.free_port())
"""


def test_no_port_is_given_twice_while_who_was_given_it_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though nothing listens there yet."""
    monkeypatch.setattr(ports, "_FREE_PORTS", RANGE)
    monkeypatch.setattr(ports, "_FREE_PORT_TRIES", len(RANGE))
    given = [ports.free_port()]
    with pytest.raises(BrokerError, match="No free port"):
        while True:
            given.append(ports.free_port())
    assert len(set(given)) == len(given)
    asked = subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True, timeout=60, check=False)
    assert asked.returncode != 0 and "No free port" in asked.stderr


def test_a_port_is_free_again_when_who_was_given_it_has_ended() -> None:
    one = ASK.replace(f"range({RANGE.start}, {RANGE.stop}), {len(RANGE)}", "range(31_899, 31_900), 1")
    for _ in range(3):
        asked = subprocess.run([sys.executable, "-c", one], capture_output=True, text=True, timeout=60, check=False)
        assert asked.stdout == "31899\n", asked.stderr
