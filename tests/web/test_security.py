"""Who may do what, for every route; and what is turned away before anybody asks."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute
from msgspec import Raw
from pydantic import ValidationError
from sqlalchemy import Engine

from pstp.cli.app import app as cli
from pstp.web.app import hosts_of, inner_app, make_app
from pstp.web.database import open_database
from pstp.web.hub import Hub
from pstp.web.jobs import Jobs
from pstp.web.keys import Keys, Principal, Role, add_key, new_key, read_keys
from pstp.web.masking import Masker
from pstp.web.metrics import WebMetrics
from pstp.web.queries import Queries
from pstp.web.security import ROLES
from pstp.web.settings import WebSettings
from pstp.web.site import Site
from pstp.web.store import ReadModel
from streams.errors import UserError
from streams.protocol import EventKind
from streams.settings import Settings
from tests.web.lives import Log

HOST = "localhost:8080"


class Nothing:
    """Stands for what talks to Kafka: these tests are turned away before, or only read."""

    fault = ""
    unreadable = 0
    caught_up = threading.Event()

    def lag_s(self) -> float:
        return 0.0

    def alive(self, _role: str | None = None) -> dict[str, Any]:
        return {}

    def is_alive(self) -> bool:
        return True

    def place(self, _command_id: str) -> None:
        return None


@pytest.fixture
def lite(tmp_path: Path) -> Iterator[Engine]:
    opened = open_database(f"sqlite:///{tmp_path / 'web.sqlite'}")
    yield opened
    opened.dispose()


def site_of(engine: Engine, keys: Keys | None = None, **web: Any) -> Site:
    nothing: Any = Nothing()
    model = ReadModel(engine)

    async def overview() -> dict[str, Any]:
        return {}

    hub, metrics = Hub(model.version, nothing.lag_s, overview), WebMetrics()
    metrics.watch(nothing, model, hub)
    return Site(
        Settings(), WebSettings(**web), model, Queries(engine), nothing, nothing, nothing, nothing, Jobs(), keys,
        Principal("me", Role.ADMIN), Masker(web.get("mask", ())), hub, metrics,
    )  # fmt: skip


def ask(app: Any, method: str, path: str, **more: Any) -> httpx.Response:
    async def asked() -> httpx.Response:
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url=f"http://{HOST}") as client:
            return await client.request(method, path, **more)

    return asyncio.run(asked())


def routes(app: Any) -> list[tuple[str, str]]:
    found = []
    for route in _flat(app.routes):
        assert isinstance(route, APIRoute), route  # nothing is mounted beside the table
        found += [(method, route.path) for method in route.methods]
    return found


def _flat(given: Any) -> Iterator[Any]:
    for route in given:
        inner = getattr(route, "original_router", None)
        if inner is None:
            yield route
        else:
            yield from _flat(inner.routes)


def test_the_table_names_every_route_and_no_other(lite: Engine) -> None:
    assert set(routes(inner_app(site_of(lite)))) == set(ROLES)


@pytest.fixture
def guarded(lite: Engine) -> tuple[Any, dict[Role, str]]:
    """An app with a key for each role."""
    made = {role: new_key(role.name.lower(), role) for role in (Role.VIEWER, Role.OPERATOR, Role.ADMIN)}
    app = make_app(site_of(lite, Keys([kept for _key, kept in made.values()])))
    return app, {role: key for role, (key, _kept) in made.items()}


def test_every_route_asks_for_the_role_of_the_table(guarded: tuple[Any, dict[Role, str]]) -> None:
    app, keys = guarded
    for (method, path), needed in ROLES.items():
        if path == "/api/stream":
            continue  # never ends: see test_stream
        url = path.replace("{path:path}", "").replace("{group:path}", "g").replace("{task_id:path}", "t")
        for name in ("name", "command_id", "job_id"):
            url = url.replace("{" + name + "}", "x")
        body = {"json": {"x": 1}} if method == "POST" else {}
        assert (ask(app, method, url, **body).status_code == 401) is (
            needed is not Role.ANYONE and url != "/api/session"
        ), (method, path)
        for role, key in keys.items():
            answer = ask(app, method, url, headers={"authorization": f"Bearer {key}"}, **body)
            assert (answer.status_code == 403) is (role < needed), (method, path, role, answer.text)
            assert answer.status_code != 401, (method, path, role)


def test_a_stream_needs_a_key(guarded: tuple[Any, dict[Role, str]]) -> None:
    assert ask(guarded[0], "GET", "/api/stream").status_code == 401


def test_what_cannot_be_taken_back_needs_an_admin(guarded: tuple[Any, dict[Role, str]]) -> None:
    app, keys = guarded
    for kind in ("forget_group", "discard_dead_letter"):
        for role in (Role.VIEWER, Role.OPERATOR):
            headers = {"authorization": f"Bearer {keys[role]}"}
            assert ask(app, "POST", "/api/commands?group=g", json={"kind": kind}, headers=headers).status_code == 403


def test_a_session_is_a_strict_cookie_and_ends_when_asked(guarded: tuple[Any, dict[Role, str]]) -> None:
    app, keys = guarded
    same = {"origin": f"http://{HOST}"}
    assert ask(app, "POST", "/api/session", json={"key": "pstp_x_y"}, headers=same).status_code == 401
    answer = ask(app, "POST", "/api/session", json={"key": keys[Role.VIEWER]}, headers=same)
    said = answer.headers["set-cookie"].lower()
    assert "httponly" in said and "samesite=strict" in said
    cookie = {"cookie": answer.headers["set-cookie"].partition(";")[0]}
    assert ask(app, "GET", "/api/groups", headers=cookie).status_code == 200
    assert ask(app, "GET", "/api/session", headers=cookie).json() == {"name": "viewer", "role": "viewer", "keys": True}
    assert ask(app, "DELETE", "/api/session", headers=cookie).status_code == 403  # says not where it comes from
    assert ask(app, "DELETE", "/api/session", headers=cookie | same).status_code == 204
    assert ask(app, "GET", "/api/groups", headers=cookie).status_code == 401


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("GET", {"host": "evil.example"}, 421),
        ("GET", {"host": "127.0.0.1.evil.example:8080"}, 421),
        ("GET", {"host": "[::1"}, 421),
        ("GET", {"host": ""}, 421),
        ("GET", {"host": "[::1]:8080"}, 200),
        ("GET", {"host": "LOCALHOST"}, 200),
        ("GET", {"sec-fetch-site": "cross-site"}, 403),
        ("GET", {"sec-fetch-site": "same-origin"}, 200),
        ("POST", {"origin": "http://evil.example"}, 403),
        ("POST", {"origin": "null"}, 403),
        ("POST", {"origin": f"http://{HOST}.evil.example"}, 403),
        ("POST", {"sec-fetch-site": "cross-site"}, 403),
        ("POST", {"sec-fetch-site": "same-site"}, 403),
        ("POST", {"origin": f"http://{HOST}", "content-type": "text/plain"}, 415),
        ("POST", {"origin": f"http://{HOST}"}, 422),
    ],
)
def test_other_sites_and_rebound_names_are_turned_away(lite: Engine, method: str, headers: Any, status: int) -> None:
    path = "/api/groups" if method == "GET" else "/api/commands?group=g"
    body = {"json": {}} if method == "POST" else {}
    answer = ask(make_app(site_of(lite)), method, path, headers=headers, **body)
    assert answer.status_code == status, answer.text


def test_every_answer_forbids_what_it_does_not_need(lite: Engine) -> None:
    app = make_app(site_of(lite))
    page = ask(app, "GET", "/groups?q=x")
    assert page.status_code == 200 and page.headers["cache-control"] == "no-store"
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "'nonce-" in policy
    assert policy != ask(app, "GET", "/").headers["content-security-policy"]
    api = ask(app, "GET", "/api/groups")
    assert "sandbox" in api.headers["content-security-policy"]
    for answer in (page, api):
        assert answer.headers["x-content-type-options"] == "nosniff" and answer.headers["x-frame-options"] == "DENY"


def test_paths_of_requests_never_reach_the_disk(lite: Engine) -> None:
    app = make_app(site_of(lite))
    for path in ("/assets/..%2f..%2fsettings.py", "/assets/%2e%2e", "/..%2fsettings.py", "/%2fetc%2fpasswd"):
        assert b"root:" not in (answer := ask(app, "GET", path)).content and b"WebSettings" not in answer.content


def test_a_body_beyond_the_limit_is_refused(lite: Engine) -> None:
    app = make_app(site_of(lite))
    assert (
        ask(app, "POST", "/api/tasks", json={"group": "g", "type": "t", "payload": "x" * 5_000_000}).status_code == 413
    )

    async def endless() -> Any:
        for _ in range(500):
            yield b"x" * 10_000

    headers = {"content-type": "application/json"}
    assert ask(app, "POST", "/api/tasks", content=endless(), headers=headers).status_code == 413


def test_an_address_for_others_needs_keys() -> None:
    WebSettings(address="127.0.0.1:0").refuse_open_door()
    for address in ("0.0.0.0:8080", "[::]:80", "10.1.2.3:80", "example.org:80"):
        with pytest.raises(UserError, match="web-key"):
            WebSettings(address=address).refuse_open_door()
        WebSettings(address=address, keys=Path("keys.json")).refuse_open_door()
    with pytest.raises(ValidationError):
        WebSettings(address="8080")


def test_names_of_the_server_are_loopback_and_what_was_set(lite: Engine) -> None:
    assert hosts_of(site_of(lite)) == {"127.0.0.1", "::1", "localhost"}
    assert "pstp.example.org" in hosts_of(site_of(lite, hosts=("PSTP.example.org",)))


def test_the_file_of_keys_holds_no_key_and_is_private(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    key, kept = new_key("ada", Role.OPERATOR)
    add_key(path, kept)
    assert key.split("_", 2)[2] not in path.read_text() and path.stat().st_mode & 0o077 == 0
    keys = Keys(read_keys(path))
    for _ in range(2):
        assert keys.check(key) == Principal("ada", Role.OPERATOR)
    for wrong in (key[:-1], key + "x", "", "pstp", "pstp__", f"pstp_{'0' * 12}_x", "x" * 10_000):
        assert keys.check(wrong) is None
    with pytest.raises(UserError, match="has a key"):
        add_key(path, new_key("ada", Role.VIEWER)[1])
    path.write_text("{}x")
    with pytest.raises(UserError, match="no file of API keys"):
        read_keys(path)
    assert "web-key" in {command.name for command in cli.registered_commands}


def test_masked_members_are_never_told(lite: Engine) -> None:
    log = Log()
    log.park(
        0, "g", 1, payload=b'{"card":{"number":"4111","n":12345678901234567890123},"a":[{"password":"p1"}],"ok":1.10}'
    )
    log.say(0, EventKind.GROUP_STATE, group="g", sequence=1, group_state=Raw(b'{"password":"p2","n":1}'))
    site = site_of(lite, mask=("card.number", "**.password"))
    site.model.apply(log.records, log.ends)
    app = make_app(site)
    for path in ("/api/tasks/detail?id=0-1", "/api/tasks/payload?id=0-1", "/api/groups/detail?id=g"):
        text = ask(app, "GET", path).text
        assert not any(secret in text for secret in ("4111", "p1", "p2")) and "[masked]" in text
    payload = ask(app, "GET", "/api/tasks/payload?id=0-1").text
    assert "12345678901234567890123" in payload and "1.10" in payload
    answer = ask(app, "POST", "/api/commands?group=g", json={"kind": "edit_head", "payload": payload})
    assert answer.status_code == 422 and "masked" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("pattern", "text", "shown"),
    [
        ("a", '{"a":1,"b":2}', '{"a":"[masked]","b":2}'),
        ("*.x", '[{"x":1},{"y":2}]', '[{"x":"[masked]"},{"y":2}]'),
        ("**.x", '{"a":{"b":{"x":1}}}', '{"a":{"b":{"x":"[masked]"}}}'),
        ("**.x", '{"x":[1,2]}', '{"x":"[masked]"}'),
        ("a.b", '{"a":1.50}', '{"a":1.50}'),
        ("a", "nonsense", "nonsense"),
        ("a", "{nonsense", '"[masked]"'),
        ("**", '{"a":1}', '{"a":"[masked]"}'),
    ],
)
def test_masks_follow_paths(pattern: str, text: str, shown: str) -> None:
    assert Masker([pattern])(text) == shown
    assert Masker([])(text) == text


def test_a_document_too_deep_is_hidden_whole() -> None:
    assert "secret" not in (Masker(["**.x"])("[" * 100_000 + '{"x":"secret"}' + "]" * 100_000) or "")
