"""Both databases, for every test of the read model."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import Engine, create_engine

from pstp.bench.postgres import Postgres
from pstp.web.database import open_database


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
