"""API keys: who may do what.  A file holds hashes by scrypt, never a key."""

import base64
import hashlib
import hmac
import os
import secrets
import threading
from enum import IntEnum
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from streams.errors import UserError

_N, _R, _P = 2**14, 8, 1
_MEMORY: Final = 64 * 1024 * 1024
SESSION_S: Final = 12 * 3600
SESSIONS_MAX: Final = 10_000


class Role(IntEnum):
    """Each may do what those below may."""

    ANYONE = 0
    VIEWER = 1
    OPERATOR = 2
    ADMIN = 3


class Principal(Struct, frozen=True):
    """Who asks."""

    name: str
    role: Role


class StoredKey(Struct, frozen=True):
    """One line of the file.  `id` is the key's public first half."""

    id: str
    name: str
    role: str
    salt: str
    hash: str


class KeyFile(Struct, frozen=True):
    keys: list[StoredKey] = []


def new_key(name: str, role: Role) -> tuple[str, StoredKey]:
    """A key to hand out, once, and what is kept of it."""
    key_id, secret, salt = secrets.token_hex(6), secrets.token_urlsafe(32), secrets.token_bytes(16)
    kept = StoredKey(key_id, name, role.name.lower(), _b64(salt), _b64(_hash(secret, salt)))
    return f"pstp_{key_id}_{secret}", kept


def read_keys(path: Path) -> list[StoredKey]:
    """Raises `UserError` with what to do next."""
    try:
        found = msgspec.json.decode(path.read_bytes(), type=KeyFile).keys
        for key in found:
            Role[key.role.upper()]
            base64.b64decode(key.salt, validate=True), base64.b64decode(key.hash, validate=True)
    except FileNotFoundError:
        raise UserError(
            f"{path} is not there: make a key with `pstp web-key NAME --role admin --file {path}`"
        ) from None
    except (OSError, ValueError, KeyError, msgspec.DecodeError) as error:
        raise UserError(f"{path} is no file of API keys ({error}): make a new one with `pstp web-key`") from error
    return found


def add_key(path: Path, key: StoredKey) -> None:
    """Raises `UserError` if that name has a key already, or the file is none."""
    known = read_keys(path) if path.exists() else []
    if any(other.name == key.name for other in known):
        raise UserError(f"{key.name!r} has a key in {path} already: remove it there first, or choose another name")
    text = msgspec.json.format(msgspec.json.encode(KeyFile([*known, key])), indent=2)
    fresh = path.with_name(path.name + ".new")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(text + b"\n")
    fresh.replace(path)


class Keys:
    """Knows keys by their hashes and sessions by theirs.  Safe from any thread; checking a new key takes some 50 ms."""

    def __init__(self, stored: list[StoredKey]) -> None:
        self._stored = {key.id: key for key in stored}
        self._one_at_a_time = threading.Lock()
        self._process_key = secrets.token_bytes(32)
        self._checked: dict[str, bytes] = {}
        self._sessions: dict[bytes, tuple[Principal, int]] = {}

    def check(self, key: str) -> Principal | None:
        parts = key.split("_", 2)
        if len(parts) != 3 or parts[0] != "pstp" or len(key) > 200:
            return None
        known = self._stored.get(parts[1])
        quick = hmac.digest(self._process_key, key.encode(errors="surrogatepass"), "sha256")
        if known is not None and hmac.compare_digest(self._checked.get(known.id, b""), quick):
            return _principal(known)
        salt = base64.b64decode(known.salt) if known else b"nobody" * 3
        with self._one_at_a_time:
            found = _hash(parts[2], salt)
        if known is None or not hmac.compare_digest(found, base64.b64decode(known.hash)):
            return None
        self._checked[known.id] = quick
        return _principal(known)

    def open_session(self, principal: Principal, mono_ms: int) -> str:
        """A token for a cookie; here stays only its hash."""
        with self._one_at_a_time:
            for old in [hashed for hashed, (_, ends_ms) in self._sessions.items() if ends_ms < mono_ms]:
                del self._sessions[old]
            while len(self._sessions) >= SESSIONS_MAX:
                del self._sessions[next(iter(self._sessions))]
            token = secrets.token_urlsafe(32)
            self._sessions[_digest(token)] = (principal, mono_ms + SESSION_S * 1000)
        return token

    def session(self, token: str, mono_ms: int) -> Principal | None:
        principal, ends_ms = self._sessions.get(_digest(token), (None, 0))
        return principal if ends_ms > mono_ms else None

    def close_session(self, token: str) -> None:
        self._sessions.pop(_digest(token), None)


def _principal(key: StoredKey) -> Principal:
    return Principal(key.name, Role[key.role.upper()])


def _hash(secret: str, salt: bytes) -> bytes:
    return hashlib.scrypt(
        secret.encode(errors="surrogatepass"), salt=salt, n=_N, r=_R, p=_P, maxmem=_MEMORY, dklen=32
    )  # fmt: skip


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="surrogatepass")).digest()


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()
