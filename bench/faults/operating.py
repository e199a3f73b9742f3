"""What an operator waits for, and what waits for its time: python -m bench.faults.operating --out operating.json

One scheduler, one worker, a broker of its own, nothing else to do.  Cancelled: from the moment at which the command was
sent until the handler had ended, by its worker's own clock.  Due: from the end of a backoff until the next attempt ran.
"""

import argparse
import json
import os
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from bench.faults.failover import figures
from producers.commands import CommandSender
from pstp.broker import EmbeddedBroker
from pstp.service import new_command
from streams.protocol import CommandKind, Event, Outcome, TaskState
from streams.settings import Settings
from tests.support.system import System

HANDLERS: Final = Path(__file__).with_name("handlers.py")
KINDS: Final = {"async": "coroutine", "thread": "thread", "process": "process"}


def cancelled(system: System, sender: CommandSender, kind: str, times: int) -> dict[str, float]:
    delays_s = []
    for number in range(times):
        name = f"{kind}-{number}"
        system.publish(name, f"endless.{kind}", id=name)
        system.flush()
        system.history.wait(lambda h, n=name: TaskState.RUNNING in h.states(n))
        sent_ns = time.monotonic_ns()
        answer = sender.ask(new_command(CommandKind.CANCEL_TASK, name, task_id=name))
        assert answer.outcome is Outcome.ACCEPTED, answer
        (end,) = system.history.wait(lambda h, n=name: [e for e in h.of[n] if e.state is TaskState.CANCELLED])
        if end.ended_mono_ns is not None:  # else it was reached before its handler had begun
            delays_s.append((end.ended_mono_ns - sent_ns) / 1e9)
    return figures(delays_s)


def due(system: System, times: int) -> dict[str, float]:
    names = [f"fails-{number}" for number in range(times)]
    delays_s = []
    for name in names:
        system.publish(name, "fails.once", id=name)
        system.flush()
        system.history.wait(lambda h, n=name: TaskState.SUCCEEDED in h.states(n))
        events: list[Event] = system.history.of[name]
        waits = next(e for e in events if e.state is TaskState.RETRYING)
        again = [e for e in events if e.state is TaskState.RUNNING][1]
        assert again.started_at is not None and waits.not_before is not None
        delays_s.append((again.started_at - waits.not_before).total_seconds())
    return figures(delays_s)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="where the JSON goes")
    parser.add_argument("--times", type=int, default=30, help="of each")
    options = parser.parse_args()
    found: dict[str, Any] = {}
    with TemporaryDirectory() as name, EmbeddedBroker(Path(name) / "kafka") as broker:
        settings = Settings(bootstrap_servers=broker.bootstrap, partitions=8, dispatch_partitions=8)
        with System(settings, Path(name)) as system, CommandSender(settings, settings.partitions) as sender:
            system.scheduler()
            system.worker(handlers=HANDLERS)
            system.publish("warm", "fails.once")
            system.flush()
            system.history.wait_terminal(1, 120)
            for kind, words in KINDS.items():
                found[f"cancelled: {words}"] = cancelled(system, sender, kind, options.times)
            found["due after a backoff"] = due(system, options.times)
    measured = {"load_average": round(os.getloadavg()[0], 1), "figures": found}
    print(json.dumps(measured, indent=1))
    if options.out:
        options.out.write_text(json.dumps({"operating": measured}, indent=1) + "\n")


if __name__ == "__main__":
    main()
