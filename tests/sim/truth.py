"""What really happened, as nobody in the system can know it: which handler ran when, in which process, on what.

`Truth` is the independent model against which G1 to G8 are held.  It sees handlers begin and end, records enter the
logs and transactions commit, and knows nothing of how the engine decides.  Each check is made at the step at which it
could first fail, with what was committed by then.
"""

from typing import Any

import msgspec

from consumers import Task as Job
from consumers.leases import Lease, Stop
from streams.engine import ORIGIN_HEADER
from streams.murmur2 import home_partition
from streams.protocol import (
    TERMINAL,
    Event,
    EventKind,
    FailurePolicy,
    Reason,
    Report,
    ReportKind,
    TaskState,
    decode_dispatch,
    decode_events,
)
from tests.sim.broker import Broker, Message, Txn
from tests.sim.here import Here
from tests.sim.loop import MS, Loop, Process, S, Violation
from tests.sim.orders import Orders
from tests.sim.scenario import Behaviour, Scenario, TaskPlan
from tests.sim.tale import BEGUN, Run, Tale, Task, policy

WORKER_GROUP = "pstp-workers"
MAX_ATTEMPTS = 5
WAKING_US = 250 * MS  # until a process that was frozen has looked at its leases
CLOCKS_US = 350 * MS  # by so much the clocks of two hosts differ
STATE = TaskState
ANOTHER = (Reason.FAILED, Reason.TIMEOUT, Reason.WORKER_LOST, Reason.ATTEMPTS_SPENT, Reason.RELEASED)
SPENT = (Reason.ATTEMPTS_SPENT, Reason.WORKER_LOST, Reason.RELEASED)
NEVER_RAN = {Reason.RETURNED, Reason.TAKEN_BACK, Reason.NO_HANDLER, Reason.LOST_BEFORE_START}
CAME_BACK = {
    Reason.FAILED: ReportKind.FAILED, Reason.TIMEOUT: ReportKind.FAILED,
    Reason.SNOOZED: ReportKind.SNOOZED, Reason.ABANDONED: ReportKind.ABANDONED,
}  # fmt: skip


class Truth:
    """`is_blind`: notes what happens and judges nothing, so that another can."""

    def __init__(self, scenario: Scenario, loop: Loop, broker: Broker, *, is_blind: bool = False) -> None:
        self.loop, self.broker, self._scenario, self.is_blind = loop, broker, scenario, is_blind
        self.tales: dict[str, Tale] = {}
        self.tasks: dict[tuple[int, int], Task] = {}  # by place
        self.by_sequence: dict[tuple[int, int], Task] = {}  # by (home, sequence)
        self.by_number: dict[int, Task] = {}
        self.runs: dict[tuple[int, int], Run] = {}  # by (home, token)
        self.tables: dict[int, dict[bytes, bytes]] = {n: {} for n in range(scenario.partitions)}
        self.lives: dict[str, list[Process]] = {}  # all lives of each instance
        self.claimants: dict[tuple[int, int], Process] = {}  # who has said `started`, by (home, token)
        self.dead: set[tuple[int, int]] = set()  # dead-lettered, by (home, sequence): nobody redrives them here
        self.drained: set[Process] = set()  # left on SIGTERM
        self.orders = Orders(self, scenario)
        self.here = Here(self, scenario)
        self._instance = ""  # whose transaction is being heard
        self.seen: dict[tuple[str, str], Task] = {}  # by (group, idempotency key)
        self.waiting = [0] * scenario.partitions  # tasks without an end
        self._slots = {worker.name: worker.slots for worker in scenario.workers} | self.here.slots
        self._dispatched: set[tuple[int, int]] = set()  # tokens in committed dispatches, by (home, token)
        self._given: dict[tuple[int, int], Txn | None] = {}  # tokens, by (home, token)
        self.touched: dict[str, set[str]] = {}  # transactional id -> groups in its latest transaction
        self.outages: list[tuple[int, int]] = []
        self.counts: dict[str, int] = {}
        # Where clocks are set wrong, times of day say nothing.
        self._clocks_agree = all(fault.kind != "wall_jump" for fault in scenario.faults)
        self._read_to = [0] * scenario.partitions
        # Shorter troubles than this must not cost a worker its lease.
        self.patience_us = int((scenario.lease_s - 0.6) * S)

    # -- publishers

    def published(self, plan: TaskPlan, message: Message) -> Task:
        task = Task(plan, message, self.loop.now_us)
        self.tasks[message.partition(), message.offset()] = self.by_number[plan.number] = task
        return task

    def tale(self, group: str) -> Tale:
        tale = self.tales.get(group)
        if tale is None:
            tale = self.tales[group] = Tale(group)
        return tale

    def read_home(self, partition: int) -> None:
        """Extend each group's order by what has become visible in its partition."""
        log = self.broker.log("tasks", partition)
        messages, self._read_to[partition] = log.read(self._read_to[partition], 1_000_000, committed=True)
        for message in messages:
            headers = message.headers()
            name, value = headers[-1] if headers else ("", None)
            place = message.partition(), message.offset()
            if name == ORIGIN_HEADER and value is not None:
                origin = value.decode().split(":")
                place = int(origin[0]), int(origin[1])
            task = self.tasks[place]
            group = task.plan.group
            if not task.plan.rubbish and home_partition(group.encode(), self._scenario.partitions) == partition:
                order = self.tale(group).order
                if place == (message.partition(), message.offset()) or task not in order:
                    order.append(task)

    def written(self, message: Message) -> None:
        """A scheduler has written a dispatch, whatever becomes of its transaction."""
        if self.is_blind:
            return
        dispatch = decode_dispatch(message.value() or b"")
        for task in dispatch.tasks:
            key = dispatch.partition, task.token
            if key in self._given and self._given[key] is not message.txn:
                raise Violation("G1", f"token {task.token} is given out twice", dispatch.group)
            self._given[key] = message.txn

    # -- handlers

    def begin(self, process: Process, job: Job, lease: Lease) -> Behaviour:
        """A handler begins."""
        group = job.group
        partition, _, offset = job.id.partition("-")
        task, tale, home = self.tasks[int(partition), int(offset)], self.tale(group), self.home(group)
        here = self.here.is_here(process)
        is_told = (home, job.fencing_token) in self.here.told
        if not self.is_blind:
            self._judge_alone(tale, job, here=here)
            if here:
                self.here.judge_repeat(tale, task, job, is_told=is_told)
            if here and not is_told:
                self.here.judge_begin(tale, task, job)
            elif job.fencing_token not in tale.released:
                self._judge_begin(tale, task, job, lease)
            self.here.judge_place(task, process)
            self._judge_slots(process)
        script = task.plan.behaviours
        behaviour = script[len(task.runs)] if len(task.runs) < len(script) else Behaviour("ok", 5)
        run = Run(task, process, job, lease, behaviour, self.loop.now_us)
        task.runs.append(run)
        self.runs[home, job.fencing_token] = tale.latest = run
        tale.live.append(run)
        run.told = is_told
        if here and not is_told:
            tale.untold.append(run)
        self.count("executions here" if here else "executions")
        self.note(f"{process.name}: {group} begins {job.id} attempt {job.attempt} token {job.fencing_token}")
        return behaviour

    def _judge_alone(self, tale: Tale, job: Job, *, here: bool) -> None:
        """G1."""
        if job.fencing_token in tale.released or (here and self.here.may_be_released(tale)):
            return
        for other in tale.live:
            if other.is_live and not self._is_zombie(other) and other.token not in tale.released:
                raise Violation("G1", f"task {job.id} begins while {other.job.id} runs", tale.name)
        tale.live = [run for run in tale.live if run.is_live]
        if (self.home(tale.name), job.fencing_token) in self.runs:
            raise Violation("G1", f"task {job.id} begins twice under token {job.fencing_token}", tale.name)
        goes_on = here and self.here.may_go_on(tale)
        if tale.is_still and job.fencing_token != tale.still_token and not goes_on:
            raise Violation("commands", f"task {job.id} begins after the pause was answered", tale.name)

    def _judge_begin(self, tale: Tale, task: Task, job: Job, lease: Lease) -> None:
        """G2, G4 and G8 are decided here, for what begins only after it is committed that it does."""
        group, token = tale.name, job.fencing_token
        before = self._before(tale, job, lease)
        place = len(before or ())
        if tale.queue[place : place + 1] != [task]:
            raise Violation("G2", f"task {job.id} begins out of its turn", group)
        if before is None:
            raise Violation("G4", f"task {job.id} begins under token {token}, {tale.phase} is {tale.token}", group)
        attempt, due_us = (1, self._due_us(task)) if before else (tale.attempt, tale.due_us)
        if job.attempt != attempt:
            raise Violation("G4", f"task {job.id} begins as attempt {job.attempt}, not {attempt}", group)
        states = [tale.state, *(msgspec.json.decode(run.new_state) for run in before if run.new_state is not None)]
        self.judge_given(tale, task, job, self.loop.now_us, due_us, states[-1])
        if before:
            self.count("executions behind another one in its run")

    def judge_given(self, tale: Tale, task: Task, job: Job, began_us: int, due_us: int, state: Any) -> None:
        """When it has begun, and what it was given."""
        if began_us < due_us:
            raise Violation("G2", f"task {job.id} begins {(due_us - began_us) // MS} ms early", tale.name)
        if job.state != state:
            raise Violation("G8", f"task {job.id} is given {job.state}, not {state}", tale.name)
        if job.payload != task.payload:
            raise Violation("commands", f"task {job.id} is given {job.payload}, not {task.payload}", tale.name)

    def _before(self, tale: Tale, job: Job, lease: Lease) -> list[Run] | None:
        """Those before it in its dispatch that have succeeded without being told of, the head of the tale first.  None:
        it has no right to run.
        """
        home, token = self.home(tale.name), job.fencing_token
        if tale.phase not in BEGUN or not 0 <= token - tale.token < len(tale.queue):
            return None
        before = [self.runs.get((home, earlier)) for earlier in range(tale.token, token)]
        is_one = all(run is not None and run.lease is lease and run.kind is ReportKind.SUCCEEDED for run in before)
        return [run for run in before if run is not None] if is_one else None

    def _judge_slots(self, process: Process) -> None:
        runs = sum(run.is_live and run.process is process for tale in self.tales.values() for run in tale.live)
        if runs >= self._slots.get(process.name, runs + 1):
            raise Violation("limits", f"{process.name} runs more than {runs} tasks at once")

    def home(self, group: str) -> int:
        return home_partition(group.encode(), self._scenario.partitions)

    def _is_zombie(self, run: Run) -> bool:
        """Frozen past its lease, or woken from that just now; its lease keeper has a moment to end it.

        A process whose other threads are held up by what waits above them on the stack of the simulator is none: its
        lease keeper goes on.  Only where that itself is held up, as no real one would be, it counts as frozen.
        """
        if run.lease.until_ns > self.loop.now_us * 1000 + run.process.mono_offset_ms * 1_000_000:
            return False
        is_held_up = run.process.is_looking and bool(run.process.held_up())
        return run.process.frozen or is_held_up or self._has_just_woken(run.process)

    def _has_just_woken(self, process: Process) -> bool:
        return self.loop.now_us - process.thawed_us < WAKING_US

    def _run_of(self, job: Job) -> Run | None:
        run = self.runs.get((self.home(job.group), job.fencing_token))
        return run if run is not None and run.job is job else None

    def is_running(self, job: Job) -> bool:
        run = self._run_of(job)
        return run is not None and run.is_live

    def behaviour_of(self, job: Job) -> Behaviour:
        run = self._run_of(job)
        assert run is not None
        return run.behaviour

    def end(self, job: Job, kind: ReportKind, stop: Stop | None, *, state_set: bool) -> None:
        run = self._run_of(job)
        assert run is not None
        process, tale = run.process, self.tale(job.group)
        is_over = tale.latest is not run if self.here.is_here(process) else self._before(tale, job, run.lease) is None
        if not self.is_blind and is_over and run.token not in tale.released and not self._has_just_woken(process):
            raise Violation("G1", f"task {job.id} has gone on after its lease", tale.name)
        run.ended_us, run.kind, run.stop = self.loop.now_us, kind, stop
        if state_set:
            run.new_state = job.new_state
        self.note(f"{process.name}: {job.group} ends {job.id} {kind}")

    def has_said(self, process: Process, home: int, report: Report) -> None:
        """A worker is about to report this."""
        if report.kind is ReportKind.STARTED:
            self.claimants[home, report.token] = process

    def has_drained(self, process: Process) -> None:
        self.drained.add(process)

    # -- what is committed

    def committed(self, txn: Txn) -> None:
        """A transaction of a scheduler is committed; its history must be true."""
        if self.is_blind:
            self._count_ends(txn)
            return
        touched = self.touched[txn.tid] = set()
        self.here.begun.clear()
        self._instance = txn.tid.rpartition("-")[2]
        for message in txn.records:
            if message.topic() == "dispatches":
                self._in_the_log(message)
        for message in txn.records:
            match message.topic():
                case "task-events":
                    for event in decode_events(message.value() or b""):
                        self._hear(message.partition(), event)
                        touched.add(event.group or "")
                case "pstp-groups-changelog":
                    table, key = self.tables[message.partition()], message.key() or b""
                    value = message.value()
                    if value is None:
                        table.pop(key, None)
                    else:
                        table[key] = value
                case "dead-letters":
                    self._check_dead_letter(message)
        self.here.check_begun()
        self.orders.check_limits(touched)
        self.orders.probes.committed()

    def _in_the_log(self, message: Message) -> None:
        dispatch = decode_dispatch(message.value() or b"")
        self._dispatched.update((dispatch.partition, task.token) for task in dispatch.tasks)

    def _count_ends(self, txn: Txn) -> None:
        """All that is needed to know when a world is done."""
        for message in txn.records:
            for event in decode_events(message.value() or b"") if message.topic() == "task-events" else ():
                key = message.partition(), event.sequence or 0
                if event.origin_offset is not None:
                    self.by_sequence[key] = self.tasks[event.origin_partition or 0, event.origin_offset]
                if event.state is STATE.REJECTED or event.kind is EventKind.DUPLICATE:
                    self.tasks[event.origin_partition or 0, event.origin_offset or 0].terminals += 1
                elif event.state in TERMINAL and key in self.by_sequence:
                    self.by_sequence[key].terminals += 1

    def _check_dead_letter(self, message: Message) -> None:
        marks = dict(message.headers() or [])
        task = self.tasks.get((int(marks["pstp.partition"] or 0), int(marks["pstp.offset"] or 0)))
        if task is not None and "edited" in task.payload:
            return
        if task is None or (message.key(), message.value()) != (task.message.key(), task.message.value()):
            raise Violation("G3", "a dead letter is not what was published")

    def _hear(self, partition: int, event: Event) -> None:
        if event.kind is EventKind.GROUP_STATE:
            self._hear_state(self.tale(event.group or ""), event)
        if event.kind is not EventKind.TASK:
            self.count(str(event.kind))
            self.orders.hear(partition, event)
            return
        self.count(f"{event.state}")
        if event.reason is not None:
            self.count(f"{event.state} {event.reason}")
        if event.state is STATE.REJECTED:
            assert event.origin_partition is not None and event.origin_offset is not None
            task = self.tasks[event.origin_partition, event.origin_offset]
            self.finish(task, event)
            if not task.plan.rubbish:
                raise Violation("G3", f"a good task is rejected: {event.reason}, {event.note}", event.group)
            return
        tale = self.tale(event.group or "")
        self.note(
            f"       {tale.name} told {event.task_id} {event.state} {event.reason or ''} token {event.fencing_token}"
        )
        if tale.owes is not None:
            raise Violation("G8", "the state that a success carried was not applied", tale.name)
        tale.moved_us = self.loop.now_us
        if event.state is STATE.PARKED and event.origin_offset is not None:
            self._accepted(partition, tale, event)
        elif not self.orders.hear_of_task(partition, tale, event):
            self._moved(partition, tale, event)

    def _accepted(self, partition: int, tale: Tale, event: Event) -> None:
        task = self.next_in_order(partition, tale, event)
        task.sequence = event.sequence or 0
        self.by_sequence[partition, task.sequence] = task
        key = task.plan.idempotency_key
        if key and (first := self.seen.setdefault((tale.name, key), task)) is not task:
            raise Violation("G3", f"task {event.task_id} has the idempotency key of {first.id}", tale.name)
        self.enqueue(partition, tale, task)

    def next_in_order(self, partition: int, tale: Tale, event: Event) -> Task:
        """The task that the event is about, which must be the next of its group."""
        self.read_home(partition)
        task = self.tasks[event.origin_partition or 0, event.origin_offset or 0]
        if task.sequence >= 0 or task.terminals:
            raise Violation("G3", f"task {event.task_id} is accepted twice", tale.name)
        if tale.accepted >= len(tale.order) or tale.order[tale.accepted] is not task:
            raise Violation("G2", f"task {event.task_id} is accepted out of order", tale.name)
        tale.accepted += 1
        return task

    def enqueue(self, partition: int, tale: Tale, task: Task, *, by_number: bool = False) -> None:
        head = tale.head()
        if by_number:
            tale.back(task)
        else:
            tale.queue.append(task)
        self.waiting[partition] += 1
        if tale.head() is not head:
            tale.next()
            self._wait_for_time(tale, task)

    def leave(self, partition: int, tale: Tale, task: Task, event: Event) -> None:
        """It has come to an end, wherever it stood."""
        self.finish(task, event)
        was_head = tale.head() is task
        tale.queue.remove(task)
        self.waiting[partition] -= 1
        if event.state is STATE.DEAD_LETTERED:
            self.dead.add((partition, task.sequence))
        if was_head:
            tale.next()
            if (head := tale.head()) is not None:
                self._wait_for_time(tale, head)

    def _wait_for_time(self, tale: Tale, head: Task) -> None:
        tale.due_us = self._due_us(head) or tale.due_us

    def _due_us(self, task: Task) -> int:
        if task.plan.not_before_ms is None or not self._clocks_agree:
            return 0
        return task.published_us + task.plan.not_before_ms * MS - CLOCKS_US

    def _moved(self, partition: int, tale: Tale, event: Event) -> None:
        task = self.by_sequence.get((partition, event.sequence or 0))
        if task is None or task is not tale.head():
            raise Violation("G2", f"{event.task_id} is {event.state} and not the head of its group", tale.name)
        token, state = event.fencing_token or 0, event.state
        if state is STATE.DISPATCHED:
            if tale.phase not in (STATE.PARKED, STATE.RETRYING):
                raise Violation("G1", f"{event.task_id} is dispatched while it is {tale.phase}", tale.name)
            if token <= tale.last_token:
                raise Violation("G1", f"token {token} after {tale.last_token}", tale.name)
            self.orders.probes.dispatched(partition, tale, self._instance, event)
            if tale.paused or tale.blocked or task in tale.doomed:
                raise Violation("commands", f"{event.task_id} is dispatched, and its group must not move", tale.name)
            if (partition, token) not in self._dispatched:
                self.here.dispatched(tale, event, self._instance)
            tale.phase, tale.token, tale.last_token = STATE.DISPATCHED, token, token
            tale.unrun = False
            return
        if token != tale.token:
            raise Violation("G1", f"{event.task_id} is {state} under token {token}, not {tale.token}", tale.name)
        run = self.runs.get((partition, token))
        if state is STATE.RUNNING:
            if tale.phase is not STATE.DISPATCHED:
                raise Violation("G1", f"{event.task_id} is running after {tale.phase}", tale.name)
            tale.phase = STATE.RUNNING
            self.here.hear_running(partition, tale, task, run, event)
            return
        if tale.stopping and state is not STATE.SUCCEEDED:
            raise Violation("commands", f"{event.task_id} is {state} though it was being stopped", tale.name)
        self._check_end(tale, task, run, event)
        self.orders.probes.moved(partition, self._instance, event)
        if state in TERMINAL:
            if state is STATE.SUCCEEDED and run is not None and run.new_state is not None:
                tale.owes = run
            how = policy(task, self.orders.default_policy)
            if state is STATE.DEAD_LETTERED and event.reason in SPENT and how is not FailurePolicy.SKIP:
                if how is FailurePolicy.BLOCK:
                    raise Violation("commands", f"{event.task_id} is dead, and should block its group", tale.name)
                tale.doomed += [other for other in tale.queue if other is not task]
            self.leave(partition, tale, task, event)
            return
        if run is not None and run.ended_us >= 0 and event.not_before is not None and self._clocks_agree:
            delay_us = int((event.not_before - event.at).total_seconds() * S)
            tale.due_us = run.ended_us + delay_us - CLOCKS_US
        tale.attempt += event.reason in ANOTHER
        tale.phase = state or STATE.PARKED
        tale.unrun = event.reason in NEVER_RAN and tale.attempt == 1
        if event.attempt != tale.attempt:
            raise Violation("G7", f"{event.task_id} is told at attempt {event.attempt}, not {tale.attempt}", tale.name)

    def _check_end(self, tale: Tale, task: Task, run: Run | None, event: Event) -> None:
        """What is told about the end of an execution must be what happened."""
        reason, name = event.reason, event.task_id
        if event.state is STATE.SUCCEEDED:
            if run is None or run.kind is not ReportKind.SUCCEEDED:
                raise Violation("G7", f"{name} is told to have succeeded and has not", tale.name)
        elif reason == Reason.ATTEMPTS_SPENT:
            limit, spent = task.plan.max_attempts or MAX_ATTEMPTS, tale.attempt - tale.attempts_before
            if (
                run is None
                or run.kind is not ReportKind.FAILED
                or spent < limit
                or (spent > limit and not tale.one_more)
            ):
                raise Violation("G7", f"{name} has spent {tale.attempt} of {limit} attempts", tale.name)
        elif reason == Reason.HANDLER_REJECTED:
            if run is None or run.kind is not ReportKind.REJECTED:
                raise Violation("G7", f"{name} was not rejected by its handler", tale.name)
        elif reason == Reason.WORKER_LOST:
            self._check_lost(tale, run, event)
        elif reason == Reason.RELEASED:
            self.orders.check_released(tale, event)
        elif reason in NEVER_RAN:
            if run is not None:
                raise Violation("G7", f"{name} came back as {reason}, but it ran", tale.name)
        elif reason == Reason.ABANDONED and self.here.is_disturbed(
            self.claimants.get((self.home(tale.name), tale.token))
        ):
            return  # what it did was never told, and never will be
        elif run is None or run.kind != CAME_BACK.get(reason):  # type: ignore[call-overload]
            raise Violation("G7", f"{name} is {event.state} because of {reason}, which is not so", tale.name)
        elif reason == Reason.ABANDONED and run.stop is not Stop.DRAIN and not self.was_troubled(run.process):
            raise Violation("G4", f"{name} was abandoned although its worker was well", tale.name)

    def _check_lost(self, tale: Tale, run: Run | None, event: Event) -> None:
        """Only a worker that died or was cut off loses a task; one that leaves on SIGTERM, only what it could not end."""
        process = self.claimants[self.home(tale.name), event.fencing_token or 0]
        if self.was_troubled(process) or self.here.is_disturbed(process):
            return
        could_end = process in self.drained and (run is None or run.ended_us >= 0)
        if process.alive or could_end:
            raise Violation("G4", f"{event.task_id} is lost although its worker {process.name} was well", tale.name)

    def is_cut_off(self, run: Run) -> bool:
        """Whether it may go on although it is over for everybody else."""
        return not run.process.alive or self._is_zombie(run) or self.was_troubled(run.process)

    def was_troubled(self, process: Process) -> bool:
        """Whether it has been frozen or cut off for so long that leases may have run out."""
        since_us = self.loop.now_us - int(3 * self._scenario.lease_s * S)
        spans = sorted(
            (a, b) for a, b in [*process.trouble, *process.held_up(), *self.outages, *self.loop.jumps] if b > since_us
        )
        total_us = at_us = 0
        for begin_us, end_us in spans:
            begin_us = max(begin_us, at_us)
            if end_us > begin_us:
                total_us += end_us - begin_us
                at_us = end_us
        return total_us >= self.patience_us

    def finish(self, task: Task, event: Event) -> None:
        task.terminals += 1
        if task.terminals > task.submissions:
            raise Violation("G3", f"{event.task_id} is terminal twice, now {event.state}", event.group)

    def _hear_state(self, tale: Tale, event: Event) -> None:
        run = tale.owes
        if run is None or (run.task.sequence, run.token) != (event.sequence, event.fencing_token):
            raise Violation("G8", "group state is set without the success that carries it", tale.name)
        told = None if event.group_state is None else msgspec.json.decode(event.group_state)
        if told != msgspec.json.decode(run.new_state):
            raise Violation("G8", "group state is not what the handler left", tale.name)
        tale.state, tale.owes = told, None

    # --

    def count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1

    def note(self, text: str) -> None:
        """Set by the world when it traces."""

    def check_scheduler(self, life: Any) -> None:
        """G7: what the scheduler has in memory, and so shows, is what the history tells."""
        from tests.sim import memory

        if not self.is_blind:
            memory.check(self, life)
            self.orders.probes.check(life)
