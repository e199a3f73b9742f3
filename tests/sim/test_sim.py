"""A short set of worlds; `python -m tests.sim --seeds 200` plays many.  A failure prints its seed and a shrunk trace."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.sim import planted, scenario

ROOT = Path(__file__).parents[2]


def _run(*command: str, timeout_s: float) -> subprocess.CompletedProcess[str]:
    """In a process of its own: a seed plays the same only with a fixed hash seed."""
    return subprocess.run(
        [sys.executable, *command], cwd=ROOT, capture_output=True, text=True, timeout=timeout_s, check=False
    )


def _all_found(*options: str, timeout_s: float) -> None:
    done = _run("tests/sim/planted.py", "--known", *options, timeout_s=timeout_s)
    assert done.returncode == 0, [line for line in done.stdout.splitlines() if '"found": false' in line] or done.stderr


def test_thirty_worlds_with_faults_keep_the_promise_and_drain() -> None:
    done = _run("-m", "tests.sim", "--seeds", "30", timeout_s=170)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert "30 seeds" in done.stdout


def test_each_bug_can_still_be_planted() -> None:
    """What a mutation replaces is there, once, so that its line in the table says something about this code."""
    for mutation in planted.mutations():
        sources: dict[str, str] = {}
        for edit in mutation.edits:
            source = sources.get(edit.path) or (ROOT / edit.path).read_text(encoding="utf-8")
            assert source.count(edit.old) == 1, (mutation.name, edit.path, edit.old)
            sources[edit.path] = source.replace(edit.old, edit.new)


def test_the_table_of_planted_bugs_is_current() -> None:
    table = planted.mutations()
    assert list(planted.known()) == [mutation.name for mutation in table]
    assert planted.TABLE.read_text(encoding="utf-8") == planted.rendered(table, planted.known())


def test_the_quickest_planted_bugs_are_found() -> None:
    _all_found("--quickest", "6", timeout_s=170)


def test_a_failure_prints_its_seed_and_a_shrunk_trace() -> None:
    world = "--world", "free", "--first", "0", "--seeds", "1"
    done = _run("-m", "tests.sim", "--plant", "head_row_not_written", *world, timeout_s=170)
    assert done.returncode == 1, done.stdout + done.stderr
    assert " ".join(world) in done.stdout
    tasks = len(scenario.draw(0, "free").tasks)
    assert 1 <= done.stdout.count("TaskPlan(") < tasks // 4, done.stdout
    assert "begins" in done.stdout


@pytest.mark.long
@pytest.mark.timeout(3_600)
def test_all_planted_bugs_are_found() -> None:
    _all_found(timeout_s=3_500)


@pytest.mark.long
@pytest.mark.timeout(3_600)
def test_a_thousand_worlds() -> None:
    done = _run("-m", "tests.sim", "--seeds", "1000", timeout_s=3_500)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
