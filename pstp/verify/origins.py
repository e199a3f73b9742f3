"""Where tasks come from: every record of `tasks` is answered once, in order, in the partition of its group."""

from pstp.verify.findings import Guarantee, Reporter
from pstp.verify.shared import Shared
from pstp.verify.tracked import Task
from streams.protocol import Event


class Origins:
    """For one partition of `task-events`."""

    def __init__(self, shared: Shared, partition: int) -> None:
        self._shared = shared
        self._partition = partition
        self._report = Reporter(shared.violations, partition)

    def first_seen(self, group: str, task_id: str, offset: int) -> None:
        """A group that this partition has not met."""
        if not self._shared.is_home(group, self._partition):
            self._report(
                Guarantee.G1, "split_group",
                f"group {group!r} lives in another partition, and task {task_id!r} of it is in {self._partition}",
                group, (task_id,), offset,
            )  # fmt: skip

    def duplicate(self, event: Event, offset: int) -> None:
        """A record that was recognised as one taken in before, or (`duplicate_of`) as a second task of its key."""
        if event.duplicate_of is not None:
            self.answered(event, offset)
        elif event.origin_partition is not None and event.origin_offset is not None:
            self._shared.duplicate(event.origin_partition, event.origin_offset)

    def accepted(self, task: Task, event: Event, offset: int) -> None:
        """Tasks of a group stand in the order of the partition that they were published to."""
        if not self.answered(event, offset):
            return
        partition, origin_offset, group = event.origin_partition, event.origin_offset, task.group
        assert partition is not None and origin_offset is not None
        if partition == self._partition:
            newest, group.origin_offset = group.origin_offset, max(origin_offset, group.origin_offset)
        else:
            if group.forwarded is None:
                group.forwarded = {}
            newest = group.forwarded.get(partition, -1)
            group.forwarded[partition] = max(origin_offset, newest)
        if origin_offset < newest:
            self._report(
                Guarantee.G2, "not_in_log_order",
                f"task {task.task_id!r} stands at {partition}:{origin_offset} of `tasks`, before {partition}:{newest}, "
                "which its group took in earlier", group.name, (task.task_id,), offset,
            )  # fmt: skip

    def answered(self, event: Event, offset: int) -> bool:
        """Note the record of `tasks` that this event answers; False if the event does not name one."""
        partition, origin_offset = event.origin_partition, event.origin_offset
        if partition is None or origin_offset is None:
            return False
        if not self._shared.submitted(partition, origin_offset):
            self._report(
                Guarantee.G3, "submitted_twice",
                f"record {partition}:{origin_offset} of `tasks` was taken in a second time, as {event.task_id!r}",
                event.group, () if event.task_id is None else (event.task_id,), offset,
            )  # fmt: skip
        return True
