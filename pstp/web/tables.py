"""The read model's tables: a fold of `task-events`, so nothing in here is worth more than the log it came from.

Keys are one integer: a sequence or token is below 2^53, a partition below 2^10, and `number * 1024 + partition` orders
tasks and executions within their partition.  Records that never became a task have negative keys.  Times are wall ms.
"""

from typing import Final

from sqlalchemy import BigInteger, Column, Float, Index, Integer, MetaData, Table, Text, text

PARTITIONS: Final = 1024
metadata = MetaData()

meta = Table("meta", metadata, Column("name", Text, primary_key=True), Column("value", Text, nullable=False))

positions = Table(
    "positions", metadata,
    Column("partition", Integer, primary_key=True, autoincrement=False),
    Column("next_offset", BigInteger, nullable=False),
    Column("events", BigInteger, nullable=False),  # folded so far
)  # fmt: skip

counts = Table("counts", metadata, Column("name", Text, primary_key=True), Column("n", BigInteger, nullable=False))

ended = Table(
    "ended", metadata,
    Column("second", BigInteger, primary_key=True, autoincrement=False),
    Column("n", Integer, nullable=False),
)  # fmt: skip

groups = Table(
    "groups", metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False),
    Column("name", Text, nullable=False, unique=True),
    Column("partition", Integer, nullable=False),
    Column("place", BigInteger, nullable=False),  # offset of its last event
    Column("state", Text, nullable=False),
    Column("since_ms", BigInteger, nullable=False),
    Column("parked", Integer, nullable=False),  # states of its unfinished tasks
    Column("dispatched", Integer, nullable=False),
    Column("running", Integer, nullable=False),
    Column("retrying", Integer, nullable=False),
    Column("done", BigInteger, nullable=False),
    Column("paused", Text),  # JSON: actor, note, since_ms, until_ms
    Column("blocked", Text),  # JSON: reason, since_ms
    Column("group_state", Text),
    Column("clock_id", Text),  # of the worker that ended its last execution, and when, by that clock
    Column("ended_ns", BigInteger, nullable=False),
    Column("overlaps", Integer, nullable=False),
    Index("groups_changed", "partition", "place"),
    Index("groups_by_state", "state", "id"),
)  # fmt: skip

tasks = Table(
    "tasks", metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False),
    Column("task_id", Text, nullable=False),
    Column("group_id", BigInteger, nullable=False),  # 0: it never had one
    Column("type", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("open", Integer, nullable=False),  # 1: unfinished, 2: open dead letter, or never a task
    Column("attempt", Integer, nullable=False),
    Column("token", BigInteger),
    Column("worker", Text),
    Column("reason", Text),
    Column("created_ms", BigInteger, nullable=False),
    Column("updated_ms", BigInteger, nullable=False),
    Column("due_ms", BigInteger),
    Column("progress", Float),
    Column("note", Text),
    Column("error", Text),
    Column("result", Text),
    Column("steps", Text, nullable=False),  # one JSON line an event
    Column("payload", Text),
    Index("tasks_by_task_id", "task_id"),
    Index("tasks_unfinished", "group_id", "id", sqlite_where=text("open = 1"), postgresql_where=text("open = 1")),
    Index("tasks_oldest", "created_ms", sqlite_where=text("open = 1"), postgresql_where=text("open = 1")),
    Index("tasks_letters", "updated_ms", "id", sqlite_where=text("open = 2"), postgresql_where=text("open = 2")),
)  # fmt: skip

executions = Table(
    "executions", metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False),
    Column("group_id", BigInteger, nullable=False),
    Column("task", BigInteger, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("worker", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("start_ms", BigInteger, nullable=False),
    Column("end_ms", BigInteger),
    Column("reported", Integer, nullable=False),  # 1: its end is its worker's own word
    Column("refused", Integer, nullable=False),
    Index("executions_of_group", "group_id", "id"),
    Index("executions_running", "worker", sqlite_where=text("end_ms IS NULL"), postgresql_where=text("end_ms IS NULL")),
)  # fmt: skip

commands = Table(
    "commands", metadata,
    Column("id", Text, primary_key=True),
    Column("group_name", Text, nullable=False),
    Column("kind", Text),
    Column("outcome", Text, nullable=False),
    Column("reason", Text),
    Column("actor", Text),
    Column("note", Text),
    Column("at_ms", BigInteger, nullable=False),
    Column("partition", Integer, nullable=False),
    Column("place", BigInteger, nullable=False),
    Index("commands_by_time", "at_ms"),
)  # fmt: skip


def key_of(number: int, partition: int) -> int:
    return number * PARTITIONS + partition


def number_of(key: int) -> int:
    return key // PARTITIONS if key >= 0 else 0


def stored(value: str) -> str:
    """Text as databases take it: PostgreSQL's text has no NUL, and a group's name may hold one.  Reversible."""
    if "\x00" not in value and "\ufdd0" not in value and "\ufdd1" not in value:
        return value
    return value.replace("\ufdd1", "\ufdd1\ufdd1").replace("\ufdd0", "\ufdd1\ufdef").replace("\x00", "\ufdd0")


def shown(value: str) -> str:
    """What `stored` was given."""
    if "\ufdd0" not in value and "\ufdd1" not in value:
        return value
    value = value.replace("\ufdd0", "\x00")
    return "\ufdd1".join(part.replace("\ufdd1\ufdef", "\ufdd0") for part in value.split("\ufdd1\ufdd1"))
