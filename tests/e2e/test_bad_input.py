"""Bad input: each unreadable record is set aside byte for byte, told and counted; nothing stops and nothing is lost.

All records of this module lie mixed in the same four partitions, before one system: what one of them breaks, all see.
"""

import json
import re
import uuid
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from urllib.parse import quote

import confluent_kafka as ck
import pytest

from streams import limits
from streams.protocol import Event, Reason, TaskState
from streams.settings import Settings
from tests.support.placed import Place, PlacedPublisher
from tests.support.system import System

PARTITIONS = 4
LIMIT = limits.TASK_BYTES_MAX
GOOD = b'{"type":"echo","payload":1}'


class Bad(NamedTuple):
    key: bytes | None
    value: bytes | None
    reason: Reason
    headers: tuple[tuple[str, bytes | None], ...] = ()


def field(name: str, json_text: str) -> Bad:
    return Bad(b"g", f'{{"type":"echo","{name}":{json_text}}}'.encode(), Reason.WRONG_TYPE)


def bad_json(value: bytes) -> Bad:
    return Bad(b"g", value, Reason.BAD_JSON)


BAD = {
    "no key": Bad(None, GOOD, Reason.NO_GROUP),
    "empty key": Bad(b"", GOOD, Reason.NO_GROUP),
    "no value": Bad(b"g", None, Reason.NO_VALUE),
    "no value, with headers": Bad(b"g", None, Reason.NO_VALUE, (("a", b"1"), ("a", None), ("\u00e4", b"\xff\x00"))),
    "nothing at all": Bad(None, None, Reason.NO_VALUE),
    "empty key, no value": Bad(b"", None, Reason.NO_VALUE),
    "empty value": bad_json(b""),
    "key: no UTF-8": Bad(b"\x83\xff", GOOD, Reason.KEY_NOT_UTF8),
    "key: overlong": Bad(b"\xc0\xaf", GOOD, Reason.KEY_NOT_UTF8),
    "key: surrogate": Bad(b"\xed\xa0\x80", GOOD, Reason.KEY_NOT_UTF8),
    "key: cut off": Bad("ü".encode()[:1], GOOD, Reason.KEY_NOT_UTF8),
    "value: no UTF-8 in a string": Bad(b"g", b'{"type":"echo","payload":"\xff"}', Reason.VALUE_NOT_UTF8),
    "value: no UTF-8 in a name": Bad(b"g", b'{"type":"echo","\xc3":1}', Reason.VALUE_NOT_UTF8),
    "value: UTF-16": Bad(b"g", '{"type":"echo"}'.encode("utf-16"), Reason.VALUE_NOT_UTF8),
    "value: latin-1": Bad(b"g", '{"type":"écho"}'.encode("latin-1"), Reason.VALUE_NOT_UTF8),
    "value: bytes 0 to 255": Bad(b"g", bytes(range(256)), Reason.VALUE_NOT_UTF8),
    "value: zeros": bad_json(bytes(100)),
    "value: byte order mark": bad_json(b"\xef\xbb\xbf" + GOOD),
    "JSON: cut off": bad_json(GOOD[:-1]),
    "JSON: two of them": bad_json(GOOD + GOOD),
    "JSON: comma too many": bad_json(b'{"type":"echo",}'),
    "JSON: single quotes": bad_json(b"{'type':'echo'}"),
    "JSON: text": bad_json(b"echo"),
    "JSON: NaN": bad_json(b'{"type":"echo","payload":NaN}'),
    "JSON: NaN in an unknown field": bad_json(b'{"type":"echo","ratio":NaN}'),
    "JSON: Infinity": bad_json(b'{"type":"echo","payload":[-Infinity]}'),
    "JSON: leading zero": bad_json(b'{"type":"echo","payload":012}'),
    "no object: list": Bad(b"g", b'[{"type":"echo"}]', Reason.NOT_AN_OBJECT),
    "no object: string": Bad(b"g", b'"echo"', Reason.NOT_AN_OBJECT),
    "no object: number": Bad(b"g", b"1970670598291982290", Reason.NOT_AN_OBJECT),
    "no object: null": Bad(b"g", b"null", Reason.NOT_AN_OBJECT),
    "no type": Bad(b"g", b'{"payload":{"type":"echo"}}', Reason.WRONG_TYPE),
    "empty object": Bad(b"g", b"{}", Reason.WRONG_TYPE),
    "type: number": Bad(b"g", b'{"type":7}', Reason.WRONG_TYPE),
    "type: null": Bad(b"g", b'{"type":null}', Reason.WRONG_TYPE),
    "type: empty": Bad(b"g", b'{"type":""}', Reason.WRONG_TYPE),
    "type: too long": Bad(b"g", json.dumps({"type": "x" * 201}).encode(), Reason.WRONG_TYPE),
    "id: number": field("id", "7"),
    "id: empty": field("id", '""'),
    "labels: list": field("labels", '["a"]'),
    "labels: numbers": field("labels", '{"a":1}'),
    "max_attempts: 0": field("max_attempts", "0"),
    "max_attempts: text": field("max_attempts", '"3"'),
    "max_attempts: huge": field("max_attempts", "1" + "0" * 400),
    "timeout_s: negative": field("timeout_s", "-1"),
    "timeout_s: no number": field("timeout_s", "true"),
    "timeout_s: beyond numbers": field("timeout_s", "1e999"),
    "priority: huge": field("priority", str(2**63)),
    "not_before: words": field("not_before", '"tomorrow"'),
    "not_before: number": field("not_before", "1893456000"),
    "not_before: no offset": field("not_before", '"2031-05-01T08:00:00"'),
    "not_before: no such day": field("not_before", '"2031-02-30T08:00:00Z"'),
    "10,000 lists deep": Bad(
        b"g", b'{"type":"echo","payload":' + b"[" * 10_000 + b"]" * 10_000 + b"}", Reason.TOO_DEEP
    ),
    "10,000 objects deep": Bad(
        b"g", b'{"type":"echo","more":' + b'{"a":' * 10_000 + b"1" + b"}" * 10_000 + b"}", Reason.TOO_DEEP
    ),
    "10,000 deep, never closed": Bad(b"g", b"[" * 10_000, Reason.TOO_DEEP),
    "too large: value": Bad(b"g", b'{"type":"echo","payload":"' + b"x" * LIMIT + b'"}', Reason.TOO_LARGE),
    "too large: no JSON": Bad(b"g", b"\xff" * (LIMIT + 1), Reason.TOO_LARGE),
    "too large: key": Bad(b"k" * LIMIT, GOOD, Reason.TOO_LARGE),
    "too large: headers": Bad(b"g", GOOD, Reason.TOO_LARGE, (("big", b"\xff" * (LIMIT // 2)), ("big", b"h" * LIMIT))),
    "too large: by one byte": Bad(b"g", GOOD + b" " * (LIMIT - len(GOOD)), Reason.TOO_LARGE),
    "CloudEvent of another group": Bad(
        b"g", b'{"specversion":"1.0","type":"echo","id":"1","source":"/","partitionkey":"h","data":1}',
        Reason.GROUP_MISMATCH, (("content-type", b"application/cloudevents+json"),),
    ),
}  # fmt: skip

GROUPS = {
    "1,000 characters": "g" * 1000,
    "1,000 wide characters": "日" * 1000,
    "slashes": "a/b//c/",
    "one slash": "/",
    "dots": "..",
    "newlines": "a\nb\r\n",
    "control characters": "a\x00\t\x1b[31mb\x7f",
    "emoji": "🚀 👩‍👩‍👧",
    "space": " ",
    "percent": "%2F%00%",
    "query": "a?b=c&d#e",
    "quotes": "\"'`\\",
    "null": "null",
    "composed": "é",
    "decomposed": "e\u0301",
    "right to left": "\u202eabc",
}  # fmt: skip

PAYLOADS = {
    "64-bit integer": "1970670598291982290",
    "beyond 64 bits": str(2**64 + 1),
    "60 digits": "-" + "9" * 60,
    "exponent": "1e300",
    "tiny": "5e-324",
    "deep": "[" * 150 + "]" * 150,
    "escapes": r'"\u0000\ud83d\ude80\u2028</script>"',
    "same name twice": '{"a":1,"a":2}',
    "brackets in a string": json.dumps("[" * 20_000),
}  # fmt: skip

# Strict JSON that Python has no number for: readable, so it is no bad record; the handler that looks at it fails.
UNHEARD_OF = {"a number of 5,000 digits": "1" * 5000, "1e999": "1e999", "-1e999 inside": '{"a":[-1e999]}'}


class Sent(NamedTuple):
    """What was published and what became of it."""

    system: System
    bad: dict[str, Place]
    strangers: Place
    metrics: str
    letters: dict[Place, ck.Message]

    def events(self, place: Place) -> list[Event]:
        return self.system.history.of[f"{place[0]}-{place[1]}"]

    def of_group(self, group: str) -> list[Event]:
        return [e for e in self.system.history.events if e.group == group and e.state is not None]

    def states(self, group: str) -> list[TaskState]:
        return [e.state for e in self.of_group(group) if e.state]


@pytest.fixture(scope="module")
def sent(bootstrap: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sent]:
    settings = Settings(
        app=f"bad-{uuid.uuid4().hex[:8]}", bootstrap_servers=bootstrap, partitions=PARTITIONS, dispatch_partitions=4,
        lease_s=3,
    )  # fmt: skip
    with System(settings, tmp_path_factory.mktemp("bad-input")) as system:
        system.scheduler()
        system.worker()
        publisher, compressing = PlacedPublisher(settings), PlacedPublisher(settings, compression_type="gzip")
        on_each_partition(system, "before")
        places = {name: put(publisher, bad, turn % PARTITIONS) for turn, (name, bad) in enumerate(BAD.items())}
        strangers = compressing.put(b"g", b"\x00" * 8_000_000, 0)
        good = publish_good(system)
        on_each_partition(system, "after")
        system.flush()
        system.history.wait_terminal(2 * PARTITIONS + len(BAD) + 1 + good, 90)
        metrics = system.get("s1", "/metrics")
        letters = {place_of(letter): letter for letter in system.dead_letters()}
        yield Sent(system, places, strangers, metrics, letters)


def on_each_partition(system: System, name: str) -> None:
    """A good task in each partition."""
    for partition in range(PARTITIONS):
        system.publish(group_in(system, partition, name), "echo", id=f"{name}-{partition}")


def group_in(system: System, partition: int, name: str) -> str:
    return next(g for n in range(1000) if system.home(g := f"{name}{n}") == partition)


def put(publisher: PlacedPublisher, bad: Bad, partition: int) -> Place:
    return publisher.put(bad.key, bad.value, partition, list(bad.headers))


def publish_good(system: System) -> int:
    """How many of them reach an end."""
    for name, group in GROUPS.items():
        system.publish(group, "echo", name, id=f"first in {name}")
        system.publish(group, "echo", name, id=f"second in {name}")
    for name, payload in (PAYLOADS | UNHEARD_OF).items():
        system.publish_raw(f"payload {name}", f'{{"type":"echo","payload":{payload}}}'.encode())
    system.publish_raw("at the limit", padded_task(LIMIT - len("at the limit")))
    for number in range(3):
        system.publish("twins", "echo", number, id="twin")
    system.publish("past", "echo", id="past", not_before="1969-12-31T23:59:59.999-08:00")
    system.publish("far", "echo", id="far", not_before=ten_years_ahead().isoformat())
    system.publish("far", "echo", id="behind far")
    system.publish("unknown", "no.such.type", id="unknown")
    event = '{"specversion":"1.0","type":"echo","id":"ce","source":"/","partitionkey":"event","data":{"n":1}}'
    system.publish_raw(None, event.encode(), headers=[("content-type", b"application/cloudevents+json")])
    return 2 * len(GROUPS) + len(PAYLOADS) + len(UNHEARD_OF) + 1 + 3 + 1 + 1


def padded_task(size: int) -> bytes:
    start, end = b'{"type":"echo","id":"at the limit","payload":"', b'"}'
    return start + b"x" * (size - len(start) - len(end)) + end


def ten_years_ahead() -> datetime:
    return datetime.now(UTC).replace(microsecond=0) + timedelta(days=3652)


def place_of(letter: ck.Message) -> Place:
    marks = dict(letter.headers() or [])
    return int(marks["pstp.partition"] or b""), int(marks["pstp.offset"] or b"")


@pytest.mark.parametrize("name", BAD)
def test_an_unreadable_record_is_set_aside_byte_for_byte_and_told(sent: Sent, name: str) -> None:
    bad, place = BAD[name], sent.bad[name]
    letter = sent.letters[place]
    # A client may send no key or an empty one, and Kafka tells them apart.
    assert (letter.key(), letter.value()) == (bad.key, bad.value), name
    headers = letter.headers() or []
    assert headers[: len(bad.headers)] == list(bad.headers), name
    marks = dict(headers[len(bad.headers) :])
    assert (marks["pstp.reason"], marks["pstp.topic"]) == (bad.reason.encode(), b"tasks"), name
    assert marks["pstp.detail"], "says what its publisher should do"

    (event,) = sent.events(place)
    assert (event.state, event.reason) == (TaskState.REJECTED, bad.reason), name
    assert (event.origin_partition, event.origin_offset) == place
    assert event.note == (marks["pstp.detail"] or b"").decode()
    key = bad.key
    if key is None:
        assert event.group is None
    else:
        assert event.group is not None
        assert event.group[:1000] == key.decode(errors="backslashreplace")[:1000]


def test_what_a_stranger_compressed_beyond_all_limits_is_set_aside_as_far_as_it_fits(sent: Sent) -> None:
    letter = sent.letters[sent.strangers]
    assert letter.value() == b"\x00" * LIMIT
    marks = dict(letter.headers() or [])
    assert marks["pstp.reason"] == Reason.TOO_LARGE.encode()
    assert b"8000001 bytes" in (marks["pstp.cut"] or b"")
    assert [e.reason for e in sent.events(sent.strangers)] == [Reason.TOO_LARGE]


def test_each_unreadable_record_is_counted_once(sent: Sent) -> None:
    expected = Counter(bad.reason for bad in BAD.values()) + Counter([Reason.TOO_LARGE])
    counted = re.findall(r'^pstp_tasks_rejected_total\{reason="(\w+)"\} (\d+)', sent.metrics, re.MULTILINE)
    assert {reason: int(float(n)) for reason, n in counted} == dict(expected)
    unheard_of = len(UNHEARD_OF)
    assert len(sent.letters) == len(BAD) + 1 + unheard_of, "no more dead letters than bad records"


def test_good_tasks_in_the_same_partitions_all_run(sent: Sent) -> None:
    history = sent.system.history
    ids = [f"{name}-{partition}" for name in ("before", "after") for partition in range(PARTITIONS)]
    assert {i: history.states(i)[-1:] for i in ids} == {i: [TaskState.SUCCEEDED] for i in ids}


@pytest.mark.parametrize("name", GROUPS)
def test_keys_have_no_meaning(sent: Sent, name: str) -> None:
    group = GROUPS[name]
    ends = [e.task_id for e in sent.of_group(group) if e.state is TaskState.SUCCEEDED]
    assert ends == [f"first in {name}", f"second in {name}"]
    answer = sent.system.get("s1", f"/explain?group={quote(group, safe='')}")
    assert (answer["group"], answer["owned"], answer["phase"]) == (group, True, "idle")


@pytest.mark.parametrize("name", PAYLOADS)
def test_payloads_arrive_unchanged(sent: Sent, name: str) -> None:
    first, *_, last = sent.of_group(f"payload {name}")
    assert first.payload is not None and bytes(first.payload).decode() == PAYLOADS[name]
    assert last.state is TaskState.SUCCEEDED and last.result is not None
    assert json.loads(bytes(last.result)) == json.loads(PAYLOADS[name])


@pytest.mark.parametrize("name", UNHEARD_OF)
def test_a_number_beyond_pythons_is_kept_and_fails_the_handler_that_reads_it_at_once(sent: Sent, name: str) -> None:
    first, *_, last = sent.of_group(f"payload {name}")
    assert first.payload is not None and bytes(first.payload).decode() == UNHEARD_OF[name]
    assert (last.state, last.reason, last.attempt) == (TaskState.DEAD_LETTERED, Reason.INVALID_PAYLOAD, 1)
    assert last.error is not None and "out of range" in last.error.message


def test_a_task_at_the_size_limit_runs(sent: Sent) -> None:
    last = sent.system.history.of["at the limit"][-1]
    assert (last.state, last.result_cut) == (TaskState.SUCCEEDED, True)


def test_the_same_id_at_different_offsets_is_different_tasks_and_the_history_shows_all(sent: Sent) -> None:
    events = sent.of_group("twins")
    assert {e.task_id for e in events} == {"twin"}
    places = {(e.origin_partition, e.origin_offset) for e in events if e.state is TaskState.PARKED}
    assert len(places) == 3
    ends = [e for e in events if e.state is TaskState.SUCCEEDED]
    assert [json.loads(bytes(e.result or b"")) for e in ends] == [0, 1, 2]
    assert len({e.sequence for e in ends}) == 3
    assert sent.system.history.started_order("twins") == ["twin"] * 3


def test_not_before_in_the_past_runs_and_ten_years_ahead_waits_and_is_explained(sent: Sent) -> None:
    assert sent.states("past")[-1] is TaskState.SUCCEEDED
    assert sent.states("far") == [TaskState.PARKED] * 2
    answer = sent.system.get("s1", "/explain?group=far")
    assert (answer["blocker"], answer["parked"]) == ("not_before", 1)
    assert f"{ten_years_ahead():%Y-%m-%d}" in answer["text"]


def test_an_unknown_type_waits_and_is_explained(sent: Sent) -> None:
    assert sent.states("unknown") == [TaskState.PARKED]
    answer = sent.system.get("s1", "/explain?group=unknown")
    assert answer["blocker"] == "no_handler" and "no.such.type" in answer["text"]


def test_an_event_without_key_belongs_to_its_partitionkey(sent: Sent) -> None:
    assert sent.states("event")[-1] is TaskState.SUCCEEDED
    assert sent.system.history.of["ce"][0].group == "event"


def test_the_log_has_no_traceback(sent: Sent) -> None:
    for process in sent.system.processes:
        assert process.alive()
        assert "Traceback" not in process.log(), process.name


def test_what_is_out_of_bounds_is_refused_before_it_is_sent(sent: Sent) -> None:
    from producers import InvalidTaskError, TaskPublisher

    before = sent.system.read_all("tasks", PARTITIONS)
    with TaskPublisher(sent.system.settings) as publisher:
        for group, payload in (("g", "x" * LIMIT), ("", 1), ("g", float("nan")), ("g", {"\ud800": 1}), ("\ud800", 1)):
            with pytest.raises(InvalidTaskError):
                publisher.publish(group, "echo", payload)
    assert len(sent.system.read_all("tasks", PARTITIONS)) == len(before)
