"""The cache of jars: what is fetched, from whom, how often, and what is refused. A mirror on loopback stands in."""

import http.server
import shutil
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from pstp.broker import JarError
from pstp.broker.jars import cache_dir, ensure_jars
from pstp.broker.lock import Jar, read_lock

ASK = "from pstp.broker.jars import ensure_jars; print(len(ensure_jars()))"


class Mirror:
    """A Maven repository that serves the machine's own verified jars and counts what it was asked for."""

    def __init__(self, jars: list[Path]) -> None:
        self.requests: Counter[str] = Counter()
        self.altered: set[str] = set()
        by_name = {jar.name: jar for jar in jars}
        mirror = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                name = self.path.rsplit("/", 1)[-1]
                mirror.requests[name] += 1
                if name not in by_name:
                    self.send_error(404)
                    return
                content = by_name[name].read_bytes() + (b"altered" if name in mirror.altered else b"")
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def jar_requests(self) -> Counter[str]:
        return Counter({name: count for name, count in self.requests.items() if name.endswith(".jar")})


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    """An empty cache, and a mirror of the real one as the only repository."""
    mirror = Mirror(ensure_jars())
    configuration = tmp_path / "jgo.conf"
    configuration.write_text(f"[repositories]\ncentral = http://127.0.0.1:{mirror.server.server_port}\n")
    monkeypatch.setenv("JGO_CONFIG_FILE", str(configuration))
    monkeypatch.setenv("PSTP_CACHE_DIR", str(tmp_path / "cache"))
    yield mirror
    mirror.server.shutdown()
    mirror.server.server_close()


@pytest.fixture
def copied_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The jars of a copy of the cache, free to be spoilt."""
    ensure_jars()
    shutil.copytree(cache_dir(), tmp_path / "copy")
    monkeypatch.setenv("PSTP_CACHE_DIR", str(tmp_path / "copy"))
    return ensure_jars()


def test_the_lock_pins_kafka_and_each_jar_once() -> None:
    jars = read_lock()
    assert any(jar.artifact == "kafka_2.13" for jar in jars)
    assert len({jar.file_name for jar in jars}) == len(jars)
    assert all(len(jar.sha256) == 64 and int(jar.sha256, 16) for jar in jars)


def test_two_processes_that_ask_at_once_fetch_each_jar_once(mirror: Mirror) -> None:
    processes = [subprocess.Popen([sys.executable, "-c", ASK], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate(timeout=60)[0].strip() for process in processes]
    jars = read_lock()
    assert outputs == [str(len(jars))] * 2
    assert mirror.jar_requests() == Counter(jar.file_name for jar in jars)
    assert not list(cache_dir().glob("*.partial"))


def test_a_fetch_that_broke_off_goes_on_where_it_was(mirror: Mirror) -> None:
    last = read_lock()[-1]
    mirror.altered.add(last.file_name)
    with pytest.raises(JarError):
        ensure_jars()
    mirror.altered.clear()
    mirror.requests.clear()
    ensure_jars()
    assert mirror.jar_requests()[last.file_name] == 1
    assert mirror.jar_requests()[read_lock()[0].file_name] == 0


def test_a_download_with_another_hash_is_refused(mirror: Mirror) -> None:
    mirror.altered.add(read_lock()[0].file_name)
    with pytest.raises(JarError, match=r"lz4-java:.* does not have the SHA-256 pinned in jars\.lock: start again"):
        ensure_jars()


def test_a_jar_that_cannot_be_fetched_is_named(mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = Jar("org.example", "absent", "1", "0" * 64)
    monkeypatch.setattr("pstp.broker.jars.read_lock", lambda: [missing])
    with pytest.raises(JarError, match=r"org\.example:absent:1 could not be fetched .*: check the network"):
        ensure_jars()


def test_a_changed_jar_in_the_cache_is_refused(copied_cache: list[Path]) -> None:
    with copied_cache[7].open("ab") as jar:
        jar.write(b"altered")
    with pytest.raises(JarError, match=rf"{copied_cache[7].name} is missing or was changed .*: delete the folder"):
        ensure_jars()


def test_a_missing_jar_in_the_cache_is_refused(copied_cache: list[Path]) -> None:
    copied_cache[3].unlink()
    with pytest.raises(JarError, match=f"{copied_cache[3].name} is missing"):
        ensure_jars()


def test_a_cache_folder_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("PSTP_CACHE_DIR", str(tmp_path / "file" / "cache"))
    with pytest.raises(JarError, match=r"cannot be written .*: set PSTP_CACHE_DIR"):
        ensure_jars()
