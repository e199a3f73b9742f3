"""The verdict, for people and for programs."""

from collections.abc import Mapping
from typing import Final

import msgspec
from msgspec import Struct
from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.table import Table

from pstp.verify.figures import Figures, Quantiles
from pstp.verify.findings import WORDS, Findings, Guarantee, Place, Violation
from pstp.verify.shared import Shared

SHOWN_IN_TEXT: Final = 20
SHOWN_OF_A_RECORD: Final = 300  # characters


class Report(Struct, frozen=True):
    """ok: no violation.  `counts` and `by_kind` tell of all; of each kind only the first few are in `violations`.

    records: the values of the records that these violations name, by "partition:offset" in `task-events`.
    unread: partitions that could be judged in part only, since a newer version wrote there.
    """

    ok: bool
    figures: Figures
    counts: dict[str, int]
    by_kind: dict[str, int]
    violations: tuple[Violation, ...]
    warnings: tuple[Violation, ...]
    warning_count: int
    records: dict[str, str] = {}
    unread: tuple[str, ...] = ()

    def places(self) -> set[Place]:
        """Of the records that show the violations which are kept."""
        return {place for violation in self.violations for place in violation.records}

    def with_records(self, values: Mapping[Place, bytes]) -> "Report":
        """The same with the records themselves."""
        records = {str(place): value.decode(errors="backslashreplace") for place, value in sorted(values.items())}
        return msgspec.structs.replace(self, records=records)

    def evidence_of(self, violation: Violation) -> list[str]:
        """A line for each record, and each line of a journal, that shows it."""
        records = [f"{place} {_cut(self.records.get(str(place), ''))}".rstrip() for place in violation.records]
        return records + list(violation.journal)

    def to_json(self) -> bytes:
        return msgspec.json.encode(self)


def report(figures: Figures, shared: Shared, unread: tuple[str, ...] = ()) -> Report:
    found = shared.violations
    return Report(
        ok=not len(found),
        figures=figures,
        counts={guarantee.value: found.of(guarantee) for guarantee in WORDS},
        by_kind=_by_kind(found),
        violations=tuple(found),
        warnings=tuple(shared.warnings),
        warning_count=len(shared.warnings),
        unread=unread,
    )


def _by_kind(found: Findings) -> dict[str, int]:
    return {f"{guarantee.value} {kind}": count for (guarantee, kind), count in sorted(found.counts.items())}


def show(verdict: Report, console: Console) -> None:
    """Print the report as text."""
    console.print(_guarantees(verdict), _figures(verdict.figures))
    for violation in verdict.violations[:SHOWN_IN_TEXT]:
        console.print(_violation(violation, "red"))
        for line in verdict.evidence_of(violation):
            console.print(f"  [dim]{escape(line)}[/]", soft_wrap=True, highlight=False)
    for warning in verdict.warnings[:SHOWN_IN_TEXT]:
        console.print(_violation(warning, "yellow"))
    total = sum(verdict.counts.values())
    if hidden := total - min(len(verdict.violations), SHOWN_IN_TEXT):
        console.print(f"… and {hidden:,} more violations (--json lists the first few of each kind)")
    for why in verdict.unread:
        console.print(f"[yellow]not judged any further: {escape(why)}[/]")
    if verdict.ok and verdict.unread:
        console.print("[bold yellow]0 violations in what could be read.[/]")
    elif verdict.ok:
        console.print("[bold green]The history keeps the promise: 0 violations.[/]")
    else:
        console.print(f"[bold red]{total:,} violations.[/]")


def _guarantees(verdict: Report) -> RenderableType:
    table = Table("guarantee", "", "violations", title="pstp verify", title_justify="left")
    table.columns[2].justify = "right"
    for guarantee, words in WORDS.items():
        count = verdict.counts[guarantee.value]
        table.add_row(guarantee.value, words, f"[red]{count:,}[/]" if count else "[green]0[/]")
    return table


def _figures(figures: Figures) -> RenderableType:
    repeats = ", ".join(f"{count:,} {reason}" for reason, count in figures.repeats.items()) or "none"
    ends = ", ".join(f"{count:,} {state}" for state, count in figures.ends.items()) or "none"
    rows = [
        ("tasks", f"{figures.tasks:,} in {figures.groups:,} groups ({ends}; {figures.unfinished:,} unfinished)"),
        ("rejected", f"{figures.rejected:,}"),
        ("executions", f"{figures.executions:,}; repeats: {repeats}"),
        ("group state", f"{figures.state_updates:,} updates"),
        ("refused reports", f"{figures.stale_reports:,} stale"),
        ("throughput", f"{figures.tasks_per_s:,.0f} tasks/s over {figures.span_s:,.1f} s"),
        ("wait until start", _quantiles(figures.wait)),
        ("completion to next start", _quantiles(figures.gap)),
        ("longest stall", _stall(figures)),
        ("peak parked", f"{figures.peak_parked:,}"),
    ]
    table = Table.grid(padding=(0, 2))
    for name, value in rows:
        table.add_row(name, escape(value))
    return Group(table, "")


def _stall(figures: Figures) -> str:
    if figures.longest_stall_group is None:
        return "none"
    return f"{figures.longest_stall_s:.3f} s (group {figures.longest_stall_group!r}; includes waiting for a free slot)"


def _quantiles(values: Quantiles | None) -> str:
    if values is None:
        return "not measured"
    return f"p50 {milliseconds(values.p50_s)}, p99 {milliseconds(values.p99_s)}, max {milliseconds(values.max_s)}"


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:,.1f} ms" if seconds < 10 else f"{seconds:,.1f} s"


def _violation(violation: Violation, colour: str) -> str:
    head = f"[{colour}]{violation.guarantee.value} {violation.kind}[/]"
    return f"{head} {escape(violation.sentence())}"


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN_OF_A_RECORD else f"{text[:SHOWN_OF_A_RECORD]}…"


__all__ = ["Guarantee", "Report", "milliseconds", "report", "show"]
