"""Open dead letters, and jobs that redrive them."""

import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any, Literal

from msgspec import Raw, Struct

from producers.commands import CommandSender
from pstp.service.asking import ask_all, ask_owner
from pstp.service.commanding import new_command
from streams.clock import now
from streams.protocol import Command, CommandKind, Outcome, Refusal
from streams.settings import Settings
from streams.topics import verify_identity

BATCH = 200


class DeadLetterFilter(Struct, frozen=True, omit_defaults=True):
    """Which open dead letters: all conditions must hold.  Times are wall time in ms."""

    group: str | None = None
    task_id: str | None = None
    type: str | None = None
    reason: str | None = None
    since_ms: int | None = None
    until_ms: int | None = None

    def query(self) -> dict[str, Any]:
        names = {"task_id": "id", "since_ms": "since", "until_ms": "until"}
        values = {name: getattr(self, name) for name in self.__struct_fields__}
        return {names.get(name, name): value for name, value in values.items() if value is not None}


class DeadLetter(Struct, frozen=True, omit_defaults=True):
    """One open dead letter.  `payload` only where it was asked for by id."""

    group: str
    task_id: str
    sequence: int
    type: str
    reason: str
    attempts: int
    at_ms: int
    error: str | None = None
    cascade_of: int | None = None  # sequence of the task whose failure took it along


def list_dead_letters(settings: Settings, which: DeadLetterFilter, limit: int = 0) -> list[DeadLetter]:
    """Open dead letters, by time; `limit` 0: all.  Answered from the schedulers' memory.  Raises `UserError`."""
    query = which.query() | {"limit": limit}
    answers = [ask_owner(settings, which.group, "/dead-letters", query)] if which.group else None
    found = [
        DeadLetter(**{name: letter.get(name) for name in DeadLetter.__struct_fields__})
        for answer in answers or ask_all(settings, "/dead-letters", query)
        for letter in answer["dead_letters"]
    ]
    found.sort(key=lambda letter: (letter.at_ms, letter.group, letter.sequence))
    return found[:limit] if limit else found


def read_dead_letter(
    settings: Settings, group: str, task_id: str, sequence: int | None = None
) -> dict[str, Any] | None:
    """One open dead letter with its payload and error, or None.  Raises `UserError`."""
    query: dict[str, Any] = {"id": task_id, "payload": 1} | ({} if sequence is None else {"sequence": sequence})
    found: list[dict[str, Any]] = ask_owner(settings, group, "/dead-letters", query)["dead_letters"]
    return found[-1] if found else None


class RedriveJob:
    """Redrives what it found when it was made.  `run` yields after each batch; `abort`, from any thread, ends it before
    the next one.

    Progress is in the fields.  Running it twice does nothing twice: a dead letter is open only once.
    """

    def __init__(
        self, settings: Settings, letters: list[DeadLetter], *, position: Literal["head", "tail"] = "head",
        actor: str = "", note: str = "", per_s: float = 0, payload: Raw | None = None,
    ) -> None:  # fmt: skip
        """`per_s`: at most so many a second, 0 as fast as they are answered.  `payload` replaces that of each."""
        # In a group the original order is kept whichever way they go, and however slowly: a later one sent first could
        # begin before the earlier one has been sent.
        letters = sorted(letters, key=lambda letter: letter.sequence)
        kind = CommandKind.REDRIVE if payload is None else CommandKind.EDIT_AND_REDRIVE
        self._commands = [
            new_command(
                kind, letter.group, actor=actor, note=note, task_id=letter.task_id, sequence=letter.sequence,
                position=position, payload=payload,
            )
            for letter in letters
        ]  # fmt: skip
        self._settings, self._per_s = settings, per_s
        self.total = len(letters)
        self.done = 0
        self.refused: Counter[str] = Counter()  # by reason
        self._aborted = threading.Event()

    @property
    def aborted(self) -> bool:
        return self._aborted.is_set()

    def abort(self) -> None:
        self._aborted.set()

    def run(self) -> Iterator["RedriveJob"]:
        """Raises `NoAnswerError` or another `UserError`; what was answered until then is counted."""
        with CommandSender(self._settings, verify_identity(self._settings).partitions) as sender:
            began_ms, size = now().mono_ms, BATCH if not self._per_s else max(1, min(BATCH, int(self._per_s)))
            for first in range(0, self.total, size):
                if self._per_s:
                    due_ms = began_ms + int(first / self._per_s * 1000)
                    self._aborted.wait(max(0.0, (due_ms - now().mono_ms) / 1000))
                if self.aborted:
                    return
                self._send(sender, self._commands[first : first + size])
                yield self

    def _send(self, sender: CommandSender, commands: list[Command]) -> None:
        for answer in sender.ask_all(commands):
            if answer.outcome is Outcome.REFUSED:
                self.refused[answer.reason or Refusal.BAD_COMMAND] += 1
            else:
                self.done += 1
