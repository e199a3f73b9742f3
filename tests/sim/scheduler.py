"""A scheduler process: the real `Scheduler`, `Store`, `Transactor` and `Lookups`.

Modelled after `transport.py` is `Pump` (one batch at a time, the epoch that makes batches stale, what happens at a
rebalance); after `scheduler.py` the order of `run` and the threads of `_in_thread`; Faust itself is left out.
"""

from collections.abc import Coroutine, Generator
from typing import Any

import confluent_kafka as ck
from faust.types import TP

from streams.errors import InstanceTakenError, UserError
from streams.partition import INPUTS
from streams.scheduler import Scheduler
from streams.settings import Settings
from tests.sim.broker import Log, Message
from tests.sim.groups import GroupMetadata, Membership
from tests.sim.loop import MS, Killed, Process, S, Violation, judged
from tests.sim.stage import STAGE

TICK_US = 50 * MS  # as in transport.py


class _Pause:
    """Awaited where a thread answers the event loop: the driver goes on later."""

    def __await__(self) -> Generator[None, None, None]:
        yield


def drive(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run it to its end; what blocks in it lets the world go on by itself."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    raise AssertionError("it waits for something")


class SimScheduler(Scheduler):
    """Threads are calls; only answers of look-ups come later."""

    looking_up = False
    slow_until_us = 0  # answers of look-ups take seconds

    async def _in_thread(self, thread: str, function: Any, *args: Any) -> Any:
        if thread != "lookups":
            return function(*args)
        while self.looking_up:
            await _Pause()
        self.looking_up = True
        try:
            result = function(*args)
        finally:
            self.looking_up = False
        await _Pause()
        return result

    def _in_background(self, work: Any) -> None:
        STAGE.loop.at(STAGE.loop.chance.randrange(5 * MS), lambda: self._go_on(work), STAGE.wire.process())

    def _go_on(self, work: Any) -> None:
        try:
            work.send(None)
        except StopIteration:
            return
        except ck.KafkaException:
            return  # "background work failed, it is tried again later"
        chance = STAGE.loop.chance
        is_slow = self.slow_until_us > STAGE.loop.now_us or chance.random() < 0.2
        delay_us = chance.randrange(3 * S) if is_slow else chance.randrange(10 * MS)
        STAGE.loop.at(delay_us, lambda: self._go_on(work), STAGE.wire.process())


class Batch:
    def __init__(self, records: list[Message], ends: dict[TP, int], group: GroupMetadata, pump: "Pump") -> None:
        self.records, self.ends, self.group, self.epoch, self._pump = records, ends, group, pump.epoch, pump

    @property
    def is_stale(self) -> bool:
        return self.epoch != self._pump.epoch

    def release(self) -> None:
        self._pump.release(self.epoch)


class Pump:
    """Reads the inputs for one scheduler and tells it of rebalances."""

    def __init__(self, life: "SchedulerLife", group: str, client_id: str) -> None:
        self._life = life
        self.membership = Membership(STAGE.wire.broker.groups[group], life.process, client_id, life.turn_soon)
        self.epoch = 0
        self.assigned: frozenset[TP] = frozenset()
        self.group: Any = None
        self.flowing = False
        self.wants_to_rejoin = False
        self.lag_until_us = 0
        self._stalled = ""  # a topic of which nothing comes
        self._stalled_until_us = 0
        self._positions: dict[Log, int] = {}
        self._told_end: dict[Log, int] = {}
        self._held: tuple[str, frozenset[int]] = "", frozenset()  # of this topic nothing is fetched from these

    def lag(self, duration_us: int, stalled: str) -> None:
        """Read little and late for this long, and for most of it nothing of one topic."""
        self.lag_until_us = STAGE.loop.now_us + duration_us
        self._stalled, self._stalled_until_us = stalled, STAGE.loop.now_us + duration_us * 3 // 4

    @property
    def is_lagging(self) -> bool:
        return self.lag_until_us > STAGE.loop.now_us

    def leave_out(self, numbers: frozenset[int]) -> None:
        assert not numbers, "no world has records of a newer version"

    def known_ends(self) -> dict[TP, int]:
        return {}

    def new_epoch(self) -> None:
        self.epoch += 1
        self.flowing = False
        for log in self._positions:
            log.readers.pop(self._life.turn_soon, None)
        self._positions = {}

    suspend = new_epoch

    def release(self, epoch: int) -> None:
        """The batch of that epoch is done with."""

    def rejoin(self) -> None:
        self.new_epoch()
        self.wants_to_rejoin = True
        self._life.turn_soon()

    def rejoin_now(self) -> None:
        self.wants_to_rejoin = False
        self.membership.leave()
        self.membership.join()

    def hold_back(self, topic: str, numbers: frozenset[int]) -> None:
        self._held = topic, numbers
        self._life.turn_soon()

    def start_flow(self, epoch: int) -> None:
        if epoch != self.epoch:
            return
        self._held = "", frozenset()
        broker = STAGE.wire.broker
        for tp in sorted(self.assigned):
            log = broker.log(tp.topic, tp.partition)
            self._positions[log] = broker.offsets.get((self.membership.group.name, tp.topic, tp.partition), (0, ""))[0]
            log.readers[self._life.turn_soon] = None
        self._told_end = {}
        self.flowing = True

    def has_more(self) -> bool:
        return not self.is_lagging and any(self._positions[log] < log.stable_end() for log in self._flowing())

    def _flowing(self) -> list[Log]:
        topic, numbers = self._held
        return [log for log in self._positions if not (log.topic == topic and log.partition in numbers)]

    def fetch(self) -> Batch:
        """Records of all inputs, in any order between partitions."""
        chance = STAGE.loop.chance
        records: list[Message] = []
        ends: dict[TP, int] = {}
        is_stalled = self._stalled_until_us > STAGE.loop.now_us
        logs = [log for log in self._flowing() if not (is_stalled and log.topic == self._stalled)]
        chance.shuffle(logs)
        for log in logs if STAGE.wire.can_reach(self._life.process) else ():
            count = chance.randrange(1, 3 if self.is_lagging else 50)
            found, at = log.read(self._positions[log], count, committed=True)
            self._positions[log] = at
            records += found
            if at >= log.stable_end() and self._told_end.get(log) != at:
                self._told_end[log] = ends[TP(log.topic, log.partition)] = at
        return Batch(records, ends, self.group, self)


class SchedulerLife:
    """One process, from its start to its end."""

    def __init__(self, process: Process, settings: Settings, name: str) -> None:
        self.process = process
        self.scheduler = SimScheduler(settings, name)
        self.pump = Pump(self, settings.scheduler_group, name)
        self._busy = self._again = False
        self._timer = 0
        self._batch: Batch | None = None

    @property
    def engine(self) -> Any:
        return self.scheduler.engine

    def start(self) -> None:
        """As `Scheduler.run` does."""
        scheduler = self.scheduler
        scheduler.store.input_ids = dict.fromkeys(INPUTS, "id")
        scheduler._members.start()
        try:
            scheduler._members.wait_caught_up(10)
            scheduler._members.ensure_unused()
            scheduler.transactor.start()
        except (UserError, ck.KafkaException):
            self.exit()
        scheduler._announce()
        scheduler._announcer.start()
        scheduler.pump = self.pump  # type: ignore[assignment]
        self.pump.membership.join()
        self.turn_soon()

    def exit(self) -> None:
        self.process.die()
        raise Killed(self.process)

    def stop(self) -> None:
        """SIGTERM."""
        self.scheduler.request_stop()
        self.turn_soon()

    def turn_soon(self) -> None:
        chance = STAGE.loop.chance
        self._turn_in(chance.randrange(200, 3 * MS))

    def _turn_in(self, delay_us: int) -> None:
        """The earliest wish counts."""
        at_us = STAGE.loop.now_us + delay_us
        if self.pump.is_lagging:
            at_us += STAGE.loop.chance.randrange(400 * MS)
        if not self._timer or at_us < self._timer or self._timer < STAGE.loop.now_us:
            self._timer = at_us
            STAGE.loop.at(at_us - STAGE.loop.now_us, lambda: self._turn(at_us), self.process)

    def _turn(self, timer: int) -> None:
        if timer != self._timer:
            return
        self._timer = 0
        if self._busy:
            self._interrupt()
            return
        self._busy = True
        try:
            with judged(f"scheduler {self.process.name}"):
                self._work()
        finally:
            self._busy = False
        more = self._again or self._has_more()
        self._again = False
        chance = STAGE.loop.chance
        self._turn_in(chance.randrange(100, 2 * MS) if more else TICK_US + chance.randrange(3 * TICK_US))

    def _has_more(self) -> bool:
        return self._batch is not None or self.pump.has_more() or bool(self.pump.membership.callbacks)

    def _interrupt(self) -> None:
        """The pump polls also while a step or a load is under way: a rebalance makes them stale at once."""
        self._again = True
        if self.pump.membership.callbacks:
            self.pump.new_epoch()
            self.scheduler.interrupt_loading()

    def _work(self) -> None:
        scheduler, pump = self.scheduler, self.pump
        scheduler._members.listen()
        if scheduler._stop.is_set():
            self._leave()
        if pump.wants_to_rejoin:
            self._rebalance("revoke")
            pump.rejoin_now()
        elif pump.membership.callbacks:
            kind, numbers = pump.membership.take()
            self._rebalance(kind, numbers)
            pump.membership.done(kind, numbers)
        elif pump.flowing or self._batch is not None:
            batch, self._batch = self._batch or pump.fetch(), None
            if STAGE.loop.chance.random() < 0.05:
                self._batch = batch  # on its way from thread to loop; there may be a rebalance first
                return
            drive(scheduler.handle(batch))  # type: ignore[arg-type]
            STAGE.truth.check_scheduler(self)

    def _rebalance(self, kind: str, numbers: set[int] = frozenset()) -> None:  # type: ignore[assignment]
        scheduler, pump = self.scheduler, self.pump
        STAGE.wire.note(f"{self.process.name}: {kind} {sorted(numbers)} of generation {pump.membership.generation}")
        pump.new_epoch()
        scheduler.interrupt_loading()
        if kind == "assign":
            pump.assigned = frozenset(TP(topic, n) for topic in INPUTS for n in sorted(numbers))
            pump.group = pump.membership.metadata
            epoch = pump.epoch
            drive(scheduler.take_over(set(pump.assigned)))
            pump.start_flow(epoch)
            return
        gone, pump.assigned = pump.assigned, frozenset()
        scheduler.lost = kind == "lost"
        drive(scheduler.let_go(set(gone)))

    def _leave(self) -> None:
        """As the end of `run`."""
        scheduler = self.scheduler
        drive(scheduler._release_all())
        scheduler._announcer.leave(tombstone=not isinstance(scheduler._fatal, InstanceTakenError))
        self.pump.new_epoch()
        self.pump.membership.leave()
        if scheduler._fatal is not None and not isinstance(scheduler._fatal, UserError):
            raise Violation("errors", f"scheduler {self.process.name} stopped: {scheduler._fatal!r}")
        self.exit()
