"""A whole history: records of `task-events` go in, a report comes out.  Pure, like the checker."""

from collections.abc import Callable, Collection

import msgspec

from pstp.verify.checker import PartitionChecker
from pstp.verify.figures import PartitionFigures, total
from pstp.verify.findings import Guarantee, Place, Violation
from pstp.verify.report import Report, report
from pstp.verify.shared import Execution, Options, Shared
from streams.protocol import VersionError, decode_events


class History:
    """Feed it records in the order of each partition's log; partitions may come one by one (which needs the least
    memory; say so with `close_partition`) or mixed.

    truncated: partitions whose log no longer holds its beginning.  on_execution: hears of each execution that ended.
    """

    def __init__(
        self,
        options: Options,
        truncated: Collection[int] = (),
        on_execution: Callable[[Execution], None] | None = None,
    ) -> None:
        self.shared = Shared(options, on_execution)
        self._truncated = truncated
        self._checkers: dict[int, PartitionChecker] = {}
        self._figures: list[PartitionFigures] = []
        self.unread: dict[int, str] = {}  # partitions that were read in part only, and why

    def record(self, partition: int, offset: int, value: bytes | None) -> None:
        """The next record of `partition`.  Behind one of a newer protocol the partition is not judged (`unread`)."""
        if partition in self.unread:
            return
        checker = self._checkers.get(partition)
        if checker is None:
            checker = PartitionChecker(self.shared, partition, partition in self._truncated)
            self._checkers[partition] = checker
        checker.figures.records += 1
        try:
            events = decode_events(value or b"")
        except VersionError as error:
            self.unread[partition] = f"partition {partition} holds at offset {offset} {error}"
            return
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            text = f"a record of `task-events` cannot be read: {error}"
            place = Place(partition, offset)
            self.shared.violations.add(Violation(Guarantee.G7, "unreadable_record", text, records=(place,)))
            return
        for event in events:
            checker.feed(offset, event)

    def close_partition(self, partition: int) -> None:
        """The partition's log is read to its end: judge what is open and forget it."""
        checker = self._checkers.pop(partition, None)
        if checker is not None:
            checker.finish(complete=partition not in self.unread)
            self._figures.append(checker.figures)

    def close(self) -> None:
        """All partitions are read to their ends."""
        for partition in list(self._checkers):
            self.close_partition(partition)

    def verdict(self) -> Report:
        """On what was closed so far."""
        return report(total(self._figures), self.shared, tuple(why for _, why in sorted(self.unread.items())))
