"""The stream: what changed, put together four times a second and sent to every browser as the same bytes.

Lives in one event loop; only `publish` may be called from another thread.  Each message moves its readers from one
version to the next: versions follow each other without a gap or a repetition, over restarts of the server too.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec

from pstp.web.folding import GroupRow
from pstp.web.store import Changed, Version
from streams.clock import now

TICK_S: Final = 0.25
OVERVIEW_MS: Final = 1000
HEARTBEAT_MS: Final = 2000
MESSAGES_MAX: Final = 40  # some 10 s of them: whoever is further behind is dropped
GROUPS_MAX: Final = 20_000


class Client:
    """One browser that listens.  `base`: the version behind which its messages begin."""

    def __init__(self, base: Version, task: "asyncio.Task[Any] | None") -> None:
        self.base = base
        self.task = task
        self.messages: asyncio.Queue[bytes] = asyncio.Queue(MESSAGES_MAX)
        self.dropped = False


class Hub:
    def __init__(
        self, version: Version, lag_s: Callable[[], float], overview: Callable[[], Awaitable[dict[str, Any]]]
    ) -> None:
        self._sent = version
        self._lag_s, self._overview = lag_s, overview
        self._lock = threading.Lock()
        self._version = version
        self._groups: dict[int, GroupRow] = {}
        self._unknown = False
        self._waiting: dict[str, asyncio.Event] = {}
        self._answered: list[str] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._overview_ms = self._heartbeat_ms = 0
        self._last_overview: dict[str, Any] = {}
        self.clients: set[Client] = set()
        self.drops = 0

    # -- from the follower's thread

    def publish(self, changed: Changed | None) -> None:
        """None: something changed, and what is not known."""
        with self._lock:
            if changed is None:
                self._unknown = True
            else:
                self._version = changed.version
                self._groups.update((group.id, group) for group in changed.groups)
                if len(self._groups) > GROUPS_MAX:
                    self._unknown = True
                if self._unknown:
                    self._groups.clear()
                self._answered += changed.answered
        if changed is not None and changed.answered and self._loop is not None:
            self._loop.call_soon_threadsafe(self._wake)

    # -- in the loop

    async def run(self) -> None:
        self._loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(TICK_S)
            await self.tick()

    async def tick(self) -> None:
        """Tell everybody what happened since the last one."""
        self._wake()
        with self._lock:
            version, groups, unknown = self._version, self._groups, self._unknown
            self._groups, self._unknown = {}, False
        mono_ms = now().mono_ms
        overview = None
        if self.clients and mono_ms - self._overview_ms >= OVERVIEW_MS:
            overview, self._overview_ms = await self._overview(), mono_ms
        before, self._sent = self._sent, version
        if not self.clients:
            return
        if unknown or version.life != before.life:
            self._send(_message("resync", str(version), {}))
        elif version.events != before.events or (overview is not None and overview != self._last_overview):
            self._send(delta(version, version.events - before.events, list(groups.values()), overview))
        if overview is not None:
            self._last_overview = overview
        if mono_ms - self._heartbeat_ms >= HEARTBEAT_MS:
            self._heartbeat_ms = mono_ms
            self._send(self.heartbeat(version))

    def join(self, task: "asyncio.Task[Any] | None") -> Client:
        client = Client(self._sent, task)
        self.clients.add(client)
        return client

    def end(self) -> None:
        """Let every browser go: they come back to whoever serves next."""
        for client in list(self.clients):
            if client.task is not None:
                client.task.cancel()

    def leave(self, client: Client) -> None:
        self.clients.discard(client)

    def heartbeat(self, version: Version) -> bytes:
        return _message("heartbeat", str(version), {"server_ms": now().wall_ms, "lag_s": self._lag_s()})

    def resync(self, version: Version) -> bytes:
        return _message("resync", str(version), {})

    async def answered(self, command_id: str, timeout_s: float) -> None:
        """Wait until an answer to this command is in the read model, or time is over."""
        event = self._waiting.setdefault(command_id, asyncio.Event())
        try:
            await asyncio.wait_for(event.wait(), timeout_s)
        except TimeoutError:
            pass
        finally:
            self._waiting.pop(command_id, None)

    def _wake(self) -> None:
        with self._lock:
            answered, self._answered = self._answered, []
        for command_id in answered:
            if (event := self._waiting.get(command_id)) is not None:
                event.set()

    def _send(self, message: bytes) -> None:
        for client in list(self.clients):
            try:
                client.messages.put_nowait(message)
            except asyncio.QueueFull:
                self.drops += 1
                client.dropped = True
                self.clients.discard(client)
                if client.task is not None:
                    client.task.cancel()


def delta(version: Version, events: int, groups: list[GroupRow], overview: dict[str, Any] | None) -> bytes:
    data: dict[str, Any] = {
        "server_ms": now().wall_ms, "events": events, "groups": [group.change() for group in groups],
    }  # fmt: skip
    if overview is not None:
        data["overview"] = overview
    return _message("delta", str(version), data)


def _message(kind: str, version: str, data: dict[str, Any]) -> bytes:
    return b"event: %s\nid: %s\ndata: %s\n\n" % (kind.encode(), version.encode(), msgspec.json.encode(data))
