"""What a run amounts to: for the terminal, and as a row of the table in docs/faults.md."""

from pathlib import Path
from typing import Final

from tests.chaos.nemeses import NEMESES
from tests.chaos.run import Outcome

_SHOWN: Final = 15
HEAD: Final = (
    "| seed | brokers | nemeses | tasks | faults | executions | repeats: asked for | explained by a fault "
    "| unexplained | longest stall | in calm | violations |\n"
    "|---|---|---|---|---|---|---|---|---|---|---|---|\n"
)
BEGIN: Final = "<!-- runs: written by `make chaos TABLE=docs/faults.md` -->\n"
END: Final = "<!-- end of runs -->\n"


def show(outcome: Outcome) -> str:
    options, verdict = outcome.options, outcome.verdict
    figures = verdict.verify.figures
    lines = [
        f"seed {options.seed}, {options.brokers} broker(s), {outcome.took_s:.0f} s",
        f"  faults: {_counts(outcome.faults)}",
        f"  tasks: {figures.tasks} ({figures.rejected} more rejected), executions: {figures.executions}, "
        f"bytes through the proxy: {outcome.bytes_through_links:,}",
        f"  repeats: {_counts(verdict.repeats)}",
        f"  ends: {_counts(verdict.ends)}",
        f"  pauses that held: {verdict.pauses}, executions released: {verdict.released}, "
        f"breakers opened: {verdict.breakers_opened}",
        f"  longest stall: {verdict.longest_stall_s:.1f} s, in calm: {verdict.longest_calm_stall_s:.1f} s",
    ]
    if outcome.unexpected_ends:
        lines.append(f"  ended by themselves: {', '.join(outcome.unexpected_ends)}")
    lines += [f"  skipped: {text}" for text in outcome.skipped]
    found = [f"{v.guarantee.value} {v.kind}: {v.text} {v.records} {v.journal}" for v in verdict.verify.violations]
    problems = [*found, *verdict.problems]
    lines += [f"  ! {text}" for text in problems[:_SHOWN]]
    if len(problems) > _SHOWN:
        lines.append(f"  ! and {len(problems) - _SHOWN} more")
    lines.append(f"  {'the promise is kept' if outcome.ok else 'BROKEN'}; again: {command(outcome)}")
    return "\n".join(lines)


def command(outcome: Outcome) -> str:
    options = outcome.options
    words = [
        f"make chaos SEED={options.seed} DURATION_S={options.duration_s:g} TASKS={options.tasks}",
        f"BROKERS={options.brokers}",
    ]
    if options.execution != "workers":
        words.append(f"EXECUTION={options.execution}")
    if options.nemeses != tuple(NEMESES):
        words.append(f"NEMESES={','.join(options.nemeses)}")
    return " ".join(words)


def write_row(path: Path, outcome: Outcome) -> None:
    """Put the run into the table, in place of an earlier one of the same seed, brokers and nemeses."""
    text = path.read_text()
    before, _, rest = text.partition(BEGIN)
    table, _, after = rest.partition(END)
    rows = {line for line in table.removeprefix(HEAD).splitlines() if line}
    rows = {row for row in rows if not row.startswith(_which(outcome))}
    rows.add(_row(outcome))
    ordered = sorted(rows, key=_order)
    path.write_text(before + BEGIN + HEAD + "".join(f"{row}\n" for row in ordered) + END + after)


def _which(outcome: Outcome) -> str:
    options = outcome.options
    nemeses = "all" if options.nemeses == tuple(NEMESES) else ", ".join(options.nemeses)
    return f"| {options.seed} | {options.brokers} | {nemeses} |"


def _order(row: str) -> tuple[bool, int, str, int]:
    """All nemeses together before those that strike alone; then by brokers, by name and by seed."""
    seed, brokers, nemeses, *_ = (cell.strip() for cell in row.strip("|").split("|"))
    return nemeses != "all", int(brokers), nemeses, int(seed)


def _row(outcome: Outcome) -> str:
    verdict = outcome.verdict
    asked = sum(n for kind, n in verdict.repeats.items() if kind.endswith("asked for by the handler"))
    unexplained = sum(n for kind, n in verdict.repeats.items() if kind.endswith("unexplained"))
    figures = verdict.verify.figures
    broken = sum(verdict.verify.counts.values()) + len(verdict.problems)
    cells = (
        f"{figures.tasks:,}", sum(outcome.faults.values()), f"{figures.executions:,}",
        asked, verdict.repeats.total() - asked - unexplained, unexplained, f"{verdict.longest_stall_s:.1f} s",
        f"{verdict.longest_calm_stall_s:.1f} s", broken,
    )  # fmt: skip
    return f"{_which(outcome)} {' | '.join(map(str, cells))} |"


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items())) or "none"
