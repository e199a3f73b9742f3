"""At most one execution: whatever happens between the steps of a claim."""

import json
import signal
import threading
from pathlib import Path
from typing import Any

import confluent_kafka as ck
import pytest
from confluent_kafka.admin import AdminClient

from consumers import Registry, Task
from consumers.poller import Poller
from streams.protocol import Reason, ReportKind
from tests.support.system import until
from tests.worker.kit import Gate, Rig
from tests.worker.process import WorkerProcess


def journal(folder: Path) -> list[dict[str, Any]]:
    path = folder / "journal.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def registry() -> tuple[Registry, list[int]]:
    handlers, ran = Registry(), list[int]()

    @handlers.handler("ok")
    async def ok(task: Task) -> None:
        ran.append(task.fencing_token)

    return handlers, ran


@pytest.mark.parametrize("step", ["claim", "claimed", "started"])
def test_frozen_between_two_steps_for_longer_than_the_lease_it_does_not_start_when_it_wakes(
    rig: Rig, tmp_path: Path, step: str
) -> None:
    """Frozen before the commit it has lost its session; after it, its lease."""
    [token] = rig.dispatch("g", "echo", b"1")
    with WorkerProcess(rig.settings, tmp_path, step=step, lease_s=1.5) as worker:
        worker.wait_frozen()
        with WorkerProcess(rig.settings, tmp_path, "w2") as successor:
            until(lambda: owns(rig, "w2"), 30, "the successor owns the partition")
            worker.wake()
            end = rig.end(token)
            rig.reports()
            assert successor.popen.poll() is None
        lines = journal(tmp_path)
    said = {c.worker: [r.kind.value for r in c.reports] for c in rig.completions}
    if step == "claim":
        assert (end.kind, list(said), len(lines)) == (ReportKind.SUCCEEDED, ["w2"], 2)
    else:
        assert (end.kind, end.reason, lines) == (ReportKind.RETURNED, Reason.LOST_BEFORE_START, [])
        assert list(said) == ["w1"]


def owns(rig: Rig, instance: str) -> bool:
    """Whether that worker, as it announces, owns every partition."""
    from streams.members import MembersView

    view = MembersView(rig.settings)
    view.start()
    try:
        assert view.wait_caught_up(10)
        heard = view.snapshot().get(instance)
        return heard is not None and len(heard.member.partitions) == rig.settings.dispatch_partitions
    finally:
        view.stop()


@pytest.mark.parametrize("step", ["claimed", "started"])
def test_killed_after_its_commit_nobody_starts_what_it_had_claimed(rig: Rig, tmp_path: Path, step: str) -> None:
    claimed, after = rig.dispatch("g", "echo", b"1")[0], None
    with WorkerProcess(rig.settings, tmp_path, step=step, send="SIGKILL") as worker:
        assert worker.popen.wait(30) == -signal.SIGKILL
    assert rig.claimed()[0] == 1
    with WorkerProcess(rig.settings, tmp_path, "w2"):
        [after] = rig.dispatch("g", "echo", b"2")
        assert rig.end(after, timeout_s=40).kind is ReportKind.SUCCEEDED
    assert "succeeded" not in rig.kinds(claimed)
    assert {line["token"] for line in journal(tmp_path)} == {after}


def test_killed_before_its_commit_the_next_owner_runs_it(rig: Rig, tmp_path: Path) -> None:
    [token] = rig.dispatch("g", "echo", b"1")
    with WorkerProcess(rig.settings, tmp_path, step="claim", send="SIGKILL") as worker:
        worker.popen.wait(30)
    with WorkerProcess(rig.settings, tmp_path, "w2"):
        assert rig.end(token, timeout_s=40).kind is ReportKind.SUCCEEDED
    assert len(journal(tmp_path)) == 2


class FaultyConsumer:
    """The real consumer, whose commits and look-ups of commits fail as the test says."""

    def __init__(self, real: ck.Consumer) -> None:
        self._real = real
        self.commit_first = True  # whether a failing commit has been applied
        self.commits_fail = self.look_ups_fail = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def commit(self, **arguments: Any) -> Any:
        if not self.commits_fail:
            return self._real.commit(**arguments)
        self.commits_fail -= 1
        if self.commit_first:
            self._real.commit(**arguments)
        raise ck.KafkaException(ck.KafkaError(ck.KafkaError._TIMED_OUT))

    def committed(self, *arguments: Any, **more: Any) -> Any:
        if self.look_ups_fail:
            self.look_ups_fail -= 1
            raise ck.KafkaException(ck.KafkaError(ck.KafkaError._TIMED_OUT))
        return self._real.committed(*arguments, **more)


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> list[FaultyConsumer]:
    """The consumers of the workers that start from now on."""
    made: list[FaultyConsumer] = []
    original = Poller.__init__

    def init(self: Poller, *arguments: Any, **more: Any) -> None:
        original(self, *arguments, **more)
        self._consumer = FaultyConsumer(self._consumer)  # type: ignore[assignment]
        made.append(self._consumer)  # type: ignore[arg-type]

    monkeypatch.setattr(Poller, "__init__", init)
    return made


@pytest.mark.parametrize("applied", [True, False])
@pytest.mark.parametrize("look_ups_fail", [0, 2])
def test_a_commit_of_unknown_outcome_is_read_back(
    rig: Rig, faulty: list[FaultyConsumer], applied: bool, look_ups_fail: int
) -> None:
    handlers, ran = registry()
    rig.worker(handlers)
    rig.end(rig.dispatch("before")[0])
    consumer = faulty[0]
    consumer.commit_first, consumer.look_ups_fail, consumer.commits_fail = applied, look_ups_fail, 1
    tokens = [rig.dispatch("g")[0], rig.dispatch("h", partition=2)[0]]
    assert {r.kind for r in rig.ends(*tokens)} == {ReportKind.SUCCEEDED}
    assert sorted(ran[1:]) == tokens
    assert rig.kinds(*tokens).count("started") == 2
    assert (consumer.commits_fail, consumer.look_ups_fail) == (0, 0)


def test_thrown_out_of_the_group_in_the_middle_of_a_claim_nothing_is_run(
    rig: Rig, faulty: list[FaultyConsumer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit without a membership is accepted while the group is empty: it proves nothing."""
    handlers, ran = registry()
    rig.worker(handlers)
    rig.end(rig.dispatch("before")[0])
    members = ["it was this", "and is that"]
    real = faulty[0]._real.memberid
    monkeypatch.setattr(faulty[0], "memberid", lambda: members.pop(0) if members else real(), raising=False)
    [token] = rig.dispatch("g")
    until(lambda: not members and rig.claimed()[0] == 2, what="it is claimed")
    rig.end(rig.dispatch("after")[0])
    assert rig.kinds(token) == []
    assert token not in ran


def test_workers_that_come_and_go_start_each_dispatch_once(rig: Rig) -> None:
    handlers, ran = registry()
    tokens: list[int] = []
    done = threading.Event()

    def publish() -> None:
        while not done.is_set():
            tokens.append(rig.dispatch(f"g{len(tokens)}", partition=len(tokens) % 4)[0])

    publisher = threading.Thread(target=publish)
    rig.worker(handlers, "w0")
    publisher.start()
    try:
        for i in range(1, 4):
            come = rig.worker(handlers, f"w{i}")
            until(lambda come=come: come.worker._poller.owned, what="it takes part")  # type: ignore[misc]
            if i > 1:
                rig.workers[i - 2].stop()
    finally:
        done.set()
        publisher.join()
    ends = rig.ends(*tokens, timeout_s=40)
    started = [r.token for r in rig.reports() if r.kind is ReportKind.STARTED]
    assert len(started) == len(set(started))
    assert sorted(ran) == sorted(r.token for r in ends if r.kind is ReportKind.SUCCEEDED)
    assert len(ran) == len(set(ran))
    lost = [r for r in ends if r.kind is not ReportKind.SUCCEEDED]
    assert all(r.kind is ReportKind.RETURNED for r in lost)  # claimed in the moment of the drain
    assert len(tokens) > 50


def test_what_a_worker_read_and_did_not_claim_is_its_successors(rig: Rig, gate: Gate) -> None:
    handlers, _ = registry()

    @handlers.handler("wait")
    async def wait(task: Task) -> None:
        await gate.pass_async(task.id)

    first = rig.worker(handlers, "w1", slots=1, drain_s=0.2)
    tokens = [rig.dispatch(f"g{i}", "wait")[0] for i in range(10)]
    gate.wait_entered(1)
    first.stop()
    assert rig.end(tokens[0]).kind is ReportKind.ABANDONED
    gate.opened.set()
    rig.worker(handlers, "w2", slots=1)
    assert {r.kind for r in rig.ends(*tokens[1:])} == {ReportKind.SUCCEEDED}
    assert {c.worker for c in rig.completions for r in c.reports if r.token in tokens[1:]} == {"w2"}


@pytest.mark.parametrize("reset", ["to the beginning", "expired"])
def test_after_a_reset_of_the_workers_offsets_nothing_runs_again(rig: Rig, reset: str) -> None:
    handlers, ran = registry()
    before = [rig.dispatch(f"g{i}")[0] for i in range(20)]
    first = rig.worker(handlers, "w1")
    rig.ends(*before)
    first.stop()
    admin, topic = AdminClient(rig.settings.kafka()), rig.settings.topic("dispatches")
    if reset == "expired":
        for future in admin.delete_consumer_groups([rig.settings.worker_group]).values():
            future.result(10)
    else:
        places = [ck.TopicPartition(topic, 0, 0)]
        for future in admin.alter_consumer_group_offsets(
            [ck.ConsumerGroupTopicPartitions(rig.settings.worker_group, places)]
        ).values():
            future.result(10)
    ran.clear()
    second = rig.worker(handlers, "w2")
    until(lambda: rig.kinds(*before).count("returned") == 20, what="all are given back")
    until(lambda: second.worker._is_ready()[0], what="it is ready")
    after = rig.dispatch("after")[0]
    assert rig.end(after).kind is ReportKind.SUCCEEDED
    assert ran == [after]


def test_where_nothing_has_been_claimed_that_is_written_down_before_the_first_dispatch(rig: Rig) -> None:
    """So that the next owner knows that what it finds there has never run."""
    admin = AdminClient(rig.settings.kafka())
    for future in admin.delete_consumer_groups([rig.settings.worker_group]).values():
        future.result(10)
    handlers, ran = registry()
    running = rig.worker(handlers)
    until(lambda: running.worker._is_ready()[0], what="it is ready")
    for partition in range(rig.settings.dispatch_partitions):
        offset, claim_id = rig.claimed(partition)
        assert (offset, len(claim_id or "")) == (0, 32)
    [token] = rig.dispatch("g")
    rig.end(token)
    assert ran == [token]
