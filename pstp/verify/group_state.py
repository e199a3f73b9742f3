"""G8: group state is replaced once per completion that carries it, by a success, before the next task starts."""

from pstp.verify.findings import Guarantee, Reporter
from pstp.verify.table import IN_FLIGHT, STARTED
from pstp.verify.tracked import Group
from streams.protocol import Event, TaskState

SUCCEEDED = TaskState.SUCCEEDED


class GroupStates:
    """For one partition.  truncated: the completion may lie before the beginning of the log."""

    def __init__(self, report: Reporter, truncated: bool) -> None:
        self._report = report
        self._truncated = truncated

    def applied(self, event: Event, group: Group | None, offset: int) -> None:
        """It comes with the completion of the task that runs, or right after it."""
        token, task_id = event.fencing_token, event.task_id or ""
        if group is None or token is None:
            if not self._truncated:
                self._stale_state(event, offset)
            return
        head = group.head
        if head is not None and head.token == token and head.task_id == task_id and head.state in STARTED:
            twice, head.state_set = head.state_set, True
        elif group.last_token == token and group.last_id == task_id and (head is None or head.state not in IN_FLIGHT):
            twice, group.last_state_set = group.last_state_set, True
            if group.last_state is not SUCCEEDED:
                self.without_success(group.name, task_id, group.last_state, group.last_offset, offset)
        elif self._truncated and group.last_token is None:
            return
        else:
            self._stale_state(event, offset)
            return
        if twice:
            self._report(
                Guarantee.G8, "state_applied_twice", f"the state that task {task_id!r} set was applied a second time",
                group.name, (task_id,), offset,
            )  # fmt: skip

    def _stale_state(self, event: Event, offset: int) -> None:
        self._report(
            Guarantee.G8, "stale_state",
            f"group state was set under token {event.fencing_token}, not that of the group's latest completion",
            event.group, () if event.task_id is None else (event.task_id,), offset,
        )  # fmt: skip

    def without_success(self, group: str, task_id: str, state: TaskState | None, *offsets: int) -> None:
        self._report(
            Guarantee.G8, "state_without_success", f"task {task_id!r} set group state and is {state}, not succeeded",
            group, (task_id,), *offsets,
        )  # fmt: skip
