"""Both databases for every test of the read model, and a whole system with a web server."""

import re
import tempfile
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import Engine, create_engine

from pstp.bench.postgres import Postgres
from pstp.web.database import open_database
from streams.settings import Settings
from tests.support.system import Process, System, until
from tests.web.browser import chromium


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """Folder of the socket of a PostgreSQL of our own, as an ordinary user."""
    if not Postgres.found():
        pytest.skip("PostgreSQL is not installed: Debian's package `postgresql` has it")
    with tempfile.TemporaryDirectory(prefix="pstp-pg-") as folder, Postgres(Path(folder) / "s"):
        yield f"{folder}/s"


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database, of either kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'web.sqlite'}"
    folder = request.getfixturevalue("postgres")
    name = f"t{uuid4().hex[:12]}"
    admin = create_engine(f"postgresql+psycopg:///postgres?host={folder}&user=postgres", isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    admin.dispose()
    return f"postgresql+psycopg:///{name}?host={folder}&user=postgres"


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    opened = open_database(database_url)
    yield opened
    opened.dispose()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


UP_S = 120.0  # several processes come up at once, beside other test processes


class Served:
    """A whole system with its web server: real processes, an app of its own on the run's broker."""

    def __init__(self, system: System, **web: str) -> None:
        self.system = system
        self.web = {"web_address": "127.0.0.1:0", "log_format": "json"} | web
        self._starts = 0
        self.process = self.start()

    def start(self, *options: str) -> Process:
        self._starts += 1
        self.process = self.system.start(f"web{self._starts}", ["web", *options], self.web)
        said = until(lambda: re.search(r"answers on (http://\S+);", self.process.log()), UP_S, "pstp web answers")
        self.url = said.group(1)
        self.web["web_address"] = self.url.removeprefix("http://")  # the same again, for those who come back
        until(lambda: self.client.get("/readyz").status_code == 200, UP_S, "caught up")
        return self.process

    @cached_property
    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=30)

    def get(self, path: str, **params: Any) -> Any:
        answer = self.client.get(path, params=params)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def post(self, path: str, body: Any, **params: Any) -> Any:
        answer = self.client.post(path, json=body, params=params)
        assert answer.status_code < 300, answer.text
        return answer.json()

    def command(self, group: str, kind: str, **fields: Any) -> Any:
        return self.post("/api/commands", {"kind": kind, **fields}, group=group, wait_s=20)

    def settled(self, group: str, state: str) -> Any:
        """The group once it is in that state."""

        def look() -> Any:
            answer = self.client.get("/api/groups/detail", params={"id": group})
            return answer.json() if answer.status_code == 200 and answer.json()["state"] == state else None

        return until(look, what=f"{group!r} is {state}")


@pytest.fixture(scope="module")
def served(bootstrap: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A scheduler, a worker and a web server that one file's tests share."""
    settings = Settings(
        app=f"t{uuid4().hex[:10]}", bootstrap_servers=bootstrap, partitions=4, dispatch_partitions=4, lease_s=3
    )
    with System(settings, tmp_path_factory.mktemp("served")) as system:
        system.scheduler()
        system.worker()
        until(lambda: system.http("s1"), UP_S, "the scheduler is up")
        until(lambda: system.metric("s1", "pstp_partitions_owned") == settings.partitions, UP_S, "all have an owner")
        yield Served(system)
