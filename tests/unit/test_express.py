"""The express lane: the same history as without it, whatever happens, and the same bytes at less cost."""

import random
from collections import Counter
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from pstp.verify import History, Options
from streams import history, limits, rows
from streams.clock import Now
from streams.engine import Engine, Input, Output
from streams.express import Item
from streams.intake import AcceptedTask, read_task
from streams.partition import INPUTS, Partition, load, read_row
from streams.placement import Here, Start
from streams.protocol import CommandKind, ErrorInfo, Moment, Report, ReportKind, decode_events
from streams.retry import Policy
from streams.totals import Totals, add, told
from tests.support.recount import difference

POLICY = Policy(max_attempts=3, backoff_base_s=0.05, backoff_cap_s=0.1)
GROUPS = [b"g%d" % n for n in range(12)]


class Scene:
    """One process after another owns partition 0 of one; each runs handlers and takes the express lane where it can."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.now = Now(1_900_000_000_000, 5_000_000)
        self.table: dict[bytes, bytes] = {}
        self.inputs: dict[str, list[tuple[bytes, bytes]]] = {topic: [] for topic in INPUTS}
        self.committed = dict.fromkeys(INPUTS, 0)
        self.events: list[bytes] = []
        self.counts: Counter[str] = Counter()
        self.boots = 0
        self.start()

    # -- a process

    def start(self) -> None:
        self.boots += 1
        boot_id = f"boot{self.boots}"
        types = frozenset({"t"})
        here = Here(boot_id, 4, {}, self.moment, first=types, only=types, spare=types, express=types)
        here.open = True
        self.engine = Engine(
            instance="run", boot_id=boot_id, owner="o", partitions=1, lease_s=limits.LEASE_S,
            task_bytes_max=limits.TASK_BYTES_MAX, policy=POLICY, here=here,
        )  # fmt: skip
        partition = load(0, dict(self.table)) if self.table else Partition(0)
        partition.tasks_end = len(self.inputs["tasks"])
        self.engine.adopt(partition, self.now, frozenset({f"boot{self.boots - 1}"}))
        self.positions = dict(self.committed)
        self.items: list[Item] = []
        self.starts: list[Start] = []
        self.careful: list[Start] = []
        self.commit([*self.engine.cut(), *self.engine.stamp(0, released=False)])

    def moment(self) -> Moment:
        return Moment(self.now.wall_ms, self.now.mono_ms * 1_000_000, "clock")

    @property
    def lane(self) -> Any:
        return self.engine.express

    @property
    def here(self) -> Here:
        assert self.engine.here is not None
        return self.engine.here

    def commit(self, outputs: list[Output]) -> None:
        for output in outputs:
            if output.topic == "changelog":
                assert output.key is not None
                if output.value is None:
                    self.table.pop(output.key, None)
                else:
                    self.table[output.key] = output.value
            elif output.topic == "task-events":
                self.events.append(output.value or b"")
        if outputs:
            self.committed = dict(self.engine.partitions[0].read_up_to)

    # -- what may happen

    def publish(self) -> None:
        for _ in range(self.chance.randrange(1, 4)):
            n = len(self.inputs["tasks"])
            self.inputs["tasks"].append((self.chance.choice(GROUPS), b'{"type":"t","payload":%d}' % n))

    def command(self) -> None:
        kind = self.chance.choice((CommandKind.PAUSE_GROUP, CommandKind.RESUME_GROUP, CommandKind.SKIP_HEAD))
        n = len(self.inputs["commands"])
        self.inputs["commands"].append((self.chance.choice(GROUPS), b'{"id":"c%d","kind":"%b"}' % (n, kind.encode())))

    def records(self) -> list[Input]:
        found = []
        for topic in INPUTS:
            at = self.positions[topic]
            upto = min(len(self.inputs[topic]), at + self.chance.randrange(15))
            found += [Input(topic, 0, n, *self.inputs[topic][n], []) for n in range(at, upto)]
            self.positions[topic] = upto
        return found

    def take_in(self) -> None:
        self.engine.take_in(self.records(), {}, self.now)
        self.note_starts()

    def step(self) -> None:
        outputs = self.engine.step([], {}, self.now)
        assert difference(self.engine) == ""
        self.note_starts()
        self.commit(outputs)
        for number, suspects in self.engine.watch.ends_wanted().items():
            self.engine.watch.end_found(number, suspects, 0)
        self.starts += self.careful
        self.careful = []
        self.engine.cancels.clear()

    def note_starts(self) -> None:
        for item, start in self.lane.take_handed():
            self.items.remove(item)
            self.starts.append(start)
        for start in self.engine.take_starts():
            (self.careful if start.careful else self.starts).append(start)

    def begin(self) -> None:
        if self.here.free > 0 and not self.engine.heads_wait() and (item := self.lane.begin(self.moment())):
            self.here.free -= 1
            self.items.append(item)
            self.counts["lane"] += 1

    def end(self) -> None:
        """Something that runs ends, most of the time well."""
        if not self.items:
            self.end_start()
            return
        item = self.chance.choice(self.items)
        if self.chance.random() < 0.9:
            self.items.remove(item)
            self.lane.succeeded(item, self.moment(), Raw(b"1") if self.chance.random() < 0.5 else None)
            self.engine.lane_ended(self.now)
            self.note_starts()
            return
        start = self.lane.hand_over(item)
        assert start is not None
        self.items.remove(item)
        self.note_starts()
        self.report(start)

    def end_start(self) -> None:
        if self.starts:
            start = self.chance.choice(self.starts)
            self.starts.remove(start)
            self.report(start)

    def report(self, start: Start) -> None:
        kind = self.chance.choices(
            (ReportKind.SUCCEEDED, ReportKind.FAILED, ReportKind.SNOOZED, ReportKind.REJECTED), (6, 2, 1, 1)
        )[0]  # fmt: skip
        head = start.entry.group.head
        started = Moment(self.now.wall_ms, 0, "clock")
        if head is not None and start.partition is self.engine.partitions.get(0):
            started = self.moment()
        report = Report(
            kind, start.task.sequence, start.task.token, started=started, ended=self.moment(),
            error=ErrorInfo("e", "x") if kind is ReportKind.FAILED else None, delay_s=0.01,
            state=Raw(b"7") if kind is ReportKind.SUCCEEDED else None, state_set=kind is ReportKind.SUCCEEDED,
        )  # fmt: skip
        self.counts[kind] += 1
        self.engine.report_here(start, (report,), self.now, ended=True)
        self.note_starts()

    def pass_time(self, ms: int | None = None) -> None:
        ms = self.chance.choice((1, 5, 30, 100)) if ms is None else ms
        self.now = Now(self.now.wall_ms + ms, self.now.mono_ms + ms)

    def crash(self) -> None:
        """What was not committed never happened; what ran has ended with its process."""
        self.counts["crashes"] += 1
        self.start()

    def hand_on(self) -> None:
        """A clean release, once what runs has ended."""
        self.here.open = False
        self.lane.hand_over_all()
        self.note_starts()
        while self.starts:
            self.end_start()
        if self.careful:
            return self.crash()
        partition = self.engine.partitions[0]
        self.engine.settle_lines([partition])
        self.commit([*self.engine.cut(), *self.engine.stamp(0, released=True)])
        self.start()
        return None

    def drain(self) -> None:
        for group in GROUPS:
            n = len(self.inputs["commands"])
            self.inputs["commands"].append((group, b'{"id":"c%d","kind":"resume_group"}' % n))
        for _ in range(20_000):
            self.take_in()
            self.begin()
            self.end()
            self.step()
            self.pass_time(7)
            read = all(self.positions[topic] == len(log) for topic, log in self.inputs.items())
            if read and not self.lane.count and not self.engine.partitions[0].tasks:
                return
        raise AssertionError("it does not come to an end")


@pytest.mark.parametrize("seed", range(15))
def test_whatever_happens_the_history_is_right(seed: int) -> None:
    scene = Scene(seed)
    moves = [scene.publish, scene.take_in, scene.step, scene.pass_time, *[scene.begin, scene.end] * 4]
    rare = [scene.crash, scene.hand_on, scene.command]
    for _ in range(1_500):
        scene.chance.choice(moves if scene.chance.random() < 0.98 else rare)()
    scene.drain()
    scene.step()
    judge = History(Options(partitions=1, expect_drained=True))
    totals: Totals = {}
    for offset, value in enumerate(scene.events):
        judge.record(0, offset, value)
        add(totals, map(told, decode_events(value)))
    judge.close()
    found = judge.verdict()
    allowed = {"G4 unexplained_repeat"} if scene.counts["crashes"] else set()
    assert set(found.by_kind) <= allowed, found.by_kind
    assert found.figures.tasks == len(scene.inputs["tasks"])
    assert scene.counts["lane"]
    assert rows.decode_partition(scene.table[rows.PARTITION_KEY]).totals == totals
    assert not [key for key in scene.table if key[:1] in (b"T", b"H")]


def test_what_ends_within_its_transaction_leaves_one_record_and_no_row() -> None:
    scene = Scene(1)
    scene.inputs["tasks"] = [(GROUPS[0], b'{"type":"t"}'), (GROUPS[0], b'{"type":"t"}'), (GROUPS[1], b'{"type":"t"}')]
    scene.positions["tasks"] = 3
    scene.engine.take_in([Input("tasks", 0, n, *scene.inputs["tasks"][n], []) for n in range(3)], {}, scene.now)
    for _ in range(2):
        item = scene.lane.begin(scene.moment())
        scene.lane.succeeded(item, scene.moment())
    outputs = scene.engine.step([], {}, scene.now)
    told = [output for output in outputs if output.topic == "task-events"]
    assert [len(decode_events(output.value or b"")) for output in told] == [4, 4, 1]
    row = rows.task_key(scene.engine.partitions[0].lines[GROUPS[0]].items[0].sequence, GROUPS[0])
    assert [output.key for output in outputs if output.topic == "changelog"] == [row, rows.PARTITION_KEY]
    assert not scene.engine.partitions[0].entries


TEXTS = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=12)


@given(
    TEXTS, TEXTS, TEXTS, st.integers(0, 2**50), st.booleans(), st.sampled_from([None, b"null", b'{"a":[1]}']),
    st.sampled_from([b"null", b'{"x": "\xc3\xa9"}']), st.dictionaries(TEXTS, TEXTS, max_size=1), st.booleans(),
)  # fmt: skip
def test_the_short_way_to_write_a_run_gives_the_same_bytes(
    group: str, task_id: str, task_type: str, number: int, rowed: bool, result: bytes | None, payload: bytes,
    labels: dict[str, str], cut: bool,
) -> None:  # fmt: skip
    task = AcceptedTask(group, group.encode(), task_id, task_type, Raw(payload), labels=labels)
    item: Any = SimpleNamespace(
        accepted=Now(number, 0), started=Moment(1_900_000_000_000, number, "clock"), rowed=rowed,
        ended=Moment(1_900_000_000_001, number + 1, "clock"), sequence=number, token=number + 1, origin=(3, number),
        result=None if result is None else Raw(result), result_cut=cut and result is None,
    )  # fmt: skip
    item.accepted = Now(1_900_000_000_000 - number % 10_000, 0)
    worker = history.Worker('run "1"', "boot")
    told = history.run_through(task, item, worker)
    assert told == history.run_through_plainly(task, item, worker)
    assert len(decode_events(told)) == (3 if rowed else 4)
    assert msgspec.json.decode(told)["v"] == 1


@pytest.mark.parametrize("more", [{"idempotency_key": "k"}, {"not_before": "2060-01-01T00:00:00Z"}, {"timeout_s": 0.5}])
def test_what_needs_more_goes_through_the_machine(more: dict[str, Any]) -> None:
    scene = Scene(1)
    record = Input("tasks", 0, 0, b"g", msgspec.json.encode({"type": "t"} | more), [])
    scene.engine.take_in([record], {}, scene.now)
    assert not scene.lane.count and scene.engine.partitions[0].entries


@pytest.mark.parametrize("more", [{"idempotency_key": "k"}, {"timeout_s": 0.5}, {"type": "u"}])
def test_what_goes_another_way_stands_behind_those_of_its_group_in_the_lane(more: dict[str, Any]) -> None:
    scene = Scene(1)
    values = [msgspec.json.encode({"type": "t"} | fields) for fields in ({}, more, {})]
    scene.engine.take_in([Input("tasks", 0, n, b"g", value, []) for n, value in enumerate(values)], {}, scene.now)
    entry = scene.engine.partitions[0].entries[b"g"]
    assert entry.task is not None and entry.task.task_id == "0-0"
    assert [read_row(row)[1].task_id for _, row in entry.backlog()] == ["0-1", "0-2"]


def test_a_second_in_the_lane_is_enough() -> None:
    scene = Scene(1)
    assert isinstance(read_task(b"g", b'{"type":"t"}', [], partition=0, offset=0), AcceptedTask)
    scene.engine.take_in([Input("tasks", 0, n, b"g", b'{"type":"t"}', []) for n in range(2)], {}, scene.now)
    item = scene.lane.begin(scene.moment())
    scene.pass_time(1_000)
    scene.engine.step([], {}, scene.now)
    ((handed, start),) = scene.lane.take_handed()
    assert handed is item and start.task.token == item.token and not scene.lane.count
    group = scene.engine.partitions[0].entries[b"g"].group
    assert group.head is not None and group.head.phase == "running" and group.parked == 1
