"""The sides: each gets a `Work`, does all of it, and says how long it took.

A side's time begins with its first task in hand and ends when the last outcome is as safe as that side makes it:
committed progress or an acknowledged record for peers, a committed transaction for PSTP.
"""

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from pstp.bench import history
from pstp.bench.bed import Bed, ended
from pstp.bench.installing import java_peer, peers_folder, python_peer
from pstp.bench.machine import cpu_s
from pstp.bench.postgres import Postgres
from pstp.bench.work import Work, create_topic, preload
from streams.clock import mono_ns
from streams.errors import UserError

RUN_S_MAX: Final = 900.0
HANDLERS: Final = Path(__file__).with_name("handlers.py")
SLOTS: Final = 1_000


class Result(NamedTuple):
    """`cpu_s`: of the side's own processes, start and stop included.  `more`: what else that side tells."""

    tasks: int
    seconds: float
    order_violations: int
    cpu_s: float
    broker_cpu_s: float
    more: Mapping[str, Any] = MappingProxyType({})

    @property
    def rate(self) -> float:
        return self.tasks / self.seconds


class Side(NamedTuple):
    """`does`: what it keeps or claims, in words for the charts.  `tasks_max`: slow sides get fewer tasks of the work.

    `works`: names of the works that make sense for it; empty: all.
    """

    name: str
    title: str
    does: str
    run: Callable[[Bed, Work], Result]
    tasks_max: int = 10**9
    works: tuple[str, ...] = ()


# -- peers


def _peer(bed: Bed, work: Work, command: list[str], env: dict[str, str], *, out: bool) -> Result:
    """Preload a topic, run the peer to its end, take its answer."""
    name = bed.name()
    create_topic(bed.bootstrap, name, work.partitions)
    preload(bed.bootstrap, name, work)
    variables = {
        "BENCH_BOOTSTRAP": bed.bootstrap, "BENCH_TOPIC": name, "BENCH_GROUP": f"{name}-group",
        "BENCH_TASKS": str(work.tasks), "BENCH_HANDLER_MS": str(work.handler_ms), "PYTHONPATH": str(peers_folder()),
    } | env  # fmt: skip
    if out:
        create_topic(bed.bootstrap, f"{name}-out", work.partitions)
        variables["BENCH_OUT_TOPIC"] = f"{name}-out"
    before = bed.broker_cpu_s()
    try:
        text, used_s = ended(bed.child(command, name, variables), RUN_S_MAX)
        answer = json.loads(text.strip().splitlines()[-1])
    except (subprocess.TimeoutExpired, IndexError, ValueError) as error:
        raise UserError(f"{command[0]} gave no result: {bed.log_of(name)}") from error
    broker_s = bed.broker_cpu_s() - before
    bed.drop(name)
    return Result(answer["tasks"], answer["seconds"], answer["order_violations"], used_s, broker_s)


def _parallel_consumer(bed: Bed, work: Work, *, out: bool) -> Result:
    return _peer(bed, work, ["java", "-Xmx1g", "-cp", java_peer("parallel-consumer"), "Peer"], {}, out=out)


def parallel_consumer_committing(bed: Bed, work: Work) -> Result:
    return _parallel_consumer(bed, work, out=False)


def parallel_consumer_producing(bed: Bed, work: Work) -> Result:
    return _parallel_consumer(bed, work, out=True)


def pyrallel(bed: Bed, work: Work) -> Result:
    python = python_peer("pyrallel", at_least=(3, 12))
    return _peer(bed, work, [str(python), str(peers_folder() / "pyrallel" / "peer.py")], {}, out=False)


def faust_plain(bed: Bed, work: Work) -> Result:
    python = python_peer("faust-plain")
    return _peer(bed, work, [str(python), str(peers_folder() / "faust-plain" / "peer.py")], {}, out=True)


def bare_loop(bed: Bed, work: Work, records: float = 1, value_bytes: float = 0) -> Result:
    """`records` and `value_bytes`: written per task."""
    python = python_peer("bare-loop")
    env = {"BENCH_RECORDS": str(records), "BENCH_BYTES": str(value_bytes)}
    return _peer(bed, work, [str(python), str(peers_folder() / "bare-loop" / "peer.py")], env, out=True)


def procrastinate(bed: Bed, work: Work) -> Result:
    python = python_peer("procrastinate")
    name = bed.name()
    groups = bed.folder / f"{name}.groups"
    groups.write_text("\n".join(work.keys()))
    with Postgres(bed.folder / name) as database:
        env = {
            "BENCH_BOOTSTRAP": "", "BENCH_TOPIC": "", "BENCH_GROUP": "", "BENCH_TASKS": str(work.tasks),
            "BENCH_HANDLER_MS": str(work.handler_ms), "BENCH_DSN": database.dsn, "BENCH_FILE": str(groups),
            "PYTHONPATH": str(peers_folder()),
        }  # fmt: skip
        command = [str(python), str(peers_folder() / "procrastinate" / "peer.py")]
        text, used_s = ended(bed.child(command, name, env), RUN_S_MAX)
    try:
        answer = json.loads(text.strip().splitlines()[-1])
    except (IndexError, ValueError) as error:
        raise UserError(f"procrastinate gave no result: {bed.log_of(name)}") from error
    return Result(answer["tasks"], answer["seconds"], answer["order_violations"], used_s, 0.0)


# -- PSTP


def pstp_workers(bed: Bed, work: Work, **env: Any) -> Result:
    """One scheduler and one worker.  The worker is ready before the scheduler reads its first task."""
    return _pstp(bed, work, [["worker", "--handlers", str(HANDLERS)], ["scheduler"]], env)


def pstp_local(bed: Bed, work: Work, **env: Any) -> Result:
    """One process that schedules and runs the handlers."""
    return _pstp(bed, work, [["run", "--handlers", str(HANDLERS)]], env)


def _pstp(bed: Bed, work: Work, processes: list[list[str]], env: dict[str, Any]) -> Result:
    app = bed.name()
    settings = bed.settings(app, partitions=work.partitions, slots=SLOTS)
    preload(bed.bootstrap, settings.topic("tasks"), work)
    seen_path, done_path = bed.folder / f"{app}.seen", bed.folder / f"{app}.done"
    env = env | {
        "BENCH_HANDLER_MS": work.handler_ms, "BENCH_SEEN": seen_path, "BENCH_DONE": done_path,
        "BENCH_TASKS": work.tasks,
    }  # fmt: skip
    before = bed.broker_cpu_s()
    children: list[subprocess.Popen[str]] = []
    for arguments in processes:
        children.append(bed.pstp(settings, *arguments, PSTP_INSTANCE=arguments[0], **env))
        if len(processes) > 1 and arguments[0] == "worker":
            _wait(lambda: "partitions of dispatches" in bed.log_of(f"{app}-worker"), 30, "the worker", children)
            time.sleep(1.0)  # its announcement and its look at `control` are not part of what is measured
    _wait(done_path.exists, RUN_S_MAX, "all tasks", children)
    seen = _history(settings, work, children)
    broker_s = bed.broker_cpu_s() - before
    used_s = {arguments[0]: cpu_s(child.pid) for arguments, child in zip(processes, children, strict=True)}
    for child in children:
        child.send_signal(signal.SIGTERM)
    for child in children:
        child.wait(30)
    handlers = json.loads(seen_path.read_text())
    wrong = max(seen.order_violations, handlers["order_violations"])
    more = {
        "cpu_s_of": used_s, "repeats": handlers["repeats"], "states": seen.states,
        "written": history.written(settings)._asdict(),
    }  # fmt: skip
    bed.drop(app)
    return Result(work.tasks, seen.seconds, wrong, sum(used_s.values()), broker_s, more)


def _history(settings: Any, work: Work, children: "list[subprocess.Popen[str]]") -> history.Seen:
    """The history once it is complete: the last outcomes are committed a moment after the last handler ended."""
    deadline_ns = mono_ns() + 60 * 10**9
    while True:
        seen = history.read(settings)
        if seen.terminal >= work.tasks:
            return seen
        if mono_ns() > deadline_ns or any(child.poll() is not None for child in children):
            raise UserError(f"only {seen.terminal} of {work.tasks} tasks are terminal")


def _wait(done: Callable[[], bool], timeout_s: float, what: str, children: "list[subprocess.Popen[str]]") -> None:
    deadline_ns = mono_ns() + int(timeout_s * 1e9)
    while not done():
        if any(child.poll() is not None for child in children):
            raise UserError(f"a process ended early while waiting for {what}")
        if mono_ns() > deadline_ns:
            raise UserError(f"no sign of {what} within {timeout_s:.0f} s")
        time.sleep(0.05)


SIDES: Final = {
    side.name: side
    for side in (
        Side("pc-commit", "Parallel Consumer, committing", "order by key in memory; nothing written per task",
             parallel_consumer_committing),
        Side("pc-produce", "Parallel Consumer, producing", "one acknowledged record per task; no claims, no tokens",
             parallel_consumer_producing),
        Side("pyrallel", "pyrallel-consumer", "order by key in memory; commits offsets", pyrallel,
             tasks_max=20_000, works=("0ms", "1ms", "10ms")),
        Side("faust", "plain Faust agent", "one task at a time per process; table and one record, not transactional",
             faust_plain, tasks_max=5_000, works=("0ms",)),
        Side("bare", "bare transactional loop", "no groups, no handlers, no state: the limit of the client", bare_loop,
             works=("0ms",)),
        Side("procrastinate", "procrastinate on PostgreSQL", "durable jobs, one at a time per lock", procrastinate,
             tasks_max=2_000, works=("0ms", "10ms")),
        Side("pstp-workers", "PSTP through workers", "durable, claims, fencing tokens, history", pstp_workers),
        Side("pstp-local", "PSTP, local execution", "durable, fencing tokens, history; no claims", pstp_local),
    )
}  # fmt: skip


def available(name: str) -> bool:
    """Whether this installation can run that side at all."""
    if name == "procrastinate":
        return Postgres.found()
    if name == "pstp-local":  # a command that this version may not have
        run = subprocess.run([sys.executable, "-m", "pstp", "run", "--help"], capture_output=True, check=False)
        return run.returncode == 0
    return name not in ("pc-commit", "pc-produce") or bool(shutil.which("mvn") and shutil.which("java"))
