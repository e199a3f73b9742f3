"""The file goes to `tasks` as it is: in order, under its planes' keys, and without a key where it has none."""

from contextlib import closing

from confluent_kafka.admin import AdminClient, NewTopic

from pstp.demo.checks import check_dead_letters, expect
from pstp.demo.data import read_flights
from pstp.demo.publishing import Publishing
from pstp.verify.reader import TopicReader
from streams.intake import AcceptedTask, read_task
from streams.murmur2 import home_partition
from streams.protocol import Reason
from streams.settings import Settings
from tests.support.system import System, until

ROWS = 3_000


def test_all_flights_are_published_in_order(settings: Settings) -> None:
    admin = AdminClient(settings.kafka())
    for made in admin.create_topics([NewTopic(settings.topic("tasks"), settings.partitions, 1)]).values():
        made.result()
    until(lambda: settings.topic("tasks") in admin.list_topics().topics, what="the broker shows the topic")
    publishing = Publishing(settings, ROWS)
    publishing.start()
    publishing.join()
    assert publishing.error is None
    assert publishing.published == ROWS
    rows: dict[str | None, list[int]] = {}
    with closing(TopicReader(settings, settings.topic("tasks"))) as tasks:
        for partition in tasks.bounds:
            for message in tasks.read(partition):
                task = read_task(message.key(), message.value(), None, partition=0, offset=0)
                if isinstance(task, AcceptedTask):
                    assert home_partition(task.key, settings.partitions) == partition
                    rows.setdefault(task.group, []).append(int(bytes(task.payload).split(b",")[0].split(b":")[1]))
                else:
                    assert task.reason is Reason.NO_GROUP
                    rows.setdefault(None, []).append(0)
    expected: dict[str | None, list[int]] = {}
    for flight in read_flights(ROWS):
        expected.setdefault(flight.plane, []).append(0 if flight.plane is None else flight.row)
    assert rows == expected


def test_dead_letters_of_flights_without_a_tail_number(system: System) -> None:
    keyless = expect(ROWS).keyless
    assert keyless
    flights = {flight.row: flight for flight in read_flights(ROWS)}

    def bury(row: int, reason: str = "no_group") -> None:
        value = b'{"type":"flight.log","payload":%s}' % flights[row].payload_json
        system.publish_raw(None, value, topic="dead-letters", headers=[("pstp.reason", reason)])
        system.flush()

    for row in keyless:
        bury(row)
    assert check_dead_letters(system.settings, keyless).ok
    assert not check_dead_letters(system.settings, keyless | {ROWS + 1}).ok, "one is missing"
    bury(min(keyless))
    assert not check_dead_letters(system.settings, keyless).ok, "one is there twice"
    assert not check_dead_letters(system.settings, keyless - {min(keyless)}).ok
    bury(1, "attempts_spent")
    assert "1 other dead letters" in check_dead_letters(system.settings, keyless).text
