"""A worker process: the real `Worker`, `Poller`, `ReadAhead`, `Run`, `Execution`, `Lease` and `ControlReader`.

Modelled are the loops of their threads (`Poller.run`, `ControlReader.run`) and what `parts.py` holds.
"""

from typing import Any

import confluent_kafka as ck

from consumers import poller as poller_module
from consumers.handlers import Registry
from consumers.poller import Poller
from consumers.worker import Worker
from streams.errors import InstanceTakenError, UserError
from streams.settings import Settings
from tests.sim.loop import MS, Killed, Process, Violation, judged
from tests.sim.scenario import HandlerPlan, Scenario, WorkerPlan
from tests.sim.stage import STAGE

POLL_US = 100 * MS  # as in poller.py


class WorkerLife:
    """One process, from its start to its end."""

    def __init__(self, process: Process, settings: Settings, plan: WorkerPlan, scenario: Scenario) -> None:
        self.process, self.plan = process, plan
        declared = {handler.type: handler for handler in scenario.handlers}
        registry = Registry()
        for task_type in plan.types:
            how = declared.get(task_type, HandlerPlan(task_type, "auto", False, None))
            registry.handler(task_type, timeout_s=how.timeout_s, placement=how.placement)(_handler)  # type: ignore[arg-type]
        self.worker = Worker(settings, registry, plan.name, exit_process=self._exit_process, step=STAGE.wire.step)
        self.poller: Poller = self.worker._poller
        self._busy = self._again = self._draining = False
        self._timer = 0

    def start(self) -> None:
        """As `Worker.run` does."""
        worker, poller, control = self.worker, self.poller, self.worker._control
        try:
            worker._connect()
        except UserError:
            self._exit_process(2)
        worker._say(frozenset())
        worker._announcer.start()
        consumer: Any = control._consumer
        consumer.wake = self._control_soon
        consumer.assign([ck.TopicPartition("control", 0, 0)])
        self._control_soon()
        poller._wake.on_notify = self.poll_soon  # type: ignore[attr-defined]
        consumer = poller._consumer
        consumer.wake = self.poll_soon
        consumer.subscribe(
            [poller._topic], on_assign=poller._assigned, on_revoke=poller._revoked, on_lost=poller._revoked
        )
        self.poll_soon()

    def stop(self) -> None:
        """SIGTERM."""
        self.worker.request_stop()
        self.poll_soon()

    def _exit_process(self, code: int) -> None:
        STAGE.wire.note(f"{self.process.name}: exits with {code}")
        if self._draining:
            STAGE.truth.has_drained(self.process)
        self.process.die()
        raise Killed(self.process)

    # -- control

    def _control_soon(self) -> None:
        STAGE.loop.at(STAGE.loop.chance.randrange(200, 4 * MS), self._read_control, self.process)

    def _read_control(self) -> None:
        control = self.worker._control
        if control._stopping.is_set():
            return
        if not STAGE.wire.can_reach(self.process):
            STAGE.loop.at(200 * MS, self._read_control, self.process)
        messages = control._consumer.consume(1_000)
        for message in messages:
            control._fold(message)
        if messages:
            control.on_change()

    # -- polling

    def poll_soon(self) -> None:
        self._poll_in(STAGE.loop.chance.randrange(200, 3 * MS))

    def _poll_in(self, delay_us: int) -> None:
        """The earliest wish counts."""
        at_us = STAGE.loop.now_us + delay_us
        if not self._timer or at_us < self._timer or self._timer < STAGE.loop.now_us:
            self._timer = at_us
            STAGE.loop.at(delay_us, lambda: self._poll(at_us), self.process)

    def _poll(self, timer: int) -> None:
        if timer != self._timer:
            return
        self._timer = 0
        if self._busy:
            self._again = True
            return
        self._busy = True
        try:
            with judged(f"worker {self.process.name}"):
                self._work()
        finally:
            self._busy = False
        again, self._again = self._again, False
        chance = STAGE.loop.chance
        self._poll_in(chance.randrange(100, 2 * MS) if again else POLL_US + chance.randrange(2 * POLL_US))

    def _work(self) -> None:
        worker, poller = self.worker, self.poller
        worker._view.listen()
        if worker._stop_requested:
            if not self._draining:
                self._draining = True
                self._drain()
            return
        poller.polled_ns = poller_module.mono_ns()
        poller._read(0)
        poller._claims.settle_doubts(poller._consumer)
        poller._look_up()
        poller._open()
        if not poller._claims.claim(poller._consumer, poller._closed.keys()):
            poller._breathe()
        membership = poller._consumer.membership  # type: ignore[attr-defined]
        self._again |= bool(membership.callbacks) or poller._claims.in_doubt or not poller._opening.empty()

    def _drain(self) -> None:
        """The real `_drain`; between two polls, as if its `stop` had waited for the polling thread."""
        worker, poller = self.worker, self.poller
        stop = poller.stop

        def stop_and_close() -> None:
            stop()
            poller._owned = frozenset()
            poller._consumer.close()

        poller.stop = stop_and_close  # type: ignore[method-assign]
        worker._drain()
        worker._view.stop()
        failure = worker._failure
        if failure is not None and not isinstance(failure, UserError):
            raise Violation("errors", f"worker {self.process.name} stopped: {failure!r}")
        assert failure is None or isinstance(failure, InstanceTakenError), failure
        self._exit_process(0)


def _handler(task: Any) -> None:
    raise AssertionError("the executor plays the handlers")
