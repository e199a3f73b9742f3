"""A model of the broker: logs with offsets, transactions with markers, the last stable offset, fencing by epoch.

Source for what Kafka does: KIP-98 (transactions), KIP-360 and KIP-447 (fencing), and what this project measured.
Answers to `commit` come before the markers are written, each partition gets its own a little later: topics of one
transaction become visible in any order.
"""

from collections.abc import Callable, Iterable
from typing import Any

from streams import limits
from tests.sim.groups import Group, GroupMetadata
from tests.sim.loop import MS, Loop, Violation

Place = tuple[str, int]
Headers = list[tuple[str, bytes | None]]


class Message:
    """A record, as confluent-kafka shows it."""

    __slots__ = ("_headers", "_key", "_offset", "_partition", "_topic", "_value", "txn")

    def __init__(
        self, topic: str, partition: int, offset: int, key: bytes | None, value: bytes | None,
        headers: Headers | None, txn: "Txn | None",
    ) -> None:  # fmt: skip
        self._topic, self._partition, self._offset = topic, partition, offset
        self._key, self._value, self._headers, self.txn = key, value, headers, txn

    def topic(self) -> str:
        return self._topic

    def partition(self) -> int:
        return self._partition

    def offset(self) -> int:
        return self._offset

    def key(self) -> bytes | None:
        return self._key

    def value(self) -> bytes | None:
        return self._value

    def headers(self) -> Headers | None:
        return self._headers

    def timestamp(self) -> tuple[int, int]:
        """Nothing is decided by it."""
        return 1, 0

    def error(self) -> None:
        return None


class Txn:
    """One transaction of one producer."""

    __slots__ = ("epoch", "logs", "offsets", "records", "state", "tid", "unmarked")

    def __init__(self, tid: str, epoch: int) -> None:
        self.tid, self.epoch = tid, epoch
        self.state = "open"  # then committed or aborted
        self.logs: dict[Log, None] = {}
        self.records: list[Message] = []
        self.offsets: dict[tuple[str, str, int], int] = {}  # (group, topic, partition) -> next offset
        self.unmarked: set[Any] = set()  # logs, and "offsets", that wait for their marker


class Log:
    """One partition.  `records` holds None where a marker stands."""

    def __init__(self, topic: str, partition: int) -> None:
        self.topic, self.partition = topic, partition
        self.records: list[Message | None] = []
        self.open: dict[Txn, int] = {}  # transactions without their marker -> first offset, in order of it
        self.readers: dict[Callable[[], None], None] = {}

    def stable_end(self) -> int:
        """The last stable offset: what lies behind it is not shown to readers of committed records."""
        for offset in self.open.values():
            return offset
        return len(self.records)

    def end(self, *, committed: bool) -> int:
        return self.stable_end() if committed else len(self.records)

    def read(self, position: int, count: int, *, committed: bool) -> tuple[list[Message], int]:
        """Up to `count` records from `position`, and the position behind them."""
        end, found = self.end(committed=committed), []
        while position < end and len(found) < count:
            message = self.records[position]
            position += 1
            if message is None or (committed and message.txn is not None and message.txn.state == "aborted"):
                continue
            found.append(message)
        return found, position

    def notify(self) -> None:
        for wake in list(self.readers):
            wake()


class Broker:
    """`on_commit` hears of each transaction at the moment at which its outcome is decided."""

    def __init__(self, loop: Loop, on_commit: Callable[[Txn], None]) -> None:
        self.loop, self._on_commit = loop, on_commit
        self.logs: dict[Place, Log] = {}
        self.offsets: dict[tuple[str, str, int], tuple[int, str]] = {}  # (group, topic, partition)
        self.groups: dict[str, Group] = {}
        self.down_until_us = 0
        self._epochs: dict[str, int] = {}
        self._txns: dict[str, Txn] = {}  # the latest of each transactional id
        self._unstable: dict[Txn, None] = {}
        self._hanging: dict[
            tuple[str, Any], list[Txn]
        ] = {}  # by transactional id and place: their markers were skipped

    def log(self, topic: str, partition: int) -> Log:
        log = self.logs.get((topic, partition))
        if log is None:
            log = self.logs[topic, partition] = Log(topic, partition)
        return log

    def append(
        self, topic: str, partition: int, key: bytes | None, value: bytes | None, headers: Headers | None = None,
        txn: Txn | None = None,
    ) -> Message:  # fmt: skip
        log = self.log(topic, partition)
        message = Message(topic, partition, len(log.records), key, value, headers, txn)
        log.records.append(message)
        if txn is None:
            log.notify()
        else:
            if txn not in log.open:
                log.open[txn] = message.offset()
                txn.logs[log] = None
            txn.records.append(message)
        return message

    # -- transactions

    def init_producer(self, tid: str) -> int:
        """A new epoch: what an older one left open is aborted, and it can write no more."""
        txn = self._txns.pop(tid, None)
        if txn is not None:
            if txn.state == "open":
                self._abort(txn)
            self.complete(txn)
        epoch = self._epochs[tid] = self._epochs.get(tid, -1) + 1
        return epoch

    def is_fenced(self, tid: str, epoch: int) -> bool:
        return self._epochs[tid] != epoch

    def begin(self, tid: str, epoch: int) -> Txn:
        before = self._txns.get(tid)
        if before is not None:
            self.complete(before)  # the client waits for it
        txn = self._txns[tid] = Txn(tid, epoch)
        chance = self.loop.chance
        timeout_us = limits.TRANSACTION_TIMEOUT_MS * MS + chance.randrange(limits.TRANSACTION_TIMEOUT_MS * MS)
        self.loop.at(timeout_us, lambda: self._time_out(txn))
        return txn

    def _time_out(self, txn: Txn) -> None:
        """The coordinator looks every 10 s for transactions that are open for too long."""
        if txn.state == "open":
            self._epochs[txn.tid] += 1
            self.decide(txn, commit=False)

    def add_offsets(self, txn: Txn, group: GroupMetadata, positions: Iterable[tuple[str, int, int]]) -> str | None:
        """Returns why the group refuses them, or None."""
        refused = self.groups[group.group].check(group, transactional=True)
        if refused is None:
            self._unstable[txn] = None
            for topic, partition, offset in positions:
                txn.offsets[group.group, topic, partition] = offset
        return refused

    def decide(self, txn: Txn, *, commit: bool) -> None:
        """Commit or abort; markers follow, as a rule at once."""
        txn.state = "committed" if commit else "aborted"
        txn.unmarked = {*txn.logs, "offsets"}
        if commit:
            self._on_commit(txn)
        chance = self.loop.chance
        roll = chance.random()
        for place in [*txn.logs, "offsets"]:
            if roll < 0.8:
                self._mark(txn, place)
            else:
                delay_us = chance.randrange((20 if roll < 0.97 else 800) * MS)
                self.loop.at(delay_us, lambda p=place: self._mark(txn, p))  # type: ignore[misc]

    def _abort(self, txn: Txn) -> None:
        """For a producer that begins anew.  After an outage the coordinator may skip markers of partitions whose leaders
        it does not know yet; here it may do so at any time.
        """
        txn.state = "aborted"
        txn.unmarked = {*txn.logs, "offsets"}
        if self.loop.chance.random() < 0.5:
            for place in [*txn.logs, "offsets"]:
                if self.loop.chance.random() < 0.5:
                    txn.unmarked.discard(place)
                    self._hanging.setdefault((txn.tid, place), []).append(txn)

    def complete(self, txn: Txn) -> None:
        for place in [*txn.logs, "offsets"]:
            self._mark(txn, place)

    def _mark(self, txn: Txn, place: Any) -> None:
        if place not in txn.unmarked:
            return
        txn.unmarked.discard(place)
        for hanging in self._hanging.pop((txn.tid, place), []):  # a marker counts for all that its producer has open
            if txn.state == "committed":
                raise Violation("G7", f"a commit brings to life what hung in {place}: {hanging.records}")
            if isinstance(place, Log):
                place.open.pop(hanging, None)
            self._unstable.pop(hanging, None)
        if isinstance(place, Log):
            del place.open[txn]
            place.records.append(None)
            place.notify()
            return
        self._unstable.pop(txn, None)
        if txn.state == "committed":
            for key, offset in txn.offsets.items():
                self.offsets[key] = offset, ""

    def is_unstable(self, group: str, places: Iterable[Place]) -> bool:
        """Whether a transaction that is not over has offsets for one of these places."""
        keys = {(group, *place) for place in places}
        return any(not keys.isdisjoint(txn.offsets) for txn in self._unstable)
