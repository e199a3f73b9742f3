"""Opening the read model's database: SQLite in WAL mode, or PostgreSQL, brought to the newest schema by Alembic."""

from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, OperationalError

from pstp.web.tables import metadata
from streams.errors import UserError

BUSY_MS = 10_000


def open_database(url: str) -> Engine:
    """An engine on an up-to-date schema.  Raises `UserError` if the address is none or nobody answers there."""
    try:
        parsed = make_url(url)
        if parsed.drivername in ("postgresql", "postgres"):
            parsed = parsed.set(drivername="postgresql+psycopg")
        if parsed.get_backend_name() not in ("sqlite", "postgresql"):
            raise UserError(
                f"PSTP_WEB_DATABASE names {parsed.drivername!r}: use sqlite:///FILE or postgresql://HOST/NAME"
            )
        if parsed.get_backend_name() == "sqlite" and parsed.database:
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
        engine = create_engine(
            parsed, pool_size=16, max_overflow=24, pool_pre_ping=parsed.get_backend_name() != "sqlite"
        )
    except (ArgumentError, NoSuchModuleError) as error:
        raise UserError(
            f"PSTP_WEB_DATABASE is no address of a database ({error}): use postgresql://HOST/NAME"
        ) from error
    except ModuleNotFoundError as error:
        raise UserError("PostgreSQL needs its driver: install `pstp[web,postgres]`") from error
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _tune)
        event.listen(engine, "begin", _begin)
    try:
        migrate(engine)
    except OperationalError as error:
        raise UserError(f"no database answers at {parsed.render_as_string()}: {error.orig}") from error
    return engine


def _tune(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # BEGIN is ours: see below
    for pragma in (
        "journal_mode = WAL", "synchronous = NORMAL", f"busy_timeout = {BUSY_MS}", "temp_store = MEMORY",
        "cache_size = -65536", "wal_autocheckpoint = 4000",
    ):  # fmt: skip
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: Connection) -> None:
    """The fold takes the writer's lock at once; readers read one state of the database."""
    writes = connection.get_execution_options().get("writes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def migrate(engine: Engine) -> None:
    """Bring the schema to this version of PSTP.  Raises `UserError` if a newer one has been here."""
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    with engine.execution_options(writes=True).begin() as connection:
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except CommandError as error:
            head = ScriptDirectory.from_config(config).get_current_head()
            raise UserError(
                f"the read model was made by a newer PSTP, and this one knows it up to {head}: upgrade, or build it "
                "anew with `pstp web --rebuild`"
            ) from error


def empty(url: str) -> None:
    """Drop every table of the read model, whatever version made them.  It can be folded from the log again."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite" and parsed.database:
        for ending in ("", "-wal", "-shm"):
            Path(parsed.database + ending).unlink(missing_ok=True)
        return
    engine = create_engine(parsed.set(drivername="postgresql+psycopg"))
    with engine.begin() as connection:
        metadata.drop_all(connection)
        connection.exec_driver_sql("DROP TABLE IF EXISTS alembic_version")
    engine.dispose()
