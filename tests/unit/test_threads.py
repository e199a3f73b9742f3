"""Names of our threads' own attributes: Python's `Thread` has private ones, and more of them with each version."""

import ast
import threading
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OVERRIDDEN = {"__init__", "run", "start", "daemon", "name"}  # on purpose
LATER = {"_handle", "_os_thread_handle", "_context"}  # came with 3.13 and 3.14


def thread_classes() -> list[tuple[str, ast.ClassDef]]:
    return [
        (path.name, node)
        for folder in ("streams", "consumers", "producers", "pstp")
        for path in sorted((ROOT / folder).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef) and "Thread" in {ast.unparse(base).split(".")[-1] for base in node.bases}
    ]


@pytest.mark.parametrize(("_file", "node"), thread_classes(), ids=lambda v: v if isinstance(v, str) else v.name)
def test_no_thread_of_ours_hides_what_thread_itself_uses(_file: str, node: ast.ClassDef) -> None:
    methods = {part.name for part in node.body if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef)}
    assigned = {
        target.attr
        for target in ast.walk(node)
        if isinstance(target, ast.Attribute) and isinstance(target.ctx, ast.Store)
        and isinstance(target.value, ast.Name) and target.value.id == "self"
    }  # fmt: skip
    theirs = set(dir(threading.Thread())) | LATER
    assert (methods | assigned) & theirs - OVERRIDDEN == set()
