"""Where work is done.  A module of handlers needs only what is here."""

from consumers.handlers import Registry, handler
from consumers.outcomes import Reject, Retry, Snooze
from consumers.task import Task

__all__ = ["Registry", "Reject", "Retry", "Snooze", "Task", "handler"]
