"""Who may call which route: one table, and the checks that come before it."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from fastapi import HTTPException, Request
from starlette.concurrency import run_in_threadpool

from pstp.web.keys import Keys, Principal, Role
from streams.clock import now
from streams.protocol import CommandKind

COOKIE: Final = "pstp_session"
SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})

# Every route is in here, or is not served: `tests/web/test_roles.py` walks them all.
ROLES: Final[Mapping[tuple[str, str], Role]] = {
    ("GET", "/livez"): Role.ANYONE,
    ("GET", "/readyz"): Role.ANYONE,
    ("GET", "/api/session"): Role.ANYONE,
    ("POST", "/api/session"): Role.ANYONE,
    ("DELETE", "/api/session"): Role.ANYONE,
    ("GET", "/assets/{name}"): Role.ANYONE,
    ("GET", "/{path:path}"): Role.ANYONE,  # the page, which holds no data
    ("GET", "/docs"): Role.VIEWER,
    ("GET", "/metrics"): Role.VIEWER,
    ("GET", "/api/openapi.json"): Role.VIEWER,
    ("GET", "/api/stream"): Role.VIEWER,
    ("GET", "/api/overview"): Role.VIEWER,
    ("GET", "/api/members"): Role.VIEWER,
    ("GET", "/api/groups"): Role.VIEWER,
    ("GET", "/api/groups/columns"): Role.VIEWER,
    ("GET", "/api/groups/detail"): Role.VIEWER,
    ("GET", "/api/groups/{group:path}"): Role.VIEWER,
    ("GET", "/api/tasks"): Role.VIEWER,
    ("GET", "/api/tasks/detail"): Role.VIEWER,
    ("GET", "/api/tasks/payload"): Role.VIEWER,
    ("GET", "/api/tasks/{task_id:path}"): Role.VIEWER,
    ("GET", "/api/dead-letters"): Role.VIEWER,
    ("GET", "/api/commands/{command_id}"): Role.VIEWER,
    ("GET", "/api/jobs"): Role.VIEWER,
    ("GET", "/api/redrives/{job_id}"): Role.VIEWER,
    ("GET", "/api/bulk/{job_id}"): Role.VIEWER,
    ("POST", "/api/tasks"): Role.OPERATOR,
    ("POST", "/api/groups/{group:path}/commands"): Role.OPERATOR,
    ("POST", "/api/commands"): Role.OPERATOR,
    ("POST", "/api/redrives"): Role.OPERATOR,
    ("DELETE", "/api/redrives/{job_id}"): Role.OPERATOR,
    ("POST", "/api/bulk"): Role.OPERATOR,
    ("DELETE", "/api/bulk/{job_id}"): Role.OPERATOR,
}

# What cannot be taken back asks for more than the route does.
KIND_ROLES: Final[Mapping[CommandKind, Role]] = {
    CommandKind.FORGET_GROUP: Role.ADMIN,
    CommandKind.DISCARD_DEAD_LETTER: Role.ADMIN,
}


def authorizer(keys: Keys | None, local: Principal) -> Callable[[Request], Awaitable[None]]:
    """A dependency of every route: who asks, and whether they may.  Without keys everybody is `local`."""

    async def authorize(request: Request) -> None:
        route: Any = request.scope.get("route")
        needed = ROLES.get(("GET" if request.method == "HEAD" else request.method, getattr(route, "path", "")))
        if needed is None:
            raise HTTPException(403, "nobody has said who may call this route")
        principal = local if keys is None else await _who(keys, request)
        request.state.principal = principal
        require(principal, needed)

    return authorize


def require(principal: Principal | None, needed: Role) -> None:
    """Raises `HTTPException` 401 or 403."""
    if needed is Role.ANYONE:
        return
    if principal is None:
        raise HTTPException(
            401, "sign in, or send an API key as `Authorization: Bearer KEY`", {"WWW-Authenticate": "Bearer"}
        )
    if principal.role < needed:
        raise HTTPException(
            403, f"{principal.name} is {principal.role.name.lower()}: this takes the role {needed.name.lower()}"
        )


def principal_of(request: Request) -> Principal | None:
    found: Principal | None = request.state.principal
    return found


async def _who(keys: Keys, request: Request) -> Principal | None:
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and key:
        return await run_in_threadpool(keys.check, key.strip())
    token = request.cookies.get(COOKIE)
    return None if token is None else keys.session(token, now().mono_ms)


def host_of(value: str) -> str:
    """The name in a Host header, without its port."""
    if value.startswith("["):
        return value[1 : value.find("]")].lower() if "]" in value else ""
    return value.partition(":")[0].lower()


def refusal(method: str, path: str, headers: Mapping[str, str], hosts: frozenset[str]) -> tuple[int, str] | None:
    """Why a request is turned away before anything reads it: a rebound name, or another site's page behind it.

    Status and sentence, or None if it may go on.  `headers` by lower-case name.
    """
    host = headers.get("host", "")
    if host_of(host) not in hosts:
        return 421, f"this server is not called {host_of(host)!r}: see PSTP_WEB_HOSTS"
    site = headers.get("sec-fetch-site")
    if path.startswith("/api") and site not in (None, "same-origin", "none"):
        return 403, "another site's page asked for this"
    if method in SAFE:
        return None
    origin = headers.get("origin")
    if origin is not None and origin.partition("://")[2].lower() != host.lower():
        return 403, "another site's page asked for this"
    if origin is None and site is None and "cookie" in headers and "authorization" not in headers:
        return 403, "a browser says where a request comes from, and this one does not"
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if method == "POST" and kind != "application/json":
        return 415, "send the body as application/json"
    return None
