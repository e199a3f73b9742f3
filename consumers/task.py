"""What a handler is given."""

import math
from collections.abc import Callable, Generator
from typing import Any, Final

import msgspec
from msgspec import Raw

from consumers.faults import encodable
from consumers.outcomes import InvalidPayloadError, StateTooLargeError, to_json
from streams import limits
from streams.protocol import DispatchedTask, MaybeRaw, cut


class _Done:
    """Awaiting it does nothing: one API for `async def` and for plain handlers."""

    def __await__(self) -> Generator[Any, None, None]:
        return
        yield


_DONE: Final = _Done()
_UNSEEN: Final = object()

# Takes what a handler says of its progress: (fraction or None, note or None).
ProgressSink = Callable[[float | None, str | None], None]


class Task:
    """One execution of one task.  `payload`, `state` and `extra` are decoded at the first look.

    `cancelled` becomes true when this execution should end: its time is over, or its worker stops.
    """

    __slots__ = (
        "_extra", "_payload", "_progress", "_state", "_state_raw", "_wire",
        "attempt", "cancelled", "fencing_token", "group", "id", "labels", "new_state", "trace", "type",
    )  # fmt: skip

    def __init__(self, wire: DispatchedTask, group: str, state: MaybeRaw, progress: ProgressSink) -> None:
        self.group = group
        self.id = wire.task_id
        self.type = wire.type
        self.attempt = wire.attempt
        self.fencing_token = wire.token
        self.labels = wire.labels
        self.trace = wire.trace
        self.cancelled = False
        self.new_state: Raw | None = None
        self._wire = wire
        self._state_raw = state
        self._progress = progress
        self._payload: Any = _UNSEEN
        self._state: Any = _UNSEEN
        self._extra: Any = _UNSEEN

    @property
    def payload(self) -> Any:
        """What the producer sent, as JSON values.

        Raises `InvalidPayloadError` on a number that Python has none for, such as 1e999: left uncaught, no retry.
        """
        if self._payload is _UNSEEN:
            try:
                self._payload = msgspec.json.decode(self._wire.payload)
            except msgspec.DecodeError as error:
                raise InvalidPayloadError(str(error)) from None
        return self._payload

    @property
    def payload_json(self) -> bytes:
        """The payload as it came, for parsers of one's own."""
        return bytes(self._wire.payload)

    @property
    def state(self) -> Any:
        """The group state as the task before left it; None if there is none."""
        if self._state is _UNSEEN:
            self._state = None if self._state_raw is None else msgspec.json.decode(self._state_raw)
        return self._state

    @property
    def extra(self) -> dict[str, Any]:
        """Fields of the message that PSTP does not know."""
        if self._extra is _UNSEEN:
            self._extra = {name: msgspec.json.decode(raw) for name, raw in self._wire.extra.items()}
        extra: dict[str, Any] = self._extra
        return extra

    def set_state(self, value: Any) -> None:
        """Replace the group state, if this execution succeeds; None clears it.

        Raises `NotJsonError`, or `StateTooLargeError` over 64 KiB: left uncaught, that one is not retried.
        """
        raw = to_json(value)
        size = len(bytes(raw))
        if size > limits.STATE_BYTES_MAX:
            raise StateTooLargeError(f"group state of {size} bytes, the limit is {limits.STATE_BYTES_MAX}")
        self.new_state = raw

    def progress(self, fraction: float | None = None, note: str | None = None) -> _Done:
        """Show how far this execution is, 0 to 1, with a note.  `await` it or not.  The newest counts."""
        if fraction is not None:
            fraction = float(fraction)
            fraction = None if math.isnan(fraction) else min(max(fraction, 0.0), 1.0)
        if note is not None:
            note = encodable(cut(str(note), limits.NOTE_CHARS_MAX))
        self._progress(fraction, note)
        return _DONE
