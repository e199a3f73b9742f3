"""What this process has run itself, by type: what a worker would say of it, for metrics.  Pure."""

from collections import Counter
from collections.abc import Sequence

from streams import distribution
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
        distribution.of(self.seconds, task_type, HANDLER_S).add_all(seconds)
