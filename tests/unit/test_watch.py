"""`streams.watch`: what may be concluded from silence, and what may not."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from streams.watch import Expired, Out, Silent, Watch

LEASE = 1000
A, B = Out(0, b"a"), Out(0, b"b")
ELSEWHERE = Out(1, b"c")


@pytest.fixture
def watch() -> Watch:
    return Watch(LEASE)


def expired(watch: Watch, next_offset: int, partition: int = 0) -> list[Expired]:
    return list(watch.read_up_to(partition, next_offset))


def look_up_ends(watch: Watch, end: int) -> list[int]:
    """All look-ups that are wanted, asked and answered at once."""
    wanted = watch.ends_wanted()
    for partition, asked in wanted.items():
        watch.end_found(partition, asked, end)
    return sorted(wanted)


def look_up_claims(watch: Watch, unclaimed: set[int], now_ms: int) -> set[int]:
    wanted = watch.claims_wanted()
    for asked in wanted.values():
        watch.claims_found(asked, {(silent.out.partition, t) for silent in asked for t in unclaimed}, now_ms)
    return set(wanted)


# -- running


def test_a_lease_expires_when_everything_up_to_an_end_looked_up_after_its_deadline_is_read(watch: Watch) -> None:
    watch.running(A, 7, 0)
    watch.tick(LEASE)
    assert look_up_ends(watch, end=50) == [0]
    assert expired(watch, 49) == []
    assert expired(watch, 50) == [Expired(A, 7, running=True)]
    assert len(watch) == 0
    assert expired(watch, 60) == []


def test_nothing_is_looked_up_before_the_deadline(watch: Watch) -> None:
    watch.running(A, 7, 0)
    watch.tick(LEASE - 1)
    assert watch.ends_wanted() == {} and watch.claims_wanted() == {}


def test_time_alone_expires_nothing(watch: Watch) -> None:
    watch.running(A, 7, 0)
    watch.tick(100 * LEASE)
    assert expired(watch, 10**9) == []


def test_lag_expires_nothing(watch: Watch) -> None:
    watch.running(A, 7, 0)
    for lease in range(1, 50):
        watch.tick(lease * LEASE)
        look_up_ends(watch, end=1000 * lease)
        assert expired(watch, 10) == []


def test_a_renewal_that_is_read_before_the_end_cancels(watch: Watch) -> None:
    watch.running(A, 7, 0)
    watch.tick(LEASE)
    look_up_ends(watch, end=50)
    watch.running(A, 7, LEASE + 1)
    assert expired(watch, 50) == []
    watch.tick(2 * LEASE)
    assert watch.ends_wanted() == {}
    watch.tick(2 * LEASE + 1)
    assert look_up_ends(watch, end=70) == [0]
    assert expired(watch, 70) == [Expired(A, 7, running=True)]


@pytest.mark.parametrize("when", ["before the question", "before the answer", "before reading on"])
def test_a_renewal_cancels_whenever_it_is_read(watch: Watch, when: str) -> None:
    watch.running(A, 7, 0)
    watch.tick(LEASE)
    if when == "before the question":
        watch.running(A, 7, LEASE)
    wanted = watch.ends_wanted()
    if when == "before the answer":
        watch.running(A, 7, LEASE)
    watch.end_found(0, wanted[0], 50)
    if when == "before reading on":
        watch.running(A, 7, LEASE)
    assert expired(watch, 99) == []
    assert len(watch) == 1


def test_a_look_up_that_is_never_answered_is_asked_again_after_a_lease(watch: Watch) -> None:
    watch.running(A, 7, 0)
    watch.tick(LEASE)
    assert watch.ends_wanted().keys() == {0}
    watch.tick(2 * LEASE - 1)
    assert watch.ends_wanted() == {}
    watch.tick(2 * LEASE)
    assert look_up_ends(watch, end=50) == [0]
    assert expired(watch, 50) == [Expired(A, 7, running=True)]


def test_an_answer_says_nothing_about_suspects_noted_after_its_question(watch: Watch) -> None:
    """Two look-ups are under way at once: the second answer must not stretch to what came up in between."""
    watch.running(A, 7, 0)
    watch.running(B, 8, 10)
    late = Out(0, b"late")
    watch.running(late, 9, 20)
    watch.tick(LEASE)
    first = watch.ends_wanted()
    watch.tick(LEASE + 10)
    second = watch.ends_wanted()
    watch.tick(LEASE + 20)  # `late` is a suspect now; its renewal may stand behind both ends
    watch.end_found(0, first[0], 40)
    watch.end_found(0, second[0], 41)
    assert expired(watch, 45) == [Expired(A, 7, True), Expired(B, 8, True)]
    third = watch.ends_wanted()
    watch.end_found(0, third[0], 46)
    assert expired(watch, 46) == [Expired(late, 9, True)]


def test_answers_may_come_in_any_order(watch: Watch) -> None:
    watch.running(A, 7, 0)
    watch.running(B, 8, 10)
    watch.tick(LEASE)
    first = watch.ends_wanted()
    watch.tick(LEASE + 10)
    second = watch.ends_wanted()
    watch.end_found(0, second[0], 41)
    watch.end_found(0, first[0], 40)
    assert expired(watch, 41) == [Expired(A, 7, True), Expired(B, 8, True)]


def test_an_answer_from_before_a_partition_was_let_go_counts_for_nothing(watch: Watch) -> None:
    watch.running(A, 7, 0)
    watch.tick(LEASE)
    wanted = watch.ends_wanted()
    watch.forget_partition(0)
    watch.running(A, 7, LEASE)
    watch.tick(2 * LEASE)
    watch.end_found(0, wanted[0], 10)
    assert expired(watch, 99) == []


def test_partitions_have_ends_of_their_own(watch: Watch) -> None:
    watch.running(A, 7, 0)
    watch.running(ELSEWHERE, 8, 0)
    watch.tick(LEASE)
    wanted = watch.ends_wanted()
    watch.end_found(0, wanted[0], 5)
    watch.end_found(1, wanted[1], 50)
    assert expired(watch, 40, partition=1) == []
    assert expired(watch, 5, partition=0) == [Expired(A, 7, True)]
    assert expired(watch, 50, partition=1) == [Expired(ELSEWHERE, 8, True)]


# -- dispatched


def test_an_unclaimed_dispatch_keeps_its_token_and_is_watched_anew(watch: Watch) -> None:
    watch.dispatched(A, 7, 3, 0)
    for lease in range(1, 5):
        watch.tick(lease * LEASE)
        assert watch.ends_wanted() == {}
        assert look_up_claims(watch, {7, 99}, lease * LEASE) == {3}
        assert expired(watch, 10**9) == []
    assert len(watch) == 1


def test_a_claimed_dispatch_waits_one_more_lease_from_the_look(watch: Watch) -> None:
    watch.dispatched(A, 7, 3, 0)
    watch.tick(LEASE)
    look_up_claims(watch, set(), LEASE + 400)
    watch.tick(2 * LEASE + 399)
    assert watch.ends_wanted() == {}
    watch.tick(2 * LEASE + 400)
    assert look_up_ends(watch, end=50) == [0]
    assert expired(watch, 49) == []
    assert expired(watch, 50) == [Expired(A, 7, running=False)]


def test_a_start_that_is_read_in_time_makes_a_claimed_dispatch_a_running_one(watch: Watch) -> None:
    watch.dispatched(A, 7, 3, 0)
    watch.tick(LEASE)
    look_up_claims(watch, set(), LEASE)
    watch.tick(2 * LEASE)
    look_up_ends(watch, end=50)
    watch.running(A, 7, 2 * LEASE)
    assert expired(watch, 50) == []
    watch.tick(3 * LEASE)
    look_up_ends(watch, end=60)
    assert expired(watch, 60) == [Expired(A, 7, running=True)]


def test_a_question_about_claims_that_is_never_answered_is_asked_again(watch: Watch) -> None:
    watch.dispatched(A, 7, 3, 0)
    watch.tick(LEASE)
    assert watch.claims_wanted() == {3: {Silent(A, 7)}}
    watch.tick(2 * LEASE - 1)
    assert watch.claims_wanted() == {}
    watch.tick(2 * LEASE)
    assert watch.claims_wanted() == {3: {Silent(A, 7)}}


def test_an_answer_about_claims_says_nothing_about_a_later_dispatch(watch: Watch) -> None:
    """The look cannot have seen the new token; taking it for claimed would dispatch the task a second time."""
    watch.dispatched(A, 7, 3, 0)
    watch.tick(LEASE)
    wanted = watch.claims_wanted()
    watch.forget(A)
    watch.dispatched(A, 9, 3, LEASE + 1)
    watch.claims_found(wanted[3], set(), LEASE + 2)
    watch.tick(2 * LEASE + 2)
    assert watch.ends_wanted() == {}
    assert watch.claims_wanted() == {3: {Silent(A, 9)}}


def test_an_answer_about_claims_changes_nothing_that_runs(watch: Watch) -> None:
    watch.dispatched(A, 7, 3, 0)
    watch.tick(LEASE)
    wanted = watch.claims_wanted()
    watch.running(A, 7, LEASE)
    watch.claims_found(wanted[3], set(), LEASE)
    watch.tick(2 * LEASE)
    look_up_ends(watch, end=1)
    assert expired(watch, 1) == [Expired(A, 7, running=True)]


# -- forgetting


def test_what_is_forgotten_never_expires(watch: Watch) -> None:
    watch.running(A, 7, 0)
    watch.dispatched(B, 8, 3, 0)
    watch.tick(LEASE)
    look_up_ends(watch, end=5)
    watch.forget(A)
    watch.forget(B)
    look_up_claims(watch, set(), LEASE)
    watch.tick(10 * LEASE)
    assert watch.ends_wanted() == {} and watch.claims_wanted() == {} and len(watch) == 0
    assert expired(watch, 99) == []
    assert list(watch.unclaimed_for_long(10 * LEASE)) == []


def test_a_forgotten_partition_leaves_the_others(watch: Watch) -> None:
    watch.running(A, 7, 0)
    watch.dispatched(B, 8, 3, 0)
    watch.running(ELSEWHERE, 9, 0)
    watch.tick(LEASE)
    watch.forget_partition(0)
    assert len(watch) == 1
    assert look_up_ends(watch, end=5) == [1]
    assert expired(watch, 5) == [] and expired(watch, 5, partition=1) == [Expired(ELSEWHERE, 9, True)]


def test_a_forgotten_partition_leaves_no_memory(watch: Watch) -> None:
    watch.running(A, 7, 0)
    watch.running(B, 8, 1)
    watch.tick(LEASE)
    look_up_ends(watch, end=5)
    watch.tick(LEASE + 1)
    watch.forget_partition(0)
    assert not watch._items and not watch._await_end and not watch._await_offset and not watch._ask_end


def test_conclusions_leave_no_memory(watch: Watch) -> None:
    for lease in range(1, 20):
        watch.running(A, lease, lease * LEASE)
        watch.dispatched(B, 100 + lease, 3, lease * LEASE)
        watch.tick((lease + 1) * LEASE)
        look_up_ends(watch, end=lease)
        look_up_claims(watch, {100 + lease}, (lease + 1) * LEASE)
        assert len(expired(watch, lease)) == 1
        watch.forget(B)
    assert not watch._items and not watch._fresh and not watch._await_end and not any(watch._await_offset.values())


# -- take back


def test_unclaimed_for_long_is_named_again_and_again_until_claimed(watch: Watch) -> None:
    watch.dispatched(A, 7, 3, 0)
    watch.dispatched(B, 8, 3, 600)
    assert list(watch.unclaimed_for_long(999)) == []
    assert list(watch.unclaimed_for_long(1000)) == [(A, 7)]
    assert list(watch.unclaimed_for_long(1600)) == [(B, 8)]
    assert list(watch.unclaimed_for_long(1999)) == []
    watch.running(B, 8, 1999)
    assert list(watch.unclaimed_for_long(9000)) == [(A, 7)]


def test_what_was_found_claimed_is_not_taken_back(watch: Watch) -> None:
    watch.dispatched(A, 7, 3, 0)
    watch.tick(LEASE)
    look_up_claims(watch, set(), LEASE)
    assert list(watch.unclaimed_for_long(99_999)) == []


class WatchMachine(RuleBasedStateMachine):
    """Workers that write to a log, a scheduler that reads it late, look-ups that come back late or never.

    Held against the truth that only the test knows: what is said to be lost was silent for a lease, and nothing that
    it wrote by then is unread.
    """

    def __init__(self) -> None:
        super().__init__()
        self.watch = Watch(LEASE)
        self.now = 0
        self.log: list[tuple[int, Out]] = []  # (written at, about)
        self.read = 0
        self.heard: dict[Out, int] = {}  # when the scheduler last heard of it
        self.asked: list[tuple[int, int]] = []  # (number, end of the log when it was looked up)

    outs = st.sampled_from([Out(0, b"a"), Out(0, b"b"), Out(0, b"c"), Out(0, b"d")])

    @rule(out=outs)
    def start(self, out: Out) -> None:
        if out not in self.heard:
            self.heard[out] = self.now
            self.watch.running(out, 1, self.now)

    @rule(out=outs)
    def write_renewal(self, out: Out) -> None:
        self.log.append((self.now, out))

    @precondition(lambda self: self.read < len(self.log))
    @rule()
    def read_one(self) -> None:
        _, out = self.log[self.read]
        self.read += 1
        if out in self.heard:
            self.heard[out] = self.now
            self.watch.running(out, 1, self.now)

    @rule(ms=st.sampled_from([1, 50, LEASE // 2, LEASE]))
    def pass_time(self, ms: int) -> None:
        self.now += ms
        self.watch.tick(self.now)
        for number in self.watch.ends_wanted().values():
            self.asked.append((number, -1))

    @precondition(lambda self: self.asked)
    @rule(data=st.data())
    def look_up(self, data: st.DataObject) -> None:
        place = data.draw(st.integers(0, len(self.asked) - 1))
        number, end = self.asked[place]
        self.asked[place] = (number, len(self.log) if end < 0 else end)

    @precondition(lambda self: self.asked)
    @rule(data=st.data(), lost=st.booleans())
    def answer(self, data: st.DataObject, lost: bool) -> None:
        number, end = self.asked.pop(data.draw(st.integers(0, len(self.asked) - 1)))
        if end >= 0 and not lost:
            self.watch.end_found(0, number, end)

    @invariant()
    def what_expires_is_truly_silent(self) -> None:
        for out, token, running in self.watch.read_up_to(0, self.read):
            assert (token, running) == (1, True)
            deadline = self.heard.pop(out) + LEASE
            assert deadline <= self.now
            unread = [written for written, about in self.log[self.read :] if about == out]
            assert all(written >= deadline for written in unread), "a renewal of before the deadline is unread"

    def teardown(self) -> None:
        """Once everything is read and answered, whoever is still watched expires."""
        while self.read < len(self.log):
            self.read_one()
        self.now += LEASE
        self.watch.tick(self.now)
        for number in self.watch.ends_wanted().values():
            self.watch.end_found(0, number, self.read)
        assert {e.out for e in self.watch.read_up_to(0, self.read)} == self.heard.keys()
        assert len(self.watch) == 0


WatchMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestWatchMachine = WatchMachine.TestCase
