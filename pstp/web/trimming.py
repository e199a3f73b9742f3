"""Retention: what ended long ago leaves the read model, a part at a time, so that the fold never waits for long."""

from typing import Any, Final

from sqlalchemy import Connection, bindparam, delete, exists, func, select, update

from pstp.web.store import ReadModel
from pstp.web.tables import commands, counts, ended, executions, groups, tasks

ROWS: Final = 2000
ENDED_KEPT_S: Final = 7200
_BEFORE_ALL: Final = -(2**63)


class Trimmer:
    """Walks the keys of tasks, executions and groups round and round; each `step` takes the next part of each."""

    def __init__(self, model: ReadModel) -> None:
        self._model = model
        self._at = dict.fromkeys((tasks, executions, groups), _BEFORE_ALL)

    def step(self, older_than_ms: int, tasks_max: int) -> int:
        """Forget of this part what ended before then, and of its tasks what is beyond the number kept; how many rows.

        What waits or runs, open dead letters, and groups that hold a state, a pause or a block are kept.
        """
        with self._model.writer.begin() as connection:
            gone = self._tasks(connection, older_than_ms, tasks_max)
            part = [row.id for row in self._next(connection, executions)]
            orphans = ~exists().where(tasks.c.id == executions.c.task)
            gone += connection.execute(delete(executions).where(executions.c.id.in_(part), orphans)).rowcount
            gone += self._groups(connection, older_than_ms)
            connection.execute(delete(ended).where(ended.c.second < older_than_ms // 1000 - ENDED_KEPT_S))
            gone += connection.execute(delete(commands).where(commands.c.at_ms < older_than_ms)).rowcount
        return gone

    def _next(self, connection: Connection, table: Any) -> list[Any]:
        columns = [c for c in table.c if c.name not in ("steps", "payload", "result", "error", "group_state")]
        query = select(*columns).where(table.c.id > self._at[table]).order_by(table.c.id).limit(ROWS)
        part = list(connection.execute(query).all())
        self._at[table] = part[-1].id if len(part) == ROWS else _BEFORE_ALL
        return part

    def _tasks(self, connection: Connection, older_than_ms: int, tasks_max: int) -> int:
        kept = select(func.coalesce(func.sum(counts.c.n), 0)).where(counts.c.name.like("task:%"))
        excess = int(connection.execute(kept).scalar_one()) - tasks_max
        over = [row for row in self._next(connection, tasks) if row.open == 0 or row.id < 0]
        gone = [row for n, row in enumerate(over) if row.updated_ms < older_than_ms or n < excess]
        if gone:
            connection.execute(delete(tasks).where(tasks.c.id == bindparam("key")), [{"key": row.id} for row in gone])
        for row in gone:
            connection.execute(update(counts).where(counts.c.name == "task:" + row.state).values(n=counts.c.n - 1))
        return len(gone)

    def _groups(self, connection: Connection, older_than_ms: int) -> int:
        part = [
            row.id for row in self._next(connection, groups) if row.state == "idle" and row.since_ms < older_than_ms
        ]
        empty = ~exists().where(executions.c.group_id == groups.c.id)
        query = delete(groups).where(groups.c.id.in_(part), groups.c.group_state.is_(None), empty)
        gone = connection.execute(query).rowcount
        connection.execute(update(counts).where(counts.c.name == "group:idle").values(n=counts.c.n - gone))
        return gone
