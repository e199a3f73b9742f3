"""`streams.ready`: who goes next, and where to."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.protocol import PROTOCOL, Member
from streams.ready import Capacity, ReadySet


def worker(name: str, slots: int, *types: str, partitions: tuple[int, ...] = (0,)) -> Member:
    return Member(PROTOCOL, name, "boot", "worker", "host", 1, 0, partitions=partitions, slots=slots, types=types)


def capacity(
    *workers: Member, unclaimed: dict[int, int] | None = None, running: dict[str, int] | None = None
) -> Capacity:
    return Capacity(workers, unclaimed or {}, running or {})


def ready_set(*groups: tuple[str, str]) -> ReadySet:
    """Of (group, type), oldest first."""
    ready = ReadySet()
    for group, task_type in groups:
        ready.add(0, group.encode(), task_type)
    return ready


def drained(ready: ReadySet, capacity: Capacity) -> list[str]:
    return [entry.key.decode() for entry, _ in ready.drain(capacity)]


# -- order


def test_the_oldest_goes_first_whatever_its_type() -> None:
    ready = ready_set(("a", "x"), ("b", "y"), ("c", "x"), ("d", "y"), ("e", "z"))
    assert drained(ready, capacity(worker("w", 4, "x", "y", "z"))) == ["a", "b", "c", "d"]
    assert len(ready) == 1 and (0, b"e") in ready


def test_a_type_without_a_free_slot_holds_no_other() -> None:
    ready = ready_set(("a", "x"), ("b", "x"), ("c", "y"), ("d", "x"), ("e", "y"))
    full = capacity(worker("w", 1, "x"), worker("v", 9, "y", partitions=(1,)))
    assert drained(ready, full) == ["a", "c", "e"]
    assert ready.types() == {"x": 2}
    assert drained(ready, capacity(worker("w", 9, "x"))) == ["b", "d"]


def test_a_type_that_nobody_handles_waits_and_holds_no_other() -> None:
    ready = ready_set(("a", "nobody"), ("b", "x"))
    assert drained(ready, capacity(worker("w", 9, "x"))) == ["b"]
    assert ready.types() == {"nobody": 1}


def test_what_stays_keeps_its_age() -> None:
    ready = ready_set(("a", "x"), ("b", "x"))
    assert drained(ready, capacity()) == []
    ready.add(0, b"c", "y")
    assert drained(ready, capacity(worker("w", 9, "x", "y"))) == ["a", "b", "c"]


def test_a_group_is_in_the_set_once() -> None:
    ready = ready_set(("a", "x"))
    with pytest.raises(ValueError):
        ready.add(0, b"a", "x")
    ready.add(1, b"a", "x")  # the same key elsewhere is another group
    assert len(ready) == 2


def test_who_left_is_not_handed_out() -> None:
    ready = ready_set(("a", "x"), ("b", "x"), ("c", "x"))
    ready.discard(0, b"a")
    ready.discard(0, b"nobody")
    assert len(ready) == 2 and ready.types() == {"x": 2}
    assert drained(ready, capacity(worker("w", 1, "x"))) == ["b"]


def test_who_left_and_came_back_stands_at_the_end_and_goes_once() -> None:
    ready = ready_set(("a", "x"), ("b", "x"))
    ready.discard(0, b"a")
    ready.add(0, b"a", "x")
    assert drained(ready, capacity(worker("w", 9, "x"))) == ["b", "a"]
    assert len(ready) == 0


def test_who_came_back_with_another_type_waits_for_that_type() -> None:
    ready = ready_set(("a", "x"))
    ready.discard(0, b"a")
    ready.add(0, b"a", "y")
    assert drained(ready, capacity(worker("w", 9, "x"))) == []
    assert drained(ready, capacity(worker("w", 9, "y"))) == ["a"]


def test_a_dropped_partition_takes_its_groups_along() -> None:
    ready = ready_set(("a", "x"))
    ready.add(1, b"b", "x")
    ready.drop_partition(0)
    assert drained(ready, capacity(worker("w", 9, "x"))) == ["b"]


def test_emptied_types_leave_no_memory() -> None:
    ready = ready_set(*((f"g{i}", f"type-{i}") for i in range(50)))
    for i in range(25):
        ready.discard(0, f"g{i}".encode())
    drained(ready, capacity(worker("w", 99, *(f"type-{i}" for i in range(50)))))
    assert ready._by_type == {} and ready._number_of == {}


@given(
    groups=st.lists(st.sampled_from("xyz"), max_size=40),
    slots=st.dictionaries(st.sampled_from("xyz"), st.integers(0, 5)),
    gone=st.sets(st.integers(0, 39)),
)
@settings(max_examples=150, deadline=None)
def test_each_type_gives_its_oldest_as_far_as_slots_go(
    groups: list[str], slots: dict[str, int], gone: set[int]
) -> None:
    ready = ready_set(*((str(i), t) for i, t in enumerate(groups)))
    for i in gone:
        ready.discard(0, str(i).encode())
    workers = [worker(t, n, t, partitions=(ord(t),)) for t, n in slots.items()]
    expected = []
    for task_type, n in slots.items():
        expected += [i for i, t in enumerate(groups) if t == task_type and i not in gone][:n]
    assert drained(ready, capacity(*workers)) == [str(i) for i in sorted(expected)]


# -- where to


def places(capacity: Capacity, task_type: str, number: int) -> list[int | None]:
    return [capacity.take(task_type) for _ in range(number)]


def test_slots_are_counted_down_to_none() -> None:
    assert places(capacity(worker("w", 2, "x", partitions=(3,))), "x", 3) == [3, 3, None]


def test_most_free_slots_wins() -> None:
    two = capacity(worker("a", 1, "x", partitions=(1,)), worker("b", 3, "x", partitions=(2,)))
    assert places(two, "x", 5) == [2, 2, 1, 2, None]


def test_what_runs_and_what_is_unclaimed_takes_slots() -> None:
    busy = capacity(worker("w", 4, "x", partitions=(1, 5)), unclaimed={1: 1, 5: 1, 9: 7}, running={"w": 1, "v": 7})
    assert places(busy, "x", 2) == [1, None]


def test_more_outstanding_than_slots_is_no_slot() -> None:
    assert places(capacity(worker("w", 1, "x"), running={"w": 5}), "x", 1) == [None]


def test_a_worker_without_partitions_or_handler_gets_nothing() -> None:
    nobody = capacity(worker("w", 9, "x", partitions=()), worker("v", 9, "y", partitions=(2,)))
    assert places(nobody, "x", 1) == [None]
    assert not nobody.handles("x") and nobody.handles("y")


def test_one_slot_serves_all_types_of_its_worker() -> None:
    one = capacity(worker("w", 1, "x", "y"))
    assert [one.take("x"), one.take("y")] == [0, None]


def test_a_worker_gets_all_in_one_partition() -> None:
    assert places(capacity(worker("w", 3, "x", partitions=(7, 4, 6))), "x", 3) == [4, 4, 4]


def test_owners_of_dispatch_partitions_are_known() -> None:
    assert capacity(worker("w", 1, partitions=(7, 4)), worker("v", 1, partitions=(5,))).owner_of == {
        7: "w", 4: "w", 5: "v",
    }  # fmt: skip


def test_taking_back_pays_only_if_another_worker_has_a_free_slot() -> None:
    two = capacity(
        worker("full", 1, "x", partitions=(1,)), worker("free", 1, "x", "y", partitions=(2,)), running={"full": 1}
    )
    assert two.free("x", but="full") and two.free("x") and two.free("x", but=None)
    assert not two.free("x", but="free")
    assert not two.free("y", but="free") and not two.free("z")
    two.take("x")
    assert not two.free("x", but="full")


# -- sharing with other schedulers


def taken(mine: tuple[int, int], *others: tuple[int, int], slots: int = 12, running: int = 0) -> int:
    """How many of `slots` slots for one type are taken; demands are (ready, out)."""
    shared = capacity(worker("w", slots, "x"), running={"w": running})
    shared.share({"x": mine}, [{"x": other} for other in others])
    return sum(place is not None for place in places(shared, "x", mine[0]))


def test_slots_are_divided_by_demand_among_schedulers_that_have_ready_heads() -> None:
    assert taken((100, 0), (100, 0)) == 6
    assert taken((100, 0), (100, 0), (100, 0)) == 4
    assert taken((30, 0), (10, 0)) == 9


def test_who_is_above_its_part_takes_nothing_while_others_wait_and_who_is_below_does() -> None:
    assert taken((100, 12), (100, 0), running=11) == 0
    assert taken((100, 0), (100, 12), running=11) == 1


def test_what_nobody_else_wants_is_taken_by_whoever_can_use_it() -> None:
    assert taken((100, 0), (0, 6), running=6) == 6
    assert taken((100, 0)) == 12


def test_everybody_with_a_ready_head_may_have_one_slot_at_least() -> None:
    assert taken((1, 0), (100_000, 0)) == 1


def test_another_type_is_no_concern() -> None:
    two = capacity(worker("w", 4, "x"), worker("v", 4, "y", partitions=(1,)))
    two.share({"x": (10, 0)}, [{"y": (1000, 0)}])
    assert places(two, "x", 10).count(0) == 4


@given(
    demands=st.lists(st.tuples(st.integers(0, 20), st.integers(0, 6)), min_size=1, max_size=5),
    free=st.integers(1, 10),
)
@settings(max_examples=200, deadline=None)
def test_no_slot_stays_free_while_somebody_could_use_it(demands: list[tuple[int, int]], free: int) -> None:
    """Whatever the demands, a round of all schedulers takes something, and everyone without a task out gets one."""
    out = sum(o for _, o in demands)
    takes = [
        taken(mine, *(d for j, d in enumerate(demands) if j != i), slots=out + free, running=out)
        for i, mine in enumerate(demands)
    ]
    assert any(takes) == any(ready for ready, _ in demands)
    assert all(take > 0 for take, (ready, o) in zip(takes, demands, strict=True) if ready and not o)
