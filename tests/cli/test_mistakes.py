"""A mistake on the command line gets one sentence that says what to do, exit code 2, and no traceback."""

import socket
from pathlib import Path

import pytest

from pstp.broker.ports import free_port
from streams.settings import Settings
from tests.support.system import HANDLERS, System, run_pstp, system_env

NOWHERE = {"bootstrap_servers": "127.0.0.1:1"}


def mistake(arguments: list[str], folder: Path, **settings: object) -> str:
    """What it says on standard error."""
    done = run_pstp(arguments, system_env(Settings(), folder, **settings), timeout_s=60)
    assert done.returncode == 2, done
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("pstp: "), done.stderr
    return lines[0]


@pytest.mark.parametrize(
    "arguments",
    [
        ["scheduler"],
        ["worker", "--handlers", str(HANDLERS)],
        ["submit", "g", "echo"],
        ["topics", "create"],
        ["topics", "check"],
        ["groups"],
        ["explain", "g"],
        ["dead-letters"],
        ["verify"],
    ],
    ids=" ".join,
)
def test_no_broker(arguments: list[str], tmp_path: Path) -> None:
    sentence = mistake(arguments, tmp_path, **NOWHERE)
    assert "127.0.0.1:1" in sentence
    assert "PSTP_BOOTSTRAP_SERVERS" in sentence or "pstp broker" in sentence or "pstp dev" in sentence


def test_port_taken(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", free_port()))
        taken.listen()
        port = taken.getsockname()[1]
        assert str(port) in mistake(["broker", "--port", str(port), "--data-dir", str(tmp_path / "k")], tmp_path)
        assert str(port) in mistake(
            ["dev", "--handlers", str(HANDLERS)], tmp_path, bootstrap_servers=f"127.0.0.1:{port}"
        )


@pytest.mark.parametrize("handlers", ["no.such.module", "missing.py"])
def test_handlers_that_are_not_there(handlers: str, tmp_path: Path) -> None:
    assert handlers in mistake(["worker", "--handlers", handlers], tmp_path, **NOWHERE)


def test_a_handlers_file_that_cannot_be_imported(tmp_path: Path) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text("import nothing_of_that_name\n")
    assert "nothing_of_that_name" in mistake(["worker", "--handlers", str(broken)], tmp_path, **NOWHERE)


def test_dev_refuses_somebody_elses_cluster(tmp_path: Path) -> None:
    sentence = mistake(["dev", "--handlers", str(HANDLERS)], tmp_path, bootstrap_servers="kafka.example.org:9092")
    assert "pstp scheduler" in sentence


@pytest.mark.parametrize(
    ("name", "value"), [("partitions", "none"), ("lease_s", "0"), ("app", "a b"), ("log_level", "loud")]
)
def test_a_setting_that_makes_no_sense(name: str, value: str, tmp_path: Path) -> None:
    assert f"PSTP_{name.upper()}" in mistake(["topics", "check"], tmp_path, **{name: value})


def test_topics_that_are_missing(settings: Settings, tmp_path: Path) -> None:
    unknown = {"app": f"{settings.app}x", "bootstrap_servers": settings.bootstrap_servers}
    for arguments in (["scheduler"], ["worker", "--handlers", str(HANDLERS)], ["submit", "g", "echo"]):
        assert "pstp topics create" in mistake(arguments, tmp_path, **unknown)


def test_another_partition_count(system: System, tmp_path: Path) -> None:
    facts = {"app": system.settings.app, "bootstrap_servers": system.settings.bootstrap_servers, "partitions": 5}
    assert "PSTP_PARTITIONS" in mistake(["scheduler"], tmp_path, **facts)


def test_payloads_and_files_that_cannot_be_published(system: System, tmp_path: Path) -> None:
    facts = {
        "app": system.settings.app, "bootstrap_servers": system.settings.bootstrap_servers,
        "partitions": system.settings.partitions, "dispatch_partitions": system.settings.dispatch_partitions,
    }  # fmt: skip
    assert "JSON" in mistake(["submit", "g", "echo", "{oops"], tmp_path, **facts)
    assert "group" in mistake(["submit", "", "echo"], tmp_path, **facts)
    assert "on_failure" in mistake(["submit", "g", "echo", "--on-failure", "explode"], tmp_path, **facts)
    assert "name=value" in mistake(["submit", "g", "echo", "--label", "x"], tmp_path, **facts)
    lines = tmp_path / "tasks.jsonl"
    lines.write_text('{"group": "g", "type": "echo"}\n{"group": "g"}\n')
    assert "line 2" in mistake(["submit", "--file", str(lines)], tmp_path, **facts)
    assert "nowhere.jsonl" in mistake(["submit", "--file", "nowhere.jsonl"], tmp_path, **facts)


def test_no_scheduler_runs(system: System, tmp_path: Path) -> None:
    facts = {
        "app": system.settings.app, "bootstrap_servers": system.settings.bootstrap_servers,
        "partitions": system.settings.partitions, "dispatch_partitions": system.settings.dispatch_partitions,
    }  # fmt: skip
    assert "pstp scheduler" in mistake(["groups"], tmp_path, **facts)


def test_a_second_process_with_the_same_instance_name(system: System) -> None:
    first = system.scheduler("s1")
    system.worker("w1")
    system.publish("g", "echo")
    system.flush()
    system.history.wait_terminal(1)
    for arguments in (["scheduler"], ["worker", "--handlers", str(HANDLERS)]):
        name = "s1" if arguments == ["scheduler"] else "w1"
        done = run_pstp(arguments, system.env(name), timeout_s=60)
        assert done.returncode == 2 and f"{name!r}" in done.stderr.splitlines()[-1]
    assert first.alive()
