"""The small read-only HTTP server of schedulers and workers: /metrics, /livez, /readyz and what the caller adds."""

import errno
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import msgspec
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from streams import limits
from streams.errors import UserError

# Answers one GET: (HTTP status, anything that msgspec can write as JSON).
Route = Callable[[web.Request], Awaitable[tuple[int, Any]]]
# A group's id may be as long as a whole task, and percent-encoding makes three bytes of one.
_URL_BYTES_MAX: Final = 3 * limits.TASK_BYTES_MAX + limits.KIB
# (whether it holds, what a person reads about it)
Check = Callable[[], tuple[bool, str]]


class HttpServer:
    """Serves on `address` ("host:port", port 0 takes a free one) from `start()` to `stop()`, in the running event loop.

    `live` means progress, `ready` means that work can be given to this process; a check that does not hold answers 503.
    `routes` maps aiohttp paths such as "/groups" to functions; pass group ids in the query, they may hold slashes.
    """

    def __init__(
        self,
        address: str,
        registry: CollectorRegistry,
        live: Check,
        ready: Check,
        routes: Mapping[str, Route] | None = None,
    ) -> None:
        self._host, self._port = _split(address)
        self._app = web.Application()
        self._app.router.add_get("/metrics", _metrics(registry))
        self._app.router.add_get("/livez", _check(live))
        self._app.router.add_get("/readyz", _check(ready))
        for path, route in (routes or {}).items():
            self._app.router.add_get(path, _json(route))
        self._runner: web.AppRunner | None = None

    async def start(self) -> str:
        """The address that others can use, "http://host:port".  Raises `UserError` if it cannot listen there."""
        self._runner = web.AppRunner(self._app, access_log=None, shutdown_timeout=1.0, max_line_size=_URL_BYTES_MAX)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self._port)
        try:
            await site.start()
        except OSError as error:
            await self._runner.cleanup()
            why = "the port is taken" if error.errno == errno.EADDRINUSE else str(error)
            raise UserError(
                f"cannot serve HTTP on {self._host}:{self._port}, {why}: set PSTP_HTTP to another host:port"
            ) from error
        port = self._runner.addresses[0][1]
        everywhere = self._host in ("0.0.0.0", "::", "")
        host = socket.gethostname() if everywhere else self._host
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()


def _split(address: str) -> tuple[str, int]:
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise UserError(f"{address!r} is no host:port: set PSTP_HTTP to something like 127.0.0.1:8080")
    return host.strip("[]"), int(port)


def _metrics(registry: CollectorRegistry) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def metrics(_request: web.Request) -> web.Response:
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    return metrics


def _check(check: Check) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(_request: web.Request) -> web.Response:
        holds, text = check()
        return web.Response(status=200 if holds else 503, text=text + "\n")

    return answer


def _json(route: Route) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(request: web.Request) -> web.Response:
        status, body = await route(request)
        return web.Response(status=status, body=msgspec.json.encode(body), content_type="application/json")

    return answer
