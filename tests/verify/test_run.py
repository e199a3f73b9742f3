"""`run` on dumps: exit codes, texts, JSON, and a user's mistakes."""

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from histories import Log
from msgspec.structs import replace

from pstp.verify import run
from pstp.verify.run import read_kills
from streams.errors import UserError
from streams.protocol import EventKind, Reason, encode
from streams.settings import Settings

SETTINGS = Settings(_env_file=None)  # type: ignore[call-arg]


def dump(tmp_path: Path, *logs: Log) -> Path:
    path = tmp_path / "events.jsonl"
    with path.open("w") as out:
        for log in logs:
            for offset, event in enumerate(log.events):
                print(f'{{"partition":{log.partition},"offset":{offset},"value":{encode(event).decode()}}}', file=out)
    return path


def test_good(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = Log()
    log.run(log.park("g"))
    assert run(SETTINGS, dump=dump(tmp_path, log)) == 0
    shown = capsys.readouterr().out
    assert "0 violations" in shown and "1 in 1 groups" in shown


def test_broken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = Log()
    log.park("[bold]")
    assert run(SETTINGS, dump=dump(tmp_path, log)) == 1
    shown = capsys.readouterr().out
    assert "G3 lost" in shown and "[bold]" in shown and "0:0" in shown
    assert run(SETTINGS, dump=dump(tmp_path, log), expect_drained=False) == 0


def test_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = Log()
    log.park("g")
    assert run(SETTINGS, dump=dump(tmp_path, log), as_json=True) == 1
    data = json.loads(capsys.readouterr().out)
    assert data["by_kind"] == {"G3 lost": 1}


def test_kills(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = Log()
    task = log.park("g")
    log.dispatch(task)
    log.start(task, worker="w1")
    log.ms += 5_000
    log.retry(task, Reason.WORKER_LOST)
    log.run(task)
    kills = tmp_path / "kills.jsonl"
    kills.write_text(json.dumps({"instance": "w1", "at": log.at(1_000).isoformat()}) + "\n")
    assert run(SETTINGS, dump=dump(tmp_path, log), kills=kills) == 0
    kills.write_text("")
    assert run(SETTINGS, dump=dump(tmp_path, log), kills=kills) == 1
    assert "lost_without_kill" in capsys.readouterr().out


def test_a_partition_that_a_newer_version_wrote_to_is_judged_as_far_as_it_can_be_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, newer = Log(0), Log(1)
    good.run(good.park("g"))
    newer.run(newer.park("h"))
    newer.park("h")  # no loss: its end may be behind what cannot be read
    newer.add(EventKind.DUPLICATE)
    newer.events[-1] = replace(newer.events[-1], v=99)
    path = dump(tmp_path, good, newer)
    assert run(SETTINGS, dump=path) == 2
    shown = " ".join(capsys.readouterr().out.split())
    assert "not judged any further: partition 1 holds at offset 5 a record of protocol 99" in shown
    assert "0 violations in what could be read" in shown and "3 in 2 groups" in shown
    good.park("g")
    assert run(SETTINGS, dump=dump(tmp_path, good, newer)) == 1, "what is found counts all the same"


def test_mistakes(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    with pytest.raises(UserError, match=r"cannot read .*No such file"):
        run(SETTINGS, dump=path)
    path.write_text('{"partition":0,"offset":1,"value":{}}\n{"partition":"a"}\n')
    with pytest.raises(UserError, match=r"line 2 of .* is no record of a dump"):
        run(SETTINGS, dump=path)
    with pytest.raises(UserError, match="is no list of kills"):
        read_kills(path)
    with pytest.raises(UserError, match="cannot read"):
        read_kills(tmp_path / "absent")


def test_no_broker() -> None:
    nowhere = SETTINGS.model_copy(update={"bootstrap_servers": "127.0.0.1:1"})
    with pytest.raises(UserError, match=r"no broker answers at 127\.0\.0\.1:1"):
        run(nowhere)


def test_each_violation_comes_with_the_records_that_show_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = Log()
    first, second = log.park("g"), log.park("g")
    log.dispatch(first)
    log.dispatch(second)
    assert run(SETTINGS, dump=dump(tmp_path, log), expect_drained=False, as_json=True) == 1
    data = json.loads(capsys.readouterr().out)
    assert [json.loads(data["records"][f"0:{offset}"])["state"] for offset in (2, 3)] == ["dispatched", "dispatched"]
    assert run(SETTINGS, dump=dump(tmp_path, log), expect_drained=False) == 1
    shown = capsys.readouterr().out
    assert "0:2 {" in shown and "0:3 {" in shown


def test_junit(tmp_path: Path) -> None:
    """Any group id can stand in XML, which has no way to write a zero byte."""
    log = Log()
    log.park("\x00<&]]>\x1b")
    path = tmp_path / "verify.xml"
    assert run(SETTINGS, dump=dump(tmp_path, log), junit=path) == 1
    suite = ElementTree.fromstring(path.read_bytes())[0]
    assert (suite.get("tests"), suite.get("failures")) == ("8", "1")
    failed = {case.get("name"): case.find("failure") for case in suite if len(case)}
    failure = failed.pop("G3 nothing lost")
    assert failed == {} and failure is not None and failure.text is not None
    assert "lost: group '\\\\x00<&]]>\\\\x1b'" in failure.text.replace("\\x", "\\\\x") and "0:0 {" in failure.text


def test_junit_that_cannot_be_written(tmp_path: Path) -> None:
    log = Log()
    log.run(log.park("g"))
    with pytest.raises(UserError, match="cannot write"):
        run(SETTINGS, dump=dump(tmp_path, log), junit=tmp_path)


def test_junit_says_what_could_not_be_read(tmp_path: Path) -> None:
    log, path = Log(), tmp_path / "verify.xml"
    log.run(log.park("g"))
    log.add(EventKind.DUPLICATE)
    log.events[-1] = replace(log.events[-1], v=99)
    assert run(SETTINGS, dump=dump(tmp_path, log), junit=path) == 2
    suite = ElementTree.fromstring(path.read_bytes())[0]
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("8", "0", "1")
    error = suite.find("testcase[@name='everything could be read']/error")
    assert error is not None and "partition 0 holds at offset 4 a record of protocol 99" in (error.get("message") or "")
