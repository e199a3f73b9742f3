"""README.md says which case is tested where: that must be true."""

import re
from pathlib import Path

HERE = Path(__file__).parent
CASES = {f"C-{number:02}" for number in range(1, 14)} | {f"S-{number:02}" for number in range(1, 11)}
ROW = re.compile(r"\| ([CS]-\d\d) \|[^|]*\|([^|]*)\|([^|]*)\|")


def rows() -> dict[str, tuple[list[str], str]]:
    """Case -> the tests that it names, and what is left for later."""
    text = (HERE / "README.md").read_text(encoding="utf-8")
    return {m[1]: (re.findall(r"`([^`]+\.py)`", m[2]), m[3].strip()) for m in ROW.finditer(text)}


def test_every_case_is_tested_or_says_what_it_waits_for() -> None:
    found = rows()
    assert found.keys() == CASES
    assert [case for case, (tests, later) in found.items() if not tests and not later] == []


def test_every_test_that_is_named_is_there() -> None:
    named = {test for tests, _ in rows().values() for test in tests}
    assert [test for test in named if not (HERE / test).resolve().is_file()] == []


def test_no_test_of_a_case_is_left_out() -> None:
    named = {test for tests, _ in rows().values() for test in tests}
    ours = {path.name for path in HERE.glob("test_*.py")} - {Path(__file__).name}
    assert ours <= named, "name it in README.md"
