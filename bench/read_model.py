"""How many events of `task-events` the read model takes in, per CPU second of one core.

    .venv/bin/python bench/read_model.py [--tasks 50000] [--groups 1000] [--database sqlite:////tmp/x.sqlite]

Four events a task (parked with its payload, dispatched, running, succeeded with its result), as JSON records in the
order in which schedulers write them, decoded, folded and committed in batches as `pstp web` does.  The log is made
before the clock starts; Kafka's own share, fetching, is not in it.
"""

import argparse
import json
import tempfile
import time
from datetime import timedelta
from pathlib import Path

from msgspec import Raw

from pstp.web.database import open_database
from pstp.web.folding import Record
from pstp.web.store import ReadModel
from streams.protocol import PROTOCOL, Event, EventKind, TaskState, decode_events, encode, utc

PARTITIONS = 8
STATES = (TaskState.PARKED, TaskState.DISPATCHED, TaskState.RUNNING, TaskState.SUCCEEDED)
PAYLOAD = Raw(json.dumps({"carrier": "UA", "flight": 1545, "tailnum": "N14228", "note": "x" * 120}).encode())


def log(tasks: int, groups: int) -> list[tuple[int, bytes]]:
    """Partition and value of each record: rounds of one task a group, each state of all before the next."""
    start = utc(1_700_000_000_000)
    records = []
    for first in range(0, tasks, groups):
        for step, state in enumerate(STATES):
            for number in range(first, min(tasks, first + groups)):
                at = start + timedelta(milliseconds=number + step)
                ran = state in (TaskState.RUNNING, TaskState.SUCCEEDED)
                event = Event(
                    PROTOCOL, EventKind.TASK, at, group=f"customer-{number % groups}", task_id=f"{number % 8}-{number}",
                    type="sync.customer", state=state, attempt=1, sequence=2**32 + number,
                    fencing_token=2**32 + number if step else None, worker="worker-1" if ran else None,
                    started_at=at if ran else None, started_mono_ns=number * 10**6 if ran else None,
                    ended_at=at if step == 3 else None, ended_mono_ns=number * 10**6 + 9 if step == 3 else None,
                    clock_id="c1" if ran else None, boot_id="b1" if ran else None,
                    payload=None if step else PAYLOAD, result=Raw(b'{"rows":12}') if step == 3 else None,
                )  # fmt: skip
                records.append((number % groups % PARTITIONS, encode(event)))
    return records


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=50_000)
    parser.add_argument("--groups", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=5000)
    parser.add_argument("--database", default="")
    asked = parser.parse_args()
    records = log(asked.tasks, asked.groups)
    with tempfile.TemporaryDirectory() as folder:
        model = ReadModel(open_database(asked.database or f"sqlite:///{Path(folder) / 'web.sqlite'}"))
        offsets = [0] * PARTITIONS
        began, cpu = time.perf_counter(), time.process_time()
        for first in range(0, len(records), asked.batch):
            part = []
            for partition, value in records[first : first + asked.batch]:
                part.append(Record(partition, offsets[partition], decode_events(value)))
                offsets[partition] += 1
            model.apply(part, dict(enumerate(offsets)))
        cpu, took = time.process_time() - cpu, time.perf_counter() - began
        figures = {
            "events": len(records), "cpu_s": round(cpu, 2), "wall_s": round(took, 2),
            "events_per_cpu_s": round(len(records) / cpu),
        }  # fmt: skip
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
