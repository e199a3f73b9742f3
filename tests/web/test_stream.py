"""The stream: nothing missed, nothing told twice, over restarts of the server; slow readers go, others stay."""

import asyncio
import json
import signal
from typing import Any

import httpx
import pytest

from pstp.web.folding import GroupRow
from pstp.web.hub import MESSAGES_MAX, Hub
from pstp.web.store import Changed, Version
from tests.support.system import until
from tests.web.conftest import Served


class Reader:
    """A browser's fold of the stream: rows of groups, and how many events it was told of."""

    def __init__(self) -> None:
        self.groups: dict[str, Any] = {}
        self.events = 0
        self.last_id = ""
        self.resyncs = 0

    def read(self, served: Served, enough: Any) -> None:
        """From where it left off until `enough(self)`, or the connection ends."""
        with httpx.stream(
            "GET", f"{served.url}/api/stream", params={"last_event_id": self.last_id}, timeout=20
        ) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            kind = ""
            try:
                for line in answer.iter_lines():
                    name, _, value = line.partition(": ")
                    if name == "event":
                        kind = value
                    elif name == "id":
                        self.last_id = value
                    elif name == "data":
                        self.take(kind, json.loads(value))
                    elif enough(self):
                        return
            except httpx.TransportError:
                return

    def take(self, kind: str, data: Any) -> None:
        self.resyncs += kind == "resync"
        if kind == "delta":
            self.events += data["events"]
            self.groups.update((group["group"], group) for group in data["groups"])


def test_a_reader_that_comes_back_misses_nothing_and_hears_nothing_twice(served: Served) -> None:
    reader = Reader()
    reader.read(served, lambda r: r.last_id)  # where it begins
    for n in range(30):
        served.system.publish(f"s{n % 10}", payload=n)
    served.system.flush()
    reader.read(served, lambda r: r.events > 20)  # goes away in the middle
    for n in range(30):
        served.system.publish(f"s{n % 10}", payload=n)
    served.system.flush()
    assert served.process.terminate() == 0
    for n in range(30):  # while nobody serves
        served.system.publish(f"s{n % 10}", payload=n)
    served.system.flush()
    served.system.history.wait_terminal(90)
    served.start()
    total = len(served.system.history.events)
    reader.read(served, lambda r: r.events >= total)
    assert (reader.events, reader.resyncs) == (total, 0)
    assert {name: g["done"] for name, g in reader.groups.items()} == {f"s{n}": 9 for n in range(10)}
    columns = served.get("/api/groups/columns")
    assert dict(zip(columns["ids"], columns["done"], strict=True)) == {n: g["done"] for n, g in reader.groups.items()}


def test_a_kill_of_the_server_loses_nothing_either(served: Served) -> None:
    for n in range(200):
        served.system.publish(f"k{n % 20}")
    served.system.flush()
    served.process.send(signal.SIGKILL)
    served.process.popen.wait(10)
    served.start()
    terminal = until(lambda: (served.system.history.read(), served.system.history.terminal())[1] >= 290)
    assert terminal
    until(lambda: served.get("/api/groups", q="k", limit=1000)["items"][19:])
    until(lambda: sum(served.get("/api/groups/columns")["done"]) == served.system.history.terminal())


def test_a_rebuilt_read_model_holds_the_same_and_says_that_ids_are_new(served: Served) -> None:
    reader = Reader()
    reader.read(served, lambda r: r.last_id)
    before = served.get("/api/groups/columns")
    assert served.process.terminate() == 0
    served.start("--rebuild")
    after = served.get("/api/groups/columns")
    assert sorted(zip(*after.values(), strict=True)) == sorted(zip(*before.values(), strict=True))
    assert "folded" in served.process.log()
    reader.read(served, lambda r: r.resyncs)
    assert reader.resyncs == 1


def test_an_unknown_id_is_told_to_load_again(served: Served) -> None:
    for last in ("nonsense", "0123.5.0_1", "é"):
        reader = Reader()
        reader.last_id = last
        reader.read(served, lambda r: r.resyncs)
        assert reader.resyncs == 1


@pytest.mark.long
def test_two_hundred_browsers_hear_the_same(served: Served) -> None:
    async def listen(client: httpx.AsyncClient, ready: asyncio.Semaphore) -> list[str]:
        heard: list[str] = []
        async with client.stream("GET", "/api/stream") as answer:
            async for line in answer.aiter_lines():
                if line.startswith("id: ") and not heard:
                    ready.release()
                if line.startswith("data: ") and (data := json.loads(line[6:])).get("groups"):
                    heard += [group["group"] for group in data["groups"]]
                    if "last" in heard:
                        return sorted(set(heard))
        return []

    async def all_listen() -> list[list[str]]:
        limits = httpx.Limits(max_connections=200)
        async with httpx.AsyncClient(base_url=served.url, limits=limits, timeout=30) as client:
            ready = asyncio.Semaphore(0)
            readers = [asyncio.create_task(listen(client, ready)) for _ in range(200)]
            for _ in range(200):
                await ready.acquire()
            for n in range(20):
                served.system.publish(f"all-{n}")
            served.system.flush()
            await asyncio.to_thread(served.settled, "all-19", "idle")
            served.system.publish("last")
            served.system.flush()
            return await asyncio.gather(*readers)

    heard = asyncio.run(all_listen())
    assert len(heard) == 200
    assert all(set(one) >= {f"all-{n}" for n in range(20)} | {"last"} for one in heard)


def changed(n: int) -> Changed:
    return Changed(Version("life", n, {0: n}), 1, [GroupRow(1, "g", 0, done=n)], [])


def test_a_slow_browser_is_dropped_and_the_others_go_on() -> None:
    async def run() -> None:
        async def overview() -> dict[str, Any]:
            return {}

        hub = Hub(Version("life", 0, {0: 0}), lambda: 0.0, overview)
        never = asyncio.create_task(asyncio.Event().wait())
        slow, quick = hub.join(never), hub.join(None)
        told = 0
        for n in range(1, MESSAGES_MAX + 3):
            hub.publish(changed(n))
            await hub.tick()
            while not quick.messages.empty():
                told += b"event: delta" in quick.messages.get_nowait()
        assert slow.dropped and slow not in hub.clients and hub.drops == 1
        assert told == MESSAGES_MAX + 2 and quick in hub.clients
        try:
            await never
        except asyncio.CancelledError:
            return
        raise AssertionError("its response goes on")

    asyncio.run(run())


def test_changes_between_two_ticks_are_told_once_as_they_are_at_last() -> None:
    async def run() -> None:
        async def overview() -> dict[str, Any]:
            return {"ready": 1}

        hub = Hub(Version("life", 0, {0: 0}), lambda: 0.0, overview)
        client = hub.join(None)
        for n in range(1, 50):
            hub.publish(changed(n))
        await hub.tick()
        message = client.messages.get_nowait().decode()
        data = json.loads(message.partition("data: ")[2])
        assert data["events"] == 49 and [g["done"] for g in data["groups"]] == [49] and data["overview"] == {"ready": 1}
        hub.publish(None)
        await hub.tick()
        kinds = []
        while not client.messages.empty():
            kinds.append(client.messages.get_nowait().split(b"\n")[0])
        assert b"event: resync" in kinds

    asyncio.run(run())
