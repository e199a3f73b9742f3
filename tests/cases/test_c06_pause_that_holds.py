"""C-06: a pause that had been answered, and runs that started nevertheless.

Elsewhere pausing set a queue's limit to zero, and what had already gone to the second stage still ran
(triggerdotdev/trigger.dev #4398).
"""

from pstp.service import new_command, send_command
from streams.protocol import CommandKind, Outcome, TaskState
from tests.support.system import System


def test_nothing_of_a_paused_group_starts_once_the_pause_is_answered(system: System) -> None:
    system.scheduler()
    worker = system.worker("w1")
    system.publish("warm")
    system.flush()
    system.history.wait_terminal(1)
    worker.kill()  # its dispatch partitions have no owner from now on, and what goes there waits
    for number in range(60):
        system.publish("held", payload=number, id=f"held-{number}")
        system.publish(f"probe-{number % 10}", payload=number)
    system.flush()
    system.history.wait(lambda h: any(e.state for e in h.of["held-59"]), what="all are taken in")
    answer = send_command(system.settings, new_command(CommandKind.PAUSE_GROUP, "held", note="their API is down"))
    assert answer.outcome is Outcome.DONE
    system.worker("w2")
    system.history.wait_terminal(61, 60)
    assert system.history.started_order("held") == []
    assert send_command(system.settings, new_command(CommandKind.RESUME_GROUP, "held")).outcome is Outcome.DONE
    system.history.wait_terminal(121, 60)
    assert system.history.started_order("held") == [f"held-{n}" for n in range(60)]
    assert system.history.count(TaskState.SUCCEEDED) == 121


def test_a_pause_in_the_middle_of_quick_tasks_lets_nothing_start_after_its_answer(system: System) -> None:
    """What runs when the pause is answered may end; the answer and the starts stand in one partition, in order."""
    system.scheduler()
    system.worker("w1")
    for number in range(300):
        system.publish("quick", payload=number, id=f"quick-{number}")
        system.publish(f"probe-{number % 10}", payload=number, id=f"probe-{number}")
    system.flush()
    for turn in range(3):
        system.history.wait_in_the_middle(lambda h, n=turn: len(h.started_order("quick")) > 40 * n + 10)
        pause = new_command(CommandKind.PAUSE_GROUP, "quick")
        assert send_command(system.settings, pause).outcome is Outcome.DONE
        if turn == 0:
            system.history.wait(
                lambda h: sum(e.state is TaskState.SUCCEEDED for e in h.events) >= 300, what="probes go on"
            )
        system.history.read()
        answered = next(i for i, e in enumerate(system.history.events) if e.command_id == pause.id and e.outcome)
        after = [
            e.task_id for e in system.history.events[answered:] if e.group == "quick" and e.state is TaskState.RUNNING
        ]
        assert after == []
        assert send_command(system.settings, new_command(CommandKind.RESUME_GROUP, "quick")).outcome is Outcome.DONE
    system.history.wait_terminal(600, 120)
    assert system.history.started_order("quick") == [f"quick-{n}" for n in range(300)]
    assert [line["id"] for line in system.journal() if line["what"] == "start" and line["group"] == "quick"] == [
        f"quick-{n}" for n in range(300)
    ]
