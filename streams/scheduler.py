"""The scheduler process: Faust app, one agent, one table, one transaction per step.

    pump (thread) ── Batch ──▶ agent ── Engine.step ──▶ Transactor.commit (thread)
                                 ▲                           │ failed or fenced
                     answers of look-ups, members            └──▶ leave the group, join again, load afresh

Memory runs ahead of the log by at most one step, and only the agent moves it.
"""

import asyncio
import os
import socket
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import confluent_kafka as ck
import structlog
from faust.types import TP
from prometheus_client import CollectorRegistry

from streams import limits, questions
from streams.admin import UnreachableError
from streams.app import new_app
from streams.breakers import BreakerSettings
from streams.clock import Now, mono_ns, new_id, now
from streams.engine import Engine, Input, Output, RecordFailed
from streams.errors import InstanceTakenError, UserError
from streams.flow import Flow
from streams.http import HttpServer
from streams.local import Runner
from streams.lookups import Lookups
from streams.members import Announcer, MembersView, is_dead
from streams.metrics import SchedulerMetrics
from streams.partition import INPUTS, Partition
from streams.placement import Start
from streams.protocol import PROTOCOL, Member, Reason, Report, ReportKind
from streams.retry import Policy
from streams.settings import Settings, TopicName
from streams.store import LoadingInterrupted, LogWentBack, Store
from streams.targets import Target
from streams.topics import verify_identity
from streams.transaction import GroupMetadata, TransactionFailed, Transactor
from streams.transport import Batch, Pump
from streams.trim import trim_topics

log = structlog.get_logger("scheduler")

TRIM_INTERVAL_MS = 3_600_000
WARN_INTERVAL_MS = 10_000
HELD_MS, HELD_LOOKS = 2_000, 4  # input that stands still for so long, at so many looks, is held up
REJOIN_S_MAX = 2.0
COMMIT_S_MAX = limits.TRANSACTION_TIMEOUT_MS / 1000 + 2
CHECK_INTERVAL_MS = 10_000
PART_RECORDS = 200  # taken in at once where handlers run here
# While so many groups or tasks are in the express lane, the next transaction waits a little: what ends until then costs
# it no row.  Readers wait for it, commands, and what is to start on workers.
BUSY = 50, 100
LINGER_S = 0.02

T = TypeVar("T")
Offsets = dict[tuple[TopicName, int], int]


class Scheduler:
    """One instance.  `run()` returns after `request_stop()`, and raises `UserError` when it must not go on."""

    pump: Pump | None = None

    def __init__(self, settings: Settings, instance: str, local: Runner | None = None) -> None:
        self.settings, self.instance, self.boot_id = settings, instance, new_id()
        self.lost = False  # the latest revocation: partitions were taken, not asked for
        owner = settings.transactional_id(instance)
        self.engine = Engine(
            instance=instance, boot_id=self.boot_id, owner=owner, partitions=settings.partitions,
            lease_s=settings.silence_s, task_bytes_max=settings.task_bytes_max,
            policy=Policy(max_attempts=settings.max_attempts, on_failure=settings.on_failure),
            breakers=BreakerSettings(settings.breaker_rate, settings.breaker_window, settings.breaker_open_s),
            flow=Flow(settings.group_parked_max, settings.partition_tasks_max, settings.when_full),
            group_policies=settings.group_policies.items(), idempotency_window_s=settings.idempotency_window_s,
            here=None if local is None else local.placement(self.boot_id), run_ms=settings.run_ms,
        )  # fmt: skip
        self._local = local
        self._local_news = asyncio.Event()  # something ended, or said something
        self._letting_go = False
        self._dead: set[str] = set()  # boot ids of processes known to be gone
        registry = CollectorRegistry()
        self.metrics = SchedulerMetrics(registry, self)
        if local is not None:
            local.metrics.register(registry)
        self.transactor = Transactor(settings, owner, self.metrics.kafka.conf("transactions"))
        self.assignments = 0
        self.store = Store(
            settings, owner, lambda owner: self.transactor.fence(owner), self._note_loading, self._is_followed
        )  # fmt: skip
        self.loading: int | None = None  # rows read so far, while partitions are loaded
        self._lookups = Lookups(settings)
        self._threads = {name: ThreadPoolExecutor(1, name) for name in ("transaction", "loading", "lookups")}
        self._answers: list[Callable[[Now], None]] = []
        self._background: set[asyncio.Future[Any]] = set()
        self._step = asyncio.Lock()
        self._names: dict[str, TopicName] = {settings.topic(t): t for t in INPUTS}
        self._suspects: set[tuple[TopicName, int, int]] = set()  # records whose processing raised once
        self._group: GroupMetadata = None
        self._stop = asyncio.Event()
        self._fatal: BaseException | None = None
        self._check_due_ms = now().mono_ms + CHECK_INTERVAL_MS
        self._trim_due_ms = now().mono_ms + TRIM_INTERVAL_MS
        self._warned_types: set[str] = set()
        self._warned_of_forwards = False
        self._turned_away = self._warn_due_ms = 0
        self._ended_at: dict[TP, int] = {}  # where an input partition was last read to its end
        self._stuck: dict[TP, tuple[int, int]] = {}  # at an end that is none: at which offset, how many looks in a row
        self._stuck_due_ms = 0
        self._read_ms: dict[TopicName, int] = {}  # timestamp of the latest record of each input
        self._full: frozenset[int] = frozenset()  # partitions whose intake of tasks pauses
        self._failures = 0  # in a row: the more, the longer the pause before joining again
        self._fenced: set[str] = set()  # boot ids of schedulers that fell silent
        self._trusted = True  # whether memory says what the log says
        self._unread: set[TP] = set()  # input partitions not read to an end since they were assigned
        self._members = MembersView(settings, instance, self.boot_id)
        self._announcer = Announcer(settings)
        self._http = HttpServer(
            settings.http, registry, live=self.is_live, ready=self.is_ready, routes=questions.routes(self)
        )
        self._http_address = ""
        self._target = Target(settings, "scheduler", instance)

    # -- life

    async def run(self) -> None:
        """Raises `UserError` (one sentence, exit code 2) when topics, protocol or instance id forbid to go on."""
        topics = await self._in_thread("loading", verify_identity, self.settings)
        self.store.input_ids = {topic: topics.topic_ids[topic] for topic in INPUTS}
        self._members.start()
        await self._in_thread("loading", self._members.wait_caught_up, 10)
        await self._in_thread("loading", self._members.ensure_unused)
        self._note_dead()
        try:
            await self._in_thread("transaction", self.transactor.start)
        except ck.KafkaException as error:
            raise UnreachableError(
                f"Kafka at {self.settings.bootstrap_servers} takes no records ({error.args[0].str()}): look at its "
                "health, then start this again"
            ) from error
        self._http_address = await self._http.start()
        self._target.write(self._http_address)
        self._announce()
        self._announcer.start()
        if self._local is not None:
            self._local.attach(self._reported_here, self.engine, self._lane_moved)
            self._in_background(self._step_for_local())
        app = new_app(self)
        log.info("started", http=self._http_address, boot_id=self.boot_id)
        starting = asyncio.ensure_future(app.start())  # ends with the first assignment, and a stop may come before it
        try:
            await asyncio.wait({starting, asyncio.ensure_future(self._stop.wait())}, return_when="FIRST_COMPLETED")
            if starting.done():
                starting.result()
            await self._stop.wait()
            await self._release_all()
        finally:
            starting.cancel()
            if self._local is not None:
                await self._local.stop_all()
            await app.stop()
            if self._local is not None:
                self._local.close()
            await self._in_thread("lookups", self._leave)
            await self._http.stop()
            self._target.remove()
            for thread in self._threads.values():
                thread.shutdown(wait=False)
        if self._fatal is not None:
            raise self._fatal

    def request_stop(self) -> None:
        """Finish the step in hand, release the partitions cleanly, leave.  Call it from the event loop."""
        self._stop.set()

    def _leave(self) -> None:
        self._announcer.leave(tombstone=not isinstance(self._fatal, InstanceTakenError))
        self._members.stop()

    def fail(self, error: BaseException) -> None:
        """Stop because of something that going on would make worse; `run` raises it."""
        if self._fatal is None:
            self._fatal = UserError(str(error)) if isinstance(error, LogWentBack) else error
            log.error("stopping", why=str(error), exc_info=None if isinstance(self._fatal, UserError) else error)
        self._trusted = False
        self._stop.set()

    # -- what Faust's driver asks for

    def input_topics(self) -> list[str]:
        return list(self._names)

    def consumer_conf(self) -> dict[str, Any]:
        """Classic protocol, `range`: all inputs with one number go to one owner, and a dead one is noticed in 6 s."""
        return self.settings.kafka(**{
            "group.id": self.settings.scheduler_group, "client.id": self.instance,
            "group.protocol": "classic", "partition.assignment.strategy": "range",
            "session.timeout.ms": limits.SESSION_TIMEOUT_MS, "heartbeat.interval.ms": limits.HEARTBEAT_INTERVAL_MS,
            "max.poll.interval.ms": limits.POLL_INTERVAL_MS_MAX,
            "enable.auto.commit": False, "enable.auto.offset.store": False, "auto.offset.reset": "earliest",
            "isolation.level": "read_committed", "enable.partition.eof": True,
            # One queue holds what was fetched of all inputs: kept short, so that no completion waits behind a flood of
            # tasks.  A record larger than a fetch comes alone (KIP-74).
            "fetch.wait.max.ms": 50, "fetch.queue.backoff.ms": 5, "queued.min.messages": 100,
            "fetch.message.max.bytes": limits.FETCH_BYTES,
            **self.metrics.kafka.conf("input"),
        })  # fmt: skip

    def interrupt_loading(self) -> None:
        self.store.interrupted.set()

    async def take_over(self, assigned: set[TP]) -> None:
        """Load the partitions and stamp them with our name; the pump lets records flow only after this."""
        numbers = {tp.partition for tp in assigned}
        self.store.interrupted.clear()
        self._trusted, self._unread = True, set(assigned)
        self._full = frozenset()  # an assignment fetches everything again
        self.assignments += 1
        self._group = self.pump.group if self.pump else None
        self._note_dead()
        try:
            self.loading = 0
            if self._local is not None:
                await self._local.stop_all()  # of an earlier assignment
            self._letting_go = False
            if self.engine.here is not None:
                self.engine.here.free = self.engine.here.slots
            await self._in_thread("loading", verify_identity, self.settings)
            self._fence_the_silent()
            self._note_stopped({})
            loaded = await self._in_thread("loading", self.store.load, numbers)
            self._note_stopped(self.store.refused)
            async with self._step:
                for partition in loaded.values():
                    self.engine.adopt(partition, now(), frozenset(self._dead))
                # With what adopting them led to: the stamp counts it already.
                stamps = [*self.engine.cut(), *(s for p in loaded for s in self.engine.stamp(p, released=False))]
                await self._commit(stamps, self._positions(loaded), self._group)
        except LoadingInterrupted:
            log.info("loading interrupted by a rebalance")
        except TransactionFailed:
            self._distrust()
        except (ck.KafkaException, UnreachableError) as error:
            log.warning("loading failed", error=str(error))
            self._distrust()
        except Exception as error:  # Faust would go on without us
            self.fail(error)
        finally:
            self.loading = None
        log.info("assigned", partitions=sorted(numbers))
        self._announce()

    async def let_go(self, revoked: set[TP]) -> None:
        """Wait for the step in hand; a clean release spares the next owner from fencing us."""
        await self._end_local(lost=self.lost)
        async with self._step:
            await self._release({tp.partition for tp in revoked}, clean=not self.lost)
        self._announce()

    async def _end_local(self, *, lost: bool) -> None:
        """Begin nothing more here; what runs may end within its time, unless the partitions are lost already."""
        if self._local is None:
            return
        self._letting_go = True
        if self.engine.here is not None:
            self.engine.here.open = False
        if lost or not self._trusted:
            await self._local.stop_all()
            return
        finished = asyncio.ensure_future(self._local.finish())
        while not (await asyncio.wait({finished}, timeout=limits.RENEWAL_S))[0]:
            self._local_news.set()  # nothing else comes in, and what runs goes on only under a fresh proof
        finished.result()

    async def _release_all(self) -> None:
        await self._end_local(lost=False)
        async with self._step:
            await self._release(set(self.engine.partitions), clean=True)
            self._trusted = False

    async def _release(self, numbers: set[int], *, clean: bool) -> None:
        owned = [self.engine.partitions[n] for n in numbers if n in self.engine.partitions]
        if not owned:
            return
        self.engine.settle_lines(owned)
        stamps = [*self.engine.cut(), *(s for p in owned for s in self.engine.stamp(p.number, released=True))]
        for partition in owned:
            self.engine.drop(partition.number)
        if not (clean and self._trusted):
            return
        try:
            await self._commit(stamps, self._positions({p.number: p for p in owned}), self._group)
            await self._in_thread("loading", self.store.keep, owned, self.boot_id)
        except (TransactionFailed, ck.KafkaException) as error:
            log.warning("release failed, the next owner will fence us", error=str(error))
        log.info("released", partitions=sorted(numbers))

    def _hold_intake(self) -> None:
        """Fetch no tasks for partitions that have no room; what was fetched waits in the engine."""
        full = frozenset(self.engine.full_partitions())
        if full == self._full or self.pump is None:
            return
        for number in full - self._full:
            log.warning("intake of tasks pauses, the partition is full", partition=number)
        for number in self._full - full:
            log.info("intake of tasks goes on", partition=number)
        self._full = full
        self.pump.hold_back(self.settings.topic("tasks"), full)

    def _note_stopped(self, stopped: Mapping[int, str]) -> None:
        """These partitions wait for a newer version of this process; all others go on."""
        self.engine.stopped = dict(stopped)
        for number, why in stopped.items():
            log.error("partition stopped, nothing of it is lost: upgrade this scheduler", partition=number, why=why)
        if self.pump is not None:
            self.pump.leave_out(frozenset(stopped))

    async def _let_go_of_stopped(self) -> None:
        """A clean release: whoever can read on need not fence us.  Raises `TransactionFailed`."""
        owned = {n: self.engine.partitions[n] for n in self.engine.stopped if n in self.engine.partitions}
        if not owned:
            return
        self._note_stopped(self.engine.stopped)
        stamps = [s for n in owned for s in self.engine.stamp(n, released=True)]
        for number in owned:
            self.engine.drop(number)
        await self._commit(stamps, self._positions(owned), self._group)

    # -- steps

    async def handle(self, batch: Batch) -> None:
        """One batch, one step, one transaction.

        Where handlers run here, a batch is taken in while the transaction before commits, and the next one holds what
        has come of it by then.
        """
        try:
            if self._local is None:
                async with self._step:
                    if not batch.is_stale and self._trusted:
                        await self._take_step(batch.records, batch.ends, batch.group)
            elif not batch.is_stale and self._trusted and self.loading is None:
                await self._take_in_parts(self._local, batch)
        except Exception as error:  # Faust would start the agent again, on half a truth
            self.fail(error)
        batch.release()

    async def _take_step(
        self, records: list[ck.Message], read_to_end: dict[TP, int], group: GroupMetadata = None
    ) -> None:
        self._note_read(records, read_to_end, group)
        moment = now()
        self._take_answers(moment)
        self.engine.members = list(self._members.alive().values())
        repeated = self._repeated()
        try:
            self._open_local()
            outputs = self.engine.step(self._inputs(records), self._ends(read_to_end), moment)
            if self._went_back(repeated):
                return
            if self._local is not None:
                self._local.drive()
            careful = self._begin_here()
            self._cancel_here()
            if outputs:
                await self._commit(outputs, self._positions(touched(outputs, self.engine)), self._group)
            for start in careful:
                self._begin(start)
            await self._let_go_of_stopped()
        except RecordFailed as error:
            self._note_suspect(error)
            self._distrust()
        except TransactionFailed:
            self._distrust()
        else:
            self._failures = 0
            self._ask()
            self._announce()
            self._fence_the_silent()
            self._trim(moment)
            self._warn(moment)
            self._note_stuck(moment)
            self._hold_intake()

    async def _take_in_parts(self, local: Runner, batch: Batch) -> None:
        """A batch, as its tasks find room."""
        self._note_read(batch.records, batch.ends, batch.group)
        inputs = self._inputs(batch.records)
        part = PART_RECORDS
        while True:
            now_in, inputs = inputs[:part], inputs[part:]
            self._take_in(local, now_in, {} if inputs else self._ends(batch.ends))
            if not await local.room():
                part = len(inputs)  # the rest at once
            if not inputs or batch.is_stale or not self._trusted:
                return

    def _take_in(self, local: Runner, inputs: list[Input], ends: dict[tuple[str, int], int]) -> None:
        """The first part of a step: what can begin here begins, all else waits for the step that follows at once."""
        repeated = self._repeated()
        try:
            self._open_local()
            self.engine.take_in(inputs, ends, now())
        except RecordFailed as error:
            self._note_suspect(error)
            self._distrust()
            return
        if not self._went_back(repeated):
            local.drive()
            self._local_news.set()

    def _note_read(self, records: list[ck.Message], read_to_end: dict[TP, int], group: GroupMetadata) -> None:
        self._group = group or self._group
        self._unread -= read_to_end.keys()
        self._ended_at |= read_to_end
        if records:
            last = records[-1]
            self._read_ms[self._names[last.topic() or ""]] = last.timestamp()[1]

    def _went_back(self, repeated: int) -> bool:
        """Reading began at the watermarks: what lies below is another log, or one that lost its end.

        Loading afresh finds out which, and stops with a sentence.
        """
        if self._repeated() <= repeated:
            return False
        log.warning("an input topic went back")
        self._distrust()
        return True

    def _repeated(self) -> int:
        """Records so far that had been taken in before."""
        return sum(self.engine.counts["already_taken", topic] for topic in INPUTS)

    def _inputs(self, records: list[ck.Message]) -> list[Input]:
        names = self._names
        return [
            Input(names[m.topic()], m.partition(), m.offset(), m.key(), m.value(), m.headers() or [])  # type: ignore
            for m in records
        ]

    def _ends(self, read_to_end: dict[TP, int]) -> dict[tuple[str, int], int]:
        return {(self._names[tp.topic], tp.partition): offset for tp, offset in read_to_end.items()}

    def _positions(self, partitions: Mapping[int, Partition]) -> Offsets:
        return {(t, p.number): p.read_up_to[t] for p in partitions.values() for t in INPUTS}

    async def _commit(self, outputs: list[Output], offsets: Offsets, group: GroupMetadata) -> None:
        """Raises `TransactionFailed`, also when librdkafka does not come back: Kafka has aborted it by then.

        The one that hangs is left behind with its thread; it is fenced when its successor starts.
        """
        if not outputs:
            return
        began_ns = mono_ns()
        loop, thread = asyncio.get_running_loop(), self._threads["transaction"]
        commit = loop.run_in_executor(thread, self.transactor.commit, outputs, offsets, group)
        done, _ = await asyncio.wait({commit}, timeout=COMMIT_S_MAX)
        if not done:
            commit.add_done_callback(lambda late: late.cancelled() or late.exception())
            self._threads["transaction"] = ThreadPoolExecutor(1, "transaction")
            self.transactor = self.transactor.successor()
            log.error("a transaction hangs", after_s=COMMIT_S_MAX)
            raise TransactionFailed(f"not committed within {COMMIT_S_MAX} s")
        commit.result()
        if self._local is not None and group is not None:
            self._local.proven(began_ns)

    def _distrust(self) -> None:
        """Memory ran ahead of the log.  Reloading in place would let a woken zombie fence the live owner for ever."""
        self._trusted = False
        for number in list(self.engine.partitions):
            self.engine.drop(number)
        if self._members.superseded():
            self.fail(InstanceTakenError(self.instance))
        elif self.pump is not None:
            self.pump.suspend()
            self._failures += 1
            pause_s = min(REJOIN_S_MAX, 0.05 * 2 ** min(self._failures, 10))
            log.warning("joining again", after_s=pause_s)
            if self._local is None:
                asyncio.get_running_loop().call_later(pause_s, self.pump.rejoin)
            else:
                self._in_background(self._end_and_rejoin(self._local, self.pump, pause_s))

    async def _end_and_rejoin(self, local: Runner, pump: Pump, pause_s: float) -> None:
        """Leaving lets a successor begin: first, what runs here must have ended."""
        await local.stop_all()
        await asyncio.sleep(pause_s)
        pump.rejoin()

    def _note_suspect(self, error: RecordFailed) -> None:
        """The first time it may be chance; a record that fails again is set aside."""
        log.error("record failed", place=error.place, exc_info=error.__cause__)
        if error.place in self._suspects:
            self.engine.quarantined.add(error.place)
        self._suspects.add(error.place)

    # -- local execution

    def _open_local(self) -> None:
        """Before each step: whether anything may begin here, and whether the proof of membership is to be renewed."""
        here, local = self.engine.here, self._local
        if here is None or local is None:
            return
        here.open = not self._letting_go and self._trusted and local.may_begin()
        if local.proof_due():
            self.engine.prove()

    def _begin_here(self) -> list[Start]:
        """Begin what need not wait for the commit; what must is returned."""
        starts = self.engine.take_starts()
        for start in starts:
            if not start.careful:
                self._begin(start)
        return [start for start in starts if start.careful]

    def _cancel_here(self) -> None:
        cancels, self.engine.cancels = self.engine.cancels, []
        if self._local is not None:
            for key, token in cancels:
                self._local.cancel(key, token)

    def _begin(self, start: Start) -> None:
        assert self._local is not None
        if (
            self._letting_go
            or not self._trusted
            or start.partition is not self.engine.partitions.get(start.partition.number)
        ):
            task = start.task
            report = Report(ReportKind.RETURNED, task.sequence, task.token, reason=Reason.RETURNED)
            self._reported_here(start, (report,), True)
        else:
            self._local.begin(start)

    def _reported_here(self, start: Start, reports: tuple[Report, ...], ended: bool) -> None:
        """A local execution says something: memory moves at once, the next transaction says so."""
        try:
            if self.engine.report_here(start, reports, now(), ended=ended):
                self._begin_more()
                self._local_news.set()
        except Exception:
            log.exception("outcome not taken in", group=start.entry.name)
            self._distrust()

    def _lane_moved(self, slot_is_free: bool) -> None:
        """A task of the express lane has ended; with its slot, a head may begin."""
        self._local_news.set()
        if slot_is_free:
            try:
                self.engine.lane_ended(now())
                self._begin_more()
            except Exception:
                log.exception("heads not started")
                self._distrust()

    def _begin_more(self) -> None:
        """Heads that took the place of one that left; careful ones wait for the next step."""
        for start in self._begin_here():
            self.engine.put_off(start)

    async def _step_for_local(self) -> None:
        """Outcomes are committed as soon as the transaction before is."""
        while True:
            await self._local_news.wait()
            self._local_news.clear()
            try:
                async with self._step:
                    if self._trusted and self.engine.partitions:
                        await self._take_step([], {})
                if self.engine.express is not None and self.engine.express.holds(*BUSY):
                    await asyncio.sleep(LINGER_S)
            except Exception as error:
                self.fail(error)

    def _note_dead(self) -> None:
        """Processes of this host that are gone; what they ran is, too."""
        for heard in self._members.snapshot().values():
            if heard.member.boot_id != self.boot_id and is_dead(heard.member):
                self._dead.add(heard.member.boot_id)

    # -- look-ups

    def _ask(self) -> None:
        """Look up what the watch wants to know; the answers come with a later step."""
        watch = self.engine.watch
        if ends := watch.ends_wanted():
            self._in_background(self._ask_ends(ends))
        for dispatch_partition, outs in watch.claims_wanted().items():
            self._in_background(self._ask_claims(dispatch_partition, outs))

    async def _ask_ends(self, suspects: dict[int, int]) -> None:
        ends = await self._in_thread("lookups", self._lookups.completion_ends, list(suspects))
        for partition, end in ends.items():
            self._answers.append(lambda _, p=partition, e=end: self.engine.watch.end_found(p, suspects[p], e))  # type: ignore

    async def _ask_claims(self, dispatch_partition: int, outs: set[Any]) -> None:
        unclaimed = await self._in_thread("lookups", self._lookups.unclaimed, dispatch_partition)
        self.engine.counts["claims_looked_up", ""] += 1
        self._answers.append(lambda moment: self.engine.watch.claims_found(outs, unclaimed, moment.mono_ms))

    def _is_followed(self, owner: str, boot_id: str) -> bool:
        """Whether a later process uses that transactional id: it took it up before it announced itself."""
        return self._members.has_follower(owner.removeprefix(self.settings.transactional_id("")), boot_id)

    def _fence_the_silent(self) -> None:
        """A dead scheduler's open transaction holds up every dispatch partition that it wrote to, for all of us."""
        silent = self._members.silent("scheduler")
        self._fenced.intersection_update(member.boot_id for member in silent.values())  # it may fall silent again
        for member in silent.values():
            if member.boot_id not in self._fenced and member.instance != self.instance:
                self._fenced.add(member.boot_id)
                tid = self.settings.transactional_id(member.instance)
                self._in_background(self._in_thread("lookups", self.transactor.fence, tid))

    def _warn(self, moment: Now) -> None:
        """Once per type, until a worker handles it; once per process of a publisher with another partitioner; of tasks
        that are turned away now and then.
        """
        if not self._warned_of_forwards and self.engine.counts["forwarded", ""]:
            self._warned_of_forwards = True
            log.warning(
                "tasks arrive outside their group's partition and are forwarded: set partitioner=murmur2_random in the "
                "client that publishes them; `pstp topics check` shows where"
            )
        missing = self.engine.types_without_handler()
        for task_type in missing.keys() - self._warned_types:
            log.warning("no worker handles this type, its groups wait", type=task_type)
        self._warned_types = set(missing)
        turned_away = self.engine.counts["group_full", ""]
        if turned_away > self._turned_away and moment.mono_ms >= self._warn_due_ms:
            log.warning(
                "no room: the newest tasks become dead letters (group_full)", tasks=turned_away - self._turned_away,
                why=self.engine.no_room,
            )  # fmt: skip
            self._turned_away, self._warn_due_ms = turned_away, moment.mono_ms + WARN_INTERVAL_MS

    async def _check_topics(self) -> None:
        """Topics may be changed under a running process; it must stop then, not guess."""
        try:
            await self._in_thread("lookups", verify_identity, self.settings)
        except UnreachableError:
            pass  # an outage; everything else notices as well
        except UserError as error:
            self.fail(error)

    def _trim(self, moment: Now) -> None:
        """The owner of partition 0 removes what everybody has read and what is old, once an hour."""
        if moment.mono_ms >= self._check_due_ms:
            self._check_due_ms = moment.mono_ms + CHECK_INTERVAL_MS
            self._in_background(self._check_topics())
        if 0 in self.engine.partitions and moment.mono_ms >= self._trim_due_ms:
            self._trim_due_ms = moment.mono_ms + TRIM_INTERVAL_MS
            self._in_background(self._in_thread("lookups", trim_topics, self.settings, moment.wall_ms))

    def _take_answers(self, moment: Now) -> None:
        answers, self._answers = self._answers, []
        for answer in answers:
            answer(moment)

    def _in_background(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._background.add(task)
        task.add_done_callback(self._background_done)

    def _background_done(self, task: "asyncio.Future[Any]") -> None:
        self._background.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("background work failed, it is tried again later", error=str(error))

    async def _in_thread(self, thread: str, function: Callable[..., T], *args: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads[thread], function, *args)

    # -- what others see

    def _note_loading(self, rows: int) -> None:
        self.loading = rows

    def _announce(self) -> None:
        engine = self.engine
        self._announcer.update(Member(
            PROTOCOL, self.instance, self.boot_id, "scheduler", socket.gethostname(), os.getpid(), 0,
            http=self._http_address, partitions=tuple(sorted(engine.partitions.keys() | engine.stopped.keys())),
            unclaimed=dict(engine.unclaimed), running=dict(engine.running), demand=self._demand(),
        ))  # fmt: skip

    def _demand(self) -> dict[str, tuple[int, int]]:
        """What the others must know of it: an announcement has room for so many types."""
        demand = self.engine.demand()
        if len(demand) <= limits.ANNOUNCED_TYPES_MAX:
            return demand
        return dict(sorted(demand.items(), key=lambda item: -item[1][0])[: limits.ANNOUNCED_TYPES_MAX])

    def lag(self) -> dict[TopicName, int]:
        """Records between what was read and the end of the log, per input topic."""
        lag = dict.fromkeys(self._names.values(), 0)
        for tp, end in (self.pump.known_ends() if self.pump else {}).items():
            topic, partition = self._names[tp.topic], self.engine.partitions.get(tp.partition)
            if partition is not None:
                lag[topic] += max(0, end - partition.read_up_to[topic])
        return lag

    def lag_s(self) -> dict[TopicName, float]:
        """By topic: how long ago the last record that was read had been written, while there are more; else 0."""
        wall_ms = now().wall_ms
        return {
            topic: max(0.0, (wall_ms - self._read_ms[topic]) / 1000) if records and topic in self._read_ms else 0.0
            for topic, records in self.lag().items()
        }

    def held(self) -> list[tuple[TopicName, int]]:
        """Input partitions that do not go on because somebody left a transaction open there."""
        return [(self._names[tp.topic], tp.partition) for tp, (_, looks) in self._stuck.items() if looks > HELD_LOOKS]

    def _note_stuck(self, moment: Now) -> None:
        """A committed reader is at its end, and the log goes on: what lies behind is not committed yet.

        Time alone says nothing: a step that takes long leaves what was fetched unread as well.  So looks are counted,
        and each comes with a step that takes in what there was.
        """
        if self.pump is None or moment.mono_ms < self._stuck_due_ms:
            return
        self._stuck_due_ms = moment.mono_ms + HELD_MS // HELD_LOOKS
        stuck: dict[TP, tuple[int, int]] = {}
        for tp, end in self.pump.known_ends().items():
            partition = self.engine.partitions.get(tp.partition)
            at = None if partition is None else partition.read_up_to[self._names[tp.topic]]
            if at is not None and at < end and self._ended_at.get(tp) == at:
                before, looks = self._stuck.get(tp, (at, 0))
                # One that is read to its end again and again, and goes on each time, is busy and not held.
                stuck[tp] = at, looks + 1 if before == at else 1
        self._stuck = stuck

    def is_live(self) -> tuple[bool, str]:
        """Whether the pump polls: a process that is up but makes no progress is not alive."""
        if self.pump is None:
            return True, "starting"
        silent_s = questions.mono_s() - self.pump.last_poll_mono_s
        return silent_s < limits.SESSION_TIMEOUT_MS / 1000, f"polled {silent_s:.1f} s ago"

    def is_ready(self) -> tuple[bool, str]:
        """Whether partitions are assigned, loaded, and once read to their ends."""
        if self.loading is not None:
            return False, f"loading, {self.loading} rows read"
        if self.engine.stopped:
            return False, next(iter(self.engine.stopped.values()))
        if not self.engine.partitions:
            return False, "no partitions assigned"
        if self._unread:
            return False, f"{len(self._unread)} input partitions are not read to their end yet"
        return True, f"owns {len(self.engine.partitions)} partitions"


def touched(outputs: list[Output], engine: Engine) -> dict[int, Partition]:
    """The partitions for which these outputs speak: only their positions go with the transaction."""
    numbers = {o.partition for o in outputs if o.topic == "changelog"}
    return {n: engine.partitions[n] for n in numbers}
