"""C-03: a key that is no UTF-8 was taken while the process ran, and stopped every start after that.

Elsewhere the table accepted the key, and recovery crashed on reading it back (robinhood/faust #214,
mage-ai/mage-ai #5853).
"""

import json
import shutil
from base64 import b64decode

from streams.protocol import Reason, TaskState
from tests.support.placed import Place, PlacedPublisher
from tests.support.system import System

REFUSED = (b"\x83\xff", b"\xc0\xaf", b"\xe0\x80\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"ok\xff", b"\xfe\xff\x00a")
VALID = b"a\x00b"
PARTITIONS = range(4)


def test_keys_that_are_no_utf8_are_refused_once_and_never_keep_a_partition_from_loading(system: System) -> None:
    scheduler = system.scheduler()
    publisher = PlacedPublisher(system.settings)
    places: dict[Place, bytes] = {}
    for partition in PARTITIONS:
        for key in REFUSED:
            places[publisher.put(key, b'{"type":"echo"}', partition)] = key
        good(system, partition, "before")
    system.publish(VALID, "echo", id="valid, before")
    system.flush()
    parked = len(PARTITIONS) + 1
    system.history.wait(lambda h: h.count(TaskState.REJECTED) == len(places) and h.count(TaskState.PARKED) == parked)

    scheduler.kill()
    for path in system.folder.iterdir():  # whatever it kept on disk
        if path.is_dir():
            shutil.rmtree(path)
    for partition in PARTITIONS:
        good(system, partition, "after")
    system.publish(VALID, "echo", id="valid, after")
    system.flush()
    restarted = system.scheduler()
    system.worker()
    system.history.wait_terminal(len(places) + 2 * parked, 30)

    history = system.history
    assert history.count(TaskState.SUCCEEDED) == 2 * parked
    assert history.started_order("a\x00b") == ["valid, before", "valid, after"]
    for partition, offset in places:
        (event,) = history.of[f"{partition}-{offset}"]
        assert (event.state, event.reason) == (TaskState.REJECTED, Reason.KEY_NOT_UTF8)
    letters = {(place(m.headers(), "partition"), place(m.headers(), "offset")): m.key() for m in system.dead_letters()}
    assert letters == places, "each once, and its key lossless"
    assert "Traceback" not in restarted.log()
    listed = json.loads(system.run("dead-letters", "--json").stdout)
    keys = {x["task_id"]: b64decode(x["key_base64"]) for x in listed}
    assert keys == {f"{partition}-{offset}": key for (partition, offset), key in places.items()}


def good(system: System, partition: int, name: str) -> None:
    group = next(g for n in range(1000) if system.home(g := f"good{n}") == partition)
    system.publish(group, "echo", id=f"{name} {partition}")


def place(headers: object, name: str) -> int:
    assert isinstance(headers, list)
    return int(dict(headers)[f"pstp.{name}"])
