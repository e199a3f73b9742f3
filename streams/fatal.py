"""Fatal errors of Kafka's clients: another producer took up our transactional id, or the broker forgot us.

confluent-kafka raises them out of `poll`, `flush` and their like, whether there is an `error_cb` or not.  If another
callback is due in the same call, such as a line for the log, it is called with the exception set, and what comes out
is a `SystemError` that says nothing of Kafka.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import confluent_kafka as ck


@contextmanager
def fatal_errors() -> Iterator[None]:
    """A fatal error in here is always raised as `KafkaException`."""
    try:
        yield
    except SystemError as error:
        cause = error.__cause__ or error.__context__
        if isinstance(cause, ck.KafkaException):
            raise cause from None
        raise
