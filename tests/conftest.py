"""One real broker per test run, on a free port and in a folder of its own; each test has an app of its own on it."""

import fcntl
import json
import os
import signal
import uuid
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import hypothesis
import pytest

from pstp.broker import EmbeddedBroker
from streams.settings import Settings
from tests.support.system import System

# How long an example takes says something about this machine's load, and nothing about the code.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI a skipped test is a failure: what is not run is not shown."""
    report = yield
    if report.skipped and os.environ.get("PSTP_TEST_SKIPS_FAIL"):
        report.outcome, report.longrepr = "failed", f"skipped in CI: {report.longrepr}"
    return report


@pytest.fixture(scope="session")
def bootstrap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of the run's broker.  With xdist the first worker starts it, the last one to leave stops it."""
    with _shared_broker(tmp_path_factory.getbasetemp()) as address:
        yield address


@contextmanager
def _shared_broker(base: Path) -> Iterator[str]:
    if "PYTEST_XDIST_WORKER" not in os.environ:
        with EmbeddedBroker(base / "broker") as broker:
            yield broker.bootstrap
        return
    folder = base.parent / "broker"
    folder.mkdir(exist_ok=True)
    users = folder / "users.json"
    with _locked(folder / "lock"):
        state = json.loads(users.read_text()) if users.exists() else None
        if state is None:
            broker = EmbeddedBroker(folder / "data", detached=True)
            broker.start()
            state = {"bootstrap": broker.bootstrap, "pid": broker.pid, "users": 0}
        state["users"] += 1
        users.write_text(json.dumps(state))
    try:
        yield state["bootstrap"]
    finally:
        with _locked(folder / "lock"):
            state = json.loads(users.read_text())
            state["users"] -= 1
            users.write_text(json.dumps(state))
            if state["users"] == 0:
                users.unlink()
                os.kill(state["pid"], signal.SIGTERM)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.fixture
def settings(bootstrap: str) -> Settings:
    """Settings of an app that no other test uses.  Few partitions: they are cheap to load and to write to."""
    return Settings(
        app=f"t{uuid.uuid4().hex[:10]}", bootstrap_servers=bootstrap, partitions=4, dispatch_partitions=4, lease_s=3
    )


@pytest.fixture
def system(settings: Settings, tmp_path: Path) -> Iterator[System]:
    """The whole system, topics created: start schedulers and workers as real processes, publish, watch the history."""
    with System(settings, tmp_path) as started:
        yield started
