"""Writes the pages that are made from code: `python docs/generate.py`.  A test fails when they are out of date."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from prometheus_client import CollectorRegistry
from pydantic.fields import FieldInfo

from consumers.metrics import WorkerMetrics
from streams.metrics import SchedulerMetrics
from streams.settings import Settings

HERE = Path(__file__).parent


def settings_page() -> str:
    lines = [
        "# Settings",
        "",
        "Environment variables, or lines in a file `.env`. With `_FILE` behind its name, a value is read from a file.",
        "Made from `streams/settings.py` by `docs/generate.py`.",
        "",
        "| variable | default | meaning |",
        "|---|---|---|",
    ]
    for name, field in Settings.model_fields.items():
        lines.append(f"| `PSTP_{name.upper()}` | {_default(field)} | {field.description or ''} |")
    return "\n".join(lines) + "\n"


def _default(field: FieldInfo) -> str:
    value = field.default
    text = value.get_secret_value() if hasattr(value, "get_secret_value") else str(value)
    return f"`{text}`" if text else ""


def metrics_page() -> str:
    lines = [
        "# Metrics",
        "",
        "Each process serves them at `/metrics`; its address is in its log and in the topic `members`. Labels name",
        "types, states, reasons, topics and partitions: the number of series does not grow with groups or tasks.",
        "Made from `streams/metrics.py` and `consumers/metrics.py` by `docs/generate.py`.",
    ]
    for title, registry in (("Scheduler", _scheduler_registry()), ("Worker", _worker_registry())):
        lines += ["", f"## {title}", "", "| metric | kind | meaning |", "|---|---|---|"]
        for metric in sorted(registry.collect(), key=lambda m: m.name):
            suffix = "_total" if metric.type == "counter" else ""
            lines.append(f"| `{metric.name}{suffix}` | {metric.type} | {metric.documentation} |")
    return "\n".join(lines) + "\n"


def _scheduler_registry() -> CollectorRegistry:
    engine = SimpleNamespace(counts={}, partitions={}, ready=(), watch=(), types_without_handler=dict)
    scheduler = SimpleNamespace(engine=engine, transactor=SimpleNamespace(committed=0), lag=dict, held=tuple)
    registry = CollectorRegistry()
    SchedulerMetrics(registry, cast(Any, scheduler))
    return registry


def _worker_registry() -> CollectorRegistry:
    registry = CollectorRegistry()
    WorkerMetrics(registry)
    return registry


def pages() -> Iterator[tuple[Path, str]]:
    yield HERE / "settings.md", settings_page()
    yield HERE / "metrics.md", metrics_page()


if __name__ == "__main__":
    for path, text in pages():
        path.write_text(text, encoding="utf-8")
