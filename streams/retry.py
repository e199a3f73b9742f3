"""When a failed task runs again: exponential backoff with full jitter, as a pure function."""

from typing import Final

from msgspec import Struct

from streams import limits
from streams.protocol import FailurePolicy, HandlerPolicy

_MASK: Final = 2**64 - 1


class Policy(Struct, frozen=True, gc=False):
    """What applies when neither the task nor its handler says otherwise.  Delays in seconds."""

    max_attempts: int = limits.MAX_ATTEMPTS
    backoff_base_s: float = limits.BACKOFF_BASE_S
    backoff_factor: float = limits.BACKOFF_FACTOR
    backoff_cap_s: float = limits.BACKOFF_CAP_S
    jitter: bool = True
    on_failure: FailurePolicy = FailurePolicy.SKIP
    group_on_failure: FailurePolicy | None = None  # what the settings say of this one group


def on_failure(task: FailurePolicy | None, handler: HandlerPolicy | None, default: Policy) -> FailurePolicy:
    """Task over group over handler over default."""
    of_handler = handler.on_failure if handler is not None else None
    return task or default.group_on_failure or of_handler or default.on_failure


def max_attempts(task: int | None, handler: HandlerPolicy | None, default: Policy) -> int:
    """Task over handler over default."""
    if task is not None:
        return task
    if handler is not None and handler.max_attempts is not None:
        return handler.max_attempts
    return default.max_attempts


def delay_ms(attempt: int, handler: HandlerPolicy | None, default: Policy, seed: int) -> int:
    """Wait after the failure of `attempt` (from 1), in milliseconds.

    Full jitter, unless it is off: uniform in [0, min(cap, base * factor ** (attempt - 1))], from "Exponential Backoff
    And Jitter" (AWS Architecture Blog, 2015).  The draw comes from `seed` (the fencing token), so that the machine
    stays a function.
    """
    base = _or(handler.backoff_base_s if handler else None, default.backoff_base_s)
    factor = _or(handler.backoff_factor if handler else None, default.backoff_factor)
    cap = _or(handler.backoff_cap_s if handler else None, default.backoff_cap_s)
    try:
        bound = min(cap, base * factor ** (attempt - 1))
    except OverflowError:
        bound = cap
    jitter = default.jitter if handler is None or handler.jitter is None else handler.jitter
    return clamp_ms(bound * _uniform(seed) if jitter else bound)


def clamp_ms(seconds: float) -> int:
    """A delay that a handler asked for, in milliseconds, within what the system can honour."""
    return int(min(max(seconds, 0.0), limits.DELAY_S_MAX) * 1000)


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


def _uniform(seed: int) -> float:
    """In [0, 1): one step of splitmix64 (Steele, Lea, Flood 2014)."""
    z = (seed + 0x9E3779B97F4A7C15) & _MASK
    z = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ z >> 27) * 0x94D049BB133111EB) & _MASK
    return (z ^ z >> 31) / 2**64
