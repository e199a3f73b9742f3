"""What every Python peer shares: orders from the environment, the order check, the line that it answers with."""

import json
import os
import sys
import time

BOOTSTRAP = os.environ["BENCH_BOOTSTRAP"]
TOPIC = os.environ["BENCH_TOPIC"]
OUT_TOPIC = os.environ.get("BENCH_OUT_TOPIC", "")
GROUP = os.environ["BENCH_GROUP"]
TASKS = int(os.environ["BENCH_TASKS"])
HANDLER_S = float(os.environ["BENCH_HANDLER_MS"]) / 1000


class Check:
    """Counts tasks that began out of order or beside another one of their group."""

    def __init__(self) -> None:
        self.violations = self.done = 0
        self.first_s = self.last_s = 0.0
        self._last: dict[str, int] = {}
        self._running: set[str] = set()

    def begin(self, group: str, place: int) -> None:
        if not self.first_s:
            self.first_s = time.perf_counter()
        if group in self._running or self._last.get(group, -1) >= place:
            self.violations += 1
        self._last[group] = place
        self._running.add(group)

    def end(self, group: str) -> bool:
        """Whether it was the last one."""
        self._running.discard(group)
        self.done += 1
        return self.done >= TASKS

    def answer(self) -> None:
        """Say what was measured, and end the process: closing down measures nothing."""
        self.last_s = time.perf_counter()
        seconds = self.last_s - self.first_s
        print(json.dumps({"tasks": self.done, "seconds": seconds, "order_violations": self.violations}), flush=True)
        sys.stdout.flush()
        os._exit(0)
