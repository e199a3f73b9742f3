"""The first thing a request meets: its id, whose page sent it, how large it is, and the headers of every answer."""

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

import structlog

from pstp.web.metrics import TURNED_AWAY, Requests, route_of
from pstp.web.security import refusal
from streams import limits
from streams.clock import mono_ns, new_id

log = structlog.get_logger("web")

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

BODY_BYTES_MAX: Final = limits.RECORD_BYTES_MAX
_HEADERS: Final = [
    (b"x-content-type-options", b"nosniff"), (b"x-frame-options", b"DENY"), (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"), (b"cross-origin-resource-policy", b"same-origin"),
]  # fmt: skip
# Answers of the API show nothing even if a browser is made to open them as a page.
_API_POLICY: Final = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'; sandbox")


class Gate:
    """Wraps an ASGI app."""

    def __init__(self, app: Any, hosts: frozenset[str], requests: Requests) -> None:
        self._app, self._hosts, self._requests = app, hosts, requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id, began_ns = new_id(), mono_ns()
        scope.setdefault("state", {})["request_id"] = request_id
        headers: dict[str, str] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.decode("latin-1").lower(), value.decode("latin-1"))

        async def say(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                route = TURNED_AWAY if refused is not None else route_of(scope)
                seconds = (mono_ns() - began_ns) / 1_000_000_000
                self._requests.note(route, scope["method"], message["status"], seconds)
                given = {name.lower() for name, _ in message["headers"]}
                more = [*_HEADERS, (b"x-request-id", request_id.encode())]
                if b"cache-control" not in given:
                    more.append((b"cache-control", b"no-store"))
                if b"content-security-policy" not in given:
                    more.append(_API_POLICY)
                message = {**message, "headers": [*message["headers"], *more]}
            await send(message)

        refused = refusal(scope["method"], scope["path"], headers, self._hosts)
        if refused is None and _too_long(headers):
            refused = 413, f"the body may have {BODY_BYTES_MAX} bytes"
        if refused is not None:
            await _problem(say, *refused)
            return
        await self._app(scope, _counted(receive), say)


def _too_long(headers: dict[str, str]) -> bool:
    length = headers.get("content-length", "0")
    return not length.isdigit() or len(length) > 9 or int(length) > BODY_BYTES_MAX


class TooLongError(Exception):
    """A body without a length that went on for too long."""


def _counted(receive: Receive) -> Receive:
    left = BODY_BYTES_MAX

    async def counted() -> MutableMapping[str, Any]:
        nonlocal left
        message = await receive()
        left -= len(message.get("body", b""))
        if left < 0:
            raise TooLongError
        return message

    return counted


async def _problem(send: Send, status: int, detail: str) -> None:
    body = json.dumps({"type": "about:blank", "title": "refused", "status": status, "detail": detail}).encode()
    headers = [(b"content-type", b"application/problem+json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
