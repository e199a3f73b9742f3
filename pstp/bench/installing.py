"""Peers, each installed by its own lock file into a folder of its own in the user's cache."""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from pstp.broker.jars import cache_dir
from streams.errors import UserError

PEERS: Final = Path(__file__).parents[2] / "bench" / "peers"


def peers_folder() -> Path:
    """Where the peers' sources are.  Raises `UserError` outside of a checkout: they are not part of the package."""
    if not PEERS.is_dir():
        raise UserError(f"the peers are not installed with PSTP: run this from a checkout that has {PEERS}")
    return PEERS


def python_peer(name: str, *, at_least: tuple[int, int] = (3, 11)) -> Path:
    """The interpreter of that peer's own environment, made from its requirements.lock at the first call.

    Raises `UserError` if no Python of that version is there, or the installation fails.
    """
    lock = peers_folder() / name / "requirements.lock"
    folder = _folder(name, lock)
    if not (folder / ".installed").exists():
        base = _python(at_least)
        shutil.rmtree(folder, ignore_errors=True)
        _run([base, "-m", "venv", str(folder)], name)
        pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        _run([*pip, "--no-deps", "--require-hashes", "-r", str(lock)], name)
        (folder / ".installed").touch()
    return folder / "bin" / "python"


def java_peer(name: str) -> str:
    """The class path of a Maven peer, compiled; its jars are checked against jars.lock.  Raises `UserError`."""
    source = peers_folder() / name
    folder = _folder(name, source / "jars.lock", source / "pom.xml", *sorted(source.rglob("*.java")))
    lib, classes = folder / "lib", folder / "classes"
    if not (folder / ".installed").exists():
        if not (shutil.which("mvn") and shutil.which("javac")):
            raise UserError(f"{name} needs Maven and a JDK 17 on the PATH: install them, or leave this side out")
        shutil.rmtree(folder, ignore_errors=True)
        fetch = ["mvn", "-q", "-B", "-f", str(source / "pom.xml"), "dependency:copy-dependencies"]
        _run([*fetch, f"-DoutputDirectory={lib}"], name)
        check_jars(lib, (source / "jars.lock").read_text())
        sources = [str(path) for path in source.rglob("*.java")]
        _run(["javac", "-d", str(classes), "-cp", f"{lib}/*", *sources], name)
        (folder / ".installed").touch()
    return f"{classes}{os.pathsep}{lib}/*"


def check_jars(folder: Path, lock: str) -> None:
    """Raises `UserError` unless the folder holds exactly what the lock (`name sha256` a line) says."""
    wanted = dict(line.split() for line in lock.splitlines())
    found = {jar.name: hashlib.sha256(jar.read_bytes()).hexdigest() for jar in folder.glob("*.jar")}
    if wanted != found:
        wrong = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
        raise UserError(f"jars differ from jars.lock: {', '.join(wrong)}; do not run them, look where they come from")


def _folder(name: str, *inputs: Path) -> Path:
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in inputs)).hexdigest()[:12]
    return cache_dir() / f"bench-{name}-{digest}"


def _python(at_least: tuple[int, int]) -> str:
    """An interpreter of that version or a later one: ours, or one that pyenv or the PATH knows."""
    if sys.version_info[:2] >= at_least:
        return sys.executable
    found: Mapping[tuple[int, int], str] = {
        (3, minor): path for minor in range(at_least[1], 20) if (path := _named(f"3.{minor}"))
    }
    if not found:
        raise UserError(f"this peer needs Python {at_least[0]}.{at_least[1]} or later: put one on the PATH")
    return found[min(found)]


def _named(version: str) -> str | None:
    pyenv = sorted(Path(os.environ.get("PYENV_ROOT", "/nowhere"), "versions").glob(f"{version}.*/bin/python"))
    return str(pyenv[-1]) if pyenv else shutil.which(f"python{version}")


def _run(command: list[str], name: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"{name} cannot be installed: {(done.stderr or done.stdout).strip()[-1000:]}")
