"""The checker of one partition: folds its events in log order and reports whatever breaks the promise.

Pure: no Kafka, no files, no clock.  Memory grows with groups and open tasks, and by a byte or so per finished task.
After a violation it goes on from what the log says, so that one fault gives one violation where that can be.
"""

from datetime import datetime

from pstp.verify import table
from pstp.verify.figures import PartitionFigures
from pstp.verify.findings import Guarantee, Place, Reporter
from pstp.verify.group_state import GroupStates
from pstp.verify.ledger import Ledger
from pstp.verify.origins import Origins
from pstp.verify.shared import Execution, Shared
from pstp.verify.table import IN_FLIGHT, NEXT, STARTED
from pstp.verify.times import Times
from pstp.verify.tracked import Group, Task
from streams.protocol import TERMINAL, CommandKind, Event, EventKind, Outcome, Reason, TaskState

DISPATCHED, PARKED, RETRYING, RUNNING = TaskState.DISPATCHED, TaskState.PARKED, TaskState.RETRYING, TaskState.RUNNING
SUCCEEDED, REJECTED = TaskState.SUCCEEDED, TaskState.REJECTED


class PartitionChecker:
    """Feed it every event in the order of the log, then `finish`.  What it finds is in `shared`.

    truncated: the log no longer holds its beginning; tasks may then be met in the middle of their life.
    """

    def __init__(self, shared: Shared, partition: int, truncated: bool = False) -> None:
        self.figures = PartitionFigures()
        self._shared = shared
        self._report = Reporter(shared.violations, partition)
        self._warn = Reporter(shared.warnings, partition)
        self._times = Times(shared, partition)
        self._origins = Origins(shared, partition)
        self._states = GroupStates(self._report, truncated)
        self._partition = partition
        self._truncated = truncated
        self._groups: dict[str, Group] = {}
        self._open: dict[int, Task] = {}
        self._finished = Ledger()
        self._newest_sequence = -1
        self._second = -1
        self._steps = {
            TaskState.PARKED: self._came_back,
            TaskState.DISPATCHED: self._dispatched,
            TaskState.RUNNING: self._running,
            TaskState.RETRYING: self._retrying,
            TaskState.CANCELLING: self._cancelling,
        } | dict.fromkeys(TERMINAL, self._terminal)

    def feed(self, offset: int, event: Event) -> None:
        """The next event, of the record at `offset`."""
        figures, at = self.figures, event.at
        figures.events += 1
        if at.second != self._second:
            self._second = at.second
            figures.close_second(at)
        figures.last_at = at
        if event.kind is EventKind.TASK:
            self._task(offset, event)
        elif event.kind is EventKind.GROUP_STATE:
            figures.state_updates += 1
            self._states.applied(event, self._groups.get(event.group or ""), offset)
        elif event.kind is EventKind.STALE_REPORT:
            figures.stale_reports += 1
        elif event.kind is EventKind.DUPLICATE:
            figures.duplicates += 1
            self._origins.duplicate(event, offset)
        elif event.command is CommandKind.RELEASE and event.outcome is Outcome.DONE:
            self._released(event, offset)

    def finish(self, *, complete: bool = True) -> None:
        """The log ends here, or (not complete) cannot be read any further."""
        figures = self.figures
        figures.close()
        figures.groups = len(self._groups)
        figures.unfinished = len(self._open)
        for task in self._open.values():
            if task.state in STARTED:
                self._tell(task, task.offset, RUNNING)
            if complete and self._shared.options.expect_drained:
                self._report(
                    Guarantee.G3, "lost", f"task {task.task_id!r} has no end: its last state is {task.state}",
                    task.group.name, (task.task_id,), task.offset,
                )  # fmt: skip

    # The life of a task

    def _task(self, offset: int, event: Event) -> None:
        state, sequence = event.state, event.sequence
        if state is REJECTED:
            self.figures.rejected += 1
            self._origins.answered(event, offset)
            return
        if state is None or sequence is None or event.group is None or event.task_id is None:
            self._report(
                Guarantee.G7, "incomplete_event", "an event about a task lacks its state, sequence, group or task id",
                event.group, () if event.task_id is None else (event.task_id,), offset,
            )  # fmt: skip
            return
        task = self._open.get(sequence)
        if task is None:
            self._unknown(offset, event, state, sequence, event.group, event.task_id)
        elif task.group.name != event.group or task.task_id != event.task_id:
            self._report(
                Guarantee.G2, "sequence_reused",
                f"sequence {sequence} belongs to task {task.task_id!r} of group {task.group.name!r} and is used again",
                event.group, (task.task_id, event.task_id), task.offset, offset,
            )  # fmt: skip
        else:
            if state is task.state and event.reason in table.STILL_WAITS:
                if event.reason == Reason.DISPLACED and not task.executions:
                    task.token = None  # it was out, came back unrun, and makes room like one that never was
                return
            if state not in NEXT[task.state] or state is task.state:
                self._breach(task, state, offset)
            self._steps[state](task, event, offset)
            task.state, task.offset = state, offset

    def _unknown(self, offset: int, event: Event, state: TaskState, sequence: int, name: str, task_id: str) -> None:
        """An event of a task that is not open: its first, or one that should not be."""
        code = self._finished[sequence]
        redriven = state is PARKED and event.reason in table.REDRIVEN
        if code and not redriven and not (state is PARKED and event.reason is None):
            self._after_end(offset, event, state, table.known_terminal(code), name, task_id)
            return
        group = self._groups.get(name)
        if group is None:
            group = self._groups[name] = Group(name)
            self._origins.first_seen(name, task_id, offset)
        task = Task(group, sequence, task_id, state, event.at, offset)
        self._open[sequence] = task
        group.append(task)
        self.figures.tasks += 1
        if redriven:
            self._redriven(task, event, offset)
            return
        if state is PARKED:
            self._accepted(task, event, offset)
            return
        if not self._truncated:
            self._report(
                Guarantee.G3, "never_parked", f"task {task_id!r} is {state} but was never accepted",
                name, (task_id,), offset,
            )  # fmt: skip
        # Go on from here as if what is missing had been there.
        task.token, task.attempt = event.fencing_token, event.attempt or 1
        group.token = max(group.token, event.fencing_token or -1)
        if state in TERMINAL:
            self._leave(task, event, state, offset)
        elif state in STARTED:
            task.executions = 1
            self._times.started(task, event, offset)

    def _accepted(self, task: Task, event: Event, offset: int) -> None:
        figures = self.figures
        figures.parked += 1
        if figures.parked > figures.parked_high:
            figures.parked_high = figures.parked
        if task.sequence <= self._newest_sequence:
            self._report(
                Guarantee.G2, "sequence_not_rising",
                f"task {task.task_id!r} has sequence {task.sequence}, though {self._newest_sequence} was already given",
                task.group.name, (task.task_id,), offset,
            )  # fmt: skip
        else:
            self._newest_sequence = task.sequence
        self._attempt(task, event, 1, offset)
        if event.not_before is not None:
            self._wait_until(task, event.not_before)
        self._origins.accepted(task, event, offset)

    def _redriven(self, task: Task, event: Event, offset: int) -> None:
        """A dead letter is submitted again: under its own sequence to the head, or as the newest."""
        if event.reason == Reason.REDRIVEN_TAIL:
            self._accepted(task, event, offset)
            return
        figures = self.figures
        figures.parked += 1
        figures.parked_high = max(figures.parked_high, figures.parked)
        if not self._truncated and not self._finished[task.sequence]:
            self._report(
                Guarantee.G2, "redriven_unended", f"task {task.task_id!r} was redriven to the head and had not ended",
                task.group.name, (task.task_id,), offset,
            )  # fmt: skip
        self._attempt(task, event, 1, offset)

    def _came_back(self, task: Task, event: Event, offset: int) -> None:
        reason = event.reason
        if task.state is DISPATCHED:
            if reason not in table.CAME_BACK:
                self._unexplained(task, "unexplained_return", f"came back from the workers, reason {reason!r}", offset)
            self._token(task, event, offset)
        elif task.state in STARTED:
            if table.came_back_unrun(reason, event.worker):
                task.executions -= 1
                self.figures.executions -= 1
            elif reason != Reason.ABANDONED:
                self._unexplained(task, "unexplained_repeat", f"is to run again, reason {reason!r}", offset)
            self._execution_ended(task, event, offset, PARKED)
            task.why = reason
            task.ready_at = event.at
        self._attempt(task, event, task.attempt, offset)
        self.figures.parked += 1

    def _dispatched(self, task: Task, event: Event, offset: int) -> None:
        group, token = task.group, event.fencing_token
        head = group.head
        if head is not task and head is not None:
            self._passed_over(task, head, offset)
        if token is None or token <= group.token:
            self._report(
                Guarantee.G2, "token_not_rising",
                f"task {task.task_id!r} was dispatched with fencing token {token}, its group had already {group.token}",
                group.name, (task.task_id,), group.last_offset, offset,
            )  # fmt: skip
        else:
            group.token = token
        task.token = token
        self._attempt(task, event, task.attempt, offset)
        if task.state is PARKED:
            self.figures.parked -= 1

    def _running(self, task: Task, event: Event, offset: int) -> None:
        group, figures = task.group, self.figures
        head = group.head
        if head is not task and head is not None and head.state in STARTED:
            self._report(
                Guarantee.G1, "overlap", f"task {task.task_id!r} started while {head.task_id!r} was {head.state}",
                group.name, (head.task_id, task.task_id), head.offset, offset,
            )  # fmt: skip
        self._token(task, event, offset)
        self._attempt(task, event, task.attempt, offset)
        if task.state is PARKED:
            figures.parked -= 1
        figures.executions += 1
        gap_s = self._times.started(task, event, offset)
        if task.executions:
            figures.repeats[task.why or "unexplained"] += 1
        elif task.why is None:
            figures.waits_s.append((event.at - task.at).total_seconds())
            if group.timed and gap_s is not None and task.due is None:
                figures.gaps_s.append(gap_s)
        task.executions += 1
        self._stall(task, event.at, offset)

    def _retrying(self, task: Task, event: Event, offset: int) -> None:
        reason = event.reason
        uses_attempt = table.RETRY_USES_ATTEMPT.get(reason)
        if uses_attempt is None:
            self._unexplained(task, "unexplained_repeat", f"runs again for no valid reason ({reason!r})", offset)
            uses_attempt = True
        self._execution_ended(task, event, offset, RETRYING)
        self._attempt(task, event, task.attempt + uses_attempt, offset)
        task.why = reason
        task.ready_at = event.at
        if event.not_before is not None:
            self._wait_until(task, event.not_before)

    def _cancelling(self, task: Task, event: Event, offset: int) -> None:
        self._token(task, event, offset)

    def _terminal(self, task: Task, event: Event, offset: int) -> None:
        state = event.state
        assert state is not None
        if task.state is PARKED:
            self.figures.parked -= 1
        if task.state in STARTED:
            self._execution_ended(task, event, offset, state)
            self._attempt(task, event, task.attempt, offset)
        self._leave(task, event, state, offset)

    def _released(self, event: Event, offset: int) -> None:
        """An operator gives up what runs of a group's head: that it goes on beside the next one is his own decision."""
        group = self._groups.get(event.group or "")
        head = group.head if group is not None else None
        if head is not None and head.state in STARTED:
            note = f": {event.note}" if event.note else ""
            head.released = f"{event.actor or 'somebody'} (command {event.command_id}{note})"
            self._warn(
                Guarantee.G1, "released_by_operator",
                f"task {head.task_id!r} went on on {head.worker!r} when it was released by {head.released}: what came "
                "next may have run beside it", head.group.name, (head.task_id,), head.offset, offset,
            )  # fmt: skip

    # Parts of these steps

    def _leave(self, task: Task, event: Event, state: TaskState, offset: int) -> None:
        """The task is terminal: only what its group needs of it is kept."""
        group = task.group
        ran = task.state in STARTED
        task.state = state
        del self._open[task.sequence]
        self._finished[task.sequence] = table.TERMINAL_CODES[state]
        self.figures.ends[state] += 1
        group.last_id, group.last_token, group.last_state = task.task_id, task.token, state
        group.last_state_set, group.last_offset, group.free_at = task.state_set, offset, event.at
        group.drop_finished()
        group.timed = ran and group.head is not None

    def _execution_ended(self, task: Task, event: Event, offset: int, outcome: TaskState) -> None:
        self._token(task, event, offset)
        if task.state_set and outcome is not SUCCEEDED:
            self._states.without_success(task.group.name, task.task_id, outcome, offset)
            task.state_set = False
        if event.reason == Reason.WORKER_LOST:
            if not self._shared.explained(task.worker, task.started_at, event.at):
                self._report(
                    Guarantee.G4, "lost_without_kill",
                    f"worker {task.worker!r} lost task {task.task_id!r} though nothing had happened to it",
                    task.group.name, (task.task_id,), task.offset, offset,
                )  # fmt: skip
        else:
            self._times.ended(task, event, offset)
        self._tell(task, offset, outcome, event)

    def _token(self, task: Task, event: Event, offset: int) -> None:
        if event.fencing_token != task.token and event.fencing_token is not None:
            self._report(
                Guarantee.G1, "stale_token",
                f"task {task.task_id!r} is {event.state} under fencing token {event.fencing_token}, its dispatch has "
                f"{task.token}", task.group.name, (task.task_id,), task.offset, offset,
            )  # fmt: skip

    def _attempt(self, task: Task, event: Event, expected: int, offset: int) -> None:
        attempt = event.attempt
        if attempt is None:
            attempt = expected
        elif attempt != expected:
            self._report(
                Guarantee.G4, "wrong_attempt", f"task {task.task_id!r} is at attempt {attempt}, not {expected}",
                task.group.name, (task.task_id,), task.offset, offset,
            )  # fmt: skip
        task.attempt = attempt

    def _passed_over(self, task: Task, head: Task, offset: int) -> None:
        if head.state in IN_FLIGHT:
            point, kind, words = Guarantee.G1, "double_release", "was still out at the workers"
        else:
            point, kind, words = Guarantee.G2, "overtaken", "stands before it and had not ended"
        self._report(
            point, kind, f"task {task.task_id!r} was dispatched while {head.task_id!r} {words} ({head.state})",
            task.group.name, (head.task_id, task.task_id), head.offset, offset,
        )  # fmt: skip

    def _wait_until(self, task: Task, due: datetime) -> None:
        task.due = due
        task.ready_at = max(task.ready_at, due)

    def _stall(self, task: Task, at: datetime, offset: int) -> None:
        """How long could this task have run, and did not?"""
        free_at, ready_at = task.group.free_at, task.ready_at
        if free_at is not None and free_at > ready_at:
            ready_at = free_at
        stall_s = (at - ready_at).total_seconds()
        figures = self.figures
        if stall_s > figures.longest_stall_s:
            figures.longest_stall_s, figures.longest_stall_group = stall_s, task.group.name
        bound_s = self._shared.options.stall_s
        if bound_s is not None and stall_s > bound_s:
            self._report(
                Guarantee.G6, "stall", f"task {task.task_id!r} could run for {stall_s:.1f} s before it did",
                task.group.name, (task.task_id,), task.offset, offset,
            )  # fmt: skip

    # Reporting

    def _breach(self, task: Task, state: TaskState, offset: int) -> None:
        point, kind, words = table.breach(task.state, state)
        self._report(
            point, kind, f"task {task.task_id!r} {words} ({task.state}, then {state})",
            task.group.name, (task.task_id,), task.offset, offset,
        )  # fmt: skip

    def _after_end(
        self, offset: int, event: Event, state: TaskState, ended: TaskState, name: str, task_id: str
    ) -> None:
        kind, words = ("doubled", "ended again") if state in TERMINAL else ("after_end", "went on")
        group = self._groups.get(name)
        last = group.last_offset if group is not None and group.last_id == task_id else None
        self._report(
            Guarantee.G3, kind, f"task {task_id!r} had {ended} and {words} as {state}",
            name, (task_id,), *(() if last is None else (last,)), offset,
        )  # fmt: skip

    def _unexplained(self, task: Task, kind: str, words: str, offset: int) -> None:
        self._report(
            Guarantee.G4, kind, f"task {task.task_id!r} {words}", task.group.name, (task.task_id,), task.offset, offset
        )

    def _tell(self, task: Task, offset: int, outcome: TaskState, event: Event | None = None) -> None:
        """For whoever compares executions with another witness."""
        if self._shared.on_execution is None:
            return
        reason, started_ns, ended_ns = None, task.started_ns, None
        if event is not None:
            reason, started_ns, ended_ns = event.reason, event.started_mono_ns or started_ns, event.ended_mono_ns
        self._shared.on_execution(
            Execution(
                task.group.name, task.task_id, task.token, outcome, reason, started_ns, ended_ns,
                task.group.clock_id, Place(self._partition, offset), task.released,
            )
        )  # fmt: skip
        task.released = None
