"""The web application: routes, problems, and the order in which a request meets them."""

import asyncio
import html
import socket
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import structlog
from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.middleware.gzip import GZipMiddleware

from pstp.web import acting, models, pages, reading, streaming
from pstp.web.gate import Gate, TooLongError
from pstp.web.jobs import BusyError
from pstp.web.security import authorizer
from pstp.web.settings import LOOPBACK
from pstp.web.site import Site
from streams.errors import UserError

log = structlog.get_logger("web")

TITLES = {401: "who are you?", 403: "not allowed", 404: "not there", 409: "not now", 422: "not understood"}

_DOCS = "<!doctype html><title>PSTP: HTTP API</title><h1>HTTP API</h1><p><a href=/api/openapi.json>OpenAPI</a></p><dl>"


def make_app(site: Site) -> Gate:
    """The ASGI app.  Its hub runs from startup to shutdown."""
    return Gate(inner_app(site), hosts_of(site), site.metrics.requests)


def hosts_of(site: Site) -> frozenset[str]:
    """Names by which browsers may call this server; any other is a rebound one."""
    own = set() if site.web.host in LOOPBACK else {site.web.host.lower(), socket.gethostname().lower()}
    return frozenset(LOOPBACK | own | {host.lower() for host in site.web.hosts})


def inner_app(site: Site) -> FastAPI:
    app = FastAPI(
        title="PSTP", docs_url=None, redoc_url=None, openapi_url=None, lifespan=_lifespan(site),
        dependencies=[Depends(authorizer(site.keys, site.local))],
        responses={status: {"model": models.Problem} for status in (401, 403, 404, 409, 422, 503)},
    )  # fmt: skip
    app.include_router(streaming.routes(site))
    app.include_router(reading.routes(site))
    app.include_router(acting.routes(site))
    app.include_router(_self(app, site))
    app.include_router(pages.routes())
    app.add_exception_handler(StarletteHTTPException, _http)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(UserError, _user)
    app.add_exception_handler(TooLongError, _too_long)
    app.add_exception_handler(Exception, _broken)
    app.add_middleware(GZipMiddleware, minimum_size=2048, compresslevel=4)
    return app


def _lifespan(site: Site) -> Any:
    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        ticking = asyncio.create_task(site.hub.run())
        try:
            yield
        finally:
            ticking.cancel()
            with suppress(asyncio.CancelledError):
                await ticking

    return lifespan


def _self(app: FastAPI, site: Site) -> APIRouter:
    router = APIRouter(include_in_schema=False)

    @router.get("/livez")
    def livez() -> Response:
        return _checked(*site.metrics.is_live())

    @router.get("/readyz")
    def readyz() -> Response:
        return _checked(*site.metrics.is_ready())

    @router.get("/metrics")
    async def metrics() -> Response:
        return Response(site.metrics.text(), media_type=CONTENT_TYPE_LATEST)

    @router.get("/api/openapi.json")
    def openapi() -> Response:
        return JSONResponse(app.openapi())

    @router.get("/docs")
    def docs() -> Response:
        """The routes as a page without scripts; the document itself is /api/openapi.json."""
        rows = [
            f"<dt><code>{method.upper()} {html.escape(path)}</code><dd>{html.escape(about.get('description', ''))}"
            for path, methods in app.openapi()["paths"].items()
            for method, about in methods.items()
        ]
        page = _DOCS + "".join(rows) + "</dl>"
        return HTMLResponse(page, headers={"content-security-policy": pages.policy("none")})

    return router


def _checked(holds: bool, text: str) -> Response:
    return PlainTextResponse(text + "\n", 200 if holds else 503)


def problem(request: Request, status: int, detail: str, headers: Any = None) -> Response:
    title = TITLES.get(status, "refused" if status < 500 else "failed")
    body = models.Problem(title=title, status=status, detail=detail).model_dump()
    return JSONResponse(body, status, headers, media_type="application/problem+json")


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, StarletteHTTPException)
    return problem(request, error.status_code, str(error.detail), error.headers)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"][1:]) or str(first["loc"][0])
    return problem(request, 422, f"{where[:200]}: {first['msg']}")


async def _user(request: Request, error: Exception) -> Response:
    """A mistake of who asks, or something they can mend: in our own words."""
    status = 422 if isinstance(error, ValueError) else 409 if isinstance(error, BusyError) else 503
    return problem(request, status, str(error))


async def _too_long(request: Request, _error: Exception) -> Response:
    return problem(request, 413, "the body is too long")


async def _broken(request: Request, error: Exception) -> Response:
    # Without the values of variables: keys and payloads are among them.
    told = "".join(traceback.format_exception(error))[-8000:]
    log.error("a request failed", path=request.url.path, request=request.state.request_id, traceback=told)
    return problem(request, 500, "an error of ours: the server's log has it, under this request id")
