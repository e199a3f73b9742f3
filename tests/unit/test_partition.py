"""`streams.partition`: a partition as its rows say."""

import pytest

from streams import limits, partition, rows
from streams.group import Group, Head, Phase
from streams.partition import INPUTS, BrokenInvariant, Partition, load, read_row
from streams.protocol import Reason, VersionError
from streams.rows import ROW_FORMAT, HeadRow, PartitionRow, TaskRow

TASK = rows.encode(TaskRow(ROW_FORMAT, 2, 40, b"g", b'{"type":"t"}', []))


def table_of(*sequences: int, group: bytes = b"g") -> dict[bytes, bytes]:
    return {rows.task_key(sequence, group): TASK for sequence in sequences}


def head_row(head: Head | None, blocked: Reason | None = None) -> dict[bytes, bytes]:
    return {rows.head_key(b"g"): rows.encode(HeadRow(ROW_FORMAT, head, blocked))}


def test_nothing_loads_as_nothing() -> None:
    loaded = load(3, {})
    assert (loaded.number, loaded.counter, loaded.entries, loaded.origins) == (3, 0, {}, {})
    assert loaded.next_offsets == dict.fromkeys(INPUTS, 0) == loaded.read_up_to


def test_what_a_partition_writes_is_what_it_loads() -> None:
    first = Partition(1)
    first.begin_epoch()
    first.next_number()
    first.next_offsets["tasks"], first.origins[2] = 7, 5
    for released in (True, False):
        loaded = load(1, {rows.PARTITION_KEY: first.to_row("owner", "boot", released=released)})
        assert (loaded.counter, loaded.next_offsets, loaded.origins) == (
            first.counter, first.next_offsets, first.origins,
        )  # fmt: skip
        assert loaded.read_up_to["tasks"] == 7


def test_an_input_that_an_older_row_does_not_name_begins_at_its_beginning() -> None:
    row = rows.encode(PartitionRow(ROW_FORMAT, 0, {"tasks": 7}, {}, "o", "b", False))
    assert load(0, {rows.PARTITION_KEY: row}).next_offsets == {"tasks": 7, "completions": 0, "commands": 0}


def test_numbers_rise_and_say_that_something_changed() -> None:
    some = Partition(0)
    assert not some.changed
    assert [some.next_number() for _ in range(3)] == [1, 2, 3] and some.changed


def test_an_epoch_is_above_all_numbers_of_the_one_before() -> None:
    some = Partition(0)
    for _ in range(3):
        before = some.counter
        some.begin_epoch()
        assert some.counter > before and some.counter % (1 << limits.EPOCH_SHIFT) == 0
        for _ in range(5):
            some.next_number()


def test_a_counter_that_is_used_up_stops_the_partition() -> None:
    some = Partition(0)
    some.counter = limits.COUNTER_MAX - 1
    assert some.next_number() == limits.COUNTER_MAX
    with pytest.raises(BrokenInvariant):
        some.next_number()


def test_parked_tasks_load_in_the_order_of_their_sequences() -> None:
    for sequences in ((5, 300, 70_000), (70_000, 5, 300)):
        (entry,) = load(0, table_of(*sequences)).entries.values()
        assert [s for s, _ in entry.backlog()] == [5, 300, 70_000]
        assert entry.group == Group(None, 3)


def test_older_groups_load_first() -> None:
    """The ready set goes by age; a new owner knows no other age than the order of arrival."""
    tables = table_of(9, group=b"young") | table_of(4, 12, group=b"old") | table_of(6, group=b"middle")
    assert list(load(0, tables).entries) == [b"old", b"middle", b"young"]


@pytest.mark.parametrize("phase", [phase for phase in Phase if phase is not Phase.IDLE])
def test_a_head_takes_its_task_out_of_the_parked_ones(phase: Phase) -> None:
    head = Head(4, phase, attempt=2, token=9)
    (entry,) = load(0, table_of(4, 5) | head_row(head)).entries.values()
    assert entry.group == Group(head, 1) and entry.row == TASK and entry.has_row
    assert entry.task is not None and entry.task.task_id == "2-40"
    assert [s for s, _ in entry.backlog()] == [5]


def test_a_blocked_group_without_tasks_is_remembered() -> None:
    (entry,) = load(0, head_row(None, Reason.INTERNAL_ERROR)).entries.values()
    assert entry.group == Group(None, 0, Reason.INTERNAL_ERROR) and not entry.is_idle()


def test_group_state_alone_is_remembered() -> None:
    partition = load(0, {rows.state_key(b"g"): b"{}"})
    assert (partition.states, partition.entries) == ({b"g": b"{}"}, {})


def test_a_head_without_its_task_is_a_broken_invariant() -> None:
    with pytest.raises(BrokenInvariant):
        load(0, table_of(5) | head_row(Head(4, Phase.RUNNING)))


def test_a_task_that_is_refused_now_is_a_broken_invariant(monkeypatch: pytest.MonkeyPatch) -> None:
    bad = rows.encode(TaskRow(ROW_FORMAT, 2, 40, b"g", b"{", []))
    with pytest.raises(BrokenInvariant):
        read_row(bad)


def test_rows_of_a_newer_format_are_refused() -> None:
    newer = rows.encode([rows.NEWEST_FORMAT + 1, "anything"])
    with pytest.raises(VersionError):
        load(0, {rows.PARTITION_KEY: newer})
    with pytest.raises(VersionError):
        load(0, table_of(4) | {rows.head_key(b"g"): newer})
    with pytest.raises(VersionError):
        read_row(newer)


def test_a_newer_row_is_refused_even_behind_others_of_its_group() -> None:
    with pytest.raises(VersionError):
        load(0, table_of(4) | {rows.task_key(5, b"g"): rows.encode([rows.NEWEST_FORMAT + 1])})
    with pytest.raises(VersionError):
        load(0, {rows.task_key(5, b"g"): rows.encode([10**6, *range(20)])})


def test_kinds_of_rows_that_are_not_known_are_refused() -> None:
    """They were written by a newer version, which meant something by them."""
    with pytest.raises(VersionError):
        load(0, {b"Zanything": b"\x00"})


def test_a_task_over_todays_limit_that_was_accepted_is_still_a_task() -> None:
    value = b'{"type":"t","payload":"' + b"x" * limits.TASK_BYTES_MAX + b'"}'
    _, task = read_row(rows.encode(TaskRow(ROW_FORMAT, 0, 0, b"g", value, [])))
    assert task.type == "t"


def test_offsets_of_a_topic_that_was_recreated_count_for_nothing() -> None:
    some = Partition(0)
    ids = {topic: f"{topic}-1" for topic in INPUTS}
    some.follow(ids)
    some.next_offsets.update(tasks=7, completions=8)
    some.read_up_to.update(tasks=7, completions=9)
    some.origins[1] = 3
    row = some.to_row("o", "b", released=True)
    same = load(0, {rows.PARTITION_KEY: row})
    same.follow(ids)
    assert (same.next_offsets["tasks"], same.next_offsets["completions"], same.origins) == (7, 8, {1: 3})
    other = load(0, {rows.PARTITION_KEY: row})
    other.follow(ids | {"tasks": "tasks-2"})
    assert (other.next_offsets["tasks"], other.next_offsets["completions"], other.origins) == (0, 8, {})
    assert other.read_up_to["tasks"] == 0
    again = load(0, {rows.PARTITION_KEY: other.to_row("o", "b", released=True)})
    assert again.input_ids["tasks"] == "tasks-2"


def test_inputs_are_those_of_the_settings() -> None:
    assert set(partition.INPUTS) == {"tasks", "completions", "commands"}
