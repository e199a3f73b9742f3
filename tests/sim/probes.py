"""The part of the independent model that is about breakers: what is told of them, and what goes out meanwhile.

A breaker speaks for one life of one scheduler.  While it is told to be open nothing of its type goes out there; half
open, one probe at a time; a probe that succeeded closes it, and one that failed opens it again.
"""

from typing import TYPE_CHECKING, NamedTuple

from streams.protocol import Event, Reason, TaskState
from tests.sim.loop import Process, Violation
from tests.sim.tale import BEGUN, Tale

if TYPE_CHECKING:
    from tests.sim.scheduler import SchedulerLife
    from tests.sim.truth import Truth

Key = tuple[str, str]  # instance, type
# Ends of an execution that say nothing about its type.
SILENT = (Reason.SNOOZED, Reason.WORKER_LOST, Reason.RELEASED, Reason.HANDLER_REJECTED)


class Probe(NamedTuple):
    partition: int
    token: int
    tale: Tale
    process: Process

    @property
    def is_out(self) -> bool:
        return self.tale.token == self.token and self.tale.phase in BEGUN


class Probes:
    def __init__(self, truth: "Truth") -> None:
        self._truth = truth
        self._states: dict[Key, tuple[str, Process]] = {}
        self._out: dict[Key, list[Probe]] = {}
        self._owed: dict[Key, str] = {}  # what must be told next, since a probe has ended

    def _life(self, key: Key) -> Process:
        return self._truth.lives[key[0]][-1]

    def told(self, event: Event) -> None:
        key = event.note or "", event.type or ""
        self._states[key] = event.reason or "", self._life(key)
        self._truth.count(f"breaker {event.reason}")
        if self._owed.get(key) == event.reason:
            del self._owed[key]

    def dispatched(self, partition: int, tale: Tale, instance: str, event: Event) -> None:
        key = instance, event.type or ""
        state, process = self._states.get(key, ("closed", None))
        if process is not self._life(key) or state == "closed":
            return
        if state == "open":
            raise Violation("limits", f"{event.task_id} goes out though the breaker of its type is open", event.group)
        self._truth.count("probes")
        self._out.setdefault(key, []).append(Probe(partition, event.fencing_token or 0, tale, process))

    def moved(self, partition: int, instance: str, event: Event) -> None:
        """Of a probe that has ended, the breaker must say what it meant before its transaction ends."""
        key = instance, event.type or ""
        if event.reason in SILENT or not any(
            (p.partition, p.token) == (partition, event.fencing_token) and p.process is self._life(key)
            for p in self._out.get(key, ())
        ):
            return
        failed = event.state in (TaskState.RETRYING, TaskState.DEAD_LETTERED)
        if not failed and event.state is not TaskState.SUCCEEDED:
            return
        self._out[key] = [p for p in self._out[key] if (p.partition, p.token) != (partition, event.fencing_token)]
        if self._states[key][0] != (wanted := "open" if failed else "closed"):
            self._owed[key] = wanted

    def committed(self) -> None:
        for key, state in self._owed.items():
            raise Violation(
                "limits", f"a probe of type {key[1]!r} has ended, and its breaker at {key[0]} is not {state}"
            )

    def check(self, life: "SchedulerLife") -> None:
        """At most one is out, of those whose partitions this scheduler has kept all the time."""
        owned = life.engine.partitions
        for key, probes in self._out.items():
            if key[0] != life.process.name:
                continue
            out = [p for p in probes if p.is_out and p.partition in owned and p.process is life.process]
            self._out[key] = out
            if len(out) > 1:
                words = f"{len(out)} probes of type {key[1]!r} are out at {key[0]}"
                raise Violation("limits", words, out[-1].tale.name)
