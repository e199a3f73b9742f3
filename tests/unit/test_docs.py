"""What the docs say is what the code does."""

import importlib.util
from pathlib import Path
from types import ModuleType

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
