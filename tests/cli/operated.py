"""One system for a file of tests that operate it through the real command line; each test has groups of its own."""

import io
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any
from unittest import mock
from uuid import uuid4

import pytest

from pstp.cli import main
from streams.protocol import TaskState
from streams.settings import Settings
from tests.support.system import System, until

HANDLERS = Path(__file__).parents[1] / "support" / "handlers_operated.py"
BREAKER = {"breaker_rate": 1.0, "breaker_window": 20, "breaker_open_s": 600}


@contextmanager
def operated(bootstrap: str, folder: Path) -> Iterator[System]:
    """A scheduler with breakers, and a worker that masks a secret; both are up."""
    settings = Settings(
        app=f"t{uuid4().hex[:10]}", bootstrap_servers=bootstrap, partitions=4, dispatch_partitions=4, lease_s=3
    )
    with System(settings, folder) as system:
        system.scheduler(**BREAKER)
        system.worker(handlers=HANDLERS, secrets='["s3cr3t-word"]')
        system.publish("warm", "ok")
        system.flush()
        system.history.wait_terminal(1, 60)
        yield system


def pstp(system: System, *arguments: str, code: int = 0) -> Any:
    """What it prints, as JSON, or as text without --json; on a mistake its one sentence.

    The command line's own `main`, in this process: to start one for each takes longer than the command.
    """
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.dict(os.environ, system.env(), clear=True), mock.patch.object(sys, "argv", ["pstp", *arguments]),
        redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended,
    ):  # fmt: skip
        main()
    assert (ended.value.code or 0) == code, (arguments, out.getvalue(), err.getvalue())
    if code == 2:
        return err.getvalue()
    return json.loads(out.getvalue()) if "--json" in arguments else out.getvalue()


def ended(system: System, task_id: str, state: TaskState) -> None:
    system.history.wait(lambda h: state in h.states(task_id), what=f"{task_id} is {state}")


def explained(system: System, group: str, words: str) -> dict[str, Any]:
    """What `explain` says of the group, once it says so."""

    def said() -> Any:
        answer = system.get("s1", f"/explain?group={group}")
        return answer if words in answer["text"] else None

    found: dict[str, Any] = until(said, what=f"explain says {words!r}")
    return found
