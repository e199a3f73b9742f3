"""Who is alive: announcing oneself on `members`, and watching the others.

The topic is compacted, key = instance, one partition.  A process announces at once when something changes and each
`ANNOUNCE_INTERVAL_S` otherwise, from a thread and a producer of its own, so that load does not look like death.
A tombstone says that it left.  Silence is measured by the reader's own monotonic clock, never by `at_ms`.
"""

import os
import socket
import threading
from collections.abc import Callable
from typing import Final, NamedTuple

import confluent_kafka as ck
import msgspec
import structlog

from streams import limits
from streams.clock import now
from streams.errors import InstanceTakenError
from streams.logs import kafka_logger
from streams.protocol import Member, VersionError, decode_member, encode
from streams.settings import Settings

log = structlog.get_logger("members")

# A late announcement is worth nothing: the next one follows.
_ANNOUNCEMENT_AGE_MS_MAX: Final = 2_000
_LEAVE_S_MAX: Final = 2.0
_STUCK_MS: Final = 5_000


class Announcer(threading.Thread):
    """Announces one process, from the first `update` to `leave()`.  `update` is cheap and safe from any thread."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(name="announcer", daemon=True)
        self._topic = settings.topic("members")
        self._conf = settings.kafka(**{"linger.ms": 0, "message.timeout.ms": _ANNOUNCEMENT_AGE_MS_MAX})
        self._producer = self._new_producer()
        self._changed = threading.Condition()
        self._member: Member | None = None
        self._dirty = self._stopping = False
        self._updates = self._said = 0
        self._said_mono_ms = now().mono_ms
        self._gap_ms = 0  # the longest between two announcements, since somebody asked

    def update(self, member: Member) -> int:
        """Say this from now on (`at_ms` is filled in).  Nothing happens if it was said already.

        Returns a number for `wait_said`.
        """
        with self._changed:
            if member != self._member:
                self._member, self._dirty = member, True
                self._updates += 1
                self._changed.notify_all()
            return self._updates

    def wait_said(self, update: int, timeout_s: float) -> bool:
        """Whether that update, or a later one, is in the log within `timeout_s`."""
        with self._changed:
            return self._changed.wait_for(lambda: self._said >= update, timeout_s)

    def silent_s(self) -> float:
        """The longest time, in seconds, for which nobody can have heard from us since this was asked last."""
        with self._changed:
            longest_ms = max(self._gap_ms, now().mono_ms - self._said_mono_ms)
            self._gap_ms = 0
        return longest_ms / 1000

    def leave(self, *, tombstone: bool = True) -> None:
        """Say good-bye and stop.  Without a tombstone when another process has taken over the instance id."""
        with self._changed:
            if self._stopping:
                return
            self._stopping = True
            self._changed.notify_all()
        if self.ident is not None:
            self.join()
        if tombstone and self._member is not None:
            self._send(self._member.instance, None, self._updates, now().mono_ms)
            self._producer.flush(_LEAVE_S_MAX)

    def run(self) -> None:
        while next_one := self._next():
            update, member = next_one
            sent = now()
            self._send(
                member.instance, encode(msgspec.structs.replace(member, at_ms=sent.wall_ms)), update, sent.mono_ms
            )
            self._producer.flush(limits.ANNOUNCE_INTERVAL_S)
            self._replace_stuck()
            with self._changed:  # changes that follow closely are said together
                self._changed.wait_for(lambda: self._stopping, limits.ANNOUNCE_DEBOUNCE_S)

    def _new_producer(self) -> ck.Producer:
        self._tried_mono_ms = now().mono_ms
        return ck.Producer(self._conf, logger=kafka_logger())

    def _replace_stuck(self) -> None:
        """librdkafka's producer may wait for ever for a partition that was without a leader for a moment."""
        if now().mono_ms - max(self._said_mono_ms, self._tried_mono_ms) > _STUCK_MS:
            log.warning("announcements are not acknowledged: going on with a new producer")
            old, self._producer = self._producer, self._new_producer()
            threading.Thread(target=old.purge, name="bury-producer", daemon=True).start()

    def _next(self) -> tuple[int, Member] | None:
        """What to say next, and the update that it is; None at the end."""
        with self._changed:
            quiet_s = limits.ANNOUNCE_INTERVAL_S - limits.ANNOUNCE_DEBOUNCE_S
            while True:
                self._changed.wait_for(lambda: self._dirty or self._stopping, quiet_s)
                if self._stopping:
                    return None
                if self._member is not None:
                    self._dirty = False
                    return self._updates, self._member

    def _send(self, key: str, value: bytes | None, update: int, mono_ms: int) -> None:
        def delivered(error: ck.KafkaError | None, _message: ck.Message) -> None:
            if error is None:
                with self._changed:
                    self._gap_ms = max(self._gap_ms, mono_ms - self._said_mono_ms)
                    self._said, self._said_mono_ms = update, mono_ms
                    self._changed.notify_all()

        try:
            self._producer.produce(self._topic, value, key.encode(), partition=0, on_delivery=delivered)
        except (BufferError, ck.KafkaException) as error:
            log.warning("announcement not sent", error=str(error))


class Heard(NamedTuple):
    """A member as last announced, and when the reader heard it, by the reader's monotonic clock."""

    member: Member
    heard_mono_ms: int


class MembersView(threading.Thread):
    """Reads `members` all the time.  `on_change` is called in this thread when anything but `at_ms` changed.

    What a newer version announces is passed over, and said once: one announcement must not hide all the others.  It
    takes part by its own word alone: nothing is dispatched to it, and it is not fenced.
    """

    def __init__(
        self,
        settings: Settings,
        instance: str = "",
        boot_id: str = "",
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(name="members-view", daemon=True)
        self._topic = settings.topic("members")
        conf = settings.kafka(**{
            "group.id": f"{settings.app}-members", "enable.auto.commit": False, "enable.partition.eof": True,
            "auto.offset.reset": "earliest", "fetch.queue.backoff.ms": 5, "fetch.wait.max.ms": 100,
            "reconnect.backoff.max.ms": 500,
        })  # fmt: skip
        self._consumer = ck.Consumer(conf, logger=kafka_logger())
        self._instance, self._boot_id = instance, boot_id
        self._on_change = on_change
        self._lock = threading.Lock()
        self._heard: dict[str, Heard] = {}
        self._first_offset: dict[str, dict[str, int]] = {}  # of each boot id that used an instance id
        self._listened_mono_ms = now().mono_ms
        self._caught_up = threading.Event()
        self._stopping = threading.Event()
        self._too_new: set[str] = set()

    def snapshot(self) -> dict[str, Heard]:
        """Everyone who has announced and not left, silent or not."""
        with self._lock:
            return dict(self._heard)

    def alive(self, role: str | None = None) -> dict[str, Member]:
        """Those heard within `MEMBER_SILENT_S` before we last listened: a frozen reader declares nobody dead."""
        return self._select(role, alive=True)

    def silent(self, role: str | None = None) -> dict[str, Member]:
        """Those who have neither left nor been heard for longer."""
        return self._select(role, alive=False)

    def _select(self, role: str | None, *, alive: bool) -> dict[str, Member]:
        with self._lock:
            since_ms = self._listened_mono_ms - limits.MEMBER_SILENT_S * 1000
            return {
                name: heard.member
                for name, heard in self._heard.items()
                if (heard.heard_mono_ms >= since_ms) is alive and role in (None, heard.member.role)
            }

    def superseded(self) -> bool:
        """Whether a younger process announces itself under our instance id.  The younger one stays, as with Kafka's
        own fencing: else a frozen process that wakes up would drive away its replacement.
        """
        with self._lock:
            return self._has_follower(self._instance, self._boot_id)

    def has_follower(self, instance: str, boot_id: str) -> bool:
        """Whether the process that announces itself under this id is younger than that one, which was heard."""
        with self._lock:
            return self._has_follower(instance, boot_id)

    def _has_follower(self, instance: str, boot_id: str) -> bool:
        lives = self._first_offset.get(instance, {})
        return boot_id in lives and max(lives.values()) > lives[boot_id]

    def wait_caught_up(self, timeout_s: float) -> bool:
        """Whether the topic was read to its end within `timeout_s`."""
        return self._caught_up.wait(timeout_s)

    def ensure_unused(self) -> None:
        """Call when caught up and before announcing.  Raises `InstanceTakenError` if a live process has our id.

        A predecessor that was killed left no tombstone: wait for it to speak, unless it is known to be dead.
        """
        heard = self.snapshot().get(self._instance)
        if heard is None or heard.member.boot_id == self._boot_id or is_dead(heard.member):
            return
        said, silent_ms = heard.member, int(limits.MEMBER_SILENT_S * 1000)
        while now().mono_ms < heard.heard_mono_ms + silent_ms and not self._stopping.wait(0.05):
            heard = self.snapshot().get(self._instance)
            if heard is None:
                return
            if heard.member is not said:  # the time alone may have moved, because we did not listen
                raise InstanceTakenError(self._instance)

    def stop(self) -> None:
        self._stopping.set()
        if self.ident is not None:
            self.join()

    def run(self) -> None:
        self._consumer.assign([ck.TopicPartition(self._topic, 0, ck.OFFSET_BEGINNING)])
        try:
            while not self._stopping.is_set():
                first = self._consumer.poll(0.2)
                self._listen()
                if first is None:
                    continue
                changes = [self._fold(message) for message in (first, *self._consumer.consume(500, 0))]
                if any(changes):
                    self._on_change()
        finally:
            self._consumer.close()

    def _listen(self) -> None:
        """Note that we listen.  Time in which this thread could not is nobody's silence."""
        with self._lock:
            mono_ms = now().mono_ms
            deaf_ms = mono_ms - self._listened_mono_ms
            self._listened_mono_ms = mono_ms
            if deaf_ms > limits.ANNOUNCE_INTERVAL_S * 1000:
                for name, heard in self._heard.items():
                    self._heard[name] = heard._replace(heard_mono_ms=heard.heard_mono_ms + deaf_ms)

    def _fold(self, message: ck.Message) -> bool:
        """Whether it changed anything."""
        if (error := message.error()) is not None:
            if error.code() == ck.KafkaError._PARTITION_EOF:
                self._caught_up.set()
            else:
                log.warning("members cannot be read", error=error.str())
            return False
        key, value = message.key(), message.value()
        if key is None or key.startswith(b"\x00"):  # no instance: what `topics.py` records
            return False
        name = key.decode(errors="replace")
        if value is None:
            with self._lock:
                return self._heard.pop(name, None) is not None
        try:
            member = decode_member(value)
        except VersionError as error:
            return self._pass_over(name, str(error))
        except msgspec.DecodeError as error:
            log.warning("announcement cannot be read", instance=name, error=str(error))
            return False
        with self._lock:
            before = self._heard.get(name)
            self._heard[name] = Heard(member, now().mono_ms)
            self._first_offset.setdefault(name, {}).setdefault(member.boot_id, message.offset() or 0)
        return before is None or msgspec.structs.replace(before.member, at_ms=member.at_ms) != member

    def _pass_over(self, name: str, why: str) -> bool:
        if name not in self._too_new:
            log.warning("announcement passed over", instance=name, why=why)
            self._too_new.add(name)
        with self._lock:
            return self._heard.pop(name, None) is not None


def is_dead(member: Member) -> bool:
    """Whether that process is known to be gone: it was on this host and its pid is free or ours."""
    if member.host != socket.gethostname():
        return False
    if member.pid == os.getpid():
        return True
    try:
        os.kill(member.pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
