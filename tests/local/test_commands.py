"""Commands on groups whose tasks run in the scheduler's own process."""

from pathlib import Path

from pstp.service import new_command, send_command
from streams.protocol import CommandKind, EventKind, Outcome, TaskState
from tests.support.system import System

HANDLERS = Path(__file__).parents[1] / "support" / "handlers_stoppable.py"
KINDS = ("async", "thread", "process")


def test_a_task_that_runs_here_is_stopped_and_no_other(system: System) -> None:
    system.run_here(handlers=HANDLERS)
    for kind in KINDS:
        system.publish(kind, f"waits.{kind}", id=kind)
        system.publish(kind, "succeeds", id=f"after-{kind}")
    system.flush()
    system.history.wait(lambda h: all(TaskState.RUNNING in h.states(kind) for kind in KINDS))
    for number, kind in enumerate(KINDS):
        answer = send_command(system.settings, new_command(CommandKind.CANCEL_TASK, kind, task_id=kind))
        assert answer.outcome is Outcome.ACCEPTED
        system.history.wait(lambda h, k=kind: TaskState.SUCCEEDED in h.states(f"after-{k}"), what=f"{kind} has ended")
        assert system.history.states(kind)[-2:] == [TaskState.CANCELLING, TaskState.CANCELLED]
        assert all(system.history.states(other)[-1] is TaskState.RUNNING for other in KINDS[number + 1 :])


def test_a_pause_holds_here_too_and_a_block_waits_for_somebody(system: System) -> None:
    system.run_here()
    for number in range(1_000):
        system.publish("quick", id=f"quick-{number}")
    system.publish("blocked", "fail", 1, id="block", max_attempts=1, on_failure="block")
    system.publish("blocked", "echo", id="behind")
    system.flush()
    system.history.wait_in_the_middle(lambda h: len(h.started_order("quick")) > 20)
    pause = new_command(CommandKind.PAUSE_GROUP, "quick")
    assert send_command(system.settings, pause).outcome is Outcome.DONE
    system.history.wait(lambda h: any(e.kind is EventKind.GROUP_BLOCKED for e in h.events))
    assert send_command(system.settings, new_command(CommandKind.RETRY_NOW, "blocked")).outcome is Outcome.DONE
    system.history.wait(lambda h: TaskState.SUCCEEDED in h.states("behind"))
    of_group = [e for e in system.history.read() if e.group == "quick"]
    answered = next(i for i, e in enumerate(of_group) if e.command_id == pause.id and e.outcome)
    assert [e.task_id for e in of_group[answered:] if e.state is TaskState.RUNNING] == []
    assert send_command(system.settings, new_command(CommandKind.RESUME_GROUP, "quick")).outcome is Outcome.DONE
    system.history.wait_terminal(1_002)
    assert system.history.started_order("quick") == [f"quick-{n}" for n in range(1_000)]
