"""One run: the stage is set, nemeses strike by plan, everything heals and drains, and a verdict is given."""

import heapq
import random
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pstp import top
from pstp.verify.reader import TopicReader
from streams.settings import Settings
from streams.topics import create_topics
from tests.chaos import clock
from tests.chaos.cluster import Cluster
from tests.chaos.faults import Faults
from tests.chaos.fleet import NS, Fleet
from tests.chaos.judge import Judge, Verdict
from tests.chaos.nemeses import NEMESES, REPEATS_NOTHING, REPEATS_NOTHING_HERE
from tests.chaos.plan import draw
from tests.chaos.publisher import acked
from tests.chaos.stage import Stage, Steps
from tests.chaos.watch import Watcher

LINKS: Final = ("s1", "s2", "s3", "w1", "w2", "w3", "p1")
PARKED_MAX: Final = 50  # in one group; intake of its partition pauses above
_STILL_S_MAX: Final = 90.0  # with everything healed, something must come to its end within this time


@dataclass(frozen=True)
class Options:
    seed: int
    duration_s: float
    tasks: int
    brokers: int = 1
    nemeses: tuple[str, ...] = tuple(NEMESES)
    gap_s: float = 6.0
    lease_s: float = 5.0
    execution: str = "workers"  # or "local"


@dataclass
class Outcome:
    options: Options
    faults: Counter[str]
    verdict: Verdict
    took_s: float
    unexpected_ends: list[str] = field(default_factory=list)
    bytes_through_links: int = 0
    skipped: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return self.verdict.ok


class Run:
    def __init__(self, options: Options, folder: Path, say: Callable[[str], None]) -> None:
        self._options, self._folder, self._say = options, folder, say
        self._began_s = time.monotonic()
        self._pending: list[tuple[float, int, str, Steps]] = []
        self._struck = 0
        self._problems: list[str] = []

    def play(self) -> Outcome:
        options = self._options
        small_disks = "disk_full" in options.nemeses
        fleet: Fleet | None = None
        cluster = Cluster(self._folder, options.brokers, LINKS, small_disks=small_disks)
        try:
            cluster.start()
            settings = self._settings(cluster)
            create_topics(settings)
            fleet = self._fleet(cluster, settings)
            watcher = Watcher(settings)
            watcher.start()
            rng = random.Random(f"run-{options.seed}")
            stage = Stage(cluster, fleet, Faults(self._folder), settings, self._folder, rng, watcher)
            self._say("running")
            self._strike(stage)
            self._drain(stage, watcher)
            watcher.stop()
            exported = self._exported(settings)
            unclean = fleet.stop_all()
            self._problems += [f"did not stop cleanly when all was well: {name}" for name in unclean]
            return self._judge(stage, exported)
        finally:
            if fleet is not None:
                fleet.stop_all(0)
            cluster.stop()

    def _settings(self, cluster: Cluster) -> Settings:
        # With limits nothing takes the express lane.
        parked_max = 0 if self._options.execution == "local" else PARKED_MAX
        return Settings(
            app="chaos", bootstrap_servers=cluster.bootstrap, partitions=8, dispatch_partitions=8,
            lease_s=self._options.lease_s, replication_factor=min(3, self._options.brokers),
            group_parked_max=parked_max, when_full="pause",
        )  # fmt: skip

    def _fleet(self, cluster: Cluster, settings: Settings) -> Fleet:
        options = self._options
        arguments = [str(options.seed), str(options.tasks), str(options.duration_s)]
        fleet = Fleet(cluster, settings, self._folder, arguments)
        if "clock_step" in options.nemeses:
            fleet.preload = clock.environment(self._folder)
            for name in LINKS:
                clock.turn(self._folder, name, 0)
        fleet.execution = options.execution
        fleet.wanted |= {"w1", "w2", "w3", "p1"} | ({"s1", "s2"} if options.execution == "workers" else set())
        return fleet

    def _strike(self, stage: Stage) -> None:
        """Play the plan, then let every nemesis come to its end."""
        options = self._options
        began_s = time.monotonic()
        plan = draw(options.seed, options.duration_s, options.nemeses, options.gap_s)
        while plan or self._pending or time.monotonic() - began_s < options.duration_s:
            stage.fleet.supervise()
            stage.serve()
            now_s = time.monotonic() - began_s
            while plan and plan[0].at_s <= now_s:
                strike = plan.pop(0)
                self._say(f"{now_s:6.1f} s  {strike.nemesis}")
                self._struck += 1
                steps = NEMESES[strike.nemesis](stage)
                heapq.heappush(self._pending, (now_s, self._struck, strike.nemesis, steps))
            while self._pending and self._pending[0][0] <= now_s:
                _, number, name, steps = heapq.heappop(self._pending)
                try:
                    heapq.heappush(self._pending, (now_s + next(steps), number, name, steps))
                except StopIteration:
                    continue
            time.sleep(0.05)

    def _drain(self, stage: Stage, watcher: Watcher) -> None:
        """Until all that was acknowledged has come to its end, or nothing moves any more."""
        self._say("all is well again; draining")
        watcher.moved_s = time.monotonic()
        while True:
            stage.fleet.supervise()
            stage.serve()
            if "p1" in stage.fleet.finished and stage.flush(0) == 0 and not watcher.open:
                wanted = {line["id"] for line in acked(self._folder)} | stage.published.keys()
                if wanted <= watcher.seen:
                    return
            still_s = time.monotonic() - watcher.moved_s
            if still_s > _STILL_S_MAX:
                self._problems.append(
                    f"nothing has moved for {still_s:.0f} s though all is well: {len(watcher.open)} tasks are open"
                )
                return
            time.sleep(0.2)

    def _keep_history(self, settings: Settings) -> None:
        """For `pstp verify --dump`, and for whoever looks for the cause: the broker's data goes with the run."""
        topic = settings.topic("task-events")
        with (self._folder / "history.jsonl").open("wb") as file, closing(TopicReader(settings, topic)) as reader:
            for partition in reader.bounds:
                for message in reader.read(partition):
                    place = b'{"partition":%d,"offset":%d,"value":' % (partition, message.offset() or 0)
                    file.write(place + (message.value() or b"null") + b"}\n")

    def _exported(self, settings: Settings) -> dict[str, int]:
        """State changes as the schedulers' metrics count them, once every partition has an owner again."""
        deadline_s = time.monotonic() + _STILL_S_MAX
        while True:
            found = top.once(settings)
            owned = sum(process.owned for process in found.processes if process.role == "scheduler")
            if owned == settings.partitions and not found.missing:
                return found.states
            if time.monotonic() > deadline_s:
                self._problems.append(f"metrics of {owned} partitions of {settings.partitions}, silent {found.missing}")
                return found.states
            time.sleep(0.2)

    def _judge(self, stage: Stage, exported: dict[str, int]) -> Outcome:
        lives = stage.fleet.lives
        known = {line["id"]: line["type"] for line in acked(self._folder)} | stage.published
        slack_s = float(clock.STEP_S) if stage.fleet.preload else 0.0
        if self._options.execution == "local":
            for life in lives:
                if life.code == 1 and life.ended_ns is not None:
                    stage.faults.note_end(life.name, (time.monotonic_ns() - life.ended_ns) / NS)
        is_local = self._options.execution == "local"
        judge = Judge(stage.settings, self._folder, stage.faults, lives, slack_s, local=is_local)
        verdict = judge.judge(known, stage.ends, stage.never_begun)
        verdict.problems += self._problems + stage.wrong
        figures = verdict.verify.figures
        counted = {**figures.ends, "rejected": figures.rejected, "running": verdict.started}
        verdict.problems += [
            f"metrics count {exported.get(state, 0)} times {state!r}, the history has {count}"
            for state, count in counted.items() if exported.get(state, 0) != count
        ]  # fmt: skip
        gentle = REPEATS_NOTHING_HERE if self._options.execution == "local" else REPEATS_NOTHING
        if set(self._options.nemeses) <= gentle:
            verdict.problems += [
                f"{count} repeats of the kind {kind!r}, though nothing was done to a worker"
                for kind, count in verdict.repeats.items() if not kind.endswith("asked for by the handler")
            ]  # fmt: skip
        if not verdict.ok:
            self._keep_history(stage.settings)
        proxy = stage.cluster.proxy
        return Outcome(
            self._options, Counter(fault.nemesis for fault in stage.faults.all()), verdict,
            time.monotonic() - self._began_s,
            [f"{life.name} ended with {life.code}" for life in lives if not life.expected and life.code],
            sum(proxy.link(name).bytes for name in LINKS), sorted(stage.skipped),
        )  # fmt: skip
