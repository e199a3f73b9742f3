"""Everything in which PSTP overrides Faust, and why.

Faust's own driver has no transactions that other clients understand, so its place is taken by a driver on
confluent-kafka.  Faust keeps what it is good at: the app, the agent, the table, their life cycle and signals.

- `Consumer`: one poll thread owns the `confluent_kafka.Consumer`.  Each fetch becomes one Faust message whose value is
  a `Batch`; a batch without records is a tick, so that timers and answers reach the agent as events of the same loop.
- `Producer`: nothing goes out through Faust; the transaction writes everything.
- `Table`/`GroupStore` (in `store.py`): rows are read and written by us, Faust's recovery finds nothing to do.
- Faust's assignor is never asked: librdkafka's `range` assignor keeps the input topics together.
"""

import asyncio
import itertools
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from concurrent.futures import Future
from typing import Any

import confluent_kafka as ck
import structlog
from faust.transport import base
from faust.transport.consumer import Consumer as FaustConsumer
from faust.transport.producer import Producer as FaustProducer
from faust.types import TP
from faust.types.tuples import ConsumerMessage

from streams import limits
from streams.logs import kafka_logger

log = structlog.get_logger("transport")

TICK_S = 0.05
ENDS_S = 0.25
Partitions = frozenset[TP]


class Batch:
    """One fetch: its records, which partitions it read to their end, and the group metadata of that moment."""

    __slots__ = ("_pump", "ends", "epoch", "group", "records")

    def __init__(self, records: list[ck.Message], ends: dict[TP, int], group: Any, epoch: int, pump: "Pump") -> None:
        self.records, self.ends, self.group, self.epoch, self._pump = records, ends, group, epoch, pump

    @property
    def is_stale(self) -> bool:
        """Fetched before the latest rebalance: somebody else may own its partitions, so it must not be processed."""
        return self.epoch != self._pump.epoch

    def release(self) -> None:
        """Done with it: the next fetch may be handed out."""
        self._pump.release(self.epoch)


class Pump(threading.Thread):
    """Owns the confluent Consumer.  Polls all the time, even while partitions load, so that membership is kept.

    A rebalance raises `epoch` before anything else happens.  `on_assigned` and `on_revoked` are coroutine functions
    that run in the event loop; the thread waits for `on_revoked`: partitions are let go only when it is done.
    """

    def __init__(
        self, conf: Mapping[str, Any], topics: Iterable[str], loop: asyncio.AbstractEventLoop, *,
        on_batch: Callable[[Batch], None],
        on_assigned: Callable[[Partitions, int], Awaitable[None]],
        on_revoked: Callable[[Partitions, bool], Awaitable[None]],
        on_error: Callable[[BaseException], None],
    ) -> None:  # fmt: skip
        super().__init__(name="pump", daemon=True)
        self._consumer = ck.Consumer(dict(conf), logger=kafka_logger())
        self._topics, self._loop = sorted(topics), loop
        self._on_batch, self._on_error = on_batch, on_error
        self._on_assigned, self._on_revoked = on_assigned, on_revoked
        self._lock = threading.Condition()
        self._calls: list[tuple[Callable[[], Any], Future[Any]]] = []
        self._in_hand = False
        self._stopping = False
        self._flowing = False
        self.assigned: Partitions = frozenset()
        self._left_out: frozenset[int] = frozenset()  # assigned, and not to be fetched from
        self._held_back: frozenset[TP] = frozenset()  # for now
        self.epoch = 0
        self.group: Any = None
        self.last_poll_mono_s = time.monotonic()
        self._ends: dict[TP, int] = {}
        self._ends_due_s = 0.0

    # -- called from the event loop

    def call(self, function: Callable[[], Any]) -> Awaitable[Any]:
        """Run `function` in the poll thread, between two polls."""
        future: Future[Any] = Future()
        with self._lock:
            self._calls.append((function, future))
            self._lock.notify()
        return asyncio.wrap_future(future)

    def release(self, epoch: int) -> None:
        with self._lock:
            if epoch == self.epoch:
                self._in_hand = False
                self._lock.notify()

    def suspend(self) -> None:
        """Hand out nothing more until the group is joined again."""
        self._new_epoch()

    def rejoin(self) -> None:
        """The one way back after a failed transaction: leave the group, join again, load afresh."""
        self._new_epoch()
        self.call(self._rejoin)

    def start_flow(self, epoch: int) -> None:
        """The partitions of that epoch are loaded: fetch them from their committed offsets."""
        self.call(lambda: self._start_flow(epoch))

    def leave_out(self, numbers: frozenset[int]) -> None:
        """Fetch nothing from partitions with these numbers, from now on and after later assignments."""
        self._left_out = numbers
        self.call(self._pause_left_out)

    def hold_back(self, topic: str, numbers: frozenset[int]) -> None:
        """Fetch nothing from these partitions of one topic, and again from those held back before."""
        self.call(lambda: self._hold_back(topic, numbers))

    def known_ends(self) -> dict[TP, int]:
        """Log ends as the fetches saw them, at most `ENDS_S` ago."""
        return {tp: end for tp, end in self._ends.items() if tp in self.assigned}

    def stop(self) -> None:
        with self._lock:
            self._stopping = True
            self._lock.notify()

    # -- the thread

    def run(self) -> None:
        try:
            self._subscribe()
            while not self._stopping:
                self._run_calls()
                self._poll()
                self._note_ends()
            self._consumer.close()
        except BaseException as error:
            self._loop.call_soon_threadsafe(self._on_error, error)

    def _run_calls(self) -> None:
        with self._lock:
            if self._in_hand and not self._calls:
                self._lock.wait(TICK_S)
            calls, self._calls = self._calls, []
        for function, future in calls:
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(function())
                except BaseException as error:
                    future.set_exception(error)

    def _poll(self) -> None:
        self.last_poll_mono_s = time.monotonic()
        if self._in_hand and self._flowing:
            return  # one batch at a time; a rebalance waits for it anyway
        epoch = self.epoch
        first = self._consumer.poll(TICK_S)  # rebalance callbacks run in here
        messages = [] if first is None else [first, *self._consumer.consume(limits.BATCH_RECORDS_MAX - 1, 0)]
        if epoch != self.epoch or not self._flowing:
            return  # a rebalance ran: what was fetched is fetched again by whoever owns it then
        records: list[ck.Message] = []
        ends: dict[TP, int] = {}
        for message in messages:
            if message.error() is None:
                records.append(message)
            else:
                self._note(message, ends)
        self._in_hand = True
        batch = Batch(records, ends, self.group, epoch, self)
        self._loop.call_soon_threadsafe(self._on_batch, batch)

    def _note_ends(self) -> None:
        """Here and nowhere else: confluent-kafka lets one thread at a time into a consumer, and whoever else asks may
        wait for as long as this thread polls."""
        if not self._flowing or self.last_poll_mono_s < self._ends_due_s:
            return
        self._ends_due_s = self.last_poll_mono_s + ENDS_S
        ends = {}
        for tp in self.assigned:
            offsets = self._consumer.get_watermark_offsets(ck.TopicPartition(*tp), cached=True)
            if offsets is not None and offsets[1] >= 0:
                ends[tp] = offsets[1]
        self._ends = ends

    def _note(self, message: ck.Message, ends: dict[TP, int]) -> None:
        error = message.error()
        assert error is not None
        if error.code() == ck.KafkaError._PARTITION_EOF:
            ends[TP(message.topic(), message.partition())] = message.offset() or 0
        elif error.fatal():
            raise ck.KafkaException(error)
        else:
            log.warning("consumer error", error=error.str())

    def _subscribe(self) -> None:
        self._consumer.subscribe(
            self._topics, on_assign=self._assign, on_revoke=self._revoke, on_lost=lambda c, p: self._revoke(c, p, True)
        )

    def _rejoin(self) -> None:
        self._consumer.unsubscribe()
        self._subscribe()

    def _assign(self, consumer: ck.Consumer, partitions: list[ck.TopicPartition]) -> None:
        """Accept, but fetch nothing yet: loading goes on in the loop while this thread keeps polling."""
        self._new_epoch()
        self.assigned = frozenset(TP(p.topic, p.partition) for p in partitions)
        consumer.assign([])
        self.group = consumer.consumer_group_metadata()
        asyncio.run_coroutine_threadsafe(self._guard(self._on_assigned(self.assigned, self.epoch)), self._loop)

    def _start_flow(self, epoch: int) -> None:
        if epoch != self.epoch:
            return
        assigned = [ck.TopicPartition(*tp) for tp in self.assigned]
        self._consumer.assign(assigned)
        self._consumer.resume(assigned)  # in librdkafka a pause outlives assignments
        self._flowing = True
        self._pause_left_out()

    def _hold_back(self, topic: str, numbers: frozenset[int]) -> None:
        before, self._held_back = self._held_back, frozenset(TP(topic, number) for number in numbers)
        if not self._flowing:
            return
        if again := [
            tp for tp in before - self._held_back if tp in self.assigned and tp.partition not in self._left_out
        ]:
            self._consumer.resume([ck.TopicPartition(*tp) for tp in again])
        if now := [tp for tp in self._held_back if tp in self.assigned]:
            self._consumer.pause([ck.TopicPartition(*tp) for tp in now])

    def _pause_left_out(self) -> None:
        if self._flowing and (
            out := [ck.TopicPartition(*tp) for tp in self.assigned if tp.partition in self._left_out]
        ):
            self._consumer.pause(out)

    def _revoke(self, consumer: ck.Consumer, partitions: list[ck.TopicPartition], lost: bool = False) -> None:
        self._new_epoch()  # before the loop hears of it: no batch taken now may still start a transaction
        gone, self.assigned = self.assigned, frozenset()
        future = asyncio.run_coroutine_threadsafe(self._guard(self._on_revoked(gone, lost)), self._loop)
        while not self._stopping:
            try:
                future.result(0.2)
                break
            except TimeoutError:
                continue
        consumer.unassign()

    async def _guard(self, rebalance: Awaitable[None]) -> None:
        try:
            await rebalance
        except Exception as error:
            self._on_error(error)

    def _new_epoch(self) -> None:
        with self._lock:
            self.epoch += 1
            self._in_hand = False
            self._flowing = False


class Consumer(FaustConsumer):  # type: ignore[misc]
    """Faust's view of the pump."""

    pump: Pump | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._batches: asyncio.Queue[Batch] = asyncio.Queue()
        self._numbers = itertools.count()
        self._rebalance = asyncio.Lock()
        self._assigned_epoch = 0

    async def subscribe(self, topics: Iterable[str]) -> None:
        if self.pump is not None:  # Faust subscribes again when it learns of the changelog, which we read ourselves
            return
        scheduler = self.app.scheduler
        self.pump = scheduler.pump = Pump(
            scheduler.consumer_conf(), scheduler.input_topics(), asyncio.get_running_loop(),
            on_batch=self._batches.put_nowait, on_assigned=self._assigned, on_revoked=self._revoked,
            on_error=self._failed,
        )  # fmt: skip
        self.pump.start()

    async def _assigned(self, assigned: Partitions, epoch: int) -> None:
        # Who had nothing assigned yet, because it was still loading, gets no revocation.
        self.app.scheduler.interrupt_loading()
        async with self._rebalance:
            if self.pump is None or epoch != self.pump.epoch:
                return
            if not self.app.rebalancing:
                self.app.on_rebalance_start()
            self._assigned_epoch = epoch
            self.app.consumer_generation_id = epoch
            await self.on_partitions_assigned(set(assigned), epoch)

    async def _revoked(self, revoked: Partitions, lost: bool) -> None:
        self.app.scheduler.interrupt_loading()
        async with self._rebalance:
            self.app.on_rebalance_start()
            self.app.scheduler.lost = lost
            await self.on_partitions_revoked(set(revoked))

    def _failed(self, error: BaseException) -> None:
        self.app.scheduler.fail(error)

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, ConsumerMessage]]:
        if not self.flow_active:
            await self.wait(self.can_resume_flow)
        try:
            batch = await asyncio.wait_for(self._batches.get(), timeout)
        except TimeoutError:
            return
        if self.pump is None or batch.is_stale or not self.pump.assigned:
            return
        tp = min(self.pump.assigned)  # Faust routes by topic; every batch goes to the one agent
        number = next(self._numbers)
        yield tp, ConsumerMessage(
            tp.topic, tp.partition, number, time.time(), 1, None, None, batch, None, 0, 0, tp,
            generation_id=self.app.consumer_generation_id,
        )  # fmt: skip

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Last step of Faust's rebalance: now everything is loaded."""
        if self.pump is not None:
            self.pump.start_flow(self._assigned_epoch)
        return {}

    def assignment(self) -> set[TP]:
        return set(self.pump.assigned) if self.pump else set()

    async def on_stop(self) -> None:
        if self.pump is not None:
            self.pump.stop()
            await asyncio.get_running_loop().run_in_executor(None, self.pump.join, 10)
        await super().on_stop()

    # -- what Faust asks of a driver and we do elsewhere

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        return True  # the transaction commits offsets

    async def verify_all_partitions_active(self) -> None:
        pass  # livez looks at the pump

    async def position(self, tp: TP) -> int | None:
        return None

    async def seek_wait(self, partitions: Mapping[TP, int]) -> None:
        pass

    async def _seek(self, partition: TP, offset: int) -> None:
        raise NotImplementedError("positions are the committed ones")

    async def earliest_offsets(self, *partitions: TP) -> Mapping[TP, int]:
        return dict.fromkeys(partitions, 0)

    async def highwaters(self, *partitions: TP) -> Mapping[TP, int]:
        return dict.fromkeys(partitions, 0)

    def highwater(self, tp: TP) -> int:
        return 0

    def topic_partitions(self, topic: str) -> int | None:
        return None

    def key_partition(self, topic: str, key: bytes | None, partition: int | None = None) -> int | None:
        return partition

    async def create_topic(self, *args: Any, **kwargs: Any) -> None:
        pass  # `pstp topics create` does, with the right settings

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> Any:
        raise NotImplementedError("getmany hands out batches")

    def _to_message(self, tp: TP, record: Any) -> ConsumerMessage:
        raise NotImplementedError("getmany hands out batches")

    def _new_topicpartition(self, topic: str, partition: int) -> TP:
        return TP(topic, partition)

    def close(self) -> None:
        pass


class Producer(FaustProducer):  # type: ignore[misc]
    """Refuses to send: a record outside of the transaction would break the promise."""

    async def send(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError("outputs go through the transaction")

    send_and_wait = send

    async def flush(self) -> None:
        pass

    async def create_topic(self, *args: Any, **kwargs: Any) -> None:
        pass


class Transport(base.Transport):  # type: ignore[misc]
    """Named in `App._new_transport`; never looked up by URL."""

    Consumer = Consumer
    Producer = Producer
    default_port = 9092
    driver_version = f"confluent-kafka={ck.__version__}"
