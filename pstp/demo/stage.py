"""The live part of the demo: processes start, flights are published, two processes are killed, all is done."""

import random
import time
from contextlib import closing
from typing import Final, NamedTuple

from pstp.broker import EmbeddedBroker
from pstp.demo.children import Children
from pstp.demo.display import Display, Snapshot
from pstp.demo.publishing import Publishing
from pstp.demo.watching import Watching
from pstp.verify import Kill
from pstp.verify.reader import TopicReader
from streams.clock import now
from streams.errors import UserError
from streams.protocol import utc
from streams.settings import Settings

SCHEDULERS: Final = ("scheduler-1", "scheduler-2")
WORKERS: Final = ("worker-1", "worker-2", "worker-3")
HANDLERS: Final = "pstp.demo.handlers"
RESTART_S: Final = 3.0
TICK_S: Final = 0.05
STALL_S: Final = 90.0
CATCH_UP_S: Final = 60.0


class Strike(NamedTuple):
    """kill -9 of `instance` as soon as `done` tasks are done."""

    done: int
    instance: str


def plan_strikes(seed: int, total: int) -> list[Strike]:
    """One worker in the first half and one scheduler in the second."""
    chance = random.Random(seed)
    return [
        Strike(int(total * chance.uniform(0.25, 0.40)), chance.choice(WORKERS)),
        Strike(int(total * chance.uniform(0.55, 0.70)), chance.choice(SCHEDULERS)),
    ]


class Stage:
    """`play` it once.  Afterwards `kills` tells what happened and `states` what the planes' logbooks came to."""

    def __init__(
        self, settings: Settings, broker: EmbeddedBroker, children: Children, display: Display, total: int, seed: int
    ) -> None:
        self.kills: list[Kill] = []
        self.elapsed_s = 0.0
        self._settings = settings
        self._broker = broker
        self._children = children
        self._display = display
        self._total = total
        self._strikes = plan_strikes(seed, total)
        self._restarts: list[tuple[float, str]] = []
        self._watching = Watching(settings)
        self._begun_ms = now().mono_ms
        self._moved_s = 0.0
        self._done = 0

    @property
    def states(self) -> dict[str, bytes]:
        return self._watching.states

    def play(self, rows: int | None) -> None:
        """Raises `UserError` if something fails that nobody had planned."""
        publishing = Publishing(self._settings, rows)
        try:
            for instance in SCHEDULERS:
                self._children.start(instance, "scheduler")
            for instance in WORKERS:
                self._children.start(instance, "worker", "--handlers", HANDLERS)
            self._watching.start()
            publishing.start()
            while self._watching.done < self._total or self._strikes or self._restarts:
                self._tick(publishing)
                time.sleep(TICK_S)
            self.elapsed_s = self._now_s()
            self._display.update(self._snapshot(publishing), final=True)
            self._children.stop("worker", "scheduler")
            self._catch_up()
        finally:
            publishing.stop()
            self._watching.stop()
            for thread in (publishing, self._watching):
                if thread.is_alive():
                    thread.join()

    def _tick(self, publishing: Publishing) -> None:
        self._strike()
        self._restart()
        self._check(publishing)
        self._display.update(self._snapshot(publishing))

    def _strike(self) -> None:
        if self._strikes and self._watching.done >= self._strikes[0].done:
            instance = self._strikes.pop(0).instance
            pid = self._children.kill(instance)
            self.kills.append(Kill(instance, utc(now().wall_ms)))
            self._restarts.append((self._now_s() + RESTART_S, instance))
            self._display.say(self._now_s(), f"[bold red]kill -9[/] {instance} (process {pid})")

    def _restart(self) -> None:
        if self._restarts and self._now_s() >= self._restarts[0][0]:
            instance = self._restarts.pop(0)[1]
            pid = self._children.restart(instance)
            self._display.say(self._now_s(), f"[bold green]started[/] {instance} again (process {pid})")

    def _check(self, publishing: Publishing) -> None:
        self._children.check()
        if not self._broker.running:
            raise UserError(f"the broker ended: its log is {self._broker.log_path}")
        for thread in (publishing, self._watching):
            if thread.error is not None:
                raise UserError(f"{thread.name} stopped: {thread.error}") from thread.error
        if self._watching.done != self._done:
            self._done, self._moved_s = self._watching.done, self._now_s()
        elif self._now_s() - self._moved_s > STALL_S:
            raise UserError(
                f"no task has ended for {STALL_S:g} s, with {self._done:,} of {self._total:,} done: the logs in "
                f"{self._children.folder} may say why"
            )

    def _snapshot(self, publishing: Publishing) -> Snapshot:
        watching = self._watching
        return Snapshot(
            at_s=self._now_s(), total=self._total, published=publishing.published, done=watching.done,
            parked=watching.parked, moving=len(watching.moving), repeats=watching.repeats,
        )  # fmt: skip

    def _catch_up(self) -> None:
        """The last records of the history are still to be read: nobody writes it any more."""
        with closing(TopicReader(self._settings, self._settings.topic("task-events"))) as reader:
            ends = {partition: bounds.high for partition, bounds in reader.bounds.items()}
        deadline_s = self._now_s() + CATCH_UP_S
        while not self._watching.has_read(ends):
            if self._watching.error is not None or self._now_s() > deadline_s:
                raise UserError(f"the history could not be read to its end: {self._watching.error or 'too slow'}")
            time.sleep(TICK_S)

    def _now_s(self) -> float:
        return (now().mono_ms - self._begun_ms) / 1000
