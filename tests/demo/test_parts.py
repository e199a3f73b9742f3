"""The demo's parts, each by itself."""

import io
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from pstp.demo.checks import check_logbooks
from pstp.demo.children import ChildFailedError, Children
from pstp.demo.data import read_flights
from pstp.demo.display import Display, Snapshot, table
from pstp.demo.folder import demo_folder
from pstp.demo.logbook import fold
from pstp.demo.stage import SCHEDULERS, WORKERS, plan_strikes
from pstp.demo.watching import Watching
from streams.errors import UserError
from streams.protocol import PROTOCOL, Event, EventKind, Events, TaskState, encode, utc
from streams.settings import Settings
from tests.support.system import until

S = TaskState


def event(state: TaskState, group: str | None = "N1", reason: str | None = None) -> Event:
    return Event(PROTOCOL, EventKind.TASK, utc(0), group=group, state=state, reason=reason)


def test_watching_counts() -> None:
    watching = Watching(Settings())
    for seen in (
        event(S.PARKED), event(S.PARKED), event(S.PARKED, "N2"),
        event(S.DISPATCHED), event(S.PARKED, reason="returned"), event(S.DISPATCHED), event(S.RUNNING),
        event(S.DISPATCHED, "N2"), event(S.RUNNING, "N2"), event(S.RETRYING, "N2", "worker_lost"),
        event(S.REJECTED, None, "no_group"),
    ):  # fmt: skip
        watching.see(encode(seen))
    assert (watching.accepted, watching.done, watching.rejected, watching.repeats) == (3, 1, 1, 1)
    assert (watching.moving, watching.parked) == ({"N1"}, 2)
    watching.see(encode(event(S.SUCCEEDED)))
    assert (watching.done, watching.moving, watching.parked) == (2, set(), 2)


def test_watching_keeps_the_newest_state_of_each_group() -> None:
    watching = Watching(Settings())
    states = [
        Event(PROTOCOL, EventKind.GROUP_STATE, utc(0), group=group, group_state=msgspec.Raw(state))
        for group, state in (("N1", b'{"n":1}'), ("N2", b'{"n":1}'), ("N1", b'{"n":2}'))
    ]
    watching.see(encode(states[0]))
    watching.see(encode(Events(PROTOCOL, tuple(states[1:]))))
    assert watching.states == {"N1": b'{"n":2}', "N2": b'{"n":1}'}


def test_watching_stops_at_a_newer_protocol() -> None:
    with pytest.raises(ValueError, match="protocol 2"):
        Watching(Settings()).see(b'{"v":2,"kind":"task","at":"2031-05-01T08:00:00Z"}')


def test_logbooks_are_compared_one_by_one() -> None:
    expected = fold(read_flights(500))
    states = {plane: msgspec.json.encode(book) for plane, book in expected.items()}
    assert check_logbooks(expected, states).ok
    plane = next(iter(expected))
    assert not check_logbooks(expected, {k: v for k, v in states.items() if k != plane}).ok
    assert not check_logbooks(expected, states | {"N0": b"{}"}).ok
    wrong = check_logbooks(expected, states | {plane: msgspec.json.encode(expected[plane] | {"chain": "x"})})
    assert not wrong.ok and plane in wrong.text


def test_strikes_hit_one_worker_and_one_scheduler() -> None:
    for seed in range(20):
        first, second = plan_strikes(seed, 1_000)
        assert first.instance in WORKERS and second.instance in SCHEDULERS
        assert 250 <= first.done < second.done <= 700
        assert plan_strikes(seed, 1_000) == [first, second]


def test_a_folder_of_ours_is_emptied(tmp_path: Path) -> None:
    with demo_folder(tmp_path / "demo") as folder:
        (folder / "kafka").mkdir()
        (folder / "kafka" / "log").write_text("old")
    with demo_folder(tmp_path / "demo") as folder:
        assert not (folder / "kafka").exists()
        with pytest.raises(UserError, match="another demo runs"), demo_folder(folder):
            pass


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    precious = tmp_path / "thesis.txt"
    precious.write_text("years of work")
    with pytest.raises(UserError, match="holds other things"), demo_folder(tmp_path):
        pass
    with pytest.raises(UserError, match="is not a folder"), demo_folder(precious):
        pass
    assert precious.read_text() == "years of work"


def test_a_child_that_ends_by_itself_is_noticed_with_the_end_of_its_log(tmp_path: Path) -> None:
    with Children(Settings(), tmp_path / "logs") as children:
        pid = children.start("worker-1", "no-such-command")
        assert children.kill("worker-1") == pid
        children.check()
        children.restart("worker-1")

        def complaint() -> str:
            try:
                children.check()
            except ChildFailedError as error:
                return str(error)
            return ""

        text = until(complaint)
        assert text.startswith("worker-1 ended with code 2; ") and "no-such-command" in text


def snapshot(at_s: float, done: int) -> Snapshot:
    return Snapshot(at_s=at_s, total=1_000, published=800, done=done, parked=5, moving=3, repeats=1)


def test_without_a_terminal_a_line_now_and_then() -> None:
    out = io.StringIO()
    with Display(Console(file=out, width=200)) as display:
        for tenth in range(100):
            display.update(snapshot(tenth / 10, tenth * 10))
        display.say(9.9, "kill -9 worker-1")
    lines = out.getvalue().splitlines()
    assert len(lines) == 5
    assert "published 800/1,000, done 600, parked 5, 3 groups moving, 100 tasks/s, 1 repeats" in lines[2]
    assert "kill -9 worker-1" in lines[4]


def test_in_a_terminal_a_live_table() -> None:
    out = io.StringIO()
    with Display(Console(file=out, width=80, force_terminal=True)) as display:
        display.update(snapshot(1, 500))
    assert "groups moving" in out.getvalue()
    console = Console(file=io.StringIO(), width=80)
    console.print(table(snapshot(1, 500), 1_234))
    assert "1,234" in console.file.getvalue()  # type: ignore[attr-defined]
