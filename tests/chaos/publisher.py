"""A publisher that keeps publishing, however often it is killed: `-m tests.chaos.publisher SEED TASKS DURATION_S`.

What is acknowledged goes to `acks.jsonl` in $CHAOS_FOLDER, synced: those tasks must not be lost.
"""

import json
import os
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from producers import PublishError, TaskMessage, TaskPublisher

FOLDER = Path(os.environ.get("CHAOS_FOLDER", "."))
TASKS_PER_GROUP = 100  # on average
GROUPS_MIN = 100
# How often each type is published, and how long its handler takes at most, in seconds.
MIX = {
    "quick": (85.0, 0.03), "thread": (8.0, 0.05), "process": (2.0, 0.05), "fails": (1.5, 0.0),
    "rejects": (1.0, 0.0), "slow": (0.5, 3.0),
}  # fmt: skip


def draw(rng: random.Random, number: int, life: str, groups: int) -> TaskMessage:
    kind = rng.choices(list(MIX), [weight for weight, _ in MIX.values()])[0]
    payload = {"s": round(rng.uniform(0, MIX[kind][1]), 4)}
    group = f"g{int(rng.random() ** 2 * groups)}"  # the first of a thousand has 3 % of all tasks
    name = "quick" if kind == "slow" else kind
    return TaskMessage.of({"group": group, "type": f"chaos.{name}", "payload": payload, "id": f"{number}-{life}"})


def main(seed: int, tasks: int, duration_s: float) -> int:
    acks = os.open(FOLDER / "acks.jsonl", os.O_RDWR | os.O_APPEND | os.O_CREAT)
    done, began_s = resume()
    groups = max(GROUPS_MIN, tasks // TASKS_PER_GROUP)
    rng = random.Random(f"{seed}-{done}")
    lives = (f"{os.getpid()}.{n}" for n in range(1_000_000))
    while done < tasks:
        due = min(tasks, int(tasks * (time.monotonic() - began_s) / duration_s) + 1)
        if due <= done:
            time.sleep(0.05)
            continue
        batch = [
            draw(rng, number, life, groups) for life in [next(lives)] for number in range(done, min(due, done + 500))
        ]
        try:
            with TaskPublisher() as publisher:
                publisher.publish_many(batch)
        except PublishError as error:
            print(f"not acknowledged, again under other ids: {error}", flush=True)
            time.sleep(0.5)
            continue
        os.write(acks, b"".join(line(task) for task in batch))
        os.fsync(acks)
        done += len(batch)
    return 0


def resume() -> tuple[int, float]:
    """How many are acknowledged, and when the first life of this publisher began."""
    start = FOLDER / "publisher-began"
    if not start.exists():
        start.write_text(str(time.monotonic()))
    return sum(1 for _ in acked(FOLDER)), float(start.read_text())


def acked(folder: Path) -> Iterator[dict[str, Any]]:
    path = folder / "acks.jsonl"
    if path.exists():
        for text in path.read_text().splitlines():
            yield json.loads(text)


def line(task: TaskMessage) -> bytes:
    return json.dumps({"id": task.id, "group": task.group, "type": task.type}).encode() + b"\n"


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
