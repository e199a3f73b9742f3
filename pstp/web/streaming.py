"""`GET /api/stream`: server-sent events that go on where a browser left off."""

import asyncio
from typing import Any, Final

from fastapi import APIRouter, HTTPException, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from pstp.web.gate import Receive, Scope, Send
from pstp.web.hub import Client, Hub, delta
from pstp.web.queries import Queries
from pstp.web.site import Site
from pstp.web.store import Version

CATCH_UP_MAX: Final = 20_000
_HEADERS: Final = {"content-type": "text/event-stream", "x-accel-buffering": "no", "cache-control": "no-store"}


def routes(site: Site) -> APIRouter:
    router = APIRouter()

    @router.get("/api/stream", response_class=Response, responses={200: {"content": {"text/event-stream": {}}}})
    async def stream(request: Request, last_event_id: str = "") -> Response:
        """Deltas, heartbeats and resyncs.  `Last-Event-ID`, or the query for a first connection, resumes."""
        if len(site.hub.clients) >= site.web.clients_max:
            raise HTTPException(503, f"{site.web.clients_max} browsers listen already: see PSTP_WEB_CLIENTS_MAX")
        return Stream(site.hub, site.queries, request.headers.get("last-event-id") or last_event_id)

    return router


class Stream(Response):
    """Runs until the browser is gone, or is dropped for being too slow."""

    def __init__(self, hub: Hub, queries: Queries, last_id: str) -> None:
        super().__init__(headers=_HEADERS)
        self._hub, self._queries, self._last_id = hub, queries, last_id
        del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        client = self._hub.join(None)
        sending = asyncio.create_task(self._send_all(client, send))
        client.task = sending
        gone = asyncio.create_task(_gone(receive))
        try:
            await asyncio.wait({sending, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._hub.leave(client)
            for task in (sending, gone):
                task.cancel()
            await asyncio.gather(sending, gone, return_exceptions=True)

    async def _send_all(self, client: Client, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        for message in await run_in_threadpool(self._first, client.base):
            await send({"type": "http.response.body", "body": message, "more_body": True})
        while True:
            body = await client.messages.get()
            while not client.messages.empty():
                body += client.messages.get_nowait()
            await send({"type": "http.response.body", "body": body, "more_body": True})

    def _first(self, base: Version) -> list[bytes]:
        """What brings the browser to `base`, where the hub's messages go on."""
        heartbeat = self._hub.heartbeat(base)
        if not self._last_id:
            return [heartbeat]
        seen = Version.parse(self._last_id)
        if seen is None or seen.life != base.life or seen.events > base.events:
            return [self._hub.resync(base), heartbeat]
        if seen.events == base.events:
            return [heartbeat]
        changed = self._queries.changed_since(seen.offsets, CATCH_UP_MAX)
        if changed is None:
            return [self._hub.resync(base), heartbeat]
        return [delta(base, base.events - seen.events, changed, None), heartbeat]


async def _gone(receive: Receive) -> None:
    while True:
        message: Any = await receive()
        if message["type"] == "http.disconnect":
            return
