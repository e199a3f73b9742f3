"""Random histories of the whole core: publishers, schedulers, workers, look-ups and time, all in one process.

After each step: what is in the log loads as what is in memory; what ran and what the history tells obeys the promise.
A failure names its seed; `run(seed)` plays it again.
"""

import json
import random
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from streams import rows
from streams.murmur2 import home_partition
from streams.protocol import TERMINAL, Event, EventKind, Reason, ReportKind, TaskState, utc
from tests.unit.world import Execution, N, Worker, World, state_json

GROUPS = [f"group-{i}" for i in range(7)]
BAD: list[tuple[bytes | None, bytes | None]] = [
    (None, b'{"type":"t"}'), (b"", b'{"type":"t"}'), (b"g", None), (b"g", b"\xff"), (b"\xff\xfe", b'{"type":"t"}'),
    (b"g", b"{"), (b"g", b"[]"), (b"g", b'{"type":7}'), (b"group-1", b'{"type":"t","not_before":"soon"}'),
]  # fmt: skip
S = TaskState


# -- the judge: folds what the world sees, and knows nothing of the engine


@dataclass
class Story:
    """One group as `task-events` tell it."""

    queue: list[int] = field(default_factory=list)  # sequences accepted and unfinished, in order
    out: int | None = None  # token of the dispatch that is out
    started: bool = False
    token: int = 0
    succeeded: tuple[int | None, int | None] = (None, None)  # (sequence, token) of the success told last
    state: Any = None


class Judge:
    def __init__(self) -> None:
        self.stories: dict[str, Story] = defaultdict(Story)
        self.terminal: Counter[tuple[int, int]] = Counter()  # by place in `tasks`
        self.place_of: dict[tuple[str, int], tuple[int, int]] = {}  # (group, sequence) -> place
        self.told = Counter[int]()

    def hear(self, world: World) -> None:
        for partition in range(N):
            events = world.events(partition)
            for event in events[self.told[partition] :]:
                self.judge(event)
            self.told[partition] = len(events)

    def judge(self, event: Event) -> None:
        if event.state is S.REJECTED:
            assert event.origin_partition is not None and event.origin_offset is not None
            self.terminal[event.origin_partition, event.origin_offset] += 1
        elif event.kind is EventKind.TASK:
            self.judge_task(event, self.stories[event.group or ""])
        elif event.kind is EventKind.GROUP_STATE:
            story = self.stories[event.group or ""]
            assert story.succeeded == (event.sequence, event.fencing_token), "G8: state without its success"
            story.succeeded = (None, None)
            story.state = state_json(event.group_state)

    def judge_task(self, event: Event, story: Story) -> None:
        sequence, token = event.sequence or 0, event.fencing_token or 0
        if event.state is S.PARKED and event.origin_offset is not None:
            assert not story.queue or sequence > story.queue[-1], "G2: accepted out of order"
            story.queue.append(sequence)
            self.place_of[event.group or "", sequence] = (event.origin_partition or 0, event.origin_offset)
            return
        assert sequence == story.queue[0], "G2: not the group's oldest unfinished task"
        if event.state is S.DISPATCHED:
            assert story.out is None, "G1: a second dispatch while one is out"
            assert token > story.token, "tokens only rise"
            story.out, story.token, story.started = token, token, False
            return
        assert token == story.out, "told about a task that is not out"
        if event.state is S.RUNNING:
            assert not story.started, "started twice under one token"
            story.started = True
            return
        story.out = None
        if event.state in TERMINAL:
            story.queue.pop(0)
            self.terminal[self.place_of[event.group or "", sequence]] += 1
            if event.state is S.SUCCEEDED:
                assert story.started
                story.succeeded = (sequence, token)
        else:
            assert event.state in (S.PARKED, S.RETRYING)


# -- the driver


class Play:
    """Two schedulers and some workers, to which things happen."""

    def __init__(self, seed: int, run_ms: int) -> None:
        self.random = random.Random(seed)
        self.world = World(run_ms=run_ms)
        self.judge = Judge()
        self.published: list[tuple[int, int]] = []
        self.states: dict[str, Any] = {}  # what successful executions left, by truth
        self.names = 0
        self.world.start("s1", [0, 2])
        self.world.start("s2", [1])
        self.hire()
        self.hire()

    def hire(self) -> None:
        world = self.world
        self.names += 1
        world.hire(f"w{self.names}", (), slots=self.random.choice([1, 2, 4]))
        self.share_out()

    def share_out(self) -> None:
        """Dispatch partitions go round among the workers that are there."""
        workers = list(self.world.workers.values())
        for place, worker in enumerate(workers):
            worker.partitions = tuple(range(place, 3, len(workers)))

    # each may happen, as often as its number says

    def publish(self) -> None:  # 30
        group, fields = self.random.choice(GROUPS), {}
        if self.random.random() < 0.1:
            wait_ms = self.random.choice([-5000, 50, 3000])
            fields["not_before"] = utc(self.world.now.wall_ms + wait_ms).isoformat()
        if self.random.random() < 0.1:
            fields["max_attempts"] = self.random.choice([1, 2])
        partition = self.random.randrange(N) if self.random.random() < 0.15 else None
        self.published.append(self.world.publish(group, partition=partition, **fields))

    def publish_keyless(self) -> None:  # 2
        event = {
            "specversion": "1.0",
            "id": "x",
            "source": "/",
            "type": "t",
            "partitionkey": self.random.choice(GROUPS),
        }
        headers: rows.Headers = [("content-type", b"application/cloudevents+json"), ("x", b"\xff")]
        partition = self.random.randrange(N)
        offset = self.world.append("tasks", partition, None, msgspec.json.encode(event), headers)
        self.published.append((partition, offset))

    def publish_rubbish(self) -> None:  # 2
        partition = self.random.randrange(N)
        key, value = self.random.choice(BAD)
        self.published.append((partition, self.world.append("tasks", partition, key, value)))

    def step(self) -> None:  # 40
        name = self.random.choice(list(self.world.engines))
        self.world.step(name, self.random.choice([1, 3, 100]), quiet=self.random.random() < 0.2)
        self.world.check_memory(name)

    def claim(self) -> None:  # 15
        self.world.claim(self.random.choice(list(self.world.workers.values())))

    def begin(self) -> None:  # 15
        claimed = [e for w in self.world.workers.values() for e in w.claimed]
        if claimed:
            execution = self.random.choice(claimed)
            if self.world.begin(execution):
                self.check_right_to_run(execution)

    def end(self) -> None:  # 15
        running = [e for w in self.world.workers.values() for e in w.running]
        if not running:
            return
        execution = self.random.choice(running)
        kinds = [ReportKind.SUCCEEDED] * 6 + [
            ReportKind.FAILED, ReportKind.SNOOZED, ReportKind.REJECTED, ReportKind.RETURNED, ReportKind.ABANDONED,
        ]  # fmt: skip
        self.end_with(execution, self.random.choice(kinds))

    def end_with(self, execution: Execution, kind: ReportKind) -> None:
        fields: dict[str, Any] = {}
        if kind is ReportKind.SNOOZED:
            fields["delay_s"] = 0.3
        if self.random.random() < 0.7:
            before = state_json(execution.state)
            state = None if self.random.random() < 0.1 else [execution.task.sequence, before and before[0]]
            fields |= {"state": msgspec.Raw(json.dumps(state).encode()), "state_set": True}
            if kind is ReportKind.SUCCEEDED:
                self.states[execution.group] = state
        following = self.world.end(execution, kind, alone=self.random.random() < 0.1, **fields)
        if following is not None:
            self.check_right_to_run(following)

    def progress(self) -> None:  # 2
        for execution in self.world.executing.values():
            self.world.say(execution, ReportKind.PROGRESS, fraction=0.5)

    def repeat_a_report(self) -> None:  # 4
        log = self.random.choice([self.world.logs["completions", p] for p in range(N)])
        if log:
            log.append(self.random.choice(log[-20:]))

    def lose_a_worker(self) -> None:  # 1
        if len(self.world.workers) > 1 or self.random.random() < 0.3:
            self.world.vanish(self.random.choice(list(self.world.workers)))
            self.hire() if not self.world.workers or self.random.random() < 0.6 else self.share_out()

    def pass_time(self) -> None:  # 12
        ms = self.random.choice([1, 10, 100, 1000, 2500])
        wall_ms = self.random.choice([ms, ms, ms, ms - 500, ms + 500])
        self.world.pass_time(ms, wall_ms)
        self.world.renew()

    def answer(self) -> None:  # 12
        if self.world.unanswered:
            place = self.random.randrange(len(self.world.unanswered))
            if self.random.random() < 0.2:
                del self.world.unanswered[place]
            else:
                self.world.answer(place)

    def hand_over(self) -> None:  # 2
        """A partition goes from one scheduler to the other; sometimes in the middle of a step that never commits."""
        world = self.world
        source, target = self.random.sample(list(world.engines), 2)
        owned = list(world.engines[source].partitions)
        moving = self.random.sample(owned, self.random.randint(0, len(owned)))
        if self.random.random() < 0.5:
            world.step(source, self.random.choice([1, 100]), commit=False)
            moving = owned  # its memory ran ahead of the log
        world.let_go(source, moving)
        world.take_over(target, moving)

    def crash(self) -> None:  # 1
        name = self.random.choice(list(self.world.engines))
        owned = list(self.world.engines[name].partitions)
        if self.random.random() < 0.5:
            self.world.step(name, self.random.choice([1, 100]), commit=False)
        self.world.crash(name)
        self.world.start(name, owned)

    def reset_offsets(self) -> None:  # 1
        """An operator sets the group's offsets back while nobody runs."""
        owned = {name: list(engine.partitions) for name, engine in self.world.engines.items()}
        for place in self.world.committed:
            self.world.committed[place] = self.random.randint(0, self.world.committed[place])
        for name, partitions in owned.items():
            self.world.crash(name)
            self.world.start(name, partitions)

    ACTIONS = (
        [publish] * 30 + [publish_keyless] * 2 + [publish_rubbish] * 2 + [step] * 40 + [claim] * 15 + [begin] * 15
        + [end] * 15 + [progress] * 2 + [repeat_a_report] * 4 + [lose_a_worker] + [pass_time] * 12 + [answer] * 12
        + [hand_over] * 2 + [crash] + [reset_offsets]
    )  # fmt: skip

    def run(self, actions: int) -> None:
        for _ in range(actions):
            self.random.choice(self.ACTIONS)(self)
            self.judge.hear(self.world)

    # -- what must hold

    def check_right_to_run(self, execution: Execution) -> None:
        """G4: it runs again only after a lost worker, or after its own outcome asked for it."""
        *before, _ = self.world.history[execution.dispatch.partition, execution.task.sequence]
        for earlier in before:
            assert earlier.ended not in (ReportKind.SUCCEEDED, ReportKind.REJECTED)
            if earlier.ended is None:
                assert earlier.worker not in self.world.workers, "it runs again although its worker lives"
        assert state_json(execution.state) == self.states.get(execution.group), "G8: an old state"

    def finish(self) -> None:
        """The faults are over: everything moves, everything ends, and nothing is left behind."""
        world = self.world
        if not world.workers:
            self.hire()
        self.share_out()
        for _ in range(300):
            for name in world.engines:
                world.step(name)
                world.check_memory(name)
            world.answer_all()
            self.serve(list(world.workers.values()))
            world.pass_time(world.lease_ms // 4)
            world.renew()
            if self.is_at_rest():
                break
        for name in world.engines:
            world.step(name)
        self.judge.hear(world)
        self.check_end()

    def is_at_rest(self) -> bool:
        world = self.world
        unread = any(at < len(world.logs[place]) for read in world.positions.values() for place, at in read.items())
        partitions = [p for engine in world.engines.values() for p in engine.partitions.values()]
        return not unread and not any(e.group.head for p in partitions for e in p.entries.values())

    def serve(self, workers: list[Worker]) -> None:
        for worker in workers:
            while self.world.claim(worker):
                pass
            for execution in list(worker.claimed):
                if self.world.begin(execution):
                    self.check_right_to_run(execution)
            for execution in list(worker.running):
                self.end_with(execution, ReportKind.SUCCEEDED)

    def check_end(self) -> None:
        world, judge = self.world, self.judge
        assert judge.terminal == Counter(self.published), "G3: each task has exactly one terminal state"
        assert all(not story.queue and story.out is None for story in judge.stories.values())
        told = {group: story.state for group, story in judge.stories.items() if story.state is not None}
        assert told == {group: state for group, state in self.states.items() if state is not None}
        left = {key for table in world.tables.values() for key in table}
        left -= {key for key in left if key[:1] == b"D"}  # open dead letters
        assert left == {rows.PARTITION_KEY} | {rows.state_key(g.encode()) for g in told}, "idle groups leave no row"
        kept = [p for e in world.engines.values() for p in e.partitions.values()]
        assert not any(p.entries for p in kept), "idle groups leave no memory"
        assert {key.decode() for p in kept for key in p.states} == told.keys(), "but for their state"
        for engine in world.engines.values():
            assert not engine.unclaimed and not engine.running and not len(engine.ready) and not len(engine.watch)
        self.check_order()

    def check_order(self) -> None:
        """Within a group, sequences follow the order in which the records stand in the group's partition."""
        for partition in range(N):
            accepted = [e for e in self.world.events(partition) if e.state is S.PARKED and e.origin_offset is not None]
            assert all(home_partition((e.group or "").encode(), N) == partition for e in accepted)
            stands = {p: i for i, p in enumerate(self.places_at_home(partition))}
            order = [stands[e.origin_partition, e.origin_offset] for e in accepted]  # type: ignore[index]
            assert order == sorted(order)

    def places_at_home(self, partition: int) -> list[tuple[int, int]]:
        places = []
        for offset, record in enumerate(self.world.logs["tasks", partition]):
            origin = record and record[2] and record[2][-1]
            if origin and origin[0] == "pstp.origin":
                parts = (origin[1] or b"").split(b":")
                places.append((int(parts[0]), int(parts[1])))
            else:
                places.append((partition, offset))
        return places


def run(seed: int, actions: int = 400) -> Play:
    play = Play(seed, run_ms=1_000 if seed % 2 else 0)
    play.run(actions)
    play.finish()
    return play


@pytest.mark.parametrize("seed", range(40))
def test_any_history_keeps_the_promise(seed: int) -> None:
    run(seed)


def test_histories_hold_what_they_should_try() -> None:
    """A driver that never gets to something proves nothing about it."""
    counts: Counter[Any] = Counter()
    for seed in range(100, 105):
        play = run(seed, 600)
        for event in play.world.events():
            counts[event.kind] += 1
            counts[event.state] += 1
            counts[event.reason] += 1
    for kind in (EventKind.GROUP_STATE, EventKind.PROGRESS, EventKind.STALE_REPORT):
        assert counts[kind], kind
    for state in set(S) - {S.CANCELLING, S.CANCELLED, S.SKIPPED}:
        assert counts[state], state
    for reason in (
        Reason.WORKER_LOST, Reason.LOST_BEFORE_START, Reason.ATTEMPTS_SPENT, Reason.HANDLER_REJECTED, Reason.SNOOZED,
        Reason.ABANDONED, Reason.RETURNED, Reason.TAKEN_BACK, Reason.NO_GROUP, Reason.BAD_JSON,
    ):  # fmt: skip
        assert counts[reason], reason
