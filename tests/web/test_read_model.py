"""The read model is an exact fold of the history: however it is cut, broken off or begun again; on both databases."""

import random
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, select

from pstp.web.database import empty, open_database
from pstp.web.folding import Record
from pstp.web.queries import GroupFilter, Queries, steps_of
from pstp.web.store import ReadModel, Version
from pstp.web.tables import counts, metadata, shown, stored, tasks
from pstp.web.trimming import Trimmer
from streams.errors import UserError
from streams.protocol import EventKind, TaskState
from tests.web.lives import START_MS, Log, ends_of, random_log


def rows(engine: Engine) -> dict[str, list[Any]]:
    """All that the fold has written."""
    with engine.begin() as connection:
        return {
            table.name: sorted(
                tuple(row) for row in connection.execute(select(table)) if row[-1] != 0 or table is not counts
            )
            for table in metadata.sorted_tables
            if table.name != "meta"
        }


def parts(log: Log, draw: random.Random) -> list[list[Record]]:
    found, at = [], 0
    while at < len(log.records):
        size = draw.randint(1, 40)
        found.append(log.records[at : at + size])
        at += size
    return found


@pytest.mark.parametrize("seed", range(3))
def test_the_fold_does_not_depend_on_how_the_log_is_cut_or_on_restarts(engine: Engine, seed: int) -> None:
    log = random_log(seed)
    ReadModel(engine).apply(log.records, log.ends)
    at_once = rows(engine)
    metadata.drop_all(engine)
    metadata.create_all(engine)
    for part in parts(log, random.Random(seed)):
        ReadModel(engine).apply(part, ends_of(part))  # a new process each time
    assert rows(engine) == at_once


@pytest.mark.parametrize("seed", range(3))
def test_counts_are_those_of_the_rows(engine: Engine, seed: int) -> None:
    log = random_log(seed)
    model = ReadModel(engine)
    for part in parts(log, random.Random(seed)):
        model.apply(part, ends_of(part))
        found = Queries(engine).figures(START_MS).counts
        held = rows(engine)
        names = [column.name for column in tasks.c]
        states = [row[names.index("state")] for row in held["tasks"]]
        assert {n[5:]: c for n, c in found.items() if n.startswith("task:") and c} == {
            s: states.count(s) for s in set(states)
        }
        groups = Queries(engine).columns()
        assert sum(g.unfinished() > 0 for g in groups) == found.get("busy", 0)
        assert sum(g.unfinished() for g in groups) == Queries(engine).figures(START_MS).unfinished
        assert all(g.state == g.now_in() for g in groups)
        for state in {g.state for g in groups}:
            assert found[f"group:{state}"] == sum(g.state == state for g in groups)
        assert found.get("letters", 0) == len(Queries(engine).letters(None, None, None, None, 999))


def test_a_transaction_that_fails_leaves_nothing(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log()
    log.run(0, "a", 1)
    model = ReadModel(engine)
    model.apply(log.records, log.ends)
    before, version = rows(engine), model.version
    log.run(0, "a", 2)
    more = log.records[4:]
    monkeypatch.setattr(model, "_put_position", "no statement")
    with pytest.raises(Exception, match=r"no statement|executable"):
        model.apply(more, ends_of(more))
    assert rows(engine) == before and model.version == version
    ReadModel(engine).apply(more, ends_of(more))
    assert Queries(engine).figures(START_MS).counts["ended"] == 2


def test_a_second_writer_is_refused(engine: Engine) -> None:
    log = Log()
    log.run(0, "a", 1)
    one, other = ReadModel(engine), ReadModel(engine)
    one.apply(log.records, log.ends)
    with pytest.raises(UserError, match="another `pstp web`"):
        other.apply(log.records, log.ends)
    other.reload()
    assert other.version == one.version


def test_states_of_a_group_as_people_are_told(engine: Engine) -> None:
    log, model = Log(), ReadModel(engine)

    def now_is() -> tuple[str, int]:
        part = [r for r in log.records if r.offset >= model.version.offsets.get(r.partition, 0)]
        model.apply(part, ends_of(part))
        group = Queries(engine).group("a")
        assert group is not None
        return group.state, group.behind_head()

    log.park(0, "a", 1)
    log.park(0, "a", 2)
    assert now_is() == ("ready", 1)
    token, began = log.start(0, "a", 1)
    assert now_is() == ("running", 1)
    log.say(0, EventKind.GROUP_PAUSED, group="a", actor="ada")
    assert now_is() == ("paused", 1)
    log.end(0, "a", 1, began, TaskState.RETRYING, reason="failed")
    log.say(0, EventKind.GROUP_RESUMED, group="a")
    assert now_is() == ("retrying", 1)
    log.say(0, EventKind.GROUP_BLOCKED, group="a", reason="attempts_spent")
    assert now_is() == ("blocked", 1)
    log.say(0, EventKind.GROUP_UNBLOCKED, group="a")
    log.task(0, "a", 1, TaskState.SKIPPED)
    assert now_is() == ("ready", 0)
    log.task(0, "a", 2, TaskState.CANCELLED)
    assert now_is() == ("idle", 0)
    assert token in {row.id // 1024 for row in Queries(engine).lane(1, None)}


def test_only_a_zombies_report_is_shown_as_refused(engine: Engine) -> None:
    log = Log()
    log.park(0, "a", 1)
    lost, _ = log.start(0, "a", 1)
    log.task(0, "a", 1, TaskState.RETRYING, fencing_token=lost, reason="worker_lost")
    log.say(0, EventKind.STALE_REPORT, group="a", fencing_token=lost, sequence=2**32 + 1)
    good, began = log.start(0, "a", 1)
    log.end(0, "a", 1, began, TaskState.SUCCEEDED)
    log.say(0, EventKind.STALE_REPORT, group="a", fencing_token=good, sequence=2**32 + 1)  # came twice
    ReadModel(engine).apply(log.records, log.ends)
    assert [(row.id // 1024, row.refused) for row in Queries(engine).lane(1, None)] == [(lost, 1), (good, 0)]


def test_a_planted_overlap_is_counted(engine: Engine) -> None:
    log = Log()
    log.run(0, "a", 1)
    ReadModel(engine).apply(log.records, log.ends)
    assert Queries(engine).figures(START_MS).counts.get("overlaps", 0) == 0
    log.park(0, "a", 2)
    _token, began = log.start(0, "a", 2)
    early = began | {"started_mono_ns": (START_MS + 1) * 10**6}
    log.end(0, "a", 2, early, TaskState.SUCCEEDED)
    part = log.records[4:]
    ReadModel(engine).apply(part, ends_of(part))
    assert Queries(engine).figures(START_MS).counts["overlaps"] == 1


HOSTILE = [
    "a/b", "a//b", "/", "..", "a?b=c", "a#b", "ü/日本", "x" * 200, "a\x00b", "\ufdd0\ufdd1\x00", "%_\\",
    "'; DROP TABLE tasks; --",
    "<img src=x onerror=alert(1)>", "line\nbreak\u2028more", "\u202eevil", "${7*7}", "{{7*7}}",
]  # fmt: skip


def test_any_text_comes_back_as_it_was(engine: Engine) -> None:
    log = Log()
    for n, name in enumerate(HOSTILE):
        log.park(0, name, n, task_id=name, type=name, payload=b'{"big":90071992547409931234567890}')
    model = ReadModel(engine)
    model.apply(log.records, log.ends)
    queries = Queries(engine)
    assert [shown(g.name) for g in queries.columns()] == HOSTILE
    for name in HOSTILE:
        assert queries.group(name) is not None
        found = queries.task(name, name)
        assert found is not None and found[1] == name and shown(found[0].task_id) == name
        assert found[0].payload == '{"big":90071992547409931234567890}'
        assert [step[1] for step in steps_of(found[0].steps)] == ["parked"]
        assert name in [shown(g.name) for g in queries.list_groups(GroupFilter(text=name), 0, 50)]
        assert shown(stored(name)) == name


def test_records_that_never_were_tasks_are_kept_by_their_place(engine: Engine) -> None:
    log = Log()
    log.say(
        1, group=None, task_id="1-7", state=TaskState.REJECTED, reason="bad_json", origin_partition=1, origin_offset=7
    )
    ReadModel(engine).apply(log.records, log.ends)
    found = Queries(engine).task("1-7", None)
    assert found is not None and (found[0].state, found[0].reason, found[1]) == ("rejected", "bad_json", "")
    assert Queries(engine).columns() == []
    assert [row.reason for row, _group in Queries(engine).letters(None, None, None, None, 9)] == ["bad_json"]


def test_retention_forgets_only_what_is_over_and_old(engine: Engine) -> None:
    log = Log()
    for n in range(20):
        log.run(0, f"g{n}", n)
    log.park(1, "waits", 99)
    model = ReadModel(engine)
    model.apply(log.records, log.ends)
    trimmer = Trimmer(model)
    assert trimmer.step(START_MS - 1, 10**6) == 0
    assert Queries(engine).figures(START_MS).counts["task:succeeded"] == 20
    trimmer.step(START_MS - 1, 11)
    assert Queries(engine).figures(START_MS).counts["task:succeeded"] == 10
    trimmer.step(log.ms + 1, 10**6)
    trimmer.step(log.ms + 1, 10**6)
    held = rows(engine)
    assert len(held["tasks"]) == 1 and len(held["groups"]) == 1 and held["executions"] == []
    figures = Queries(engine).figures(START_MS)
    assert (figures.groups, figures.unfinished, figures.task("succeeded")) == (1, 1, 0)


def test_changes_since_a_version(engine: Engine) -> None:
    log = Log()
    log.run(0, "a", 1)
    log.run(1, "b", 2)
    model = ReadModel(engine)
    model.apply(log.records, log.ends)
    seen = model.version
    log.park(1, "b", 3)
    log.park(2, "c", 4)
    more = log.records[8:]
    model.apply(more, ends_of(more))
    changed = Queries(engine).changed_since(seen.offsets, 10)
    assert changed is not None and {g.name for g in changed} == {"b", "c"}
    assert Queries(engine).changed_since(seen.offsets, 1) is None
    assert Version.parse(str(seen)) == seen
    assert Version.parse("x.1.0_5-") is None and Version.parse("nonsense") is None and Version.parse("") is None


def test_migrations_make_the_tables_that_the_code_uses(engine: Engine) -> None:
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_an_emptied_database_is_folded_anew(database_url: str) -> None:
    log = random_log(5)
    first = open_database(database_url)
    model = ReadModel(first)
    model.apply(log.records, log.ends)
    before, life = rows(first), model.version.life
    first.dispose()
    empty(database_url)
    again = ReadModel(open_database(database_url))
    assert again.version.offsets == {} and again.version.life != life
    again.apply(log.records, log.ends)
    assert rows(again.engine) == before
    again.engine.dispose()


def test_a_database_of_a_newer_version_is_refused(database_url: str) -> None:
    opened = open_database(database_url)
    with opened.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    opened.dispose()
    with pytest.raises(UserError, match="newer PSTP"):
        open_database(database_url)


def test_an_address_that_is_none_gets_a_sentence(tmp_path: Any) -> None:
    for url in ("mysql://x/y", "nonsense", f"postgresql:///x?host={tmp_path}"):
        with pytest.raises(UserError):
            open_database(url)
