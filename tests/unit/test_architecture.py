"""Imports point inward, and what is not a function of its arguments has one place."""

import ast
from collections.abc import Iterator
from functools import cache, cached_property
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("streams", "producers", "consumers", "pstp")
FUNCTION_LINES_MAX = 60

# Deciding and describing: no I/O, no clock, no chance, no logging, no Kafka, no Faust.
PURE = {
    f"streams.{name}"
    for name in (
        "breakers", "catalogue", "cloudevents", "commands", "depth", "distribution", "edits", "engine", "errors",
        "express", "flow", "group", "history", "intake", "limits", "local", "memory", "murmur2", "partition",
        "placement", "protocol", "ran", "ready", "reasons", "retry", "rfc3339", "rows", "runs", "standing",
        "topic_plan", "totals", "watch",
    )
}  # fmt: skip
NEVER_IN_PURE = {
    "aiohttp", "asyncio", "concurrent", "confluent_kafka", "faust", "logging", "mode", "os", "prometheus_client",
    "random", "secrets", "socket", "structlog", "subprocess", "threading", "time", "uuid",
}  # fmt: skip
# What pure modules may use beside each other: names of topics, and the type of a clock's reading.
PURE_MAY_IMPORT = PURE | {"streams", "streams.settings", "streams.clock"}
# What workers and publishers may use of the scheduler's package: what is pure, and what every process needs.
SHARED = PURE_MAY_IMPORT | {
    "streams.members", "streams.http", "streams.logs", "streams.exposition", "streams.kafka_stats",
    "streams.targets", "streams.fatal",
    "streams.topics",  # a worker, too, must not run on topics that are not the recorded ones
    "streams.admin",  # and an outage of Kafka is no reason to stop
}  # fmt: skip

# Reading a clock, or drawing by chance, outside of `streams/clock.py`; `pstp` holds the entry points.
CLOCKS = {
    "time.time",
    "time.time_ns",
    "time.monotonic",
    "time.monotonic_ns",
    "time.perf_counter",
    "time.perf_counter_ns",
}
MAY_READ_CLOCKS = {
    "streams/clock.py": "the one place",
    "streams/questions.py": "how long ago the pump polled; no decision rests on it",
    "streams/store.py": "how long loading took, and when to ask again; no decision rests on it",
    "streams/transport.py": "Faust wants a time in each message; when the pump last polled",
}
MAY_DRAW = {"streams/clock.py": "ids of boots and claims"}


class Module:
    def __init__(self, path: Path) -> None:
        self.path = path.relative_to(ROOT).as_posix()
        parts = list(path.relative_to(ROOT).with_suffix("").parts)
        self.name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        self.tree = ast.parse(path.read_text(encoding="utf-8"))

    @cached_property
    def imports(self) -> set[str]:
        """Full names of modules that are imported when this one runs."""
        found: set[str] = set()
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0 and node.module is not None, f"{self.path}: relative import"
                names = {f"{node.module}.{alias.name}" for alias in node.names}
                found |= {node.module} | (names & paths().keys())
        return found - self._for_types_only()

    def _for_types_only(self) -> set[str]:
        return {
            inner.module
            for node in ast.walk(self.tree)
            if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
            for inner in ast.walk(node)
            if isinstance(inner, ast.ImportFrom) and inner.module is not None
        }

    def dotted(self) -> Iterator[tuple[int, str]]:
        """Every `a.b` with its line, and every plain name."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                yield node.lineno, f"{node.value.id}.{node.attr}"
            elif isinstance(node, ast.Name):
                yield node.lineno, node.id


@cache
def paths() -> dict[str, Path]:
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = list(path.relative_to(ROOT).with_suffix("").parts)
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def module(name: str) -> Module:
    return Module(paths()[name])


def names_in(package: str) -> list[str]:
    return [name for name in paths() if name.split(".")[0] == package]


def ours(imports: set[str]) -> set[str]:
    return {name for name in imports if name.split(".")[0] in PACKAGES}


@cache
def everything_behind(name: str) -> frozenset[str]:
    """All modules, ours and others', that come along when this one is imported."""
    seen: set[str] = set()
    todo = [name]
    while todo:
        current = todo.pop()
        if current in seen:
            continue
        seen.add(current)
        if current in paths():
            todo += module(current).imports
    return frozenset(seen)


def test_there_is_something_to_look_at() -> None:
    assert not PURE - paths().keys() and len(paths()) > 50
    assert "streams.protocol" in module("streams.engine").imports
    assert any(name.startswith("faust") for name in everything_behind("streams.scheduler"))


@pytest.mark.parametrize("name", sorted(PURE))
def test_pure_modules_are_pure(name: str) -> None:
    imports = module(name).imports
    assert not {i.split(".")[0] for i in imports} & NEVER_IN_PURE
    assert ours(imports) <= PURE_MAY_IMPORT


@pytest.mark.parametrize("name", sorted(PURE))
def test_pure_modules_bring_no_kafka_along(name: str) -> None:
    behind = {n.split(".")[0] for n in everything_behind(name)}
    assert not behind & {"faust", "mode", "confluent_kafka", "aiohttp", "structlog", "prometheus_client"}


def test_pure_modules_take_of_the_clock_only_its_type() -> None:
    for name in PURE:
        for node in ast.walk(module(name).tree):
            if isinstance(node, ast.ImportFrom) and node.module == "streams.clock":
                assert {alias.name for alias in node.names} == {"Now"}, name


@pytest.mark.parametrize("package", ["producers", "consumers"])
def test_producers_and_consumers_speak_the_protocol_and_know_no_scheduler(package: str) -> None:
    for name in names_in(package):
        others = {i for i in ours(module(name).imports) if i.split(".")[0] != package}
        assert others <= SHARED, f"{name} imports {sorted(others - SHARED)}"
        assert not any(n.split(".")[0] in ("faust", "mode") for n in everything_behind(name)), name


def test_streams_knows_neither_producers_nor_consumers_nor_pstp() -> None:
    for name in names_in("streams"):
        assert not {i.split(".")[0] for i in module(name).imports} & {"producers", "consumers", "pstp"}, name


def test_nobody_imports_pstp() -> None:
    for package in ("streams", "producers", "consumers"):
        for name in names_in(package):
            assert not any(i.split(".")[0] == "pstp" for i in module(name).imports), name


def test_faust_is_overridden_in_two_modules() -> None:
    with_faust = {n for n in paths() if {i.split(".")[0] for i in module(n).imports} & {"faust", "mode"}}
    assert with_faust <= {"streams.app", "streams.transport", "streams.scheduler"}


def test_no_two_modules_import_each_other() -> None:
    files = {name for name, path in paths().items() if path.name != "__init__.py"}
    for name in files:
        for imported in module(name).imports & files:
            assert name not in module(imported).imports, f"{name} and {imported}"


def core() -> list[Module]:
    """Everything but the entry points."""
    return [module(n) for p in ("streams", "producers", "consumers") for n in names_in(p)] + [
        module(n) for n in names_in("pstp") if n.startswith("pstp.verify")
    ]


def test_clocks_are_read_in_one_place() -> None:
    readers = {m.path for m in core() if any(dotted in CLOCKS for _, dotted in m.dotted())}
    assert readers == MAY_READ_CLOCKS.keys()


def test_nobody_asks_what_time_it_is_otherwise() -> None:
    for m in core():
        for line, dotted in m.dotted():
            assert dotted not in ("datetime.now", "datetime.utcnow", "datetime.today", "date.today"), f"{m.path}:{line}"
        for node in ast.walk(m.tree):
            if isinstance(node, ast.ImportFrom):
                assert node.module not in ("time", "random"), f"{m.path}: import the module, so that this test sees it"


def test_chance_has_one_place() -> None:
    draws = {m.path for m in core() if m.imports & {"random", "uuid", "secrets"}}
    assert draws == MAY_DRAW.keys()


def test_nothing_executes_or_unpickles_what_others_wrote() -> None:
    for name in paths():
        m = module(name)
        banned = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "yaml"} & {i.split(".")[0] for i in m.imports}
        assert not banned, f"{m.path} imports {banned}"
        for line, dotted in m.dotted():
            assert dotted not in ("eval", "exec", "compile", "__import__", "yaml.load", "os.system"), f"{m.path}:{line}"


def test_functions_fit_a_screen() -> None:
    long = [
        f"{m.path}:{node.lineno} {node.name} has {lines} lines"
        for m in map(module, paths())
        for node in ast.walk(m.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (lines := (node.end_lineno or 0) - node.lineno + 1) > FUNCTION_LINES_MAX
    ]
    assert not long


def test_transitions_have_one_home() -> None:
    """Why a group moved is answered in one file: nobody else makes heads or sets their phase."""
    for name in names_in("streams"):
        if name == "streams.group":
            continue
        for node in ast.walk(module(name).tree):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in ("Head", "machine.Head", "group.Head"), f"{name}:{node.lineno}"
                phases = [k for k in node.keywords if k.arg == "phase"]
                assert not (phases and called.endswith("replace")), f"{name}:{node.lineno}"
