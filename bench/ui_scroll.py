"""How smoothly a real browser scrolls 100,000 groups while 2,000 of them change each second.

    make ui && .venv/bin/python bench/ui_scroll.py [--groups 100000] [--updates-s 2000] [--seconds 10]

A real broker, `pstp web` and Debian's Chromium without a window (it draws with the processor: a floor, not what people
have).  Events go straight to `task-events`, so that the browser's side is what is measured.  Per screen and scroll
speed: milliseconds between frames, and what the page's main thread computes for one.  At 60 Hz one frame is 16.7 ms;
twice that is a frame that was missed.  On a busy machine only the second figure says something.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import confluent_kafka as ck
from playwright.sync_api import sync_playwright

from pstp.broker import EmbeddedBroker
from streams.murmur2 import home_partition
from streams.protocol import PROTOCOL, Event, EventKind, TaskState, encode, utc
from streams.settings import Settings
from streams.topics import create_topics

PARTITIONS = 4
STATES = (TaskState.DISPATCHED, TaskState.RUNNING, TaskState.SUCCEEDED, TaskState.PARKED)
BATCHES_S = 50
PROBE = """([seconds, step]) => new Promise((done) => {
  const box = document.querySelector("[role=grid]");
  const frames = [];
  let last = performance.now(), down = 1;
  const until = last + seconds * 1000;
  function frame(now) {
    frames.push(now - last);
    last = now;
    if (box && step) {
      box.scrollTop += down * step;
      if (box.scrollTop <= 0 || box.scrollTop + box.clientHeight >= box.scrollHeight - 1) down = -down;
    }
    if (now < until) requestAnimationFrame(frame);
    else done([frames.slice(1), document.querySelectorAll("*").length]);
  }
  requestAnimationFrame(frame);
})"""


class Changes(threading.Thread):
    """Group after group, `updates_s` of them a second, each to its next state."""

    def __init__(self, settings: Settings, groups: int, updates_s: int) -> None:
        super().__init__(daemon=True)
        self._topic, self._groups, self._updates_s = settings.topic("task-events"), groups, updates_s
        self._producer = ck.Producer(
            settings.kafka(**{"linger.ms": 5, "queue.buffering.max.messages": 1_000_000, "log_level": 2})
        )
        self._token = 2**33
        self.sent = 0
        self.stopping = threading.Event()

    def first(self) -> None:
        """Each group parks a task."""
        for group in range(self._groups):
            self._say(group, TaskState.PARKED)
            if group % 1000 == 0:
                self._producer.poll(0)
        assert self._producer.flush(120) == 0

    def run(self) -> None:
        began = time.monotonic()
        while not self.stopping.is_set():
            due = int((time.monotonic() - began) * self._updates_s)
            while self.sent < due:
                group = self.sent * 7919 % self._groups
                self._say(group, STATES[self.sent // self._groups % len(STATES)])
                self.sent += 1
            self._producer.poll(1 / BATCHES_S)

    def _say(self, group: int, state: TaskState) -> None:
        name = f"customer-{group:06}"
        ran = state in (TaskState.RUNNING, TaskState.SUCCEEDED)
        at = utc(int(time.time() * 1000))
        self._token += state is TaskState.DISPATCHED
        event = Event(
            PROTOCOL, EventKind.TASK, at, group=name, task_id=f"t-{group}", type="sync.customer", state=state,
            attempt=1, sequence=2**32 + group, fencing_token=2**33 + group if state is not TaskState.PARKED else None,
            worker="w1" if ran else None, started_at=at if ran else None,
        )  # fmt: skip
        partition = home_partition(name.encode(), PARTITIONS)
        self._producer.produce(self._topic, encode(event), name.encode(), partition)


def start_web(settings: Settings, folder: Path) -> tuple["subprocess.Popen[bytes]", str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("PSTP_")} | {
        "PSTP_APP": settings.app, "PSTP_BOOTSTRAP_SERVERS": settings.bootstrap_servers, "PSTP_DATA_DIR": str(folder),
        "PSTP_PARTITIONS": str(PARTITIONS), "PSTP_DISPATCH_PARTITIONS": str(PARTITIONS),
        "PSTP_WEB_ADDRESS": "127.0.0.1:0", "PSTP_LOG_FORMAT": "json",
    }  # fmt: skip
    log = folder / "web.log"
    with log.open("wb") as file:
        process = subprocess.Popen([sys.executable, "-m", "pstp", "web"], env=env, stdout=file, stderr=file)
    while not (said := re.search(r"answers on (http://\S+);", log.read_text(errors="replace"))):
        if process.poll() is not None:
            raise SystemExit(log.read_text(errors="replace"))
        time.sleep(0.2)
    return process, said.group(1)


def quantiles(frames: list[float]) -> dict[str, float]:
    ordered = sorted(frames)
    found = {f"p{q}": ordered[min(len(ordered) - 1, len(ordered) * q // 100)] for q in (50, 95, 99)}
    return {name: round(value, 1) for name, value in (found | {"max": ordered[-1]}).items()}


def computed_s(chrome: Any) -> float:
    """CPU time of the page's main thread so far."""
    metrics = {metric["name"]: metric["value"] for metric in chrome.send("Performance.getMetrics")["metrics"]}
    return float(metrics["TaskDuration"])


def measure(url: str, asked: Any) -> list[dict[str, Any]]:
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=arguments)
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.set_default_timeout(120_000)
        chrome = page.context.new_cdp_session(page)
        chrome.send("Performance.enable", {"timeDomain": "threadTicks"})
        found = []
        for path, step in (("/groups", 96), ("/groups", 2000), ("/", 0)):
            page.goto(url + path)
            page.get_by_text(re.compile(f"{asked.groups:,}")).first.wait_for()
            page.wait_for_timeout(2000)
            before = computed_s(chrome)
            frames, elements = page.evaluate(PROBE, [asked.seconds, step])
            cpu_ms = 1000 * (computed_s(chrome) - before) / len(frames)
            found.append({
                "screen": path, "px_a_frame": step, "frames": len(frames), "frame_ms": quantiles(frames),
                "frames_s": round(1000 * len(frames) / sum(frames), 1), "main_thread_cpu_ms_a_frame": round(cpu_ms, 1),
                "elements": elements,
            })  # fmt: skip
        browser.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--groups", type=int, default=100_000)
    parser.add_argument("--updates-s", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=10)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, ExitStack() as opened:
        broker = EmbeddedBroker(Path(name) / "broker")
        opened.callback(broker.stop)
        broker.start(timeout_s=300)
        settings = Settings(
            app=f"b{uuid4().hex[:8]}", bootstrap_servers=broker.bootstrap, partitions=PARTITIONS,
            dispatch_partitions=PARTITIONS,
        )  # fmt: skip
        create_topics(settings)
        changes = Changes(settings, asked.groups, asked.updates_s)
        changes.first()
        web, url = start_web(settings, Path(name))
        changes.start()
        began = time.monotonic()
        try:
            for figures in measure(url, asked):
                print(json.dumps(figures))
        finally:
            changes.stopping.set()
            web.terminate()
            web.wait(120)
        rate = round(changes.sent / (time.monotonic() - began))
        print(json.dumps({"groups": asked.groups, "updates_s": rate, "load": [round(n, 1) for n in os.getloadavg()]}))


if __name__ == "__main__":
    main()
