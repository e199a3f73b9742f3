"""Judging a run by the handlers' own fsynced lines alone, independent of the scheduler's word."""

from collections import defaultdict
from typing import Any

Lines = list[dict[str, Any]]


def overlaps(journal: Lines) -> list[str]:
    """Groups in which an execution began while another had begun and not ended (nor died, see `cut`)."""
    found, running = [], {}
    for line in sorted(journal, key=lambda entry: entry["mono_ns"]):
        group, who = line["group"], (line["id"], line["token"])
        if line["what"] == "start":
            if running.get(group) not in (None, who):
                found.append(f"{group}: {who} began while {running[group]} was running")
            running[group] = who
        elif running.get(group) == who:
            del running[group]
    return found


def without_the_dead(journal: Lines, dead_pids: set[int]) -> Lines:
    """Drop starts without end of killed processes: they ended with their process."""
    ended = {(line["id"], line["token"]) for line in journal if line["what"] == "end"}
    return [
        line for line in journal
        if line["what"] == "end" or line["pid"] not in dead_pids or (line["id"], line["token"]) in ended
    ]  # fmt: skip


def starts(journal: Lines) -> dict[str, list[str]]:
    """Group -> task ids in the order in which they began, repeats included."""
    found: dict[str, list[str]] = defaultdict(list)
    for line in sorted(journal, key=lambda entry: entry["mono_ns"]):
        if line["what"] == "start":
            found[line["group"]].append(line["id"])
    return found


def first_starts(journal: Lines) -> dict[str, list[str]]:
    """The same without repeats."""
    return {group: list(dict.fromkeys(ids)) for group, ids in starts(journal).items()}
