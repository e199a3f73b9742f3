"""A TCP proxy between clients and brokers: it delays, cuts one direction, or stalls, link by link.

A link is all connections of one client, to whichever broker.  Each broker has a listener per link that advertises the
proxy's port, so a client that came through its link goes on through it.
"""

import asyncio
import threading
from typing import Final, Literal

Direction = Literal["up", "down"]  # to the broker, from the broker

_CHUNK_BYTES: Final = 64 * 1024


class Link:
    """What happens to the bytes of one client.  Change it through `Proxy`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.delay_s = 0.0
        self.cut: frozenset[Direction] = frozenset()
        self.flowing = asyncio.Event()
        self.flowing.set()
        self.robbed: set[asyncio.BaseTransport] = set()  # connections that have lost bytes: they must not go on
        self.bytes = 0
        self.connections = 0


class Proxy:
    """Runs in a thread of its own, with a loop of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._links: dict[str, Link] = {}
        self._servers: list[asyncio.Server] = []
        self._pumps: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()

    def link(self, name: str) -> Link:
        return self._links[name]

    def forward(self, name: str, host: str, listen_port: int, target_port: int) -> None:
        """Accept connections of link `name` on `listen_port` for the broker at `target_port`."""

        async def serve() -> None:
            link = self._links.setdefault(name, Link(name))
            server = await asyncio.start_server(
                lambda reader, writer: self._accept(link, host, target_port, reader, writer), host, listen_port
            )
            self._servers.append(server)

        self._do(serve())

    def delay(self, name: str, delay_s: float) -> None:
        """Each piece of data waits that long, in order; 0 heals."""

        async def change() -> None:
            self._links[name].delay_s = delay_s

        self._do(change())

    def stall(self, name: str) -> None:
        """Nothing moves, in either direction, until `heal`; nothing is lost."""

        async def change() -> None:
            self._links[name].flowing.clear()

        self._do(change())

    def cut(self, name: str, *directions: Direction) -> None:
        """What goes that way disappears, and nobody is told: connections stay open."""

        async def change() -> None:
            self._links[name].cut = frozenset(directions)

        self._do(change())

    def heal(self, name: str) -> None:
        """All is well again; connections that have lost bytes are reset, as TCP would do in the end."""

        async def change() -> None:
            link = self._links[name]
            link.delay_s, link.cut = 0.0, frozenset()
            link.flowing.set()
            for transport in link.robbed:
                transport.abort()  # type: ignore[attr-defined]
            link.robbed.clear()

        self._do(change())

    def close(self) -> None:
        async def stop() -> None:
            for server in self._servers:
                server.close()
            for pump in self._pumps:
                pump.cancel()
            await asyncio.gather(*self._pumps, return_exceptions=True)

        self._do(stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def _do(self, coroutine: "asyncio.coroutines.Coroutine[object, object, None]") -> None:  # type: ignore[name-defined]
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)

    async def _accept(
        self, link: Link, host: str, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        link.connections += 1
        try:
            far_reader, far_writer = await asyncio.open_connection(host, port)
        except OSError:
            writer.close()
            return
        ends = (writer.transport, far_writer.transport)
        pumps = [
            asyncio.create_task(self._pump(link, "up", reader, far_writer, ends)),
            asyncio.create_task(self._pump(link, "down", far_reader, writer, ends)),
        ]
        for pump in pumps:
            self._pumps.add(pump)
            pump.add_done_callback(self._pumps.discard)
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        # A cut link does not bring the news that the other end has gone either.
        while not link.flowing.is_set() or link.cut:
            await asyncio.sleep(0.05)
        for transport in ends:
            transport.abort()
            link.robbed.discard(transport)

    async def _pump(
        self, link: Link, direction: Direction, reader: asyncio.StreamReader, writer: asyncio.StreamWriter,
        ends: tuple[asyncio.BaseTransport, ...],
    ) -> None:  # fmt: skip
        try:
            while data := await reader.read(_CHUNK_BYTES):
                if link.delay_s:
                    await asyncio.sleep(link.delay_s)
                await link.flowing.wait()
                if direction in link.cut:
                    link.robbed.update(ends)
                    continue
                link.bytes += len(data)
                writer.write(data)
                await writer.drain()
        except OSError:
            return
