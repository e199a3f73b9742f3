"""A real Prometheus for one test, on a free port, in a folder of its own."""

import json
import re
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import confluent_kafka as ck
import pytest

from pstp.broker.ports import free_port
from streams.settings import TopicName
from tests.support.system import System, until

RULES = Path(__file__).parents[2] / "deploy" / "prometheus" / "rules.yml"


def executable(name: str) -> str:
    """Of the system package; a test that needs it is skipped by name where it is not there."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed (Debian: apt-get install prometheus)")
    return found


def faster(rules: str, factor: int = 60, late_s: int = 60) -> str:
    """The same rules with an hour in a minute: every range and `for` is so many times shorter.

    None is shorter than 5 s: a busy machine may well miss a scrape or two.  `late_s`: what counts as late, a bound of
    `catalogue.WAIT_S`.
    """
    seconds = {"s": 1, "m": 60, "h": 3600}

    def shorter(match: "re.Match[str]") -> str:
        left, number, unit, right = match.groups()
        return f"{left}{max(5, int(number) * seconds[unit] // factor)}s{right}"

    rules = rules.replace('le="60"', f'le="{late_s}"').replace("lag_seconds) > 60", f"lag_seconds) > {late_s}")
    rules = re.sub(r"(\[)(\d+)([smh])(\])", shorter, rules)
    return re.sub(r"(for: )(\d+)([smh])(\n)", shorter, rules)


@contextmanager
def open_transaction(system: System, topic: TopicName) -> Iterator[None]:
    """Somebody has written to its partition 0 and does not commit; Kafka ends it after ten minutes."""
    patient = {"transactional.id": f"stranger-{topic}", "transaction.timeout.ms": 600_000}
    stranger = ck.Producer(system.settings.kafka(**patient))
    stranger.init_transactions(10)
    stranger.begin_transaction()
    stranger.produce(system.settings.topic(topic), b"{}", b"g", partition=0)
    stranger.flush(10)
    try:
        yield
    finally:
        stranger.abort_transaction(10)


class Prometheus:
    """Scrapes what `targets` names each second.  Use it as a context."""

    def __init__(self, folder: Path, targets: Path, rules: str = "groups: []\n") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "rules.yml").write_text(rules)
        (folder / "prometheus.yml").write_text(json.dumps({
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": ["rules.yml"],
            "scrape_configs": [{
                "job_name": "pstp",
                "file_sd_configs": [{"files": [f"{targets}/*.json"], "refresh_interval": "1s"}],
            }],
        }))  # fmt: skip
        self._base = f"http://127.0.0.1:{(port := free_port())}"
        self._log = (folder / "log").open("wb")
        self._command = [
            executable("prometheus"), f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
            f"--web.listen-address=127.0.0.1:{port}",
        ]  # fmt: skip

    def __enter__(self) -> "Prometheus":
        self._process = subprocess.Popen(self._command, stdout=self._log, stderr=self._log)
        until(self._ready, what="Prometheus is ready")
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(10)
        self._log.close()

    def query(self, expr: str) -> list[dict[str, Any]]:
        """Its samples now."""
        result: list[dict[str, Any]] = self._get("query", query=expr)["result"]
        return result

    def label_values(self, label: str, match: str) -> list[str]:
        values: list[str] = self._get(f"label/{label}/values", **{"match[]": match})
        return values

    def has_fired(self, alert: str) -> bool:
        """Whether it fired at any time."""
        return bool(self.query(f'last_over_time(ALERTS{{alertname="{alert}",alertstate="firing"}}[1h])'))

    def firing(self) -> set[str]:
        return {a["labels"]["alertname"] for a in self._get("alerts")["alerts"] if a["state"] == "firing"}

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self._base}/-/ready", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def _get(self, path: str, **query: str) -> Any:
        with urllib.request.urlopen(
            f"{self._base}/api/v1/{path}?{urllib.parse.urlencode(query)}", timeout=10
        ) as answer:
            return json.load(answer)["data"]
