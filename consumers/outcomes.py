"""How an execution ends: what a handler returned or raised becomes an `Outcome`, one of a closed set."""

import math
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from consumers.faults import describe, printable
from streams import limits
from streams.depth import is_deeper
from streams.protocol import ErrorInfo, MaybeRaw, Reason, ReportKind


class Retry(Exception):
    """Run this task again after `after_s` seconds (None: after the usual backoff); uses an attempt."""

    def __init__(self, after_s: float | None = None, reason: str = "") -> None:
        super().__init__(reason or "the handler asked for a retry")
        self.after_s = None if after_s is None else delay_s(after_s)


class Snooze(Exception):
    """Run this task again after `after_s` seconds, as if it had not run: no attempt is used."""

    def __init__(self, after_s: float) -> None:
        super().__init__(f"snoozed for {after_s} s")
        self.after_s = delay_s(after_s)


class Reject(Exception):
    """This task can never succeed: it becomes a dead letter at once, with `reason`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)


class NotJsonError(TypeError):
    """A value that JSON cannot carry."""


class StateTooLargeError(ValueError):
    """Group state over the limit; the task becomes a dead letter."""


class InvalidPayloadError(ValueError):
    """The payload is not what the handler declares; the text is pydantic's."""


class Outcome(Struct, frozen=True, omit_defaults=True):
    """What is reported about an execution that ended; the fields are those of `Report`."""

    kind: ReportKind
    reason: Reason | None = None
    error: ErrorInfo | None = None
    delay_s: float | None = None
    result: MaybeRaw = None
    result_cut: bool = False
    state: MaybeRaw = None
    state_set: bool = False
    retryable: bool = True


ABANDONED: Final = Outcome(ReportKind.ABANDONED)


def returned(value: Any, state: Raw | None) -> Outcome:
    """The handler returned `value`, having set the group state to `state` (None: left alone)."""
    try:
        result = None if value is None else to_json(value)
    except NotJsonError as error:
        return Outcome(ReportKind.REJECTED, Reason.INVALID_RESULT, ErrorInfo("invalid result", str(error)))
    cut = result is not None and len(bytes(result)) > limits.RESULT_BYTES_MAX
    return Outcome(
        ReportKind.SUCCEEDED,
        result=None if cut else result,
        result_cut=cut,
        state=state,
        state_set=state is not None,
    )


def raised(error: BaseException) -> Outcome:
    """The handler raised `error`."""
    match error:
        case Retry():
            return Outcome(ReportKind.FAILED, Reason.FAILED, describe(error), error.after_s)
        case Snooze():
            return Outcome(ReportKind.SNOOZED, Reason.SNOOZED, delay_s=error.after_s)
        case Reject():
            return Outcome(ReportKind.REJECTED, Reason.HANDLER_REJECTED, describe(error))
        case InvalidPayloadError():
            return Outcome(ReportKind.REJECTED, Reason.INVALID_PAYLOAD, describe(error, traceback=False))
        case StateTooLargeError():
            return Outcome(ReportKind.REJECTED, Reason.STATE_TOO_LARGE, describe(error))
        case _:
            return Outcome(ReportKind.FAILED, Reason.FAILED, describe(error))


def timed_out(timeout_s: float, error: BaseException | None = None) -> Outcome:
    """The execution was stopped because its time was over; `error` is what it raised then."""
    message = f"timed out after {timeout_s:g} s"
    info = ErrorInfo("timeout", message, describe(error).traceback if error is not None else None)
    return Outcome(ReportKind.FAILED, Reason.TIMEOUT, info)


def to_json(value: Any) -> Raw:
    """`value` as JSON; pydantic models too.  Raises `NotJsonError` with a sentence for people."""
    try:
        data = msgspec.json.encode(value, enc_hook=_pydantic)
        holds_no_number = b"null" in data and _holds_no_number(value)
    except RecursionError:
        raise NotJsonError("the value nests too deep, or holds itself") from None
    except Exception as error:  # an object's own methods may raise anything
        raise NotJsonError(f"{type(value).__name__} is no JSON: {printable(error)}") from None
    if is_deeper(data, limits.JSON_DEPTH_MAX):
        raise NotJsonError(f"the value nests deeper than {limits.JSON_DEPTH_MAX} levels")
    if holds_no_number:
        raise NotJsonError("NaN and Infinity are no JSON")
    return Raw(data)


def _holds_no_number(value: Any) -> bool:
    """Whether a float in it is none that JSON has: msgspec writes null for those, and nobody would notice."""
    rest = [msgspec.to_builtins(value, enc_hook=_pydantic)]
    while rest:
        match rest.pop():
            case float() as number if not math.isfinite(number):
                return True
            case dict() as fields:
                rest.extend(fields.keys())
                rest.extend(fields.values())
            case list() | tuple() as items:
                rest.extend(items)
    return False


def delay_s(value: float) -> float:
    """A delay that a handler asked for, within the limits.  Raises `ValueError` or `TypeError`."""
    seconds = float(value)
    if math.isnan(seconds):
        raise ValueError("a delay must be a number of seconds")
    return min(max(seconds, 0.0), limits.DELAY_S_MAX)


def _pydantic(value: Any) -> Any:
    dump = getattr(value, "model_dump", None)
    if dump is None or isinstance(value, type):
        raise NotImplementedError(f"objects of type {type(value).__name__} are not supported")
    return dump(mode="json")
