"""Which dispatches are claimed next: prefixes, slots, and what needs none."""

from msgspec import Raw

from consumers.claims import Position, Read, ReadAhead
from consumers.leases import Lease
from streams.protocol import PROTOCOL, Dispatch, DispatchedTask, Reason
from streams.settings import Settings

BACK, NONE, JUNK = Reason.TAKEN_BACK, Reason.NO_HANDLER, Reason.RETURNED


class Kit:
    """A read-ahead; tokens are 100 * partition + offset."""

    def __init__(self) -> None:
        self.taken_back: dict[int, set[tuple[str, int]]] = {}
        self.ahead = ReadAhead(lambda name: name == "known", lambda p: self.taken_back.get(p, ()))

    def add(self, partition: int, *kinds: str, offset: int = 0) -> None:
        for at, kind in enumerate(kinds, offset):
            task = DispatchedTask(at, f"t{at}", kind, 100 * partition + at, 1, Raw(b"null"))
            dispatch = None if kind == "junk" else Dispatch(PROTOCOL, "g", 0, "s", (task,))
            self.ahead.add(Read(partition, at, dispatch))

    def pick(self, free_slots: int, closed: frozenset[int] = frozenset()) -> dict[int, list[tuple[int, Reason | None]]]:
        picks = self.ahead.pick(free_slots, closed)
        return {p: [(pick.read.offset, pick.back) for pick in prefix] for p, prefix in picks.items()}


def test_a_prefix_for_each_free_slot() -> None:
    kit = Kit()
    kit.add(0, "known", "known", "known")
    assert kit.pick(0) == {}
    assert kit.pick(2) == {0: [(0, None), (1, None)]}
    assert kit.pick(5) == {0: [(0, None), (1, None), (2, None)]}
    assert len(kit.ahead) == 3


def test_what_needs_no_slot_goes_as_far_as_it_can() -> None:
    kit = Kit()
    kit.add(0, "junk", "unknown", "known", "unknown", "known")
    assert kit.pick(0) == {0: [(0, JUNK), (1, NONE)]}
    assert kit.pick(1) == {0: [(0, JUNK), (1, NONE), (2, None), (3, NONE)]}


def test_what_was_taken_back_takes_along_what_stands_before_it_only_when_there_is_no_slot() -> None:
    kit = Kit()
    kit.add(0, "known", "known", "known", "known")
    kit.taken_back[0] = {("g", 2)}
    assert kit.pick(0) == {0: [(0, BACK), (1, BACK), (2, BACK)]}
    assert kit.pick(1) == {0: [(0, None), (1, BACK), (2, BACK)]}
    assert kit.pick(9) == {0: [(0, None), (1, None), (2, BACK), (3, None)]}


def test_a_token_counts_in_its_own_partition_and_for_its_own_group_only() -> None:
    """Each input partition counts for itself, so two groups may have the same token at once."""
    kit = Kit()
    kit.add(1, "known")
    kit.taken_back = {0: {("g", 100)}, 1: {("g", 5), ("h", 100)}}
    assert kit.pick(0) == {}


def test_closed_partitions_are_left_alone() -> None:
    kit = Kit()
    kit.add(0, "known", "unknown")
    kit.add(1, "unknown")
    assert kit.pick(1, frozenset({0})) == {1: [(0, NONE)]}


def test_no_partition_is_starved() -> None:
    kit = Kit()
    for partition in range(3):
        kit.add(partition, *["known"] * 10)
    first = {next(iter(kit.pick(1))) for _ in range(3)}
    assert first == {0, 1, 2}


def test_what_is_claimed_goes_and_what_comes_twice_or_too_late_is_not_taken() -> None:
    kit = Kit()
    kit.add(0, "known", "known", "known")
    kit.add(0, "known", "known", offset=1)
    assert kit.ahead.count(0) == 3
    kit.ahead.remove(0, 2)
    assert kit.pick(9) == {0: [(2, None)]}
    kit.ahead.begin(0, Position(2, 0))
    assert kit.ahead.count(0) == 1
    kit.ahead.begin(0, Position(3, 0))
    kit.ahead.begin(7, Position(3, 0))
    assert (len(kit.ahead), kit.pick(9)) == (0, {})


def test_what_may_have_run_long_ago_is_given_back() -> None:
    kit = Kit()
    kit.add(0, "known", "unknown", "known", "known")
    kit.ahead.begin(0, Position(1, 3))
    assert kit.pick(9) == {0: [(1, JUNK), (2, JUNK), (3, None)]}
    assert kit.pick(0) == {0: [(1, JUNK), (2, JUNK)]}
    kit.ahead.forget(0)
    kit.add(0, "known")
    assert kit.pick(9) == {0: [(0, None)]}


def test_a_revoked_partition_is_forgotten() -> None:
    kit = Kit()
    kit.add(0, "known")
    kit.ahead.forget(0)
    kit.ahead.forget(1)
    assert kit.pick(9) == {}


def test_a_lease_counts_from_what_was_sent_last_and_acknowledged() -> None:
    second = 1_000_000_000
    lease = Lease(Settings(_env_file=None, lease_s=10), 100 * second)  # given up after 11.25 s, margin 0.25 s
    assert lease.may_start(110 * second)
    assert not lease.may_start(111 * second)
    assert not lease.is_out(111 * second)
    assert lease.is_out(111 * second + second // 4)
    assert not lease.renewal_due(100 * second + second // 3)
    assert lease.renewal_due(100 * second + second // 2)
    lease.extend(103 * second)
    lease.extend(101 * second)  # an older acknowledgement takes nothing away
    assert lease.until_ns == 114 * second + second // 4
    assert not lease.renewal_due(103 * second + second // 3)
