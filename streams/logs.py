"""Logs of a process: text in a terminal, else one JSON object per line, on standard error."""

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any, TextIO

import structlog

from streams.clock import now
from streams.settings import Settings

KAFKA_LOGGER = "kafka"
_REPEAT_MS = 10_000

_shared: list[Any] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.StackInfoRenderer(),
]


def configure(settings: Settings, role: str, instance: str, stream: TextIO | None = None) -> None:
    """Send structlog's and the standard library's records to `stream` (standard error), with `role` and `instance`."""
    out = stream or sys.stderr
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    text = settings.log_format == "text" or (settings.log_format == "auto" and out.isatty())
    final: list[Any] = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=str)]
    if text:
        final = [structlog.dev.ConsoleRenderer(colors=out.isatty())]
    shared = [*_shared, _naming(role, instance)]
    structlog.configure(
        processors=[*shared, *final],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(out),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *final],
    ))  # fmt: skip
    kafka_logger().propagate = True
    root = logging.getLogger()
    root.handlers[:] = [handler]
    # Libraries are heard from warnings on, unless someone is debugging.
    root.setLevel(level if level <= logging.DEBUG else max(level, logging.WARNING))


class _SayOnce(logging.Filter):
    """librdkafka says the same about each lost connection many times a second: once in a while is enough."""

    def __init__(self) -> None:
        super().__init__()
        self._said_ms: dict[str, int] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        what = re.sub(r"[0-9]+", "", record.getMessage())
        mono_ms = now().mono_ms
        if mono_ms < self._said_ms.get(what, 0) + _REPEAT_MS:
            return False
        if len(self._said_ms) > 1000:
            self._said_ms.clear()
        self._said_ms[what] = mono_ms
        return True


logging.getLogger(KAFKA_LOGGER).addFilter(_SayOnce())


def quiet() -> None:
    """For commands that speak for themselves: librdkafka's complaints go nowhere, our own sentence says it."""
    kafka_logger().addHandler(logging.NullHandler())
    kafka_logger().propagate = False


def kafka_logger() -> logging.Logger:
    """For librdkafka's `logger` option; without it librdkafka prints its own lines to standard error."""
    return logging.getLogger(KAFKA_LOGGER)


def _naming(role: str, instance: str) -> Any:
    def name(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event.setdefault("role", role)
        event.setdefault("instance", instance)
        return event

    return name
