"""How much memory `pstp verify` takes for a long history: python -m bench.faults.verify_memory --events 10000000

Writes a dump of `task-events` with all partitions mixed (2.5 GB for 10 million events), checks it in a process of its
own, and prints that process's highest resident memory as JSON.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from streams.murmur2 import home_partition
from streams.protocol import PROTOCOL, Event, EventKind, TaskState, encode

PARTITIONS: Final = 32
EVENTS_OF_A_TASK: Final = 4
START: Final = datetime(2031, 5, 1, 8, tzinfo=UTC)


def events(tasks: int, groups: int) -> Iterator[tuple[int, Event]]:
    """Partition and event: each task is parked, dispatched, started and succeeds, groups in turn."""
    counters = [1 << 32] * PARTITIONS
    origins = [0] * PARTITIONS
    for number in range(tasks):
        group = f"tenant-{number % groups}"
        home = home_partition(group.encode(), PARTITIONS)
        at, counters[home] = START + timedelta(microseconds=100 * number), counters[home] + 2
        sequence, token, began_ns = counters[home] - 1, counters[home], number * 100_000
        task_id = f"{home}-{origins[home]}"
        yield home, Event(
            PROTOCOL, EventKind.TASK, at, group, task_id, "sync", TaskState.PARKED, 1, None, sequence, home,
            origins[home],
        )  # fmt: skip
        origins[home] += 1
        for state in (TaskState.DISPATCHED, TaskState.RUNNING):
            yield home, Event(PROTOCOL, EventKind.TASK, at, group, task_id, "sync", state, 1, token, sequence)
        yield home, Event(
            PROTOCOL, EventKind.TASK, at, group, task_id, "sync", TaskState.SUCCEEDED, 1, token, sequence,
            worker="w1", started_at=at, ended_at=at, started_mono_ns=began_ns, ended_mono_ns=began_ns + 50_000,
            clock_id="boot", boot_id="b",
        )  # fmt: skip


def write_dump(path: Path, tasks: int, groups: int) -> None:
    offsets = [0] * PARTITIONS
    with path.open("wb") as out:
        for home, event in events(tasks, groups):
            out.write(b'{"partition":%d,"offset":%d,"value":%b}\n' % (home, offsets[home], encode(event)))
            offsets[home] += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--groups", type=int, default=500_000)
    parser.add_argument("--folder", type=Path, help="where the dump goes; needs twice its size")
    options = parser.parse_args()
    with TemporaryDirectory(dir=options.folder) as folder:
        dump = Path(folder) / "events.jsonl"
        write_dump(dump, options.events // EVENTS_OF_A_TASK, options.groups)
        began_s = time.monotonic()
        command = [sys.executable, "-m", "pstp", "verify", "--dump", str(dump), "--json"]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ | {"TMPDIR": folder})
        assert child.stdout is not None
        verdict = json.loads(child.stdout.read())
        _, status, usage = os.wait4(child.pid, 0)
        print(json.dumps({
            "events": verdict["figures"]["events"], "groups": verdict["figures"]["groups"], "ok": verdict["ok"],
            "exit_code": os.waitstatus_to_exitcode(status), "dump_mib": dump.stat().st_size >> 20,
            "seconds": round(time.monotonic() - began_s, 1), "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
            "rss_max_mib": usage.ru_maxrss >> 10,
        }))  # fmt: skip


if __name__ == "__main__":
    main()
