"""The local cache of Kafka's jars: fetched once from Maven repositories, checked against jars.lock at every use.

The cache is `<user cache folder>/pstp`, or the folder in PSTP_CACHE_DIR. One folder in it holds the jars of one lock
file, flat. It appears by one rename when all its jars are there and checked, so it is never seen half full.
"""

import hashlib
import os
import shutil
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pstp.broker.errors import JarError
from pstp.broker.filelock import held
from pstp.broker.lock import LOCK_PATH, Jar, read_lock, sha256_of

_DOWNLOAD_TIMEOUT_S = 900.0
_REQUEST_TIMEOUT_S = 30
_ATTEMPTS = 3
_PARALLEL_DOWNLOADS = 4


def cache_dir() -> Path:
    """The folder for all that PSTP keeps between runs; it may not exist yet."""
    if forced := os.environ.get("PSTP_CACHE_DIR"):
        return Path(forced).absolute()  # the JVM runs in another folder
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "pstp"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pstp"


def ensure_jars() -> list[Path]:
    """The jars of the lock file, all present and with the pinned SHA-256; fetches them the first time.

    Safe to call from several processes at once: one fetches, the others wait for it. Raises JarError.
    """
    folder = cache_dir() / f"kafka-{hashlib.sha256(LOCK_PATH.read_bytes()).hexdigest()[:12]}"
    jars = read_lock()
    if not folder.exists():
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with held(folder.with_suffix(".lock"), _DOWNLOAD_TIMEOUT_S):
                # Another process may have filled it while this one waited for the lock.
                if not folder.exists():
                    _fill(folder, jars)
        except TimeoutError as error:
            raise JarError(
                f"Another process is still fetching Kafka ({error}): start again when it is done."
            ) from error
        except OSError as error:
            raise JarError(
                f"The cache folder {folder.parent} cannot be written ({error.strerror}): "
                "set PSTP_CACHE_DIR to a folder you may write to."
            ) from error
    _check(folder, jars)
    return [folder / jar.file_name for jar in jars]


def _check(folder: Path, jars: Iterable[Jar]) -> None:
    for jar in jars:
        path = folder / jar.file_name
        if not path.exists() or sha256_of(path) != jar.sha256:
            raise JarError(
                f"{path} is missing or was changed (its SHA-256 is not the one in jars.lock): "
                f"delete the folder {folder} and start again to fetch it anew."
            )


def _fill(folder: Path, jars: list[Jar]) -> None:
    """Fetch what is missing into a partial folder, kept when interrupted, and rename it to `folder` at the end."""
    from rich.console import Console
    from rich.progress import track

    partial = folder.with_suffix(".partial")
    partial.mkdir(exist_ok=True)
    resolve = _maven_resolver(partial / "repository")
    with ThreadPoolExecutor(_PARALLEL_DOWNLOADS) as pool:
        fetched = pool.map(lambda jar: _fetch(jar, partial, resolve), jars)
        console = Console(stderr=True)
        for _ in track(fetched, description="Fetching Kafka (once, 43 MB)", total=len(jars), console=console):
            pass
    shutil.rmtree(partial / "repository", ignore_errors=True)
    partial.rename(folder)


def _maven_resolver(repository: Path) -> Callable[[str], Path]:
    """A function that downloads one coordinate into `repository`, with jgo and the user's own jgo configuration."""
    try:
        from jgo.config import GlobalSettings
        from jgo.maven import MavenContext
    except ImportError as error:
        raise JarError(
            "The package jgo is missing: install PSTP with its extra, pip install 'pstp[broker]'."
        ) from error
    context: Any = MavenContext(repo_cache=repository, timeout=_REQUEST_TIMEOUT_S)
    # A company's own mirror is set there; an entry named central replaces the default one.
    context.remote_repos.update(GlobalSettings.load().repositories)

    def resolve(coordinate: str) -> Path:
        artifact = context.create_dependency(coordinate).artifact
        # jgo takes what is there for complete, even what an interrupted run left.
        artifact.cached_path.unlink(missing_ok=True)
        return Path(artifact.resolve())

    return resolve


def _fetch(jar: Jar, folder: Path, resolve: Callable[[str], Path]) -> None:
    target = folder / jar.file_name
    if target.exists() and sha256_of(target) == jar.sha256:
        return
    failure: Exception | None = None
    for _attempt in range(_ATTEMPTS):
        try:
            downloaded = resolve(jar.coordinate)
        except Exception as error:  # whatever jgo or the network raises, the user needs the same sentence
            failure = error
            continue
        if sha256_of(downloaded) == jar.sha256:
            downloaded.replace(target)
            return
        failure = None
    if failure is None:
        raise JarError(
            f"{jar.coordinate} as downloaded does not have the SHA-256 pinned in jars.lock: start again, "
            "and if it stays, ask who runs your Maven mirror or proxy why it changes this file."
        )
    raise JarError(
        f"{jar.coordinate} could not be fetched ({failure}): check the network, the proxy and the repositories "
        "in jgo's configuration, then start again; what was fetched is kept."
    ) from failure
