"""Judging executions by their workers' own clocks, so that the scheduler need not be believed."""

from datetime import timedelta

from pstp.verify.findings import Guarantee, Reporter
from pstp.verify.shared import Shared
from pstp.verify.tracked import Group, Task
from streams.protocol import Event


class Times:
    """For one partition.  Monotonic times compare within one clock id; between two there are only warnings."""

    def __init__(self, shared: Shared, partition: int) -> None:
        self._report = Reporter(shared.violations, partition)
        self._warn = Reporter(shared.warnings, partition)
        self._tolerance = timedelta(seconds=shared.options.clock_tolerance_s)

    def started(self, task: Task, event: Event, offset: int) -> float | None:
        """An execution began: it must not reach back into the one before.  Returns the gap between them in seconds."""
        start_ns, clock_id, group = event.started_mono_ns, event.clock_id, task.group
        task.started_ns, task.started_at = start_ns, event.started_at
        task.worker, task.boot_id = event.worker, event.boot_id
        if start_ns is None or clock_id is None:
            return None
        gap_s = None
        if clock_id == group.clock_id:
            if start_ns < group.end_ns:
                self._overlap(task, offset, start_ns, group.start_ns, group.end_ns)
            gap_s = (start_ns - group.end_ns) / 1e9
        elif group.clock_id is not None:
            self._same_clock_before(group, clock_id, task, offset, start_ns)
            gap_s = self._wall_clocks(group, event, task, offset)
        group.clock_id, group.start_ns, group.end_ns = clock_id, start_ns, start_ns
        group.ended_at, group.run_id, group.run_offset = event.started_at, task.task_id, offset
        return gap_s

    def ended(self, task: Task, event: Event, offset: int) -> None:
        """The execution has an outcome, which must come from the worker, and the life of it, that started it."""
        if _differ(event.worker, task.worker) or _differ(event.boot_id, task.boot_id):
            words = f"was started by {task.worker!r} and ended by another process, of {event.worker!r}"
            self._wrong_end(task, "other_worker", words, offset)
            return
        group, end_ns, began_ns = task.group, event.ended_mono_ns, task.started_ns
        start_ns = began_ns if event.started_mono_ns is None else event.started_mono_ns
        if start_ns is None or _differ(event.clock_id, group.clock_id):
            return
        if began_ns is not None and start_ns < began_ns:
            self._wrong_end(task, "other_execution", "has the outcome of an execution that began earlier", offset)
        if end_ns is not None:
            if end_ns < start_ns:
                self._wrong_end(task, "ends_before_start", "ended before it started, by its worker's own clock", offset)
            group.end_ns, group.ended_at = max(end_ns, start_ns), event.ended_at

    def _same_clock_before(self, group: Group, clock_id: str, task: Task, offset: int, start_ns: int) -> None:
        """The clock has changed: compare with the latest execution that was timed by the new one."""
        if group.other_clocks is None:
            group.other_clocks = {}
        if group.clock_id is not None:
            group.other_clocks[group.clock_id] = group.start_ns, group.end_ns
        before = group.other_clocks.pop(clock_id, None)
        if before is not None and start_ns < before[1]:
            self._overlap(task, offset, start_ns, *before)

    def _wall_clocks(self, group: Group, event: Event, task: Task, offset: int) -> float | None:
        if event.started_at is None or group.ended_at is None:
            return None
        gap = event.started_at - group.ended_at
        if gap < -self._tolerance:
            self._warn(
                Guarantee.G1, "overlap_by_wall_clock",
                f"task {task.task_id!r} started {-gap.total_seconds():.3f} s before {group.run_id!r} ended, by the "
                "wall clocks of two machines", group.name, (group.run_id, task.task_id), group.run_offset, offset,
            )  # fmt: skip
        return gap.total_seconds()

    def _overlap(self, task: Task, offset: int, start_ns: int, before_start_ns: int, before_end_ns: int) -> None:
        group = task.group
        if start_ns < before_start_ns:
            point, kind, words = Guarantee.G2, "order_by_worker_clock", f"{group.run_id!r} started"
            early_ns = before_start_ns - start_ns
        else:
            point, kind, words = Guarantee.G1, "overlap_by_worker_clock", f"{group.run_id!r} ended"
            early_ns = before_end_ns - start_ns
        self._report(
            point, kind,
            f"task {task.task_id!r} started {early_ns / 1e6:.3f} ms before {words}, by the workers' own clock",
            group.name, (group.run_id, task.task_id), group.run_offset, offset,
        )  # fmt: skip

    def _wrong_end(self, task: Task, kind: str, words: str, offset: int) -> None:
        self._report(
            Guarantee.G1, kind, f"task {task.task_id!r} {words}", task.group.name, (task.task_id,), task.offset, offset
        )


def _differ(one: str | None, other: str | None) -> bool:
    return one is not None and other is not None and one != other
