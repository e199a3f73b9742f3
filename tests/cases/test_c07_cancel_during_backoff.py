"""C-07: a cancelled invocation between two retries that was acknowledged, and went on for ever.

restatedev/restate #3656.
"""

from pathlib import Path

from pstp.service import CommandSender, new_command, send_command
from streams.protocol import CommandKind, Outcome, TaskState
from tests.support.system import System

HANDLERS = Path(__file__).parents[1] / "support" / "handlers_stoppable.py"
CROSSED = 100


def test_a_cancel_between_retries_is_final_and_releases_the_group(system: System) -> None:
    system.scheduler()
    system.worker("w1", handlers=HANDLERS)
    system.publish("g", "fails", id="a")
    system.publish("g", "succeeds", id="b")
    for number in range(CROSSED):
        system.publish(f"crossed-{number}", "fails", id=f"x{number}")
    system.flush()
    system.history.wait(lambda h: TaskState.RETRYING in h.states("a"), what="the first attempt fails")
    assert send_command(system.settings, new_command(CommandKind.CANCEL_TASK, "g", task_id="a")).outcome is Outcome.DONE
    system.history.wait(lambda h: TaskState.SUCCEEDED in h.states("b"), what="the next task runs")
    cross(system)
    for number in range(CROSSED):
        states = system.history.states(f"x{number}")
        assert states[-1] is TaskState.CANCELLED and states.count(TaskState.CANCELLED) == 1, states
    assert system.history.states("a")[-1] is TaskState.CANCELLED


def cross(system: System) -> None:
    """Cancel and retry at the same time, in both orders: one terminal state, and nothing runs after it."""
    for number in range(CROSSED):
        system.history.wait(lambda h, n=number: TaskState.RETRYING in h.states(f"x{n}"))
    commands = []
    for number in range(CROSSED):
        group = f"crossed-{number}"
        pair = [
            new_command(CommandKind.CANCEL_TASK, group, task_id=f"x{number}"),
            new_command(CommandKind.RETRY_NOW, group),
        ]
        commands += pair if number % 2 else pair[::-1]
    with CommandSender(system.settings, system.settings.partitions) as sender:
        answers = list(sender.ask_all(commands))
    cancelled = [a for a in answers if a.command is CommandKind.CANCEL_TASK]
    assert all(a.outcome is not Outcome.REFUSED for a in cancelled)
    system.history.wait(lambda h: all(TaskState.CANCELLED in h.states(f"x{n}") for n in range(CROSSED)), 30)


def test_a_running_task_is_stopped_whatever_runs_it(system: System) -> None:
    system.scheduler()
    system.worker("w1", handlers=HANDLERS)
    for kind in ("async", "thread", "process"):
        system.publish(kind, f"waits.{kind}", id=kind)
        system.publish(kind, "succeeds", id=f"after-{kind}")
    system.flush()
    for kind in ("async", "thread", "process"):
        system.history.wait(lambda h, k=kind: TaskState.RUNNING in h.states(k))
        answer = send_command(system.settings, new_command(CommandKind.CANCEL_TASK, kind, task_id=kind))
        assert answer.outcome is Outcome.ACCEPTED
    for kind in ("async", "thread", "process"):
        system.history.wait(lambda h, k=kind: TaskState.SUCCEEDED in h.states(f"after-{k}"), what=f"{kind} has ended")
        assert system.history.states(kind)[-2:] == [TaskState.CANCELLING, TaskState.CANCELLED]


def test_a_cancel_stops_one_task_and_none_of_the_same_token(system: System) -> None:
    """Each partition counts its tokens for itself, so the first tasks of all of them run under the same one."""
    system.scheduler()
    system.worker("w1", handlers=HANDLERS)
    groups = one_per_partition(system)
    for group in groups:
        system.publish(group, "waits.async", id=group)
    system.flush()
    for group in groups:
        system.history.wait(lambda h, g=group: TaskState.RUNNING in h.states(g))
    assert len({e.fencing_token for g in groups for e in system.history.of[g] if e.fencing_token}) == 1
    for number, group in enumerate(groups):
        send_command(system.settings, new_command(CommandKind.CANCEL_TASK, group, task_id=group))
        system.history.wait(lambda h, g=group: TaskState.CANCELLED in h.states(g))
        for other in groups[number + 1 :]:
            assert system.history.states(other)[-1] is TaskState.RUNNING
    assert all(system.history.states(g).count(TaskState.RUNNING) == 1 for g in groups)


def one_per_partition(system: System) -> list[str]:
    found = {system.home(f"g{number}"): f"g{number}" for number in range(100)}
    assert len(found) == system.settings.partitions
    return list(found.values())
