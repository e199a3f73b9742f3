"""Upgrade and undo, in the real system: a record of a newer protocol stops its partition, and nothing is lost."""

import json
import re
from typing import Any

import pytest

from streams import protocol, rows
from streams.protocol import PROTOCOL, VERSION_HEADER, TaskState, decode_member
from tests.support import judge
from tests.support.system import HANDLERS, Process, System, until

NEWER = b'{"v":%d}' % (PROTOCOL + 1)
SAYS = {"x-mine": b"kept", VERSION_HEADER: b"%d" % (PROTOCOL + 1)}
INPUTS = ("tasks", "completions", "commands")


def group_in(system: System, partition: int) -> str:
    return next(g for n in range(1000) if system.home(g := f"g{n}") == partition)


def plant(system: System, topic: Any, partition: int, group: str = "g", value: bytes = NEWER) -> None:
    """A record of a newer version.  Where the value is the publisher's, a header says so."""
    headers = list(SAYS.items()) if topic == "tasks" else []
    system.publish_raw(group, value, partition=partition, topic=topic, headers=headers)  # type: ignore[arg-type]
    system.flush()


def says(process: Process, pattern: str) -> bool:
    return re.search(pattern, process.log()) is not None


def announced(system: System, instance: str) -> tuple[int, ...]:
    said = [m.value() for m in system.read_all("members", 1) if m.key() == instance.encode()]
    return decode_member(said[-1] or b"").partitions


def run_all(system: System, groups: dict[int, str], name: str) -> None:
    for partition, group in groups.items():
        system.publish(group, "echo", id=f"{name} {partition}")
    system.flush()


def succeeded(system: System, name: str, *partitions: int) -> None:
    system.history.wait(
        lambda h: all(TaskState.SUCCEEDED in h.states(f"{name} {p}") for p in partitions), what=f"{name} {partitions}"
    )


def test_input_of_a_newer_version_stops_its_partition_until_that_version_reads_on(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then the older one is started again: it stops everywhere, and loses nothing either."""
    groups = {partition: group_in(system, partition) for partition in range(4)}
    old = system.scheduler("s1")
    worker = system.worker("w1")
    run_all(system, groups, "before")
    succeeded(system, "before", *groups)
    for partition, topic in enumerate(INPUTS):
        plant(system, topic, partition, groups[partition], b'{"v":%d,"type":"echo","id":"newer"}' % (PROTOCOL + 1))
        until(lambda p=partition, t=topic: says(old, rf"{t}-{p} holds at offset \d+ a record of protocol 2"))  # type: ignore[misc]
    run_all(system, groups, "behind")
    succeeded(system, "behind", 3)
    system.history.read()
    assert [system.history.states(f"behind {p}") for p in range(3)] == [[], [], []], "not taken in, not lost"
    assert system.dead_letters() == []
    assert "upgrade it to the version of PSTP" in system.get("s1", f"/explain?group={groups[0]}")["text"]
    assert system.metric("s1", "pstp_partitions_stopped") == 3

    # The newer version takes over, workers first.
    monkeypatch.setattr(protocol, "PROTOCOL", PROTOCOL + 1)  # so that this test can read what it writes
    assert worker.terminate() == 0
    system.start("w2", ["worker", "--handlers", str(HANDLERS)], {}, module="tests.support.newer")
    newer = system.start("s2", ["scheduler"], {}, module="tests.support.newer")
    assert old.terminate() == 0
    succeeded(system, "behind", *groups)
    assert TaskState.SUCCEEDED in system.history.states("newer")

    # Undo: what it wrote cannot be read by the older one, which says so; it goes on as it was.
    assert newer.terminate() == 0
    old = system.scheduler("s3")
    newer_row = rf"holds a changelog row of format {rows.NEWEST_FORMAT + 1}"
    until(lambda: len(re.findall(newer_row, old.log())) == 4, what="stopped everywhere")
    run_all(system, groups, "undone")
    assert old.alive()
    assert old.terminate() == 0
    system.start("s4", ["scheduler"], {}, module="tests.support.newer")
    succeeded(system, "undone", *groups)
    starts = judge.starts(system.journal())
    assert {p: starts[g] for p, g in groups.items()} == {
        p: [f"before {p}", *(["newer"] if p == 0 else []), f"behind {p}", f"undone {p}"] for p in groups
    }


def test_a_dispatch_of_a_newer_version_stops_its_partition_at_the_worker(system: System) -> None:
    system.scheduler()
    worker = system.worker()
    system.publish("g", id="before")
    system.flush()
    system.history.wait_terminal(1)
    plant(system, "dispatches", 0)
    until(lambda: says(worker, r"dispatches-0 holds at offset \d+ a record of protocol 2"))
    until(lambda: announced(system, "w1") == (1, 2, 3), what="nobody dispatches there any more")
    system.publish("g", id="behind")
    system.flush()
    system.history.wait_terminal(2)
    assert {e.state for e in system.history.of["behind"]} >= {TaskState.RUNNING, TaskState.SUCCEEDED}
    # The partition is left to the version that wrote there.
    assert worker.terminate() == 0
    other = system.start("w2", ["worker", "--handlers", str(HANDLERS)], {}, module="tests.support.newer")
    until(lambda: says(other, "dispatch cannot be read, passed over"), what="it was not claimed: the next one meets it")


def test_a_newer_take_back_ends_the_worker_with_a_sentence(system: System) -> None:
    """Every claim depends on `control`, so there is nothing that could go on; what runs is finished."""
    system.scheduler()
    worker = system.worker()
    system.publish("g", "sleep", 1, id="long")
    system.flush()
    system.history.wait(lambda h: TaskState.RUNNING in h.states("long"))
    plant(system, "control", 0)
    assert worker.popen.wait(30) == 2
    assert re.search(r"control holds a record of protocol 2, and this process speaks 1: upgrade it", worker.log())
    assert "Traceback" not in worker.log()
    system.history.wait(lambda h: h.states("long")[-1] is TaskState.SUCCEEDED)
    assert len(judge.starts(system.journal())["g"]) == 1


def test_what_a_newer_version_announces_stops_nobody(system: System) -> None:
    scheduler, worker = system.scheduler(), system.worker()
    system.publish_raw("newer", NEWER, partition=0, topic="members")
    system.flush()
    for process in (scheduler, worker):
        until(lambda p=process: says(p, "announcement passed over"))  # type: ignore[misc]
    system.publish("g", id="t")
    system.flush()
    system.history.wait_terminal(1)


@pytest.mark.parametrize("key", [rows.head_key(b"g"), rows.task_key(1, b"g"), b"Xg"])
def test_a_newer_row_stops_its_partition(system: System, key: bytes) -> None:
    row = rows.encode([rows.NEWEST_FORMAT + 1])
    system.publish_raw(key, row, partition=0, topic="changelog")
    system.flush()
    scheduler = system.scheduler()
    system.worker()
    until(lambda: says(scheduler, r"changelog-0 holds (a changelog row|changelog rows) of"))
    groups = {partition: group_in(system, partition) for partition in range(4)}
    run_all(system, groups, "t")
    succeeded(system, "t", 1, 2, 3)
    assert system.history.states("t 0") == []
    assert len([m for m in system.read_all("changelog", 4) if m.partition() == 0]) == 1, "and nothing is written to it"


def test_verify_says_what_it_could_not_read(system: System) -> None:
    system.scheduler()
    system.worker()
    groups = {partition: group_in(system, partition) for partition in range(4)}
    run_all(system, groups, "t")
    succeeded(system, "t", *groups)
    plant(system, "task-events", 1)
    done = system.run("verify", "--json")
    told = json.loads(done.stdout)
    assert (done.returncode, told["ok"], told["figures"]["tasks"]) == (2, True, 4)
    (why,) = told["unread"]
    assert re.match(r"partition 1 holds at offset \d+ a record of protocol 2", why)
