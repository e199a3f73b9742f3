"""What of confluent-kafka the code under test uses, on the model of the broker.

Each call is a place where the process may be killed or frozen, or where a request or its answer gets lost
(`Wire.call`); a process that cannot reach the broker waits in it, until it can or the client gives up.
"""

import random
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import confluent_kafka as ck

from tests.sim.broker import Broker, Log, Message, Txn
from tests.sim.groups import GroupMetadata, Membership
from tests.sim.loop import MS, Fault, Killed, Loop, Process, S

LOST_REQUEST, LOST_ANSWER = "lose_request", "lose_answer"
GIVE_UP_US = 10 * S
FETCH_US = 30 * MS
NO_OFFSET = -1001


def _nothing() -> None:
    """Nobody waits for records."""


def kafka_error(code: int, text: str = "", *, fatal: bool = False) -> ck.KafkaException:
    return ck.KafkaException(ck.KafkaError(code, text, fatal, False, False))


class End:
    """librdkafka's notice that a partition was read to its end."""

    def __init__(self, topic: str, partition: int, offset: int) -> None:
        self._place = topic, partition, offset

    def topic(self) -> str:
        return self._place[0]

    def partition(self) -> int:
        return self._place[1]

    def offset(self) -> int:
        return self._place[2]

    def key(self) -> None:
        return None

    value = key

    def error(self) -> ck.KafkaError:
        return ck.KafkaError(ck.KafkaError._PARTITION_EOF)


class Wire:
    """Between the running process and the broker."""

    def __init__(
        self, loop: Loop, broker: Broker, note: Callable[[str], None], on_dispatch: Callable[[Message], None]
    ) -> None:
        self.loop, self.broker, self.note, self.on_dispatch = loop, broker, note, on_dispatch

    @property
    def chance(self) -> random.Random:
        return self.loop.chance

    def process(self) -> Process:
        assert self.loop.current is not None
        return self.loop.current

    def can_reach(self, process: Process) -> bool:
        return process.is_reachable() and self.broker.down_until_us <= self.loop.now_us

    def call(self, name: str) -> str | None:
        """The process does something.  Says whether the request or the answer gets lost.  Raises `Killed`."""
        process = self.process()
        if not process.alive:
            raise Killed(process)
        lost = self._fault(process, name) if process.armed else None
        if process.cut_until_us > self.loop.now_us or self.broker.down_until_us > self.loop.now_us:
            self._wait_for_broker(process)
        return lost

    def step(self, name: str) -> None:
        """A place inside the process where it may be killed or frozen."""
        process = self.process()
        if process.armed:
            self._fault(process, name)

    def _fault(self, process: Process, name: str) -> str | None:
        fault = self.fault_at(process, name)
        return None if fault is None else self._happen(process, fault)

    def fault_at(self, process: Process, name: str) -> Fault | None:
        """The one whose moment this is; the caller makes it happen."""
        for fault in process.armed:
            if fault.where in ("", name):
                fault.countdown -= 1
                if fault.countdown < 0:
                    process.armed.remove(fault)
                    self.note(f"{process.name}: {fault.kind} at {name}")
                    return fault
        return None

    def _happen(self, process: Process, fault: Fault) -> str | None:
        match fault.kind:
            case "kill":
                process.die()
                raise Killed(process)
            case "freeze":
                process.freeze(fault.duration_us)
                self.loop.block(0)
            case "cut":
                process.cut(fault.duration_us)
            case "drain":
                process.on_stop()
            case _:
                process.doubts.append(self.loop.now_us)
                return fault.kind
        return None

    def _wait_for_broker(self, process: Process) -> None:
        until_us = self.loop.now_us + GIVE_UP_US
        while not self.can_reach(process):
            if self.loop.now_us >= until_us:
                raise kafka_error(ck.KafkaError._TIMED_OUT, "the broker does not answer")
            healed_us = max(process.cut_until_us, self.broker.down_until_us)
            self.loop.block(max(1, min(healed_us, until_us) - self.loop.now_us))


class Consumer:
    """Manual assignment, or as a member of a group.  `wake` is called when there may be something to read."""

    def __init__(self, wire: Wire, conf: dict[str, Any]) -> None:
        self._wire, self._broker = wire, wire.broker
        self._process = wire.process()
        self._committed_only = conf.get("isolation.level", "read_committed") == "read_committed"
        self._tells_ends = bool(conf.get("enable.partition.eof"))
        self._group, self._client_id = conf["group.id"], str(conf.get("client.id", ""))
        self._positions: dict[Log, int] = {}
        self._told_end: dict[Log, int] = {}
        self._paused: set[Log] = set()
        self._turn = 0
        self._topic = ""
        self._callbacks: dict[str, Callable[..., None]] = {}
        self.membership: Membership | None = None
        self.wake: Callable[[], None] = _nothing
        self._thawed_us = self._process.thawed_us
        self._fetched_us = 0

    def consumer_group_metadata(self) -> GroupMetadata:
        return GroupMetadata(self._group, -1, "")

    # -- reading

    def assign(self, places: Iterable[ck.TopicPartition]) -> None:
        self.unassign()
        self._add(places)

    def unassign(self) -> None:
        for log in self._positions:
            log.readers.pop(self._wake, None)
        self._positions.clear()
        self._told_end.clear()

    def _wake(self) -> None:
        self.wake()

    def _add(self, places: Iterable[ck.TopicPartition]) -> None:
        for place in places:
            log = self._broker.log(place.topic, place.partition)
            offset = place.offset
            if offset == NO_OFFSET:
                offset = max(0, self._broker.offsets.get((self._group, place.topic, place.partition), (0, ""))[0])
            self._positions[log] = max(0, offset)
            log.readers[self._wake] = None

    def poll(self, timeout: float = 0) -> Any:
        if self.membership is not None and self.membership.callbacks:
            self._rebalance(self.membership)
            return None
        found = self.consume(1)
        return found[0] if found else None

    def consume(self, num_messages: int, timeout: float = 0) -> list[Any]:
        if not self._wire.can_reach(self._process) or self._is_fetching():
            return []
        found: list[Any] = []
        logs = [log for log in self._positions if log not in self._paused]
        self._turn += 1
        for i in range(len(logs)):
            log = logs[(i + self._turn) % len(logs)]
            at = self._positions[log]
            messages, at = log.read(at, num_messages - len(found), committed=self._committed_only)
            self._positions[log] = at
            found += messages
            if len(found) >= num_messages:
                break
            if self._tells_ends and self._told_end.get(log) != at and at >= log.end(committed=self._committed_only):
                self._told_end[log] = at
                found.append(End(log.topic, log.partition, at))
        return found

    def _is_fetching(self) -> bool:
        """What was written while its process was frozen does not come at once, nor to all consumers at the same time."""
        if self._process.thawed_us != self._thawed_us and self.wake is not _nothing:
            self._thawed_us = self._process.thawed_us
            delay_us = self._wire.chance.randrange(FETCH_US)
            self._fetched_us = self._wire.loop.now_us + delay_us
            self._wire.loop.at(delay_us, self._wake, self._process)
        return self._fetched_us > self._wire.loop.now_us

    def has_more(self) -> bool:
        return any(at < log.end(committed=self._committed_only) for log, at in self._positions.items())

    def pause(self, places: Iterable[ck.TopicPartition]) -> None:
        self._paused |= {self._broker.log(p.topic, p.partition) for p in places}

    def resume(self, places: Iterable[ck.TopicPartition]) -> None:
        self._paused -= {self._broker.log(p.topic, p.partition) for p in places}

    def get_watermark_offsets(self, place: ck.TopicPartition, timeout: float = 0) -> tuple[int, int]:
        self._wire.call("watermarks")
        return 0, self._broker.log(place.topic, place.partition).end(committed=self._committed_only)

    # -- groups

    def subscribe(self, topics: list[str], **callbacks: Callable[..., None]) -> None:
        self._topic, self._callbacks = topics[0], callbacks
        group = self._broker.groups[self._group]
        self.membership = Membership(group, self._process, self._client_id, self._wake)
        self.membership.join()

    def _rebalance(self, membership: Membership) -> None:
        kind, numbers = membership.take()
        self._wire.note(f"{self._process.name}: {kind} {sorted(numbers)} of generation {membership.generation}")
        places = [ck.TopicPartition(self._topic, n) for n in sorted(numbers)]
        self._callbacks[f"on_{kind}"](self, places)
        membership.done(kind, numbers)

    def incremental_assign(self, places: list[ck.TopicPartition]) -> None:
        self._add(places)

    def incremental_unassign(self, places: list[ck.TopicPartition]) -> None:
        for place in places:
            log = self._broker.log(place.topic, place.partition)
            log.readers.pop(self._wake, None)
            self._positions.pop(log, None)

    def memberid(self) -> str:
        return self.membership.member_id if self.membership is not None else ""

    def commit(self, offsets: list[ck.TopicPartition], asynchronous: bool) -> list[ck.TopicPartition]:
        lost = self._wire.call("commit claim")
        self._wire.note(f"{self._process.name}: claims {[(p.partition, p.offset) for p in offsets]} {lost or ''}")
        who = self.membership.metadata if self.membership is not None else GroupMetadata(self._group, -1, "")
        if lost != LOST_REQUEST:
            refused = self._broker.groups[self._group].check(who, transactional=False)
            if refused is not None:
                raise kafka_error(getattr(ck.KafkaError, refused))
            for place in offsets:
                key = self._group, place.topic, place.partition
                self._broker.offsets[key] = place.offset, place.metadata or ""
        if lost is not None:
            raise kafka_error(ck.KafkaError._TIMED_OUT, lost)
        return [ck.TopicPartition(p.topic, p.partition, p.offset) for p in offsets]

    def committed(self, places: list[ck.TopicPartition], timeout: float) -> list[ck.TopicPartition]:
        if self._wire.call("committed") is not None:
            raise kafka_error(ck.KafkaError._TIMED_OUT, "no answer")
        until_us = self._wire.loop.now_us + int(timeout * S)
        while self._committed_only and self._broker.is_unstable(self._group, [(p.topic, p.partition) for p in places]):
            if self._wire.loop.now_us >= until_us:
                raise kafka_error(ck.KafkaError._TIMED_OUT, "offsets of an open transaction")
            self._wire.loop.block(100 * MS)
        return [self._committed(place) for place in places]

    def _committed(self, place: ck.TopicPartition) -> ck.TopicPartition:
        offset, metadata = self._broker.offsets.get((self._group, place.topic, place.partition), (NO_OFFSET, ""))
        return ck.TopicPartition(place.topic, place.partition, offset, metadata)

    def close(self) -> None:
        self.unassign()
        if self.membership is not None:
            self.membership.leave()


class Producer:
    """A transactional producer.  What it produces is in the log at once, for those who read uncommitted."""

    def __init__(self, wire: Wire, conf: dict[str, Any]) -> None:
        self._wire, self._broker, self._tid = wire, wire.broker, conf["transactional.id"]
        self._epoch = -1
        self._txn: Txn | None = None
        self._unsure = False  # whether the last commit was applied is not known

    def init_transactions(self, timeout: float) -> None:
        if self._wire.call("init_transactions") is not None:
            raise kafka_error(ck.KafkaError._TIMED_OUT)
        self._epoch = self._broker.init_producer(self._tid)

    def begin_transaction(self) -> None:
        self._wire.call("begin")
        self._txn = None

    def produce(
        self, topic: str, value: bytes | None, key: bytes | None, partition: int, headers: Any = None,
    ) -> None:  # fmt: skip
        self._wire.call("produce")
        if not self._is_fenced():
            message = self._broker.append(topic, partition, key, value, headers, self._begun())
            if topic == "dispatches" and value:
                self._wire.on_dispatch(message)

    def flush(self, timeout: float = 0) -> int:
        self._wire.call("flush")
        return 0

    def send_offsets_to_transaction(
        self, positions: list[ck.TopicPartition], group: GroupMetadata, timeout: float = 0
    ) -> None:
        lost = self._wire.call("offsets")
        self._check_epoch()
        places = [(p.topic, p.partition, p.offset) for p in positions]
        refused = self._broker.add_offsets(self._begun(), group, places) if lost != LOST_REQUEST else None
        if refused is not None:
            raise kafka_error(getattr(ck.KafkaError, refused))
        if lost is not None:
            raise kafka_error(ck.KafkaError._TIMED_OUT, lost)

    def commit_transaction(self, timeout: float = 0) -> None:
        lost = self._wire.call("commit")
        self._check_epoch()
        txn = self._begun()
        if lost == LOST_REQUEST:
            raise kafka_error(ck.KafkaError._TIMED_OUT, lost)
        if txn.state != "open":
            raise kafka_error(ck.KafkaError._FENCED, "aborted by the coordinator", fatal=True)
        self._broker.decide(txn, commit=True)
        if lost is not None:
            self._unsure = True
            raise kafka_error(ck.KafkaError._TIMED_OUT, lost)
        self._wire.call("committed")

    def abort_transaction(self, timeout: float = 0) -> None:
        if self._wire.call("abort") is not None or self._unsure:
            raise kafka_error(ck.KafkaError._STATE)
        self._check_epoch()
        if self._txn is not None and self._txn.state == "open":
            self._broker.decide(self._txn, commit=False)

    def _begun(self) -> Txn:
        if self._txn is None:
            self._txn = self._broker.begin(self._tid, self._epoch)
        return self._txn

    def _is_fenced(self) -> bool:
        return self._broker.is_fenced(self._tid, self._epoch)

    def _check_epoch(self) -> None:
        if self._is_fenced():
            raise kafka_error(ck.KafkaError._FENCED, "another producer has this id", fatal=True)


class AdminClient:
    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def list_topics(self, topic: str, timeout: float) -> None:
        self._wire.call("list topics")

    def list_offsets(self, wanted: Any, isolation_level: Any = None, request_timeout: float = 0) -> dict[Any, Any]:
        if self._wire.call("list offsets") is not None:
            raise kafka_error(ck.KafkaError._TIMED_OUT)
        self._wire.loop.block(self._wire.chance.randrange(1, 3) * MS)
        committed = isolation_level == ck.IsolationLevel.READ_COMMITTED
        answers = {}
        for place in wanted:
            answer: Future[Any] = Future()
            log = self._wire.broker.log(place.topic, place.partition)
            answer.set_result(SimpleNamespace(offset=log.end(committed=committed)))
            answers[place] = answer
        return answers


class Kafka:
    """Stands for the module `confluent_kafka`.  `wire` gives the one of the world that plays now."""

    Message, TopicPartition, OFFSET_BEGINNING = Message, ck.TopicPartition, ck.OFFSET_BEGINNING
    KafkaException, KafkaError = ck.KafkaException, ck.KafkaError

    def __init__(self, wire: Callable[[], Wire]) -> None:
        self._wire = wire

    def Consumer(self, conf: dict[str, Any], logger: Any = None) -> Consumer:
        return Consumer(self._wire(), conf)

    def Producer(self, conf: dict[str, Any], logger: Any = None) -> Producer:
        return Producer(self._wire(), conf)
