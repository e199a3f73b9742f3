"""deploy/compose.yaml: valid for its own tool, and its commands do what they should, tried without Docker."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from pstp.broker import EmbeddedBroker
from streams.protocol import TaskState
from streams.settings import Settings
from tests.support.system import History, run_pstp, until

DEPLOY = Path(__file__).parents[2] / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
OURS = {name: service for name, service in COMPOSE["services"].items() if service["image"] == "pstp"}


def test_the_file_is_valid() -> None:
    tool = shutil.which("docker-compose")
    if tool is None:
        pytest.skip("docker-compose is not installed (Debian: apt-get install docker-compose)")
    done = subprocess.run(
        [tool, "-f", str(DEPLOY / "compose.yaml"), "config", "-q"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_what_it_mounts_is_there() -> None:
    volumes = [v for service in COMPOSE["services"].values() for v in service.get("volumes", [])]
    assert [v for v in volumes if v.startswith("./") and not (DEPLOY / v.split(":")[0]).exists()] == []
    assert (DEPLOY / "Dockerfile").is_file() and all(
        s["build"]["dockerfile"] == "deploy/Dockerfile" for s in OURS.values()
    )


def test_prometheus_is_told_of_every_process() -> None:
    """Through the volume in which each writes its file, and under the same address for all."""
    served = {name: service for name, service in OURS.items() if name not in ("topics", "pstp")}
    assert len(served) == 5
    for name, service in served.items():
        assert "targets:/data/targets" in service["volumes"], name
        assert service["environment"]["PSTP_HTTP"] == "0.0.0.0:8001", name
    assert "targets:/.pstp/targets:ro" in COMPOSE["services"]["prometheus"]["volumes"]


def test_its_processes_run_together_and_do_a_task(tmp_path: Path) -> None:
    with EmbeddedBroker(tmp_path / "kafka") as broker:
        keys = tmp_path / "keys.json"

        def env(service: dict[str, Any]) -> dict[str, str]:
            """Of that service, with this broker and this machine in place of compose's."""
            kept = {name: value for name, value in os.environ.items() if not name.startswith("PSTP_")}
            here = {
                "PSTP_BOOTSTRAP_SERVERS": broker.bootstrap, "PSTP_HTTP": "127.0.0.1:0", "PSTP_DATA_DIR": str(tmp_path),
                "PSTP_WEB_ADDRESS": "127.0.0.1:0", "PSTP_WEB_KEYS": str(keys),
                "PSTP_WEB_DATABASE": f"sqlite:///{tmp_path / 'web.sqlite'}",
            }  # fmt: skip
            return kept | service["environment"] | here

        def run(name: str) -> "subprocess.CompletedProcess[str]":
            return run_pstp(OURS[name]["command"], env(OURS[name]), 60)

        assert run("topics").returncode == 0
        made = run_pstp(["web-key", "me", "--file", str(keys)], env(OURS["pstp"]), 60)
        assert made.returncode == 0 and made.stdout.startswith("pstp_")
        running = [
            subprocess.Popen([sys.executable, "-m", "pstp", *service["command"]], cwd=DEPLOY.parent, env=env(service))
            for name, service in OURS.items()
            if name not in ("topics", "pstp")
        ]
        history = History(Settings(bootstrap_servers=broker.bootstrap))
        try:
            until(lambda: len(list((tmp_path / "targets").glob("*.json"))) == len(running) == 5, 60)
            assert run("pstp").returncode == 0
            history.wait(lambda h: h.count(TaskState.SUCCEEDED) == 1, 60)
        finally:
            history.close()
            for process in running:
                process.terminate()
            ended = [process.wait(30) for process in running]
        assert ended == [0, 0, 0, 0, 0]
