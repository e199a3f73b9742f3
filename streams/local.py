"""Local execution as the scheduler's shell sees it: a port to whoever runs handlers in this process.

Nothing durable need precede a local execution, so three things take the place of the claim:
- **Membership is a lease.**  Each transaction is fenced by the scheduler group's generation: one that commits proves
  that, when it began, nobody else owned our partitions.  Handlers run within a lease of the latest such moment and not
  longer; what has not ended by then ends with the process.  While nothing else is written, a small transaction renews
  the proof, twice a second while something runs.
- **A successor waits.**  Who takes over from an owner that ran handlers and did not let go begins nothing of that
  partition for a lease (unless the process is known to be dead).
- **It starts carefully.**  What that owner may have begun without a row that tells begins only when its start, with the
  attempt counted, is committed: a task that kills its process uses up its attempts.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from streams.placement import Here, Start
from streams.protocol import Report

if TYPE_CHECKING:
    from streams.engine import Engine

# (execution, what it says, whether it has ended); called in the event loop.
Reported = Callable[[Start, tuple[Report, ...], bool], None]

# A task of the express lane has ended, and whether its slot is free; called in the event loop.
LaneMoved = Callable[[bool], None]


class Metrics(Protocol):
    """What only who runs handlers can count."""

    def register(self, registry: Any) -> None:
        """With a registry of prometheus_client."""


class Runner(Protocol):
    """Runs handlers in this process; all methods are called in the event loop."""

    @property
    def metrics(self) -> Metrics: ...

    def placement(self, boot_id: str) -> Here:
        """What runs here."""

    def attach(self, report: Reported, engine: "Engine", lane_moved: LaneMoved) -> None:
        """Where outcomes go, and whose express lane is served.  Called once, in the running loop."""

    def drive(self) -> None:
        """Look after the engine's express lane: tasks wait in it, or have left it while they run."""

    async def room(self) -> bool:
        """Wait until there is room in the express lane, but for a moment only: one group must not hold up others.

        False if there is none yet.
        """

    def begin(self, start: Start) -> None:
        """Run it.  Exactly one call of `report` says that it has ended, unless the process ends."""

    def cancel(self, key: bytes, token: int) -> None:
        """Stop that execution of that group, if it runs."""

    def proven(self, began_ns: int) -> None:
        """A transaction that began then, by the monotonic clock, has committed."""

    def proof_due(self) -> bool:
        """Whether the proof of membership should be renewed."""

    def may_begin(self) -> bool:
        """Whether there is time left under the latest proof."""

    async def finish(self) -> None:
        """Wait for what runs, up to its time; then stop it.  What does not end, ends with the process."""

    async def stop_all(self) -> None:
        """Stop what runs and wait for its end.  What does not end, ends with the process."""

    def close(self) -> None:
        """Nothing runs any more."""
