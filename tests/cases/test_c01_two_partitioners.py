"""C-01: two clients put one group into two partitions, since the default hashes of Kafka's clients differ.

Elsewhere one account's events ended up in two logs and were worked on side by side
(Blizzard/node-rdkafka #616, tulios/kafkajs #1154).
"""

import json
import re
import zlib
from collections import Counter, defaultdict

import pytest

from streams.protocol import TaskState
from streams.topics import check_topics
from tests.support import judge
from tests.support.placed import PlacedPublisher
from tests.support.system import System

GROUPS, TASKS = 200, 10  # half of the tasks of each group by each client
OURS, THEIRS = "murmur2_random", "consistent_random"


def test_a_group_published_by_two_partitioners_is_never_split(system: System) -> None:
    system.scheduler("s1")
    system.scheduler("s2")
    system.worker(slots=200)
    for number in range(TASKS):
        for group in range(GROUPS):
            partitioner = OURS if number % 2 else THEIRS
            system.publish_raw(f"g{group}", task(group, number), partitioner=partitioner)
    system.flush()
    system.history.wait_terminal(GROUPS * TASKS, 120)

    assert system.history.count(TaskState.SUCCEEDED) == GROUPS * TASKS == system.history.terminal()
    journal = system.journal()
    assert judge.overlaps(journal) == []
    orders = judge.starts(journal)
    assert len(orders) == GROUPS
    for group, ids in orders.items():
        assert len(ids) == TASKS, f"{group}: each task once"
        numbers = [int(i.partition("-")[2]) for i in ids]
        for client in (0, 1):
            mine = [n for n in numbers if n % 2 == client]
            assert mine == sorted(mine), f"{group}: tasks of one client keep their order"
    assert_one_partition_each(system)
    assert forwarded(system) == strays(system)
    assert_check_warns(system)


@pytest.mark.parametrize("partitioner", [OURS, THEIRS])
def test_a_pause_holds_whoever_published_and_everybody_finds_the_group(system: System, partitioner: str) -> None:
    system.scheduler("s1")
    system.scheduler("s2")
    system.worker()
    group = elsewhere(system)
    system.publish_raw(group, b'{"type":"echo","id":"before"}', partitioner=partitioner)
    system.flush()
    system.history.wait_terminal(1)
    assert system.run("pause", group, "--note", "one account").returncode == 0
    for number in range(10):
        system.publish_raw(group, b'{"type":"echo","id":"held-%d"}' % number, partitioner=partitioner)
        system.publish(f"probe-{number}")
    system.flush()
    system.history.wait(lambda h: h.terminal() == 11 and all(h.of[f"held-{n}"] for n in range(10)))
    found = json.loads(system.run("explain", group, "held-9", "--json").stdout)
    assert (found["position_in_group"], found["paused"]["note"], found["parked"]) == (9, "one account", 9)
    assert system.run("cancel", group, "held-3").returncode == 0
    assert system.history.started_order(group) == ["before"], "the pause holds"
    assert system.run("resume", group).returncode == 0
    system.history.wait_terminal(21)
    assert system.history.started_order(group) == ["before", *(f"held-{n}" for n in range(10) if n != 3)]
    assert system.history.states("held-3")[-1] is TaskState.CANCELLED


def elsewhere(system: System) -> str:
    """A group that the two clients put into different partitions."""
    for number in range(100):
        group, numbers = f"account-{number}", set()
        for partitioner in (OURS, THEIRS):
            numbers.add(place(system, group, partitioner))
        if len(numbers) == 2:
            return group
    raise AssertionError("the two partitioners agree on everything")


def place(system: System, group: str, partitioner: str) -> int:
    return system.home(group) if partitioner == OURS else zlib.crc32(group.encode()) % system.settings.partitions


def task(group: int, number: int) -> bytes:
    return f'{{"type":"sleep","payload":0.002,"id":"{group}-{number}"}}'.encode()


def assert_check_warns(system: System) -> None:
    """Though all that it finds among the newest records has long been put right."""
    texts = [problem.text for problem in check_topics(system.settings) if not problem.fatal]
    assert any("outside of their groups' partitions" in text and "murmur2_random" in text for text in texts), texts


def assert_one_partition_each(system: System) -> None:
    """The history of a group lies in one partition, the one where it lives."""
    places = defaultdict(set)
    for message in system.read_all("task-events", system.settings.partitions):
        places[(message.key() or b"").decode()].add(message.partition())
    assert places == {f"g{g}": {system.home(f"g{g}")} for g in range(GROUPS)}


def strays(system: System) -> int:
    """What a stranger's client put elsewhere; forwarded copies say where they come from."""
    records = system.read_all("tasks", system.settings.partitions)
    originals = [m for m in records if "pstp.origin" not in dict(m.headers() or [])]
    assert len(originals) == GROUPS * TASKS
    found = Counter(m.partition() == system.home((m.key() or b"").decode()) for m in originals)
    assert found[False] > GROUPS, "this test is about strays"
    return found[False]


def forwarded(system: System) -> int:
    counts = [re.findall(r"^pstp_tasks_forwarded_total (\d+)", system.get(s, "/metrics"), re.M) for s in ("s1", "s2")]
    return sum(int(count) for found in counts for count in found)


def test_what_was_forwarded_and_is_still_elsewhere_is_rejected_and_does_not_go_round(system: System) -> None:
    """Also when somebody writes our own mark by hand, to wherever he likes."""
    system.scheduler()
    system.worker()
    home = system.home("g")
    wrong, other = ((home + n) % system.settings.partitions for n in (1, 2))
    publisher = PlacedPublisher(system.settings)
    value = b'{"type":"echo","id":"marked"}'
    publisher.put(b"g", value, wrong, [("pstp.origin", f"{other}:0".encode())])
    publisher.put(b"g", b'{"type":"echo","id":"odd mark"}', wrong, [("pstp.origin", b"\xff:none")])
    publisher.put(b"g", b'{"type":"echo","id":"plain"}', wrong)
    system.history.wait_terminal(3)
    assert [e.reason for e in system.history.events if e.state is TaskState.REJECTED] == ["wrong_partition"]
    assert system.history.states("odd mark")[-1] is system.history.states("plain")[-1] is TaskState.SUCCEEDED
    (letter,) = system.dead_letters()
    assert (letter.key(), letter.value()) == (b"g", value)
