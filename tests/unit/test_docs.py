"""What the docs say is what the code does."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from streams.protocol import Reason

ROOT = Path(__file__).parents[2]


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_generated_pages_are_up_to_date() -> None:
    for path, text in generator().pages():
        assert path.read_text(encoding="utf-8") == text, "run `python docs/generate.py`"


def test_every_reason_for_a_rejection_is_documented() -> None:
    page = (ROOT / "docs" / "bad-input.md").read_text(encoding="utf-8")
    reasons = list(Reason)
    for reason in reasons[: reasons.index(Reason.INTERNAL_ERROR) + 1]:
        assert f"`{reason}`" in page


def names_of_tests() -> set[str]:
    files = (ROOT / "tests").rglob("test_*.py")
    return {name for path in files for name in re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), re.M)}


@pytest.mark.parametrize("page", ["failures.md", "commands.md"])
def test_every_timeline_has_a_test_of_its_name(page: str) -> None:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    cases = re.split(r"^### ", text, flags=re.M)[1:]
    assert len(cases) > 20
    tests = names_of_tests()
    for case in cases:
        heading, _, rest = case.partition("\n")
        name = "test_" + re.sub(r"[^a-z0-9]+", "_", heading.lower()).strip("_")
        assert name in tests, f"{heading!r} has no {name}"
        assert rest.lstrip().startswith("```"), f"{heading!r} has no timeline"
