"""Writes the pages that are made from code: `python docs/generate.py`.  A test fails when they are out of date."""

from collections.abc import Iterator
from pathlib import Path

from pydantic.fields import FieldInfo

from pstp.web.settings import WebSettings
from streams.catalogue import BOTH, SCHEDULER, WORKER
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
    lines += [
        "",
        "## Of `pstp web`",
        "",
        "From `pstp/web/settings.py`.",
        "",
        "| variable | default | meaning |",
        "|---|---|---|",
    ]
    for name, field in WebSettings.model_fields.items():
        lines.append(f"| `PSTP_WEB_{name.upper()}` | {_default(field)} | {field.description or ''} |")
    return "\n".join(lines) + "\n"


def _default(field: FieldInfo) -> str:
    value = field.default
    text = value.get_secret_value() if hasattr(value, "get_secret_value") else str(value)
    return f"`{text}`" if text else ""


def metrics_page() -> str:
    lines = [
        "# Metrics",
        "",
        "Each process serves them at `/metrics`; its address is in its log, in the topic `members`, and in a file for",
        "Prometheus' `file_sd_configs` under `PSTP_DATA_DIR/targets`. No label names a group or a task.",
        "",
        "Those *of the partition* are exact: they stand in the changelog, are written in the transaction that writes",
        "the events they count, and only the owner of the partition exports them. `sum(max by (partition, state) (…))`",
        "is what happened, ever, whatever died in between. All others count what one process did since it began.",
        "",
        "Made from `streams/catalogue.py` by `docs/generate.py`.",
    ]
    for title, metrics in (("Scheduler", SCHEDULER), ("Worker", WORKER), ("Both", BOTH)):
        lines += ["", f"## {title}", "", "| metric | kind | labels | of the | meaning |", "|---|---|---|---|---|"]
        for metric in metrics:
            suffix = {"counter": "_total", "info": "_info"}.get(metric.kind, "")
            labels = ", ".join(f"`{label}`" for label in metric.labels)
            lines.append(f"| `{metric.name}{suffix}` | {metric.kind} | {labels} | {metric.scope} | {metric.text} |")
    return "\n".join(lines) + "\n"


def pages() -> Iterator[tuple[Path, str]]:
    yield HERE / "settings.md", settings_page()
    yield HERE / "metrics.md", metrics_page()


if __name__ == "__main__":
    for path, text in pages():
        path.write_text(text, encoding="utf-8")
