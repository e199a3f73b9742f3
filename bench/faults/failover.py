"""What faults cost, counted as starts at the workers: python -m bench.faults.failover --out failover.json

Two schedulers, two workers, a broker of its own; a publisher gives each of 64 groups a task every 0.4 s.  After each
fault it counts, for each group, how long it took until a task that was published after the fault began to run.
"""

import argparse
import json
import statistics
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from pstp.broker import EmbeddedBroker
from streams.protocol import TaskState, decode_member
from streams.settings import Settings
from tests.support.system import Process, System, until

GROUPS: Final = [f"tenant-{number}" for number in range(64)]
EVERY_S: Final = 0.4
LONG_TASKS: Final = 16
WAIT_S: Final = 90.0


class Publisher(threading.Thread):
    """A task for each group, again and again.  Its id says when it was published, in monotonic nanoseconds."""

    def __init__(self, system: System) -> None:
        super().__init__(daemon=True)
        self._system, self.stopping = system, threading.Event()

    def run(self) -> None:
        while not self.stopping.wait(EVERY_S / len(GROUPS)):
            number = time.monotonic_ns()
            self._system.publish(GROUPS[number // 1000 % len(GROUPS)], "echo", id=f"at-{number}")


def delays(system: System, since_ns: int) -> dict[str, float]:
    """Group -> seconds from the fault to the first start of a task that was published after it."""
    found: dict[str, float] = {}
    for line in system.journal():
        name = line["id"]
        if line["what"] == "start" and name.startswith("at-") and int(name[3:]) > since_ns:
            found.setdefault(line["group"], (line["mono_ns"] - since_ns) / 1e9)
    return found


def after(system: System, fault: Callable[[], Any]) -> dict[str, float]:
    since_ns = time.monotonic_ns()
    fault()
    until(lambda: delays(system, since_ns).keys() >= set(GROUPS), WAIT_S, "every group moves again")
    return delays(system, since_ns)


def owned(system: System, instance: str) -> set[int]:
    said = [m.value() for m in system.read_all("members", 1) if m.key() == instance.encode()]
    return set(decode_member(said[-1]).partitions) if said and said[-1] else set()


def settled(system: System, *schedulers: str) -> None:
    """Each owns some partitions, and all have an owner."""

    def all_owned() -> bool:
        parts = [owned(system, name) for name in schedulers]
        return all(parts) and sum(map(len, parts)) == system.settings.partitions

    until(all_owned, WAIT_S, "partitions are shared")


def figures(values: Iterable[float]) -> dict[str, float]:
    ordered = sorted(values)
    p95 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.95))]
    return {"p50_s": round(statistics.median(ordered), 2), "p95_s": round(p95, 2), "max_s": round(ordered[-1], 2)}


def schedulers_fault(system: System, fault: Callable[[Process], Any], repeats: int) -> dict[str, Any]:
    """One of two schedulers is hit, and started again afterwards under another name."""
    his: list[float] = []
    others: list[float] = []
    for number in range(repeats):
        live = [p for p in system.processes if p.alive() and p.name.startswith("s")]
        settled(system, *(p.name for p in live))
        partitions = owned(system, live[0].name)
        for group, delay_s in after(system, lambda p=live[0]: fault(p)).items():  # type: ignore[misc]
            (his if system.home(group) in partitions else others).append(delay_s)
        until(lambda p=live[0]: not p.alive(), WAIT_S)  # type: ignore[misc]
        system.scheduler(f"s{len(system.processes)}-{number}")
    return {"its groups": figures(his), "other groups": figures(others), "repeats": repeats}


def joining(system: System) -> dict[str, Any]:
    live = [p.name for p in system.processes if p.alive() and p.name.startswith("s")]
    settled(system, *live)
    before = {name: owned(system, name) for name in live}
    found = after(system, lambda: (system.scheduler("s-more"), settled(system, *live, "s-more")))
    kept = set().union(*(before[name] & owned(system, name) for name in live))
    since = {group: s for group, s in found.items() if system.home(group) in kept}
    return {"groups that stayed": figures(since.values() or [0.0]), "repeats": 1}


def killed_worker(system: System) -> dict[str, Any]:
    """All that runs on it starts again elsewhere."""
    doomed, names = system.worker("w-doomed", slots=LONG_TASKS), {f"long-{n}" for n in range(3 * LONG_TASKS)}
    for name in sorted(names):
        system.publish(name, "sleep", 25, id=name)
    system.flush()
    system.history.wait(lambda h: sum(h.count(s) for s in [TaskState.RUNNING]) and on(h, "w-doomed", names))
    hit = on(system.history, "w-doomed", names)
    since_ns = time.monotonic_ns()
    doomed.kill()

    def again() -> dict[str, float]:
        return {
            line["id"]: (line["mono_ns"] - since_ns) / 1e9 for line in system.journal()
            if line["what"] == "start" and line["id"] in hit and line["mono_ns"] > since_ns
        }  # fmt: skip

    until(lambda: again().keys() >= hit, WAIT_S, "its tasks run elsewhere")
    return {"its tasks": figures(again().values()), "tasks": len(hit), "lease_s": system.settings.lease_s}


def on(history: Any, worker: str, names: set[str]) -> set[str]:
    return {n for n in names if history.of[n] and history.of[n][-1].state is TaskState.RUNNING
            and history.of[n][-1].worker == worker}  # fmt: skip


def restart(broker: EmbeddedBroker) -> None:
    broker.kill()
    broker.start()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="where the JSON goes")
    parser.add_argument("--repeats", type=int, default=5, help="kills and drains of a scheduler")
    options = parser.parse_args()
    found: dict[str, Any] = {}
    with TemporaryDirectory() as name, EmbeddedBroker(Path(name) / "kafka") as broker:
        settings = Settings(bootstrap_servers=broker.bootstrap, partitions=8, dispatch_partitions=8)
        with System(settings, Path(name)) as system:
            for process in ("s1", "s2"):
                system.scheduler(process)
            for process in ("w1", "w2"):
                system.worker(process)
            publisher = Publisher(system)
            publisher.start()
            steps: dict[str, Callable[[], Any]] = {
                "scheduler killed": lambda: schedulers_fault(system, Process.kill, options.repeats),
                "scheduler drained": lambda: schedulers_fault(system, lambda p: p.terminate(), options.repeats),
                "scheduler joins": lambda: joining(system),
                "worker killed": lambda: killed_worker(system),
                "broker restarted": lambda: {"all groups": figures(after(system, lambda: restart(broker)).values())},
            }
            for step, measure in steps.items():
                found[step] = measure()
                print(json.dumps({step: found[step]}), flush=True)
                if options.out:
                    options.out.write_text(json.dumps({"failover": found}, indent=1) + "\n")
            publisher.stopping.set()


if __name__ == "__main__":
    main()
