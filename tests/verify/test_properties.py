"""Any good history passes; any single change to one that matters is found."""

from collections.abc import Callable

from histories import Log, S, T
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st

from pstp.verify import History, Options, Report
from streams.protocol import TERMINAL, Event, EventKind, Reason, encode

GROUPS = ("g", "h", "i")
Draw = Callable[[st.SearchStrategy[int]], int]


class World:
    """The smallest scheduler that keeps the promise: it writes the log of what chance makes it do."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.queues: dict[str, list[T]] = {group: [] for group in GROUPS}
        self.states: dict[str, S] = dict.fromkeys(GROUPS, S.PARKED)

    def submit(self, group: str, choice: int) -> None:
        if choice % 7 == 0:
            self.log.reject()
        elif choice % 7 == 1:
            newest = max((e.origin_offset or 0 for e in self.log.events if e.origin_partition == 9), default=0)
            self.queues[group].append(self.log.park(group, origin=(9, newest + 1)))
        else:
            self.queues[group].append(self.log.park(group))

    def step(self, group: str, choice: int) -> None:
        """One step of the group's head."""
        queue, log = self.queues[group], self.log
        if not queue:
            return
        head = queue[0]
        match self.states[group]:
            case S.PARKED | S.RETRYING:
                if choice % 9 == 0:
                    log.add(group=group, task_id=head.task_id, sequence=head.sequence, state=S.CANCELLED)
                    self._next(group)
                else:
                    log.dispatch(head)
                    self.states[group] = S.DISPATCHED
            case S.DISPATCHED:
                if choice % 4 == 0:
                    came_back = (Reason.RETURNED, Reason.TAKEN_BACK, Reason.LOST_BEFORE_START, Reason.NO_HANDLER)
                    log.come_back(head, came_back[choice % 3])
                    self.states[group] = S.PARKED
                else:
                    log.start(head, worker=f"w{choice % 3}")
                    self.states[group] = S.RUNNING
            case _:
                self._end(group, head, choice)

    def _end(self, group: str, head: T, choice: int) -> None:
        log = self.log
        if choice % 3:
            log.succeed(head)
            if choice % 2:
                log.set_state(head)
            self._next(group)
        elif choice % 5 == 0:
            log.bury(head)
            self._next(group)
        elif choice % 5 == 1:
            log.come_back(head, Reason.ABANDONED)
            self.states[group] = S.PARKED
        else:
            log.retry(head, (Reason.FAILED, Reason.WORKER_LOST, Reason.SNOOZED)[choice % 5 - 2])
            self.states[group] = S.RETRYING

    def _next(self, group: str) -> None:
        self.queues[group].pop(0)
        self.states[group] = S.PARKED

    def drain(self) -> None:
        for group in GROUPS:
            while self.queues[group]:
                self.step(group, 1)


@st.composite
def good_logs(draw: st.DrawFn) -> Log:
    log = Log()
    world = World(log)
    world.queues["g"].append(log.park("g"))
    for group, submits, choice in draw(
        st.lists(st.tuples(st.sampled_from(GROUPS), st.booleans(), st.integers(1, 400)), max_size=60)
    ):
        if submits:
            world.submit(group, choice)
        else:
            world.step(group, choice)
    world.drain()
    return log


def check(log: Log, origins: list[tuple[int, int]]) -> Report:
    history = History(Options())
    for offset, changed in enumerate(log.events):
        history.record(0, offset, encode(changed))
    history.close()
    history.shared.compare_with_tasks(origins, {})
    return history.verdict()


def origins_of(log: Log) -> list[tuple[int, int]]:
    return [(e.origin_partition, e.origin_offset) for e in log.events if e.origin_offset is not None]  # type: ignore[misc]


Mutation = Callable[[Log, int, int], bool]


def drop(log: Log, index: int, choice: int) -> bool:
    """Group state may be absent, and a dispatch may be cancelled without having come back; no other step may be."""
    dropped = log.events[index]
    if dropped.kind is not EventKind.TASK:
        return False
    if dropped.state is S.PARKED and dropped.reason is not None:
        then = next(e for e in log.events[index + 1 :] if e.sequence == dropped.sequence)
        if then.state is S.CANCELLED:
            return False
    log.drop(index)
    return True


def repeat(log: Log, index: int, choice: int) -> bool:
    log.repeat(index, later=1 + choice % (len(log.events) - index))
    return True


def swap(log: Log, index: int, choice: int) -> bool:
    """With the next step of the same task, or the arrival of the next one of the group with its own."""
    one = log.events[index]
    for later in range(index + 1, len(log.events)):
        other = log.events[later]
        same_task = other.sequence == one.sequence
        both_arrive = one.group == other.group and one.payload is not None and other.payload is not None
        if one.kind is other.kind is EventKind.TASK and one.sequence and (same_task or both_arrive):
            log.swap(index, later)
            return True
    return False


def another_group(log: Log, index: int, choice: int) -> bool:
    if log.events[index].group is None:
        return False
    log.change(index, group="stranger")
    return True


def another_token(log: Log, index: int, choice: int) -> bool:
    token = log.events[index].fencing_token
    if token is None:
        return False
    log.change(index, fencing_token=token + (1 if choice % 2 else -1))
    return True


def another_sequence(log: Log, index: int, choice: int) -> bool:
    changed = log.events[index]
    if changed.sequence is None or changed.kind is not EventKind.TASK:
        return False
    log.change(index, sequence=changed.sequence + choice)
    return True


def another_attempt(log: Log, index: int, choice: int) -> bool:
    attempt = log.events[index].attempt
    if attempt is None:
        return False
    log.change(index, attempt=attempt + 1)
    return True


def another_task_id(log: Log, index: int, choice: int) -> bool:
    if log.events[index].state in (None, S.REJECTED):
        return False
    log.change(index, task_id="stranger")
    return True


def another_state(log: Log, index: int, choice: int) -> bool:
    states = (S.DISPATCHED, S.RUNNING, S.SUCCEEDED)
    state = log.events[index].state
    if state not in states:
        return False
    log.change(index, state=states[(states.index(state) + 1 + choice % 2) % 3])
    return True


def another_worker(log: Log, index: int, choice: int) -> bool:
    changed = log.events[index]
    if changed.ended_at is None:
        return False
    log.change(index, worker="stranger")
    return True


def into_the_one_before(log: Log, index: int, choice: int) -> bool:
    """An execution that its worker says began before the end of the one before."""
    changed = log.events[index]
    if changed.state is not S.RUNNING:
        return False
    before = [e.ended_mono_ns for e in log.events[:index] if e.group == changed.group and e.ended_mono_ns is not None]
    if not before:
        return False
    log.change(index, started_mono_ns=before[-1] - 1)
    return True


MUTATIONS: tuple[Mutation, ...] = (
    drop, repeat, swap, another_group, another_token, another_sequence, another_attempt, another_task_id,
    another_state, another_worker, into_the_one_before,
)  # fmt: skip


@given(good_logs())
@settings(max_examples=200, deadline=None)
def test_a_good_history_passes(log: Log) -> None:
    found = check(log, origins_of(log))
    assert found.by_kind == {}
    assert found.figures.unfinished == 0
    ends = [e for e in log.events if e.state in TERMINAL and e.state is not S.REJECTED]
    assert found.figures.tasks == len(ends)


@given(good_logs(), st.sampled_from(MUTATIONS), st.integers(0, 10_000), st.integers(1, 400))
@settings(max_examples=600, deadline=None)
def test_one_change_is_found(log: Log, mutate: Mutation, index: int, choice: int) -> None:
    origins = origins_of(log)
    before: list[Event] = list(log.events)
    count = len(before)
    assume(any(mutate(log, (index + shift) % count, choice) for shift in range(count)))
    assume(log.events != before)
    event(mutate.__name__)
    assert not check(log, origins).ok
