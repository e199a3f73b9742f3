"""Handlers' own journals: a second witness, written by the handlers themselves and synced to disk at each line.

One JSON object per line, `start_mono_ns` when a handler begins and `end_mono_ns` when it ends:

    {"group": "g", "task_id": "0-17", "token": 4294967303, "attempt": 1, "start_mono_ns": 5, "clock_id": "…", "pid": 7}
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

import msgspec
from msgspec import Struct

from pstp.verify.findings import Findings, Guarantee, Violation
from pstp.verify.shared import Execution
from pstp.verify.split import Split
from streams.errors import UserError
from streams.murmur2 import home_partition
from streams.protocol import Reason, TaskState


class Line(Struct, frozen=True):
    group: str
    task_id: str
    token: int
    attempt: int
    clock_id: str
    pid: int
    start_mono_ns: int | None = None
    end_mono_ns: int | None = None
    instance: str = ""


class Run(Struct):
    """One execution as its handler saw it.  No end: its process died, or its last line never reached the disk."""

    task_id: str
    token: int
    start_ns: int
    clock_id: str
    at: str  # file:line
    instance: str = ""
    end_ns: int | None = None
    known: bool = False  # to the events
    lost: bool = False  # the events say that its worker was lost: it may be a zombie, which G1 excepts
    released: str | None = None  # who gave it up though it went on: what came next may have run beside it


class Journals:
    """Journals of one or more processes.  Read them all; then for each partition of the history `begin` it, let
    `History` call `executed`, and `judge`.

    partitions: N, where it is known; then only the lines of one partition's groups are in memory at a time.  untold:
    instances whose history may not know all that they ran, see `Options.local`.
    """

    def __init__(self, partitions: int | None = None, untold: frozenset[str] = frozenset()) -> None:
        self._untold = untold
        self.violations = Findings()
        self.warnings = Findings()
        self._partitions = partitions
        self._split = Split()
        self._runs: dict[tuple[str, int], Run] = {}

    def __enter__(self) -> Self:
        self._split.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._split.__exit__(*error)

    def read_all(self, paths: Iterable[Path]) -> None:
        """Raises `UserError` like `read`."""
        for path in paths:
            self.read(path)

    def read(self, path: Path) -> None:
        """Raises `UserError` on what is no journal; a last line without an end is what a kill leaves behind."""
        try:
            with path.open("rb") as lines:
                for number, data in enumerate(lines, start=1):
                    if data.strip():
                        self._read_line(path, number, data)
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror}") from error

    def _read_line(self, path: Path, number: int, data: bytes) -> None:
        try:
            line = _line(data)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            if not data.endswith(b"\n"):
                return
            raise UserError(f"line {number} of {path} is no line of a journal: {error}") from error
        at = f"{path.name}:{number}"
        if self._partitions is None:
            self._take(line, at)
        else:
            kept = _Kept(at, data.strip().decode())
            self._split.add(home_partition(line.group.encode(), self._partitions), _encode(kept))

    def begin(self, partition: int) -> None:
        """The history of this partition comes next."""
        for data in self._split.read(partition):
            kept = _kept(data)
            self._take(_line(kept.line), kept.at)

    def _take(self, line: Line, at: str) -> None:
        key = (line.group, line.token)
        run = self._runs.get(key)
        if line.start_mono_ns is not None:
            if run is not None:
                self._add(
                    Guarantee.G4, "token_ran_twice",
                    f"task {line.task_id!r} was executed twice under fencing token {line.token}",
                    line.group, (line.task_id,), run.at, at,
                )  # fmt: skip
                return
            run = self._runs[key] = Run(
                line.task_id, line.token, line.start_mono_ns, line.clock_id, at, line.instance
            )  # fmt: skip
        if line.end_mono_ns is not None:
            if run is None:
                self._add(
                    Guarantee.G7, "end_without_start", f"task {line.task_id!r} ended, and its journal has no start",
                    line.group, (line.task_id,), at,
                )  # fmt: skip
            else:
                run.end_ns = line.end_mono_ns

    def executed(self, told: Execution) -> None:
        """Compare one execution of the events with the handler's own lines."""
        run = None if told.token is None else self._runs.get((told.group, told.token))
        if run is None:
            if told.outcome is TaskState.SUCCEEDED:
                self._told(told, Guarantee.G3, "success_without_run", "succeeded, and no handler says that it ran")
            return
        run.known = True
        run.lost = told.reason == Reason.WORKER_LOST
        run.released = told.released
        if told.outcome is TaskState.SUCCEEDED and run.end_ns is None:
            self._told(told, Guarantee.G3, "success_without_end", "succeeded, and its handler had not ended", run)
        if told.outcome is TaskState.PARKED and told.reason != Reason.ABANDONED:
            self._told(told, Guarantee.G4, "returned_but_ran", "was returned as never run, and its handler ran", run)
        if told.clock_id == run.clock_id and not _inside(run, told):
            self._told(told, Guarantee.G7, "times_disagree", "has other times with its handler than in the events", run)

    def judge(self, *, with_events: bool = True) -> None:
        """After all is read: executions per group must not overlap, and must start in the order of their tokens.
        They are forgotten then.  What ran beside one that an operator had released is no violation, and is told.
        """
        by_clock: dict[tuple[str, str], list[Run]] = {}
        for (group, _), run in self._runs.items():
            by_clock.setdefault((group, run.clock_id), []).append(run)
            if with_events and not run.known and run.instance not in self._untold and not self._goes_on(group, run):
                self._add(
                    Guarantee.G1, "unseen_run",
                    f"a handler ran task {run.task_id!r} under token {run.token}, which the history does not know",
                    group, (run.task_id,), run.at,
                )  # fmt: skip
        for (group, _), runs in by_clock.items():
            self._judge_group(group, sorted(runs, key=lambda run: run.start_ns))
        self._runs.clear()

    def _goes_on(self, group: str, run: Run) -> bool:
        """Whether it belongs to a dispatch of several tasks whose worker was lost: each begins as soon as the one
        before it has ended, and what was not yet told by then runs again.
        """
        before = self._runs.get((group, run.token - 1))
        while before is not None and before.task_id != run.task_id and (before.end_ns or 2**63) <= run.start_ns:
            if before.known:
                return before.lost
            run, before = before, self._runs.get((group, before.token - 1))
        return False

    def _judge_group(self, group: str, runs: Iterable[Run]) -> None:
        latest: Run | None = None  # of those that had a known end, the one that ended last
        newest: Run | None = None  # the one with the highest token
        given_up: list[Run] = []
        for run in runs:
            if newest is not None and run.token < newest.token and not run.lost:
                self._pair(Guarantee.G2, "stale_start", group, newest, run, "started under an older token, after")
            if latest is not None and run.start_ns < (latest.end_ns or 0) and not (latest.lost or run.lost):
                self._pair(Guarantee.G1, "overlap_in_journal", group, latest, run, "started before the end of")
            for first in given_up:
                self._beside(group, first, run)
            if run.released is not None:
                given_up.append(run)
            elif run.end_ns is not None and (latest is None or run.end_ns > (latest.end_ns or 0)) and not run.lost:
                latest = run
            if newest is None or run.token > newest.token:
                newest = run

    def _beside(self, group: str, released: Run, run: Run) -> None:
        """Later executions may run beside one that was released; an earlier one may not."""
        if released.end_ns is None or run.start_ns >= released.end_ns:
            return
        if run.token < released.token and not run.lost:
            self._pair(Guarantee.G1, "overlap_in_journal", group, released, run, "started before the end of")
            return
        text = (
            f"task {run.task_id!r} (token {run.token}) ran beside {released.task_id!r} (token {released.token}), which "
            f"went on after it was released by {released.released}"
        )
        ids = released.task_id, run.task_id
        self.warnings.add(Violation(Guarantee.G1, "ran_beside_released", text, group, ids, (), (released.at, run.at)))

    def _pair(self, point: Guarantee, kind: str, group: str, first: Run, second: Run, words: str) -> None:
        text = f"task {second.task_id!r} (token {second.token}) {words} {first.task_id!r} (token {first.token})"
        self._add(point, kind, text, group, (first.task_id, second.task_id), first.at, second.at)

    def _told(self, told: Execution, point: Guarantee, kind: str, words: str, run: Run | None = None) -> None:
        text = f"task {told.task_id!r} (token {told.token}) {words}"
        journal = () if run is None else (run.at,)
        self.violations.add(Violation(point, kind, text, told.group, (told.task_id,), (told.place,), journal))

    def _add(self, point: Guarantee, kind: str, text: str, group: str, ids: tuple[str, ...], *at: str) -> None:
        self.violations.add(Violation(point, kind, text, group, ids, (), at))


_line = msgspec.json.Decoder(Line).decode


class _Kept(Struct, array_like=True):
    at: str
    line: str


_kept = msgspec.json.Decoder(_Kept).decode
_encode = msgspec.json.Encoder().encode


def _inside(run: Run, told: Execution) -> bool:
    """The handler ran within the times that its worker reported."""
    if told.started_ns is not None and run.start_ns < told.started_ns:
        return False
    return told.ended_ns is None or run.end_ns is None or run.end_ns <= told.ended_ns
