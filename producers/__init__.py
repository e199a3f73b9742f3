"""Tasks enter PSTP: `TaskPublisher` from Python."""

from producers.bulk import BulkError, BulkSummary
from producers.connection import PublishError
from producers.message import InvalidTaskError, TaskMessage
from producers.publisher import AsyncTaskPublisher, Published, TaskPublisher

__all__ = [
    "AsyncTaskPublisher",
    "BulkError",
    "BulkSummary",
    "InvalidTaskError",
    "PublishError",
    "Published",
    "TaskMessage",
    "TaskPublisher",
]
