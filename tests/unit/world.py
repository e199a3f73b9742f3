"""Kafka, schedulers, workers and both clocks in one process, for tests of the engine.

Nothing here decides anything that the engine decides: logs only grow, workers do what real ones may do, and what ran
when is known for certain (`executing`), so that what the engine says can be held against it.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec
from msgspec import Raw

from streams import limits, protocol, rows
from streams.clock import Now
from streams.engine import Engine, Input, Output
from streams.group import Group
from streams.murmur2 import home_partition
from streams.partition import INPUTS, load
from streams.protocol import (
    PROTOCOL,
    Completion,
    Dispatch,
    ErrorInfo,
    Event,
    HandlerPolicy,
    Member,
    Moment,
    Reason,
    Report,
    ReportKind,
)
from streams.retry import Policy
from streams.rows import Headers
from streams.transaction import OUTPUTS
from tests.support.recount import difference

N, M = 3, 3
LEASE_MS = 10_000
MARGIN_MS = 2_000
POLICY = Policy(max_attempts=3, backoff_base_s=0.2, backoff_cap_s=1.0)
Record = tuple[bytes | None, bytes | None, Headers]
Place = tuple[str, int]


@dataclass(eq=False)
class Execution:
    """A task of a claimed dispatch, and what became of it.  `rest`: what of the run is to come after it."""

    worker: str
    dispatch: Dispatch
    partition: int
    offset: int
    claimed_ms: int
    renewed_ms: int = 0
    ended: ReportKind | None = None
    task: protocol.DispatchedTask = field(init=False)
    rest: tuple[protocol.DispatchedTask, ...] = field(init=False)
    state: protocol.MaybeRaw = field(init=False)

    def __post_init__(self) -> None:
        self.task, *rest = self.dispatch.tasks
        self.rest, self.state = tuple(rest), self.dispatch.state

    def next(self, state: protocol.MaybeRaw) -> "Execution":
        """The next task of the run; `state`: what it is given."""
        following = Execution(self.worker, self.dispatch, self.partition, self.offset, self.claimed_ms)
        following.task, following.rest, following.state = self.rest[0], self.rest[1:], state
        return following

    @property
    def claim_id(self) -> str:
        return f"claim-{self.partition}-{self.offset}"

    @property
    def group(self) -> str:
        return self.dispatch.group


@dataclass
class Worker:
    name: str
    partitions: tuple[int, ...]
    slots: int = 4
    types: tuple[str, ...] = ("t",)
    claimed: list[Execution] = field(default_factory=list)
    running: list[Execution] = field(default_factory=list)

    def member(self) -> Member:
        return Member(
            PROTOCOL, self.name, "boot", "worker", "host", 1, 0,
            partitions=self.partitions, slots=self.slots, types=self.types,
        )  # fmt: skip


class World:
    def __init__(self, *, lease_ms: int = LEASE_MS, policy: Policy = POLICY, run_ms: int = 0) -> None:
        self.lease_ms, self.policy, self.run_ms = lease_ms, policy, run_ms
        self.now = Now(1_900_000_000_000, 1_000_000)
        self.wall_ms_max = self.now.wall_ms
        self.logs: dict[Place, list[Record | None]] = defaultdict(list)  # None: a transaction's marker
        self.committed: dict[Place, int] = defaultdict(int)
        self.tables: dict[int, dict[bytes, bytes]] = {n: {} for n in range(N)}
        self.engines: dict[str, Engine] = {}
        self.positions: dict[str, dict[Place, int]] = {}
        self.workers: dict[str, Worker] = {}
        self.claims: dict[int, int] = dict.fromkeys(range(M), 0)  # what workers have committed
        self.executing: dict[str, Execution] = {}
        self.history: dict[tuple[int, int], list[Execution]] = defaultdict(list)  # by (partition, sequence)
        self.tokens_seen: dict[int, int] = defaultdict(int)  # highest that was given out, committed or not
        self.unanswered: list[Any] = []

    def pass_time(self, ms: int, wall_ms: int | None = None) -> None:
        self.now = Now(self.now.wall_ms + (ms if wall_ms is None else wall_ms), self.now.mono_ms + ms)
        self.wall_ms_max = max(self.wall_ms_max, self.now.wall_ms)

    # -- Kafka

    def append(self, topic: str, partition: int, key: bytes | None, value: bytes | None, headers: Headers = []) -> int:  # noqa: B006
        log = self.logs[topic, partition]
        log.append((key, value, list(headers)))
        return len(log) - 1

    def publish(
        self, group: str, task_type: str = "t", *, partition: int | None = None, **fields: Any
    ) -> tuple[int, int]:
        """A task, at home unless told otherwise; returns where it stands."""
        key = group.encode()
        home = home_partition(key, N) if partition is None else partition
        value = msgspec.json.encode({"type": task_type, **fields})
        return home, self.append("tasks", home, key, value)

    def records(self, topic: str, partition: int | None = None) -> Iterator[Record]:
        for (name, number), log in sorted(self.logs.items()):
            if name == topic and partition in (None, number):
                yield from (record for record in log if record is not None)

    def events(self, partition: int | None = None) -> list[Event]:
        return [
            e for _, value, _ in self.records("task-events", partition) for e in protocol.decode_events(value or b"")
        ]

    def states(self, group: str) -> list[str]:
        return [e.state.value for e in self.events() if e.group == group and e.state is not None]

    # -- schedulers

    def start(self, name: str = "s1", partitions: Iterable[int] = range(N), **more: Any) -> Engine:
        """A scheduler that takes over these partitions; `more` is for its engine."""
        self.engines[name] = Engine(
            instance=name, boot_id=f"boot-{name}", owner=f"pstp-{name}", partitions=N, lease_s=self.lease_ms / 1000,
            task_bytes_max=limits.TASK_BYTES_MAX, policy=self.policy, **{"run_ms": self.run_ms} | more,
        )  # fmt: skip
        self.positions[name] = {}
        self.take_over(name, partitions)
        return self.engines[name]

    def take_over(self, name: str, partitions: Iterable[int]) -> None:
        engine = self.engines[name]
        for number in partitions:
            partition = load(number, dict(self.tables[number]))
            engine.adopt(partition, self.now)
            assert partition.counter > self.tokens_seen[number], "a successor's numbers are above all given out"
            for topic in INPUTS:
                self.positions[name][topic, number] = self.committed[topic, number]
            self.commit(engine, engine.stamp(number, released=False))

    def let_go(self, name: str, partitions: Iterable[int]) -> None:
        """Cleanly or not: what is in the log is all that counts."""
        for number in list(partitions):
            self.engines[name].drop(number)
            for topic in INPUTS:
                del self.positions[name][topic, number]

    def crash(self, name: str) -> None:
        del self.engines[name], self.positions[name]

    def step(self, name: str = "s1", limit: int = 1000, *, commit: bool = True, quiet: bool = False) -> list[Output]:
        """Read up to `limit` records of each input, decide, and commit unless told otherwise."""
        engine = self.engines[name]
        inputs, ends = self._fetch(name, limit)
        after = self._after(name, limit)
        engine.members = self.members()
        outputs = engine.step([] if quiet else inputs, {} if quiet else ends, self.now)
        for number, partition in engine.partitions.items():
            self.tokens_seen[number] = max(self.tokens_seen[number], partition.counter)
        if commit:
            self.commit(engine, outputs)
            if not quiet:
                self.positions[name] |= after
            self._ask(engine)
        return outputs

    def members(self) -> list[Member]:
        schedulers = [
            Member(
                PROTOCOL, name, f"boot-{name}", "scheduler", "host", 1, self.now.wall_ms,
                partitions=tuple(engine.partitions), unclaimed=dict(engine.unclaimed),
                running=dict(engine.running), demand=engine.demand(),
            )
            for name, engine in self.engines.items()
        ]  # fmt: skip
        return [*schedulers, *(worker.member() for worker in self.workers.values())]

    def _after(self, name: str, limit: int) -> dict[Place, int]:
        return {place: min(at + limit, len(self.logs[place])) for place, at in self.positions[name].items()}

    def _fetch(self, name: str, limit: int) -> tuple[list[Input], dict[Place, int]]:
        inputs, ends = [], {}
        for place, at in self.positions[name].items():
            log, upto = self.logs[place], self._after(name, limit)[place]
            inputs += [Input(*place, at + i, *r) for i, r in enumerate(log[at:upto]) if r is not None]  # type: ignore[arg-type]
            if upto == len(log):
                ends[place] = upto
        return inputs, ends

    def commit(self, engine: Engine, outputs: list[Output]) -> None:
        """One transaction.  Its positions fence it, so it must carry those of all partitions for which it speaks."""
        touched = {o.partition for o in outputs if o.topic == "changelog"}
        assert {o.topic for o in outputs} <= set(OUTPUTS), "a successor ends what hangs there"
        assert {self._source(output) for output in outputs} <= touched
        for output in outputs:
            if output.topic == "changelog":
                self._fold(output)
                continue
            self.append(output.topic, output.partition, output.key, output.value, output.headers or [])
        for place in {(o.topic, o.partition) for o in outputs if o.topic in ("tasks", "commands")}:
            self.logs[place].append(None)
        for number in touched:
            for topic in INPUTS:
                self.committed[topic, number] = engine.partitions[number].read_up_to[topic]

    def _source(self, output: Output) -> int:
        if output.topic in ("dispatches", "control"):
            return home_partition(output.key or b"", N)
        if output.topic in ("tasks", "commands"):
            return int(dict(output.headers or [])["pstp.origin"].split(b":")[0])  # type: ignore[union-attr]
        return output.partition

    def _fold(self, output: Output) -> None:
        assert output.key is not None
        if output.value is None:
            self.tables[output.partition].pop(output.key, None)
        else:
            self.tables[output.partition][output.key] = output.value

    def _ask(self, engine: Engine) -> None:
        for partition, number in engine.watch.ends_wanted().items():
            end = len(self.logs["completions", partition])
            self.unanswered.append(lambda w, p=partition, n=number, e=end: w.end_found(p, n, e))
            self.unanswered[-1].engine = engine
        for dispatch_partition, outs in engine.watch.claims_wanted().items():
            unclaimed = self.unclaimed(dispatch_partition)
            self.unanswered.append(lambda w, o=outs, u=unclaimed: w.claims_found(o, u, self.now.mono_ms))
            self.unanswered[-1].engine = engine

    def answer(self, place: int = 0) -> None:
        answer = self.unanswered.pop(place)
        answer(answer.engine.watch)

    def answer_all(self) -> None:
        while self.unanswered:
            self.answer()

    def unclaimed(self, dispatch_partition: int) -> set[tuple[int, int]]:
        waiting = self.logs["dispatches", dispatch_partition][self.claims[dispatch_partition] :]
        dispatches = [protocol.decode_dispatch(r[1] or b"") for r in waiting if r]
        return {(dispatch.partition, task.token) for dispatch in dispatches for task in dispatch.tasks}

    # -- workers

    def hire(self, name: str = "w1", partitions: Iterable[int] = range(M), **more: Any) -> Worker:
        self.workers[name] = Worker(name, tuple(partitions), **more)
        return self.workers[name]

    def claim(self, worker: Worker) -> Execution | None:
        """Take the next dispatch, if there is one and a slot for it.  One that was taken back is returned at once."""
        if len(worker.claimed) + len(worker.running) >= worker.slots:
            return None
        for partition in worker.partitions:
            log, offset = self.logs["dispatches", partition], self.claims[partition]
            if offset < len(log):
                self.claims[partition] += 1
                record = log[offset]
                assert record is not None
                dispatch = protocol.decode_dispatch(record[1] or b"")
                execution = Execution(worker.name, dispatch, partition, offset, self.now.mono_ms)
                if self.is_wanted_back(execution):
                    self.give_back(execution, Reason.TAKEN_BACK)
                else:
                    worker.claimed.append(execution)
                return execution
        return None

    def is_wanted_back(self, execution: Execution) -> bool:
        controls = [protocol.decode_control(value or b"") for _, value, _ in self.records("control")]
        tokens = {(execution.group, task.token) for task in execution.dispatch.tasks}
        return not tokens.isdisjoint((control.group, control.token) for control in controls)

    def cut_runs(self) -> None:
        """Workers read `control`: what is wanted back and has not begun comes back."""
        for worker in self.workers.values():
            for execution in worker.running:
                if execution.rest and self.is_wanted_back(execution):
                    rest, execution.rest = execution.rest, ()
                    self.tell(execution, *returned(rest, Reason.TAKEN_BACK))

    def give_back(self, execution: Execution, reason: Reason) -> None:
        self.tell(execution, *returned((execution.task, *execution.rest), reason))

    def begin(self, execution: Execution, policy: HandlerPolicy | None = None) -> bool:
        """Start what is claimed, if that is still allowed; give it back if not."""
        self.workers[execution.worker].claimed.remove(execution)
        if self.now.mono_ms - execution.claimed_ms >= self.lease_ms - MARGIN_MS:
            self.give_back(execution, Reason.LOST_BEFORE_START)
            return False
        self.say(execution, ReportKind.STARTED, started=self.moment(), policy=policy)
        self._run(execution)
        return True

    def _run(self, execution: Execution) -> None:
        assert execution.group not in self.executing, "two tasks of one group run at once"
        self.executing[execution.group] = execution
        self.history[execution.dispatch.partition, execution.task.sequence].append(execution)
        self.workers[execution.worker].running.append(execution)
        execution.renewed_ms = self.now.mono_ms

    def end(
        self, execution: Execution, kind: ReportKind = ReportKind.SUCCEEDED, *, alone: bool = False, **fields: Any
    ) -> Execution | None:
        """What begins next, if its run goes on: `alone` says that it does not, as when its worker drains."""
        self.workers[execution.worker].running.remove(execution)
        del self.executing[execution.group]
        execution.ended = kind
        if kind is ReportKind.FAILED:
            fields = {"error": ErrorInfo("ValueError", "no")} | fields
        if kind is not ReportKind.RETURNED:
            fields = {"started": self.moment(), "ended": self.moment()} | fields
        ended = Report(kind, execution.task.sequence, execution.task.token, **fields)
        if kind is not ReportKind.SUCCEEDED or not execution.rest or alone:
            self.tell(execution, ended, *returned(execution.rest, Reason.RETURNED))
            return None
        following = execution.next(fields["state"] if fields.get("state_set") else execution.state)
        task = following.task
        began = Report(ReportKind.STARTED, task.sequence, task.token, started=self.moment())
        self.tell(execution, ended, began)
        self._run(following)
        return following

    def moment(self) -> Moment:
        return Moment(self.now.wall_ms, self.now.mono_ms * 1_000_000, "clock")

    def say(self, execution: Execution, kind: ReportKind, **fields: Any) -> None:
        self.tell(execution, Report(kind, execution.task.sequence, execution.task.token, **fields))

    def tell(self, execution: Execution, *reports: Report) -> None:
        completion = Completion(
            PROTOCOL, execution.group, execution.worker, "boot", execution.claim_id, execution.partition,
            execution.offset, reports,
        )  # fmt: skip
        self.append(
            "completions", execution.dispatch.partition, execution.group.encode(), protocol.encode(completion)
        )  # fmt: skip

    def renew(self) -> None:
        """What runs says so each third of a lease."""
        for worker in self.workers.values():
            for execution in worker.running:
                if self.now.mono_ms - execution.renewed_ms >= self.lease_ms / 3:
                    self.say(execution, ReportKind.RENEWED)
                    execution.renewed_ms = self.now.mono_ms

    def vanish(self, name: str) -> Worker:
        """The worker is gone, and what it ran with it."""
        worker = self.workers.pop(name)
        for execution in worker.running:
            del self.executing[execution.group]
        return worker

    def work_off(self, name: str = "s1", rounds: int = 200) -> None:
        """Let everything go well until nothing moves any more."""
        for _ in range(rounds):
            before = sum(map(len, self.logs.values()))
            for engine in list(self.engines):
                self.step(engine)
            self.answer_all()
            for worker in list(self.workers.values()):
                while self.claim(worker):
                    pass
                for execution in list(worker.claimed):
                    self.begin(execution)
                for execution in list(worker.running):
                    self.end(execution)
            self.cut_runs()
            if sum(map(len, self.logs.values())) == before and not self.executing:
                return
        raise AssertionError("it never comes to rest")

    # -- what memory and log say

    def check_memory(self, name: str = "s1") -> None:
        """Whoever loads what is in the log has what this engine has in memory."""
        engine = self.engines[name]
        for number, partition in engine.partitions.items():
            successor = Engine(
                instance="next", boot_id="b", owner="o", partitions=N, lease_s=1, task_bytes_max=1 << 20,
                policy=self.policy,
            )  # fmt: skip
            loaded = load(number, dict(self.tables[number]))
            assert (loaded.next_offsets, loaded.origins) == (partition.next_offsets, partition.origins)
            assert loaded.counter == partition.counter
            # A head whose `not_before` has passed has no row; a wall clock that went back would make it wait again.
            successor.adopt(loaded, Now(self.wall_ms_max, self.now.mono_ms))
            assert picture(loaded.entries.values()) == picture(partition.entries.values())
            assert loaded.states == partition.states
            assert loaded.entries.keys() == partition.entries.keys()
        check_slots(engine)
        assert difference(engine) == ""

    def rows_of_group(self, group: str) -> list[bytes]:
        key = group.encode()
        return [k for k in self.tables[home_partition(key, N)] if k != rows.PARTITION_KEY and k.endswith(key)]


def returned(tasks: Iterable[protocol.DispatchedTask], reason: Reason) -> tuple[Report, ...]:
    return tuple(Report(ReportKind.RETURNED, task.sequence, task.token, reason=reason) for task in tasks)


def picture(entries: Iterable[Any]) -> dict[bytes, tuple[Any, ...]]:
    """What matters of groups in memory."""
    return {e.key: (e.group, e.task, e.row, list(e.parked), e.holds, e.commands) for e in entries}


def check_slots(engine: Engine) -> None:
    """The slots that are taken, counted afresh."""
    entries = [e for p in engine.partitions.values() for e in p.entries.values()]
    out: list[tuple[Any, Any]] = [(e.group.head, e.task) for e in entries if e.group.phase in ("dispatched", "running")]
    assert len(out) == sum(e.holds is not None for e in entries)
    assert engine.unclaimed == Counter(h.dispatch_partition for h, _ in out if not h.claim_id)
    assert engine.running == Counter(h.worker for h, _ in out if h.claim_id)
    assert engine.out == Counter(task.type for _, task in out)
    assert not any(0 in counts.values() for counts in (engine.unclaimed, engine.running, engine.out))


def group_of(world: World, name: str, engine: str = "s1") -> Group:
    key = name.encode()
    return world.engines[engine].partitions[home_partition(key, N)].entries[key].group


def state_json(state: Any) -> Any:
    return None if state is None else msgspec.json.decode(Raw(bytes(state)))
