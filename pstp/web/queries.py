"""Questions to the read model, each in a transaction of its own; safe from any thread."""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgspec
from sqlalchemy import Engine, Row, and_, func, null, or_, select

from pstp.web.folding import GroupRow
from pstp.web.tables import commands, counts, ended, executions, groups, positions, shown, stored, tasks

LANE_MAX: Final = 200
LINE_MAX: Final = 200
COUNTED_MAX: Final = 10_000
_UNFINISHED: Final = ("parked", "dispatched", "running", "cancelling", "retrying")
_LIKE = str.maketrans({"%": r"\%", "_": r"\_", "\\": r"\\"})


class Figures(NamedTuple):
    """What the overview is made of.  `history`: tasks that ended, a second each, oldest first, up to now."""

    counts: Mapping[str, int]
    oldest_ms: int | None
    history: list[int]

    def task(self, state: str) -> int:
        return self.counts.get(f"task:{state}", 0)

    def group(self, state: str) -> int:
        return self.counts.get(f"group:{state}", 0)

    @property
    def unfinished(self) -> int:
        return sum(map(self.task, _UNFINISHED))

    @property
    def groups(self) -> int:
        return sum(n for name, n in self.counts.items() if name.startswith("group:"))


class GroupFilter(NamedTuple):
    state: str | None = None
    text: str | None = None


Named = tuple[Any, str]  # a row, and the name of its group


class Queries:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def figures(self, now_ms: int, history_s: int = 120) -> Figures:
        with self._engine.begin() as connection:
            found = {row.name: int(row.n) for row in connection.execute(select(counts))}
            oldest = connection.execute(select(func.min(tasks.c.created_ms)).where(tasks.c.open == 1)).scalar()
            last = now_ms // 1000
            seconds = {
                row.second: row.n
                for row in connection.execute(
                    select(ended).where(ended.c.second >= last - history_s, ended.c.second < last)
                )
            }
        return Figures(found, oldest, [seconds.get(s, 0) for s in range(last - history_s, last)])

    def offsets(self) -> dict[int, int]:
        with self._engine.begin() as connection:
            return {row.partition: row.next_offset for row in connection.execute(select(positions))}

    def columns(self) -> list[GroupRow]:
        """All groups, in the order in which they first appeared."""
        with self._engine.begin() as connection:
            return [GroupRow(*row) for row in connection.execute(_short_groups().order_by(groups.c.id))]

    def changed_since(self, offsets: Mapping[int, int], limit: int) -> list[GroupRow] | None:
        """Groups with an event at or behind these offsets; None if they are more than `limit`."""
        found: list[GroupRow] = []
        with self._engine.begin() as connection:
            known = [row.partition for row in connection.execute(select(positions.c.partition))]
            for partition in known:
                query = _short_groups().where(
                    groups.c.partition == partition, groups.c.place >= offsets.get(partition, 0)
                )
                found += [GroupRow(*row) for row in connection.execute(query.limit(limit + 1))]
                if len(found) > limit:
                    return None
        return found

    def list_groups(self, which: GroupFilter, after: int, limit: int) -> list[GroupRow]:
        query = _short_groups().where(groups.c.id > after).order_by(groups.c.id).limit(limit)
        if which.state:
            query = query.where(groups.c.state == which.state)
        if which.text:
            query = query.where(_named_like(which.text))
        with self._engine.begin() as connection:
            return [GroupRow(*row) for row in connection.execute(query)]

    def group_counts(self, text: str | None) -> dict[str, int]:
        """Groups by state.  Those of a search are counted out, up to COUNTED_MAX; all of them are folded counts."""
        with self._engine.begin() as connection:
            if text is None:
                found = connection.execute(select(counts).where(counts.c.name.like("group:%")))
                return {row.name[6:]: int(row.n) for row in found if row.n > 0}
            part = select(groups.c.state).where(_named_like(text)).limit(COUNTED_MAX).subquery()
            query = select(part.c.state, func.count()).group_by(part.c.state)
            return {row[0]: row[1] for row in connection.execute(query)}

    def group(self, name: str) -> GroupRow | None:
        with self._engine.begin() as connection:
            row = connection.execute(select(groups).where(groups.c.name == stored(name))).one_or_none()
            return None if row is None else GroupRow(*row)

    def line(self, group_id: int, limit: int = LINE_MAX) -> list[Row[Any]]:
        """Unfinished tasks of a group in the order in which they run: the head and what is parked behind it."""
        query = select(*_short_tasks()).where(tasks.c.group_id == group_id, tasks.c.open == 1)
        with self._engine.begin() as connection:
            return list(connection.execute(query.order_by(tasks.c.id).limit(limit)).all())

    def lane(self, group_id: int, before: int | None, limit: int = LANE_MAX) -> list[Row[Any]]:
        """The latest executions of a group, oldest first, each with the id and type of its task."""
        query = (
            select(executions, tasks.c.task_id, tasks.c.type)
            .join(tasks, tasks.c.id == executions.c.task, isouter=True)
            .where(executions.c.group_id == group_id)
            .order_by(executions.c.id.desc()).limit(limit)
        )  # fmt: skip
        if before is not None:
            query = query.where(executions.c.id < before)
        with self._engine.begin() as connection:
            return list(connection.execute(query).all())[::-1]

    def task(self, task_id: str, group: str | None) -> Named | None:
        """The latest submission of this id, with the name of its group."""
        query = (
            select(tasks, groups.c.name).join(groups, groups.c.id == tasks.c.group_id, isouter=True)
            .where(tasks.c.task_id == stored(task_id)).order_by(tasks.c.updated_ms.desc(), tasks.c.id.desc()).limit(1)
        )  # fmt: skip
        if group is not None:
            query = query.where(groups.c.name == stored(group))
        with self._engine.begin() as connection:
            row = connection.execute(query).one_or_none()
            return None if row is None else (row, shown(row.name or ""))

    def list_tasks(
        self, group: str | None, state: str | None, task_type: str | None, before: int | None, limit: int
    ) -> list[Named]:
        """Newest first; `before` is the key of the last one of the page before."""
        query = select(*_short_tasks(), groups.c.name).join(groups, groups.c.id == tasks.c.group_id, isouter=True)
        for column, value in ((groups.c.name, group), (tasks.c.state, state), (tasks.c.type, task_type)):
            if value is not None:
                query = query.where(column == stored(value))
        if before is not None:
            query = query.where(tasks.c.id < before)
        with self._engine.begin() as connection:
            found = connection.execute(query.order_by(tasks.c.id.desc()).limit(limit)).all()
            return [(row, shown(row.name or "")) for row in found]

    def letters(
        self, reason: str | None, group: str | None, task_type: str | None, before: tuple[int, int] | None, limit: int
    ) -> list[Named]:
        """Open dead letters and what never was a task, newest first.

        `before`: time and key of the last one of the page before.
        """
        query = select(tasks, groups.c.name).join(groups, groups.c.id == tasks.c.group_id, isouter=True)
        query = query.where(tasks.c.open == 2)
        for column, value in ((groups.c.name, group), (tasks.c.reason, reason), (tasks.c.type, task_type)):
            if value is not None:
                query = query.where(column == stored(value))
        if before is not None:
            at, key = tasks.c.updated_ms, tasks.c.id
            query = query.where(or_(at < before[0], and_(at == before[0], key < before[1])))
        query = query.order_by(tasks.c.updated_ms.desc(), tasks.c.id.desc()).limit(limit)
        with self._engine.begin() as connection:
            return [(row, shown(row.name or "")) for row in connection.execute(query)]

    def letter_reasons(self, group: str | None = None, task_type: str | None = None) -> dict[str, int]:
        """How many there are of each reason, of those that the other filters find."""
        query = select(tasks.c.reason, func.count()).where(tasks.c.open == 2).group_by(tasks.c.reason)
        if group is not None:
            query = query.join(groups, groups.c.id == tasks.c.group_id).where(groups.c.name == stored(group))
        if task_type is not None:
            query = query.where(tasks.c.type == stored(task_type))
        with self._engine.begin() as connection:
            return {row[0] or "": row[1] for row in connection.execute(query)}

    def running(self) -> dict[str, list[Named]]:
        """What runs now, by worker."""
        query = (
            select(executions.c.worker, executions.c.start_ms, tasks.c.task_id, tasks.c.type, groups.c.name)
            .join(tasks, tasks.c.id == executions.c.task).join(groups, groups.c.id == executions.c.group_id)
            .where(executions.c.end_ms.is_(None)).order_by(executions.c.start_ms).limit(5000)
        )  # fmt: skip
        found: dict[str, list[Named]] = {}
        with self._engine.begin() as connection:
            for row in connection.execute(query):
                found.setdefault(shown(row.worker), []).append((row, shown(row.name)))
        return found

    def command(self, command_id: str) -> Row[Any] | None:
        with self._engine.begin() as connection:
            return connection.execute(select(commands).where(commands.c.id == stored(command_id))).one_or_none()


def steps_of(text: str) -> list[list[Any]]:
    """Lines of `tasks.steps`; the last one may be cut, where a task has had very many."""
    found = []
    for line in shown(text).split("\n")[:-1]:
        try:
            found.append(msgspec.json.decode(line))
        except msgspec.DecodeError:
            break
    return found


def _named_like(text: str) -> Any:
    return groups.c.name.ilike(f"%{stored(text).translate(_LIKE)}%", escape="\\")


def _short_tasks() -> list[Any]:
    return [c for c in tasks.c if c.name not in ("steps", "payload", "result", "error")]


def _short_groups() -> Any:
    """Without the group state, which may be 64 KiB."""
    return select(*(null().label(c.name) if c.name == "group_state" else c for c in groups.c))
