"""What faults cost, counted as starts at the workers: python -m bench.faults.failover --out failover.json

Two schedulers, two workers, a broker of its own; a publisher gives each of 64 groups a task every 0.4 s.  For each
group it tells the longest time that a task, published in the fault or in the `AFTER_S` that follow, waited for its
start: what a rebalance costs comes only when the fault is noticed, seconds after it.
"""

import argparse
import json
import statistics
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from pstp.broker import EmbeddedBroker
from streams.protocol import decode_member
from streams.settings import Settings
from tests.support.system import Process, System, until

GROUPS: Final = [f"tenant-{number}" for number in range(64)]
EVERY_S: Final = 0.4
AFTER_S: Final = 12.0
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


def starts(system: System, since_ns: int) -> Iterator[tuple[str, int, float]]:
    """(group, when it was published, seconds until it began) of tasks that were published since."""
    for line in system.journal():
        name = line["id"]
        if line["what"] == "start" and name.startswith("at-") and int(name[3:]) >= since_ns:
            yield line["group"], int(name[3:]), (line["mono_ns"] - int(name[3:])) / 1e9


def after(system: System, fault: Callable[[], Any]) -> dict[str, float]:
    """Group -> the longest wait in and after the fault."""
    since_ns = time.monotonic_ns()
    fault()
    end_ns = time.monotonic_ns() + int(AFTER_S * 1e9)
    until(lambda: {group for group, *_ in starts(system, end_ns)} >= set(GROUPS), WAIT_S, "every group moves again")
    longest = dict.fromkeys(GROUPS, 0.0)
    for group, published_ns, wait_s in starts(system, since_ns):
        if published_ns < end_ns:
            longest[group] = max(longest[group], wait_s)
    return longest


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


def joining(system: System, repeats: int) -> dict[str, Any]:
    """A third scheduler joins, and leaves again before the next time."""
    stayed: list[float] = []
    for number in range(repeats):
        live, fresh = [p.name for p in system.processes if p.alive() and p.name.startswith("s")], f"s-more-{number}"
        settled(system, *live)
        before = {name: owned(system, name) for name in live}
        joined: list[Process] = []
        found = after(system, lambda: (joined.append(system.scheduler(fresh)), settled(system, *live, fresh)))  # noqa: B023
        kept = set().union(*(before[name] & owned(system, name) for name in live))
        stayed += [s for group, s in found.items() if system.home(group) in kept]
        joined[0].terminate()
        until(lambda: not joined[0].alive(), WAIT_S)  # noqa: B023
    return {"groups that stayed": figures(stayed), "repeats": repeats}


def killed_worker(system: System) -> dict[str, Any]:
    """All that runs on it starts again elsewhere."""
    settled(system, *(p.name for p in system.processes if p.alive() and p.name.startswith("s")))
    doomed = system.worker("w-doomed", slots=256)  # so many that the next tasks go there
    names = {f"long-{n}" for n in range(3 * LONG_TASKS)}
    until(lambda: owned(system, "w-doomed"), WAIT_S, "it has a share of the dispatches")
    for name in sorted(names):
        system.publish(name, "sleep", 25, id=name)
    system.flush()

    def on_it() -> set[str]:
        return {line["id"] for line in system.journal() if line["pid"] == doomed.popen.pid and line["id"] in names}

    until(lambda: len(on_it()) >= LONG_TASKS, WAIT_S, "long tasks run there")
    hit = on_it()
    since_ns = time.monotonic_ns()
    doomed.kill()

    def again() -> dict[str, float]:
        return {
            line["id"]: (line["mono_ns"] - since_ns) / 1e9 for line in system.journal()
            if line["what"] == "start" and line["id"] in hit and line["mono_ns"] > since_ns
        }  # fmt: skip

    until(lambda: again().keys() >= hit, WAIT_S, "its tasks run elsewhere")
    return {"its tasks": figures(again().values()), "tasks": len(hit), "lease_s": system.settings.lease_s}


def restart(broker: EmbeddedBroker) -> None:
    broker.kill()
    broker.start()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="where the JSON goes")
    parser.add_argument("--repeats", type=int, default=5, help="kills, drains and joins of a scheduler")
    parser.add_argument("--only", help="one step, such as `worker killed`")
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
                "scheduler joins": lambda: joining(system, options.repeats),
                "worker killed": lambda: killed_worker(system),
                "broker restarted": lambda: {"all groups": figures(after(system, lambda: restart(broker)).values())},
            }
            for step, measure in steps.items():
                if options.only not in (None, step):
                    continue
                found[step] = measure()
                print(json.dumps({step: found[step]}), flush=True)
                if options.out:
                    options.out.write_text(json.dumps({"failover": found}, indent=1) + "\n")
            publisher.stopping.set()


if __name__ == "__main__":
    main()
