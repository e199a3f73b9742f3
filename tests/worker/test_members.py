"""Announcing oneself and watching the others, on a real topic."""

import os
import socket
from collections.abc import Iterator

import confluent_kafka as ck
import pytest
from msgspec.structs import replace

from consumers import Registry, Task
from streams import limits
from streams.clock import new_id, now
from streams.errors import InstanceTakenError
from streams.members import Announcer, MembersView
from streams.protocol import PROTOCOL, Member, encode
from streams.settings import Settings
from tests.support.system import until
from tests.worker.kit import Rig


@pytest.fixture(scope="module")
def rig(bootstrap: str) -> Iterator[Rig]:
    settings = Settings(
        app=f"t{new_id()[:10]}", bootstrap_servers=bootstrap, partitions=1, dispatch_partitions=1, lease_s=3
    )
    with Rig(settings) as rig:
        yield rig


@pytest.fixture
def view(rig: Rig) -> Iterator[MembersView]:
    view = MembersView(rig.settings)
    view.start()
    assert view.wait_caught_up(10)
    yield view
    view.stop()


def member(**more: object) -> Member:
    alone = Member(PROTOCOL, f"m{new_id()[:8]}", new_id(), "worker", "elsewhere", 1, 0)
    return replace(alone, **more)


def say(rig: Rig, key: str, value: bytes | None) -> int:
    """One record on `members`; returns its offset."""
    offsets: list[int] = []
    producer = ck.Producer(rig.settings.kafka())
    producer.produce(
        rig.settings.topic("members"), value, key.encode(), 0, on_delivery=lambda _, m: offsets.append(m.offset() or 0)
    )
    producer.flush(10)
    return offsets[0]


def test_a_change_is_heard_at_once_and_silence_never(rig: Rig, view: MembersView) -> None:
    announcer, me = Announcer(rig.settings), member()
    assert announcer.wait_said(announcer.update(me), 0) is False
    announcer.start()
    update = announcer.update(replace(me, partitions=(1, 2)))
    assert announcer.wait_said(update, 10)
    wanted = replace(me, partitions=(1, 2))
    until(lambda: wanted in [replace(m, at_ms=0) for m in view.alive("worker").values()], 1, "it is heard")
    assert view.alive("worker")[me.instance].at_ms > 0
    assert me.instance not in view.alive("scheduler")
    first = view.snapshot()[me.instance].heard_mono_ms
    until(lambda: view.snapshot()[me.instance].heard_mono_ms > first, 5, "it is said again though nothing changed")
    assert announcer.silent_s() < 2 * limits.ANNOUNCE_INTERVAL_S
    announcer.leave()
    until(lambda: me.instance not in view.snapshot(), 5, "it has left")
    announcer.leave()


def test_what_is_said_again_is_no_change(rig: Rig) -> None:
    announcer, me = Announcer(rig.settings), member()
    assert announcer.update(me) == announcer.update(replace(me)) == 1
    assert announcer.update(replace(me, slots=3)) == 2


def test_who_is_silent_is_not_alive_and_still_known(rig: Rig, view: MembersView) -> None:
    me = member()
    say(rig, me.instance, encode(me))
    until(lambda: me.instance in view.alive(), 5, "it is alive")
    until(lambda: me.instance in view.silent(), limits.MEMBER_SILENT_S + 5, "it is silent")
    assert me.instance in view.snapshot()
    assert me.instance not in view.alive()


def test_a_reader_that_was_frozen_calls_nobody_dead(rig: Rig, view: MembersView) -> None:
    me = member()
    say(rig, me.instance, encode(me))
    until(lambda: me.instance in view.alive(), 5, "it is alive")
    view._listened_mono_ms -= 60_000  # as if this thread had last run a minute ago
    assert me.instance in view.alive()
    until(lambda: view._listened_mono_ms > now().mono_ms - 1_000, 5, "it listens again")
    assert me.instance in view.alive()


def test_on_change_is_called_for_changes_only(rig: Rig) -> None:
    calls: list[int] = []
    view = MembersView(rig.settings, on_change=lambda: calls.append(1))
    view.start()
    assert view.wait_caught_up(10)
    try:
        me = member()
        before = len(calls)
        for at_ms, slots in ((1, 1), (2, 1), (3, 2)):
            said = replace(me, at_ms=at_ms, slots=slots)
            say(rig, me.instance, encode(said))
            until(lambda said=said: said in [h.member for h in view.snapshot().values()])  # type: ignore[misc]
        assert len(calls) == before + 2
    finally:
        view.stop()


def test_records_that_are_no_announcement_are_passed_over(rig: Rig, view: MembersView) -> None:
    say(rig, "junk", b"no json")
    me = member()
    say(rig, me.instance, encode(me))
    until(lambda: me.instance in view.snapshot(), 5, "what follows is read")


def test_announcements_of_a_newer_version_hide_nobody_else(rig: Rig, view: MembersView) -> None:
    newer, me = member(), member()
    say(rig, newer.instance, encode(newer))
    until(lambda: newer.instance in view.snapshot())
    say(rig, newer.instance, encode(replace(newer, v=PROTOCOL + 1)))
    say(rig, me.instance, encode(me))
    until(lambda: me.instance in view.snapshot(), 5, "what follows is read")
    assert newer.instance not in view.snapshot()


class TestOneNameTwoProcesses:
    @pytest.fixture
    def mine(self) -> Member:
        return member(host=socket.gethostname(), pid=os.getppid())

    def watch(self, rig: Rig, me: Member) -> MembersView:
        view = MembersView(rig.settings, me.instance, me.boot_id)
        view.start()
        assert view.wait_caught_up(10)
        return view

    def test_a_live_namesake_keeps_a_newcomer_out(self, rig: Rig, mine: Member) -> None:
        announcer = Announcer(rig.settings)
        announcer.start()
        assert announcer.wait_said(announcer.update(mine), 10)
        view = self.watch(rig, replace(mine, boot_id=new_id()))
        try:
            with pytest.raises(InstanceTakenError, match="PSTP_INSTANCE"):
                view.ensure_unused()
        finally:
            view.stop()
            announcer.leave()

    def test_a_predecessor_that_does_not_speak_is_dead(self, rig: Rig, mine: Member) -> None:
        say(rig, mine.instance, encode(mine))
        view = self.watch(rig, replace(mine, boot_id=new_id()))
        began = now().mono_ms
        view.ensure_unused()
        assert now().mono_ms - began > 1_000
        view.stop()

    def test_a_predecessor_whose_pid_is_free_is_not_waited_for(self, rig: Rig, mine: Member) -> None:
        say(rig, mine.instance, encode(replace(mine, pid=2**22 + 1)))
        view = self.watch(rig, replace(mine, boot_id=new_id()))
        began = now().mono_ms
        view.ensure_unused()
        assert now().mono_ms - began < 1_000
        view.stop()

    def test_the_older_one_gives_way(self, rig: Rig, mine: Member) -> None:
        """Such as a process that was frozen, when its replacement runs."""
        younger = replace(mine, boot_id=new_id())
        say(rig, mine.instance, encode(mine))
        older_view, younger_view = self.watch(rig, mine), self.watch(rig, younger)
        try:
            say(rig, mine.instance, encode(younger))
            until(older_view.superseded, 5, "the older one knows")
            say(rig, mine.instance, encode(mine))  # it wakes up and speaks once more
            say(rig, mine.instance, encode(younger))
            until(lambda: younger_view.snapshot()[mine.instance].member.boot_id == younger.boot_id, 5)
            assert not younger_view.superseded()
        finally:
            older_view.stop()
            younger_view.stop()


def test_a_worker_that_is_superseded_stops_with_a_sentence_and_leaves_the_name_alone(
    rig: Rig, view: MembersView
) -> None:
    handlers = Registry()

    @handlers.handler("ok")
    async def ok(task: Task) -> None:
        pass

    running = rig.worker(handlers, "taken")
    until(lambda: "taken" in view.snapshot(), 20, "it is announced")
    first = view.snapshot()["taken"].member
    assert first.types == ("ok",)
    assert first.http.startswith("http://127.0.0.1:")
    say(rig, "taken", encode(replace(first, boot_id=new_id())))
    running.wait()
    assert isinstance(running.error, InstanceTakenError)
    assert "taken" in view.snapshot()
