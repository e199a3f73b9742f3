"""The short cases: null values, identical payloads, changed topics and offsets reset.

Each test names the public report that it guards against.
"""

import json
import re
from collections.abc import Iterator

import confluent_kafka as ck
import pytest
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic

from streams.protocol import Reason, TaskState
from streams.topic_plan import plan_topics
from tests.support import judge
from tests.support.system import Process, System, until

PARTITIONS = 4


def test_null_values_are_set_aside_and_identical_payloads_all_run(system: System) -> None:
    """Elsewhere the dead-letter path itself failed on null (spring-kafka #1494), and a second task with the same
    payload was taken for the first (shoryuken #1038, symfony #65605)."""
    system.scheduler()
    system.worker()
    for _ in range(20):
        system.publish_raw("g", None)
        system.publish_raw("g", b'{"type":"echo","payload":{"same":true}}')
    system.flush()
    system.history.wait_terminal(40)

    assert system.history.count(TaskState.SUCCEEDED) == 20 == system.history.count(TaskState.REJECTED)
    started = system.history.started_order("g")
    assert len(set(started)) == len(started) == 20
    letters = system.dead_letters()
    assert [(m.key(), m.value()) for m in letters] == [(b"g", None)] * 20
    assert {dict(m.headers() or [])["pstp.reason"] for m in letters} == {Reason.NO_VALUE.encode()}
    listed = system.run("dead-letters", "--json")
    assert (listed.returncode, listed.stderr) == (0, "")
    assert len(json.loads(listed.stdout)) == 20


def test_offsets_reset_while_stopped_repeat_and_lose_nothing(system: System) -> None:
    """Elsewhere everything ran again (reactor-kafka #290).  A reset forward must not lose what was not read, either."""
    system.worker()
    names = []
    for life, reset in enumerate(("to earliest", "to latest", "deleted", "")):
        scheduler = system.scheduler()
        names += [f"running, {life}", f"before reset {reset}"]
        publish_ten_groups(system, names[-2])
        system.history.wait_terminal(100 * life + 50)
        assert scheduler.terminate() == 0
        if reset:
            publish_ten_groups(system, names[-1])
            until(lambda r=reset: reset_offsets(system, r), what="the group is empty, so that it can be changed")

    assert system.history.terminal() == 350 == system.history.count(TaskState.SUCCEEDED)
    journal = system.journal()
    assert judge.overlaps(journal) == []
    assert judge.starts(journal) == expected_order(names[:-1])


BEHIND = 150_000


@pytest.mark.long
def test_a_group_published_behind_a_blocked_backlog_starts_before_it_is_even_taken_in(system: System) -> None:
    """Elsewhere 20,000 messages of one group behind a failed one hid all other groups (SQS FIFO).

    Steps, not seconds, are counted in `../unit/test_failures.py`; here, what was taken in meanwhile.
    """
    system.scheduler()
    system.worker()
    system.publish("block", "fail", 9, id="head", max_attempts=1, on_failure="block")
    system.flush()
    system.history.wait(lambda h: any(e.kind == "group_blocked" for e in h.events))
    for number in range(BEHIND):
        system.publish("block", "echo", number)
        if number % 50_000 == 0:
            system.publish("free", "echo", id=f"free-{number}")
            system.flush()
            system.history.wait_in_the_middle(lambda h, n=number: TaskState.SUCCEEDED in h.states(f"free-{n}"))
    system.flush()
    system.history.wait(lambda h: h.count(TaskState.PARKED) >= BEHIND, 300, "all are taken in")
    system.publish("last", "echo", id="last")
    system.flush()
    system.history.wait(lambda h: TaskState.SUCCEEDED in h.states("last"))
    (free,) = [e for e in system.history.of["last"] if e.state is TaskState.RUNNING]
    (parked,) = [e for e in system.history.of["last"] if e.state is TaskState.PARKED]
    print(f"behind {BEHIND} parked tasks: accepted to started in {(free.at - parked.at).total_seconds():.3f} s")
    answer = system.get("s1", "/explain?group=block")
    assert (answer["blocker"], answer["parked"]) == ("blocked", BEHIND)


def publish_ten_groups(system: System, name: str) -> None:
    for number in range(50):
        system.publish(f"g{number % 10}", "echo", id=f"{name} {number}")
    system.flush()


def expected_order(names: list[str]) -> dict[str, list[str]]:
    """Of what `publish_ten_groups` published under these names: every task once."""
    return {f"g{g}": [f"{name} {n}" for name in names for n in range(g, 50, 10)] for g in range(10)}


def reset_offsets(system: System, reset: str) -> bool:
    admin, settings = AdminClient(system.settings.kafka()), system.settings
    group = settings.scheduler_group
    try:
        if reset == "deleted":
            admin.delete_consumer_groups([group])[group].result()
            return True
        offset = {"to earliest": 0, "to latest": 1_000_000}[reset]
        places = [
            ck.TopicPartition(settings.topic(topic), partition, offset)
            for topic in ("tasks", "completions", "commands")
            for partition in range(PARTITIONS)
        ]
        admin.alter_consumer_group_offsets([ck.ConsumerGroupTopicPartitions(group, places)])[group].result()
    except ck.KafkaException:
        return False
    return True


def test_partitions_added_to_tasks_under_load_are_refused_loudly_and_split_no_group(system: System) -> None:
    """Elsewhere half of the groups moved to other partitions, and ran in both (faust #325)."""
    scheduler = system.scheduler()
    worker = system.worker()
    numbers = publishing(system)
    for _ in range(200):
        next(numbers)
    system.flush()
    system.history.wait(lambda h: h.count(TaskState.SUCCEEDED) > 50)
    admin, topic = AdminClient(system.settings.kafka()), system.settings.topic("tasks")
    admin.create_partitions([NewPartitions(topic, 6)])[topic].result()

    def stopped() -> bool:
        next(numbers)
        system.flush()
        return not scheduler.alive()

    until(stopped, 60, "the running scheduler stops")
    refusal = rf"topic `{topic}` has 6 partitions, not 4, and groups cannot move: "
    assert_refuses(scheduler, refusal)
    assert_refuses(system.scheduler("s2"), refusal)
    assert_refuses(system.worker("w2"), refusal)
    assert "Traceback" not in worker.log()
    journal = system.journal()
    assert judge.overlaps(journal) == []
    for group, ids in judge.starts(journal).items():
        order = [int(task) for task in ids]
        assert order == sorted(set(order)), f"{group}: none twice, none before its turn"


def publishing(system: System) -> Iterator[int]:
    """Publishes one more task to one of 40 groups, each time it is asked."""
    number = 0
    while True:
        system.publish(f"g{number % 40}", "echo", id=str(number))
        yield number
        number += 1


def assert_refuses(process: Process, sentence: str) -> None:
    """It ends with exit code 2, and its last word is one sentence."""
    assert process.popen.wait(30) == 2
    log = process.log()
    assert "Traceback" not in log
    assert re.match(f"pstp: {sentence}", log.splitlines()[-1]), log.splitlines()[-1]


def test_a_topic_deleted_and_created_again_is_refused_until_it_is_adopted(system: System) -> None:
    """Old watermarks would make a scheduler ignore new tasks in silence."""
    running = [system.scheduler(), system.worker()]
    publish_ten_groups(system, "before")
    system.history.wait_terminal(50)
    topic = recreate_tasks(system)
    for number in range(10):  # below the offsets that the old topic had
        system.publish(f"g{number}", "echo", id=f"between {number}")
    system.flush()
    refusal = rf"topic `{topic}` (was deleted and created again .*|does not exist): run `pstp topics (adopt|create)`"
    until(lambda: not any(process.alive() for process in running), 60, "what runs stops")
    for process in (*running, system.scheduler("s2"), system.worker("w2")):
        assert_refuses(process, refusal)
    publish_ten_groups(system, "after")

    adopted = system.run("topics", "adopt")
    assert (adopted.returncode, adopted.stderr) == (0, "")
    system.scheduler("s3")
    system.worker("w3")
    system.history.wait_terminal(110)
    expected = expected_order(["before", "after"])
    for number in range(10):
        expected[f"g{number}"].insert(5, f"between {number}")
    assert judge.starts(system.journal()) == expected
    assert system.history.count(TaskState.SUCCEEDED) == 110 == system.history.terminal()


def recreate_tasks(system: System) -> str:
    admin, plan = AdminClient(system.settings.kafka()), plan_topics(system.settings)["tasks"]
    admin.delete_topics([plan.topic])[plan.topic].result()

    def created() -> bool:
        try:
            admin.create_topics([NewTopic(plan.topic, plan.partitions, 1, config=plan.config)])[plan.topic].result()
        except ck.KafkaException:  # it is still being deleted
            return False
        return True

    until(created, what="the topic is created again")
    return plan.topic
