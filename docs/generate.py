"""Writes the pages that are made from code: `python docs/generate.py`.  A test fails when they are out of date."""

from collections.abc import Iterator
from pathlib import Path

from pydantic.fields import FieldInfo

from pstp.web.settings import WebSettings
from streams.catalogue import ALL, RUN, SCHEDULER, WEB, WORKER
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
        "Each process serves them at `/metrics` of `PSTP_HTTP`; the address is in its log and, for Prometheus'",
        "`file_sd_configs`, in a file under `PSTP_DATA_DIR/targets`, which is there as long as the process runs:",
        "scraping needs no list of ports. `pstp web` shows its own beside the UI as well, to whoever may look at that.",
        "A worker's child processes report to it, and it counts what they do: nothing is to be merged.",
        "",
        "No label names a group, a task or anything else that somebody makes up: a scrape grows with types and",
        "partitions alone. A hundred types are told apart in a process, and so many types and ends in a partition; all",
        'others count together as `type="(other)"`.',
        "",
        "Those *of the partition* are exact: they stand in the changelog, are written in the transaction that writes",
        "the events they count, and only the owner of the partition exports them. `sum(max by (partition, state) (…))`",
        "is what happened, ever, whatever died in between. All others count what one process did since it began, and",
        "their help says so. Gauges of groups and heads are kept as groups move: a scrape walks over nothing, however",
        "much is parked.",
        "",
        "Histograms are classic ones. `prometheus_client` cannot make native ones yet (client_python #918), and the",
        "text in which it could pass them on is read by no Prometheus; Prometheus 3 makes native ones of these, if",
        "`convert_classic_histograms_to_nhcb` says so in its scrape configuration.",
        "",
        "What all this costs, by `bench/metrics_cost.py`, in turns with and without, on a busy machine of two cores,",
        "per 100,000 tasks: 0.29 of the 6.5 CPU seconds that the engine takes for tasks of workers (+4.3 %, 95 %:",
        "+3.1 to +5.7 %), 0.03 of 1.07 in the express lane (+3.0 %, +1.6 to +7.1 %); of all that a process of",
        "`pstp run` takes, 2.4 CPU seconds, +4.6 % (-1.8 to +14.8 %: that machine tells no more). A scrape takes 1 to "
        "2 ms.",
        "",
        "Made from `streams/catalogue.py` by `docs/generate.py`.",
    ]
    for title, metrics in (("Scheduler", SCHEDULER), ("Worker", WORKER), ("Web", WEB), ("All", ALL)):
        lines += ["", f"## {title}", "", "| metric | kind | labels | of the | meaning |", "|---|---|---|---|---|"]
        if metrics is WORKER:
            lines[-2:-2] = ["Those with a * also of a scheduler that runs handlers itself (`pstp run`).", ""]
        for metric in metrics:
            mark = "*" if metric.name in RUN else ""
            suffix = {"counter": "_total", "info": "_info"}.get(metric.kind, "")
            labels = ", ".join(f"`{label}`" for label in metric.labels)
            cells = f"`{metric.name}{suffix}`{mark}", metric.kind, labels, metric.scope, metric.text
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def pages() -> Iterator[tuple[Path, str]]:
    yield HERE / "settings.md", settings_page()
    yield HERE / "metrics.md", metrics_page()


if __name__ == "__main__":
    for path, text in pages():
        path.write_text(text, encoding="utf-8")
