"""What this process has run itself, by type: what a worker would say of it, for metrics.  Pure."""

from collections import Counter
from collections.abc import Sequence

from streams.catalogue import HANDLER_S
from streams.distribution import Distribution


class Ran:
    def __init__(self) -> None:
        self.started: Counter[str] = Counter()
        self.ended: Counter[tuple[str, str]] = Counter()  # (type, kind of report)
        self.seconds: dict[str, Distribution] = {}

    def end(self, task_type: str, kind: str, seconds: Sequence[float]) -> None:
        """Executions of this type have ended so, after so long; without `seconds`: one that never began."""
        self.ended[task_type, kind] += len(seconds) or 1
        times = self.seconds.get(task_type)
        if times is None:
            times = self.seconds[task_type] = Distribution(HANDLER_S)
        times.add_all(seconds)
