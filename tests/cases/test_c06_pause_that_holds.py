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
