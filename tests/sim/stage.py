"""The world that plays now: what patched functions look at, since nobody can hand it to them."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from consumers.local import LocalRunner
    from tests.sim.client import Wire
    from tests.sim.eventloop import EventLoop
    from tests.sim.loop import Loop, Process
    from tests.sim.truth import Truth


class Stage:
    loop: "Loop"
    wire: "Wire"
    truth: "Truth"
    wall_epoch_ms = 1_900_000_000_000
    wall_ms_max = 0
    ids = 0
    loops: "list[EventLoop]"
    boots: "dict[str, Process]"  # of schedulers that run handlers, by boot id
    runners: "dict[Process, LocalRunner]"
    is_set = False  # patched


STAGE = Stage()
