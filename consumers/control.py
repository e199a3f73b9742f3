"""Reading `control`: which dispatches the schedulers have taken back.

The topic is read from its beginning by every worker.  `catch_up` is the other half of a promise: a scheduler that
takes back a dispatch of a partition that nobody announces as his may believe at once that it will not run, because
whoever announces that partition later reads `control` to its end *after* having announced it, and before the first
claim.
"""

import threading
from collections.abc import Callable, Collection
from typing import Final

import confluent_kafka as ck
import msgspec
import structlog

from streams.clock import now
from streams.logs import kafka_logger
from streams.protocol import Control, VersionError, decode_control
from streams.settings import Settings

log = structlog.get_logger("worker")

TAKE_BACK: Final = "take_back"
GroupToken = tuple[str, int]
_LOOK_UP_S_MAX: Final = 5.0
_RECORDS_MAX: Final = 1_000
# A client that does not come back must not keep the process from draining; its thread ends with the process.
STOP_S_MAX: Final = 5.0


class ControlReader(threading.Thread):
    """Knows the tokens that were taken back and have not been met, each with its group: two groups of different
    partitions may have the same.  `on_take_back` says whether the dispatch is claimed here, and has it cut short.
    `on_change` and the others are called in this thread.
    """

    def __init__(
        self,
        settings: Settings,
        on_take_back: Callable[[Control], bool],
        on_cancel: Callable[[Control], None],
        on_fatal: Callable[[Exception], None],
    ) -> None:
        super().__init__(name="control", daemon=True)
        self._topic = settings.topic("control")
        self._on_take_back, self._on_cancel, self._on_fatal = on_take_back, on_cancel, on_fatal
        self.on_change: Callable[[], None] = lambda: None
        conf = settings.kafka(**{
            "group.id": f"{settings.worker_group}-control", "enable.auto.commit": False, "enable.partition.eof": True,
            "auto.offset.reset": "earliest",  # when records were removed under the reader, it misses none of the rest
            "fetch.queue.backoff.ms": 5, "fetch.wait.max.ms": 100, "reconnect.backoff.max.ms": 500,
        })  # fmt: skip
        self._consumer = ck.Consumer(conf | {"isolation.level": "read_committed"}, logger=kafka_logger())
        # The true end, behind transactions that are still open: what one of them hides may be followed by a take-back
        # that another scheduler has committed.
        self._ends = ck.Consumer(conf | {"isolation.level": "read_uncommitted"}, logger=kafka_logger())
        self._reached = 0
        self._moved = threading.Condition()
        self._tokens: dict[int, set[GroupToken]] = {}
        self._stopping = threading.Event()

    def tokens(self, partition: int) -> Collection[GroupToken]:
        """Those taken back from that partition."""
        return self._tokens.get(partition, ())

    def met(self, partition: int, group: str, token: int) -> None:
        """That dispatch is claimed: its token never comes again."""
        if (tokens := self._tokens.get(partition)) is not None:
            tokens.discard((group, token))

    def catch_up(self, timeout_s: float) -> bool:
        """Whether, within `timeout_s`, everything was read that stood in `control` when this was called."""
        deadline_ms = now().mono_ms + int(timeout_s * 1000)
        try:
            _low, end = self._ends.get_watermark_offsets(
                ck.TopicPartition(self._topic, 0), timeout=min(timeout_s, _LOOK_UP_S_MAX)
            )
        except ck.KafkaException as error:
            log.warning("end of control not known", error=error.args[0].str())
            return False
        left_s = max(0.0, (deadline_ms - now().mono_ms) / 1000)
        with self._moved:
            return self._moved.wait_for(lambda: self._reached >= end, left_s)

    def stop(self) -> None:
        self._stopping.set()
        if self.ident is not None:
            self.join(STOP_S_MAX)

    def run(self) -> None:
        self._consumer.assign([ck.TopicPartition(self._topic, 0, ck.OFFSET_BEGINNING)])
        try:
            while not self._stopping.is_set():
                first = self._consumer.poll(0.2)
                if first is None:
                    continue
                for message in (first, *self._consumer.consume(_RECORDS_MAX, 0)):
                    self._fold(message)
                self.on_change()
        except VersionError as error:
            self._on_fatal(error)
        finally:
            self._consumer.close()
            self._ends.close()

    def _fold(self, message: ck.Message) -> None:
        error, value, offset = message.error(), message.value(), message.offset()
        if error is None:
            self._apply(value or b"")
            self._reach((offset or 0) + 1)
        elif error.code() == ck.KafkaError._PARTITION_EOF:
            self._reach(offset or 0)  # behind the markers of transactions, which are no records
        else:
            log.warning("control cannot be read", error=error.str())

    def _apply(self, value: bytes) -> None:
        try:
            control = decode_control(value)
        except VersionError:
            raise
        except msgspec.DecodeError as error:
            log.warning("control record cannot be read", error=str(error))
            return
        if control.kind == TAKE_BACK:
            # Remembered before it is looked for among what is claimed: whoever claims it looks in the other order.
            self._tokens.setdefault(control.dispatch_partition, set()).add((control.group, control.token))
            if self._on_take_back(control):
                self.met(control.dispatch_partition, control.group, control.token)
        else:
            self._on_cancel(control)

    def _reach(self, offset: int) -> None:
        with self._moved:
            self._reached = max(self._reached, offset)
            self._moved.notify_all()
