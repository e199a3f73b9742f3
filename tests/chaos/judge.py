"""The verdict on a run: `pstp verify` with the handlers' journals, and what only this run can know.

What it adds: every acknowledged task has the end that its type, or what an operator did to it, leads to; what was
cancelled while it was parked never began; a publisher's order is kept per group; the state of each group has counted
each success once since it was last forgotten; executions do not overlap, an execution without an end lasting until its
process was gone, and one that an operator has released excepted; every repeat was asked for by the handler or is
explained by a fault; breakers go from open to closed by way of half open.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import msgspec

from pstp.verify import Options, Report, check_cluster
from pstp.verify.reader import TopicReader
from streams.protocol import TERMINAL, CommandKind, Event, EventKind, Outcome, Reason, TaskState, decode_events
from streams.settings import Settings
from tests.chaos.faults import Fault, Faults
from tests.chaos.fleet import Life

S = TaskState
# Types whose handlers ask to run again, and how they say it.
ASKED: Final = {
    "chaos.fails": {"failed"}, "chaos.hangs": {"timeout"}, "chaos.hangs_thread": {"timeout"},
    "chaos.hangs_process": {"timeout"}, "chaos.exits_child": {"failed"}, "chaos.depends": {"failed"},
    "chaos.breaks": {"failed", "attempts_spent"}, "chaos.stubborn": {"timeout", "released"},
}  # fmt: skip
# Their children are killed, or go by themselves: nobody has seen when.
UNSEEN_ENDS: Final = ("chaos.hangs_process", "chaos.exits_child", "chaos.endless_process")
# What may follow what is told of a breaker; a new life of its scheduler begins closed, and the same may be told again.
BREAKER_STEPS: Final = {
    "closed": {"closed", "open"}, "open": {"open", "half_open"}, "half_open": {"open", "half_open", "closed"},
}  # fmt: skip
# How long after a fault its consequences may show: leases restart with each takeover, sessions run out.
LEASES_PATIENCE: Final = 4
PATIENCE_S: Final = 40.0


@dataclass
class Verdict:
    verify: Report
    problems: list[str] = field(default_factory=list)
    repeats: Counter[str] = field(default_factory=Counter)  # "worker_lost: worker_freeze" -> how many
    pauses: int = 0  # that were answered
    ends: Counter[str] = field(default_factory=Counter)
    released: int = 0
    breakers_opened: int = 0
    started: int = 0  # as the history says, also what then came back unrun
    longest_stall_s: float = 0.0  # of all
    longest_calm_stall_s: float = 0.0  # the part of one that lies in no fault's shadow

    @property
    def ok(self) -> bool:
        return self.verify.ok and not self.problems


@dataclass
class _Group:
    state: int = 0
    token: int = 0  # of what began last
    newest: dict[str, int] = field(default_factory=dict)  # life of the publisher -> number of its newest task
    open: int = 0  # tasks that have not ended
    free_at: datetime | None = None
    paused: bool = False


@dataclass
class _Task:
    type: str
    state: TaskState
    ready_at: datetime
    worker: str | None = None
    redriven: bool = False


class Judge:
    def __init__(
        self, settings: Settings, folder: Path, faults: Faults, lives: list[Life], slack_s: float, *,
        local: bool = False,
    ) -> None:  # fmt: skip
        self._local = local
        self._settings, self._folder = settings, folder
        self._faults, self._lives = faults.all(), lives
        self._slack = timedelta(seconds=slack_s)
        self._patience = timedelta(seconds=LEASES_PATIENCE * settings.lease_s + PATIENCE_S)
        self._kills = faults.kills({life.name for life in lives if life.role == "worker"}, self._slack)
        self._groups: dict[str, _Group] = defaultdict(_Group)
        self._open: dict[tuple[int, int], _Task] = {}
        self._released: set[tuple[str, int]] = set()  # (group, token)
        self._breakers: list[tuple[datetime, Event]] = []
        self._ends: dict[str, tuple[TaskState, str | None]] = {}
        self._verdict: Verdict

    def judge(self, acked: dict[str, str], ends: dict[str, TaskState], never_begun: set[str]) -> Verdict:
        """`acked`: id -> type of all tasks that must have come to an end; `ends`: which, where an operator had his
        hands in it.
        """
        journals = sorted(self._folder.glob("journal-*.jsonl"))
        runs = frozenset(life.name for life in self._lives if self._local and life.role == "worker")
        options = Options(kills=self._kills, clock_tolerance_s=1.0 + self._slack.total_seconds(), local=runs)
        self._verdict = Verdict(check_cluster(self._settings, options, journals=journals))
        with closing(TopicReader(self._settings, self._settings.topic("task-events"))) as reader:
            for partition in reader.bounds:
                for message in reader.read(partition):
                    # The broker's clock: those of the processes are stepped.
                    at = datetime.fromtimestamp(message.timestamp()[1] / 1000, UTC)
                    for event in decode_events(message.value() or b""):
                        if event.kind is EventKind.TASK and event.sequence is not None:
                            self._step(partition, event, at)
                        else:
                            self._note(event, at)
        self._compare_ends(acked, ends)
        self._overlaps(journals, never_begun)
        self._judge_breakers()
        return self._verdict

    def _problem(self, text: str) -> None:
        self._verdict.problems.append(text)

    # -- the history

    def _note(self, event: Event, at: datetime) -> None:
        """From a pause's answer on, until somebody resumes it, nothing of the group starts."""
        group = self._groups[event.group or ""]
        if event.kind is EventKind.BREAKER:
            self._breakers.append((at, event))
        elif event.kind is EventKind.GROUP_RESUMED:
            group.paused = False
        elif event.kind is EventKind.GROUP_FORGOTTEN:
            group.state = 0
        elif event.command is CommandKind.PAUSE_GROUP and event.outcome is Outcome.DONE:
            group.paused = True
            self._verdict.pauses += 1
        elif event.command is CommandKind.RELEASE and event.outcome is Outcome.DONE:
            self._released.add((event.group or "", group.token))
            self._verdict.released += 1

    def _judge_breakers(self) -> None:
        """Those of one scheduler may stand in several partitions."""
        states: dict[tuple[str, str], str] = {}
        for at, event in sorted(self._breakers, key=lambda told: told[0]):
            key, state = (event.note or "", event.type or ""), event.reason or ""
            before = states.get(key, "closed")
            if state not in BREAKER_STEPS[before] and state != "open":
                self._problem(f"the breaker of {key[1]} at {key[0]} is {state} at {at}, after {before}")
            self._verdict.breakers_opened += state == "open" != before
            states[key] = state

    def _step(self, partition: int, event: Event, at: datetime) -> None:
        key = (partition, event.sequence or 0)
        group = self._groups[event.group or ""]
        task = self._open.get(key)
        if task is None:
            task = self._open[key] = _Task(event.type or "", S.PARKED, at)
            self._crowded(group, event)
            group.open += 1
        before, state = task.state, event.state or S.PARKED
        if state is S.PARKED and event.reason in (Reason.REDRIVEN_HEAD, Reason.REDRIVEN_TAIL):
            task.redriven = True
        if state is S.RUNNING:
            self._verdict.started += 1
            if group.paused:
                self._problem(f"{event.task_id} of {event.group} started at {at}, and the group was paused")
            if not task.redriven:  # it starts where the operator put it
                self._order(group, event)
            if (event.group or "")[1:].isdigit():  # the publisher's; operators' groups are held up on purpose
                self._stalled(group, task, at)
            task.worker, group.token = event.worker, event.fencing_token or 0
        elif state is S.RETRYING or (state is S.PARKED and before is S.RUNNING):
            self._repeat(task, event, at)
            task.ready_at = at + max(timedelta(0), (event.not_before or event.at) - event.at)
        elif state in TERMINAL:
            self._ended(group, task, event, at)
            del self._open[key]
            group.open -= 1
        task.state = state

    def _crowded(self, group: _Group, event: Event) -> None:
        """Accepted beside its head and so many parked ones?"""
        limit = self._settings.group_parked_max
        if limit and event.reason is None and group.open > limit:
            self._problem(f"{event.task_id} of {event.group} was taken in beside {group.open}, the limit is {limit}")

    def _order(self, group: _Group, event: Event) -> None:
        number, _, life = (event.task_id or "").partition("-")
        if not number.isdigit():
            return
        if int(number) < group.newest.get(life, -1):
            self._problem(f"{event.task_id} of {event.group} started after {group.newest[life]} of the same publisher")
        group.newest[life] = max(int(number), group.newest.get(life, -1))

    def _stalled(self, group: _Group, task: _Task, at: datetime) -> None:
        """How much of this wait lies behind the last fault before the start, and its patience?"""
        ready_at = max(task.ready_at, group.free_at or task.ready_at)
        shadows = [f for f in self._faults if f.hits(ready_at, at, timedelta(0))]
        last = max((f.until or at for f in shadows), default=ready_at)
        self._verdict.longest_stall_s = max(self._verdict.longest_stall_s, (at - ready_at).total_seconds())
        calm_s = (at - max(ready_at, last)).total_seconds()
        self._verdict.longest_calm_stall_s = max(self._verdict.longest_calm_stall_s, calm_s)

    def _repeat(self, task: _Task, event: Event, at: datetime) -> None:
        reason = event.reason or ""
        if reason == Reason.EDITED:
            return
        if reason in ASKED.get(task.type, ()):
            self._verdict.repeats[f"{reason}: asked for by the handler"] += 1
            return
        if reason in ("returned", "lost_before_start", "taken_back"):
            return  # it had not run: the checker holds that against the journals
        fault = self._explain(task.worker or "", at, drains=reason == "abandoned")
        if fault is None:
            self._verdict.repeats[f"{reason}: unexplained"] += 1
            self._problem(f"{event.task_id} runs again ({reason}) at {at}; nothing was done to {task.worker}")
        else:
            self._verdict.repeats[f"{reason}: {fault.nemesis}"] += 1

    def _explain(self, worker: str, at: datetime, *, drains: bool) -> Fault | None:
        """The latest fault that can be why."""
        for fault in reversed(self._faults):
            if (fault.loses or (drains and fault.drains)) and fault.explains(worker, at, self._patience):
                return fault
        if drains and self._local:  # what took too long when partitions moved, whoever came or went
            return next((f for f in reversed(self._faults) if f.hits(at, at, self._patience)), None)
        return None

    def _ended(self, group: _Group, task: _Task, event: Event, at: datetime) -> None:
        state = event.state or S.SUCCEEDED
        self._ends[event.task_id or ""] = state, event.reason
        self._verdict.ends[state] += 1
        group.free_at = at
        if state is S.SUCCEEDED:
            group.state += 1
            counted = json.loads(bytes(event.result)) if event.result else None
            if counted != group.state:
                self._problem(f"{event.task_id} of {event.group} is success {group.state} and counted {counted}")

    def _compare_ends(self, acked: dict[str, str], ends: dict[str, TaskState]) -> None:
        for task_id, kind in acked.items():
            end = self._ends.get(task_id)
            if end is None:
                self._problem(f"{task_id} ({kind}) was acknowledged and has no end")
            elif task_id in ends:
                if end[0] != ends[task_id]:
                    self._problem(f"{task_id} ({kind}) has the end {end}, not {ends[task_id]}")
            elif end != ((S.DEAD_LETTERED, "handler_rejected") if kind == "chaos.rejects" else (S.SUCCEEDED, None)):
                self._problem(f"{task_id} ({kind}) has the end {end}")

    # -- the journals

    def _overlaps(self, journals: list[Path], never_begun: set[str]) -> None:
        deaths = {life.pid: life.ended_ns for life in self._lives}
        runs: dict[str, list[_Run]] = defaultdict(list)
        for path in journals:
            for run in read_journal(path, deaths):
                runs[run.group].append(run)
                if run.task_id in never_begun:
                    self._problem(f"{run.task_id} of {run.group} has begun, and was cancelled before")
        for group, found in runs.items():
            found.sort(key=lambda run: run.start_ns)
            latest: _Run | None = None
            for run in found:
                if latest is not None and run.start_ns < latest.end_ns and not self._zombie(latest, run):
                    self._problem(f"{group}: {run} began before {latest} was over")
                if (group, run.token) not in self._released and (latest is None or run.end_ns > latest.end_ns):
                    latest = run

    def _zombie(self, *runs: "_Run") -> bool:
        """Whether one of them was frozen: its successor cannot wait for it."""
        return any(run.instance in f.targets for f in self._faults if f.frozen for run in runs)


class _Run(msgspec.Struct):
    group: str
    task_id: str
    token: int
    instance: str
    start_ns: int
    end_ns: int


def read_journal(path: Path, deaths: dict[int, int | None]) -> Iterator[_Run]:
    """Its executions; one without an end ended with its process, a child's with that of its worker."""
    runs: dict[tuple[str, int], _Run] = {}  # tokens are unique within a partition
    for text in path.read_text().splitlines():
        try:
            line: dict[str, Any] = json.loads(text)
        except ValueError:
            continue  # cut short by a kill
        key = line["group"], line["token"]
        if "start_mono_ns" in line:
            died_ns = deaths.get(line["pid"]) or deaths.get(line["ppid"]) or 2**63 - 1
            if line["type"] in UNSEEN_ENDS:
                died_ns = line["start_mono_ns"]
            runs[key] = _Run(
                line["group"], line["task_id"], line["token"], line["instance"], line["start_mono_ns"], died_ns
            )
        elif key in runs:
            runs[key].end_ns = line["end_mono_ns"]
    yield from runs.values()
