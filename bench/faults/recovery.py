"""How long a scheduler takes to load its table: python -m bench.faults.recovery --out recovery.json

Rows are written to the changelog as schedulers write them, on an embedded broker of its own.  Then `Store.load`, which
is all that happens between an assignment and the first step, is timed in a process of its own, all partitions at once.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import confluent_kafka as ck

from pstp.broker import EmbeddedBroker
from streams import limits, rows
from streams.murmur2 import home_partition
from streams.rows import ROW_FORMAT, PartitionRow, TaskRow
from streams.settings import Settings
from streams.store import Store
from streams.topics import create_topics, verify_identity

PARTITIONS: Final = 32
PER_GROUP: Final = 100
TOMBSTONES_KEPT_S: Final = 2 * limits.POLL_INTERVAL_MS_MAX / 1000
CLEANER_S: Final = 60.0
VALUE: Final = b'{"type":"sync.customer","payload":{"id":123456,"changed":["name","address","phone"]}}'
Row = tuple[int, bytes, bytes | None]


def parked(count: int) -> Iterator[Row]:
    """Tasks in groups of a hundred."""
    for number in range(count):
        group = b"tenant-%d" % (number // PER_GROUP)
        home = home_partition(group, PARTITIONS)
        row = TaskRow(ROW_FORMAT, home, number, group, VALUE, [], 1_935_561_600_000)
        yield home, rows.task_key((1 << 32) + number, group), rows.encode(row)


def idle_with_state(count: int) -> Iterator[Row]:
    for number in range(count):
        group = b"tenant-%d" % number
        yield home_partition(group, PARTITIONS), rows.state_key(group), b'{"cursor":%d}' % number


def finished(count: int) -> Iterator[Row]:
    """Tasks that came and went: a row and its tombstone each, and nothing is left."""
    for home, key, value in parked(count):
        yield home, key, value
        yield home, key, None


KINDS: Final = {"parked": parked, "state": idle_with_state, "finished": finished}


def write(settings: Settings, kind: str, count: int) -> None:
    producer = ck.Producer(settings.kafka(**{"linger.ms": 20, "batch.num.messages": 100_000, "acks": 1}))
    topic = settings.topic("changelog")
    stamp = PartitionRow(ROW_FORMAT, 1 << 32, {}, {}, "nobody", "nobody", True)
    every = [(p, rows.PARTITION_KEY, rows.encode(stamp)) for p in range(PARTITIONS)]
    for partition, key, value in (*every, *KINDS[kind](count)):
        while True:
            try:
                producer.produce(topic, value, key, partition)
                break
            except BufferError:
                producer.poll(0.1)
    assert producer.flush(120) == 0


def load(settings: Settings) -> dict[str, Any]:
    store = Store(settings, "nobody", lambda owner: None, lambda read: None)
    store.input_ids = {t: verify_identity(settings).topic_ids[t] for t in ("tasks", "completions", "commands")}
    began_s, cpu_s = time.monotonic(), time.process_time()
    loaded = store.load(range(PARTITIONS))
    return {
        "seconds": round(time.monotonic() - began_s, 2), "cpu_seconds": round(time.process_time() - cpu_s, 2),
        "groups": sum(len(p.entries) + len(p.states) for p in loaded.values()), "rss_max_mib": rss_max_mib(),
    }  # fmt: skip


def rss_max_mib() -> int:
    """Of this process.  What `wait4` and `getrusage` tell begins with the memory of whoever started it."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) >> 10 for line in status.splitlines() if line.startswith("VmHWM:"))


def measure(broker: EmbeddedBroker, kind: str, count: int, before: int = 0) -> dict[str, Any]:
    """`before`: tasks that had come and gone long ago.  Kafka keeps a tombstone for `delete.retention.ms`, and cleans a
    log when new records come; so they are left alone for longer than that."""
    settings = Settings(app=f"{kind}{count}", bootstrap_servers=broker.bootstrap, partitions=PARTITIONS)
    create_topics(settings)
    if before:
        write(settings, kind, before)
        time.sleep(TOMBSTONES_KEPT_S + CLEANER_S)
    write(settings, kind, count)
    if kind == "finished":
        time.sleep(CLEANER_S)
    command = [sys.executable, "-m", "bench.faults.recovery", "--load", settings.app]
    child = subprocess.Popen(
        command, stdout=subprocess.PIPE, env=os.environ | {"PSTP_BOOTSTRAP_SERVERS": broker.bootstrap}
    )
    assert child.stdout is not None
    answer = json.loads(child.stdout.read().splitlines()[-1])  # behind log lines
    child.wait()
    return {"kind": kind, "count": count, "before": before, **answer}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="where the JSON goes")
    parser.add_argument(
        "--finished",
        type=int,
        default=5_000_000,
        help="tasks that came and went long ago, before a tenth as many just now",
    )
    parser.add_argument("--only", help="one kind: parked, state, finished")
    parser.add_argument("--load", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.load:
        print(json.dumps(load(Settings(app=options.load, partitions=PARTITIONS))))
        return
    runs = [("parked", 10_000, 0), ("parked", 100_000, 0), ("parked", 1_000_000, 0), ("state", 1_000_000, 0)]
    runs += [("finished", options.finished // 10, 0), ("finished", options.finished // 10, options.finished)]
    with TemporaryDirectory() as folder, EmbeddedBroker(Path(folder) / "kafka") as broker:
        found = []
        for kind, count, before in runs:
            if options.only in (None, kind):
                found.append(measure(broker, kind, count, before))
                print(json.dumps(found[-1]), flush=True)
    if options.out:
        options.out.write_text(json.dumps({"recovery": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
