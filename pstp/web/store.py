"""The read model: rows in a database, and the fold that moves them on.  Offsets change in the same transaction."""

import threading
from collections.abc import Callable, Collection, Iterable
from typing import Any, Final, NamedTuple

import msgspec
from sqlalchemy import Connection, Engine, Table, bindparam, func, select
from sqlalchemy.dialects import postgresql, sqlite

from pstp.web.folding import Batch, ExecutionRow, GroupRow, Record, TaskRow
from pstp.web.tables import commands, counts, ended, executions, groups, meta, positions, tasks
from streams.clock import new_id
from streams.errors import UserError

IN_MAX: Final = 800
STEPS_CHARS_MAX: Final = 200_000


class Version(NamedTuple):
    """How far the read model has come; the id of the stream.  `life` changes when it is built anew."""

    life: str
    events: int
    offsets: dict[int, int]

    def __str__(self) -> str:
        return f"{self.life}.{self.events}." + "-".join(f"{p}_{o}" for p, o in sorted(self.offsets.items()))

    @classmethod
    def parse(cls, text: str) -> "Version | None":
        """None for what this class has not written."""
        life, _, rest = text.partition(".")
        events, _, places = rest.partition(".")
        try:
            pairs = [place.split("_") for place in places.split("-")] if places else []
            offsets = {int(p): int(o) for p, o in pairs}
            found = cls(life, int(events), offsets)
        except ValueError:
            return None
        return found if str(found) == text else None


class Changed(NamedTuple):
    """What one batch changed."""

    version: Version
    events: int
    groups: list[GroupRow]
    answered: list[str]


class ReadModel:
    """The fold's side of the database: one writer.  Readers use `queries.py`, from any thread."""

    def __init__(self, engine: Engine) -> None:
        """Raises `UserError` like `open_database`."""
        self.engine = engine
        self.writer = engine.execution_options(writes=True)
        self._lock = threading.Lock()
        self.reload()
        self._put_task = _upsert(engine, tasks, {
            "steps": lambda table, new: func.substr(table.c.steps + new.steps, 1, STEPS_CHARS_MAX),
        })  # fmt: skip
        self._put_group = _upsert(engine, groups, {})
        self._put_execution = _upsert(engine, executions, {})
        self._put_command = _insert(engine, commands).on_conflict_do_nothing()
        self._put_position = _upsert(engine, positions, {})
        self._add_count = _upsert(engine, counts, {"n": lambda table, new: table.c.n + new.n})
        self._add_ended = _upsert(engine, ended, {"n": lambda table, new: table.c.n + new.n})

    def reload(self) -> None:
        """Go on from what the database holds: at the start, and after it failed in the middle of a commit."""
        with self.writer.begin() as connection:
            insert = _insert(self.engine, meta).values(name="life", value=new_id()).on_conflict_do_nothing()
            connection.execute(insert)
            life = connection.execute(select(meta.c.value).where(meta.c.name == "life")).scalar_one()
            rows = connection.execute(select(positions)).all()
            self._next_group = (connection.execute(select(func.max(groups.c.id))).scalar() or 0) + 1
        with self._lock:
            self._version = Version(life, sum(row.events for row in rows), {r.partition: r.next_offset for r in rows})
        self._events = {row.partition: row.events for row in rows}

    @property
    def version(self) -> Version:
        with self._lock:
            return self._version

    def apply(self, records: list[Record], ends: dict[int, int]) -> Changed:
        """Fold records that follow where the last ones ended; `ends` is the next offset of each partition they are of.

        All of it is in the database afterwards, or nothing.  Raises `UserError` if somebody else has folded meanwhile.
        """
        before = self.version
        batch = Batch(records, self._next_group)
        with self.writer.begin() as connection:
            self._check_alone(connection, before, ends)
            self._load(connection, batch)
            batch.fold()
            self._save(connection, batch)
            per_partition: dict[int, int] = dict.fromkeys(ends, 0)
            for record in records:
                per_partition[record.partition] += len(record.events)
            events = {p: self._events.get(p, 0) + n for p, n in per_partition.items()}
            rows = [{"partition": p, "next_offset": ends[p], "events": events[p]} for p in ends]
            connection.execute(self._put_position, rows)
        self._next_group = batch.next_group_id
        self._events |= events
        version = Version(before.life, before.events + batch.seen, before.offsets | ends)
        with self._lock:
            self._version = version
        return Changed(version, batch.seen, list(batch.touched.values()), list(batch.commands))

    def _check_alone(self, connection: Connection, before: Version, ends: Collection[int]) -> None:
        found = dict(
            connection.execute(
                select(positions.c.partition, positions.c.next_offset)
                .where(positions.c.partition.in_(list(ends)))
                .with_for_update()
            ).all()
        )
        if any(found.get(p, before.offsets.get(p)) != before.offsets.get(p) for p in ends):
            raise UserError(
                "another `pstp web` writes to this read model: give each its own PSTP_WEB_DATABASE, or run one"
            )

    def _load(self, connection: Connection, batch: Batch) -> None:
        names, task_keys, execution_keys = batch.keys()
        by_name = select(groups).where(groups.c.name.in_(bindparam("keys", expanding=True)))
        for part in _parts(sorted(names)):
            for row in connection.execute(by_name, {"keys": part}):
                batch.groups[row.name] = GroupRow(*row)
        columns = ", ".join(
            column.name for column in tasks.c if column.name not in ("steps", "payload", "result", "error")
        )
        for part in _parts(sorted(task_keys)):  # whole numbers of ours: no quoting to get wrong
            found = connection.exec_driver_sql(f"SELECT {columns} FROM tasks WHERE id IN ({','.join(map(str, part))})")
            for values in found:
                batch.tasks[values[0]] = TaskRow(*values)
        for part in _parts(sorted(execution_keys)):
            found = connection.exec_driver_sql(f"SELECT * FROM executions WHERE id IN ({','.join(map(str, part))})")
            for values in found:
                batch.executions[values[0]] = ExecutionRow(*values)

    def _save(self, connection: Connection, batch: Batch) -> None:
        for statement, rows in (
            (self._put_group, [msgspec.structs.asdict(row) for row in batch.touched.values()]),
            (self._put_task, [msgspec.structs.asdict(row) for row in batch.tasks.values()]),
            (self._put_execution, [msgspec.structs.asdict(row) for row in batch.executions.values()]),
            (self._put_command, [command._asdict() for command in batch.commands.values()]),
            (self._add_count, [{"name": name, "n": n} for name, n in sorted(batch.counts.items()) if n]),
            (self._add_ended, [{"second": second, "n": n} for second, n in sorted(batch.ended.items())]),
        ):
            if rows:
                connection.execute(statement, rows)


def _parts(values: list[Any]) -> Iterable[list[Any]]:
    return (values[at : at + IN_MAX] for at in range(0, len(values), IN_MAX))


def _insert(engine: Engine, table: Table) -> Any:
    return (sqlite if engine.dialect.name == "sqlite" else postgresql).insert(table)


def _upsert(engine: Engine, table: Table, special: dict[str, Callable[[Table, Any], Any]]) -> Any:
    """Insert, or replace what is there; texts that a batch does not carry stay as they are."""
    statement = _insert(engine, table)
    new = statement.excluded
    keys = [column.name for column in table.primary_key]
    values = {}
    for column in table.c:
        if column.name in keys:
            continue
        if column.name in special:
            values[column.name] = special[column.name](table, new)
        elif table is tasks and column.name in ("payload", "result", "error"):
            values[column.name] = func.coalesce(new[column.name], table.c[column.name])
        else:
            values[column.name] = new[column.name]
    return statement.on_conflict_do_update(index_elements=keys, set_=values)
