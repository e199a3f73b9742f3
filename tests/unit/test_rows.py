"""`streams.rows`: what is written into the changelog comes back as it was.  Its bytes are pinned by `tests/wire`."""

from hypothesis import given, settings
from hypothesis import strategies as st

from streams import rows
from streams.group import Head, Phase
from streams.protocol import ErrorInfo, HandlerPolicy, Reason
from streams.rows import ROW_FORMAT, HeadRow, PartitionRow, TaskRow

offsets = st.integers(0, 2**63 - 1)
numbers = st.integers(0, 2**53 - 1)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
headers = st.lists(st.tuples(texts, st.none() | st.binary(max_size=30)), max_size=5)
heads = st.builds(
    Head,
    sequence=numbers,
    phase=st.sampled_from([phase for phase in Phase if phase is not Phase.IDLE]),
    attempt=st.integers(1, 10**6),
    max_attempts=st.none() | st.integers(1, 1000),
    token=numbers,
    dispatch_partition=st.integers(-1, 1023),
    claim_id=texts,
    worker=texts,
    policy=st.none() | st.builds(HandlerPolicy, max_attempts=st.none() | st.integers(1, 9)),
    due_wall_ms=st.integers(-(2**53), 2**53),
    delay_ms=st.none() | st.integers(0, 2**53),
    why=st.none() | st.sampled_from(Reason),
    last_error=st.none() | st.builds(ErrorInfo, type=texts, message=texts, traceback=st.none() | texts),
)


@given(st.integers(0, 1023), offsets, st.none() | st.binary(max_size=50), st.binary(max_size=200), headers)
@settings(max_examples=150, deadline=None)
def test_a_task_comes_back_byte_for_byte(
    partition: int, offset: int, key: bytes | None, value: bytes, headers: rows.Headers
) -> None:
    row = TaskRow(ROW_FORMAT, partition, offset, key, value, headers)
    assert rows.decode_task(rows.encode(row)) == row


@given(heads, st.none() | st.sampled_from(Reason))
@settings(max_examples=150, deadline=None)
def test_a_head_comes_back(head: Head, blocked: Reason | None) -> None:
    row = HeadRow(ROW_FORMAT, head, blocked)
    assert rows.decode_head(rows.encode(row)) == row


@given(numbers, st.dictionaries(texts, offsets), st.dictionaries(st.integers(0, 1023), offsets), texts, st.booleans())
@settings(max_examples=100, deadline=None)
def test_a_partition_comes_back(
    counter: int, next_offsets: dict[str, int], origins: dict[int, int], owner: str, released: bool
) -> None:
    row = PartitionRow(ROW_FORMAT, counter, next_offsets, origins, owner, "boot", released)
    assert rows.decode_partition(rows.encode(row)) == row


@given(numbers, st.binary(max_size=50))
@settings(max_examples=100, deadline=None)
def test_a_task_key_says_sequence_and_group(sequence: int, group: bytes) -> None:
    assert rows.read_task_key(rows.task_key(sequence, group)) == (sequence, group)


def test_rows_are_small() -> None:
    """A million parked tasks are a million of these: what a row adds to its task must stay small."""
    row = rows.encode(TaskRow(ROW_FORMAT, 0, 10**9, b"g", b"v" * 100, []))
    assert len(row) < 100 + 20
