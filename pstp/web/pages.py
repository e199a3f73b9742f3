"""The browser half, as `make ui` built it : one page, with a nonce of its own each time, and its parts."""

import mimetypes
import secrets
from pathlib import Path
from typing import Final

from fastapi import APIRouter, HTTPException
from fastapi.responses import HTMLResponse, Response

STATIC: Final = Path(__file__).with_name("static")
_NOT_BUILT: Final = (
    "<!doctype html><title>PSTP</title><p>The browser half is not built: run <code>make ui</code> in a checkout, or "
    "install a released wheel. The API answers all the same: <code>/docs</code>.</p>"
)


def policy(nonce: str) -> str:
    return (
        f"default-src 'none'; script-src 'self' 'nonce-{nonce}'; style-src 'self' 'nonce-{nonce}'; img-src 'self'; "
        "font-src 'self'; connect-src 'self'; worker-src 'self'; manifest-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    )


def routes(folder: Path = STATIC) -> APIRouter:
    """Only files that were there at the start are served: no path of a request ever reaches the disk."""
    router = APIRouter(include_in_schema=False)
    index = folder / "index.html"
    page = index.read_text(encoding="utf-8") if index.exists() else _NOT_BUILT
    files = {
        path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file() and path != index
    }

    @router.get("/assets/{name}")
    def asset(name: str) -> Response:
        path = files.get(f"assets/{name}")
        if path is None:
            raise HTTPException(404, "no such part: load the page again")
        return _file(path, "public, max-age=31536000, immutable")

    @router.get("/{path:path}")
    def any_page(path: str) -> Response:
        if path in files:
            return _file(files[path], "public, max-age=3600")
        if path.startswith("api/"):
            raise HTTPException(404, "no such route: /docs lists them")
        nonce = secrets.token_urlsafe(18)
        headers = {"content-security-policy": policy(nonce), "cache-control": "no-store"}
        return HTMLResponse(page.replace("__CSP_NONCE__", nonce), headers=headers)

    return router


def _file(path: Path, caching: str) -> Response:
    kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    headers = {"cache-control": caching, "content-security-policy": policy("none")}
    return Response(path.read_bytes(), media_type=kind, headers=headers)
