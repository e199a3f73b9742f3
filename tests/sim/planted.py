"""`python tests/sim/planted.py`: plant each bug of `mutations.py`, and play until the simulator finds it.

What was found is kept in `planted.json`, and shown in docs/planted-bugs.md; `--known` begins with the world that
is known to show each bug; our code goes on, and worlds with it.

Each bug gets a process of its own, forked before anything of ours is imported; there, modules are compiled from their
changed source.  Nothing on disk is touched.
"""

import argparse
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import sys
import traceback
import warnings
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from types import CodeType
from typing import Any

ROOT = Path(__file__).absolute().parents[2]
KNOWN, TABLE = Path(__file__).with_name("planted.json"), ROOT / "docs" / "planted-bugs.md"
WORLDS = 1_500
FREE_PER_ROUND = 4
VERIFIED_WORLDS = 6
World = tuple[str, int]  # which drill (or `free`), and the seed
Found = dict[str, Any]
OURS = ("streams", "consumers", "producers", "pstp", "tests")
# What takes long to import, once for all.
OTHERS = (
    "aiohttp.web", "asyncio", "confluent_kafka.admin", "faust", "faust.transport.consumer", "msgspec", "prometheus_client",
    "pydantic_settings", "rich.console", "rich.progress", "structlog", "uvloop",
)  # fmt: skip


class Loader(importlib.machinery.SourceFileLoader):
    """Compiles a module from source with edits."""

    edits: tuple[Any, ...] = ()

    def get_code(self, fullname: str) -> CodeType:
        source = Path(self.path).read_text(encoding="utf-8")
        for edit in self.edits:
            if source.count(edit.old) != 1:
                raise LookupError(f"{edit.path} holds {source.count(edit.old)} times, not once:\n{edit.old}")
            source = source.replace(edit.old, edit.new)
        return compile(source, str(self.path), "exec", dont_inherit=True)


class Finder(importlib.abc.MetaPathFinder):
    def __init__(self, mutation: Any) -> None:
        self.edits: dict[str, list[Any]] = {}
        for edit in mutation.edits:
            name = edit.path.removesuffix(".py").replace("/", ".")
            self.edits.setdefault(name, []).append(edit)

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> Any:
        if fullname not in self.edits:
            return None
        file = str(ROOT / self.edits[fullname][0].path)
        loader = Loader(fullname, file)
        loader.edits = tuple(self.edits[fullname])
        return importlib.util.spec_from_file_location(fullname, file, loader=loader)


def hunt(mutation: Any, first: World | None, verified_worlds: int, only: str) -> Found:
    """Play until the bug is found, that world first.  In a process that has imported nothing of ours."""
    sys.meta_path.insert(0, Finder(mutation))
    from tests.sim.run import play, verdict
    from tests.sim.scenario import draw

    steps = played = 0
    for world, seed in chain([first] if first else [], rounds(only)):
        result = play(draw(seed, world))
        steps, played = steps + result.steps, played + 1
        if (violation := result.violation) is not None:
            verdicts = (verdict(draw(s, world)) for s in range(seed, seed + verified_worlds))
            return {
                "found": True, "guarantee": violation.guarantee, "text": violation.text[:160], "world": world,
                "seed": seed, "played": played, "steps": result.steps, "verify": next(filter(None, verdicts), []),
            }  # fmt: skip
    return {"found": False, "played": played, "steps": steps}


def rounds(only: str) -> Iterator[World]:
    """Each drill once, then some worlds that are drawn freely; again and again.  `only`: how their names begin."""
    from tests.sim.drills_here import ALL
    from tests.sim.scenario import FREE, HERE

    each = [*ALL, *[FREE] * FREE_PER_ROUND, *[HERE] * FREE_PER_ROUND]
    each = [world for world in each if world.startswith(only)]
    seeds = dict.fromkeys(each, 0)
    for n in range(WORLDS):
        world = each[n % len(each)]
        yield world, seeds[world]
        seeds[world] += 1


def plant_here(name: str) -> None:
    """Plant it into this process, which has imported nothing of ours that it changes.  Raises `KeyError`."""
    mutation = {m.name: m for m in mutations()}[name]
    sys.meta_path.insert(0, Finder(mutation))


def plant(
    mutation: Any, first: World | None = None, verified_worlds: int = VERIFIED_WORLDS, only: str = ""
) -> Found:  # fmt: skip
    """The same in a child process."""
    read_fd, write_fd = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read_fd)
        try:
            found = hunt(mutation, first, verified_worlds, only)
        except BaseException as error:
            found = {"found": False, "error": "".join(traceback.format_exception(error))}
        with os.fdopen(write_fd, "w") as pipe:
            json.dump(found, pipe)
        os._exit(0)
    os.close(write_fd)
    with os.fdopen(read_fd) as pipe:
        said = pipe.read()
    os.waitpid(pid, 0)
    return dict(json.loads(said)) if said else {"found": False, "error": "the process is gone"}


def mutations() -> tuple[Any, ...]:
    """The table of `mutations.py`, read without importing the package that it is in."""
    spec = importlib.util.spec_from_file_location("mutations", Path(__file__).with_name("mutations.py"))
    assert spec is not None and spec.loader is not None
    table = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(table)
    return tuple(table.MUTATIONS)


def known() -> dict[str, Found]:
    return dict(json.loads(KNOWN.read_text(encoding="utf-8"))) if KNOWN.exists() else {}


def rendered(table: Iterable[Any], found: dict[str, Found]) -> str:
    """docs/planted-bugs.md"""
    lines = [
        "# Planted bugs", "",
        "A simulator that finds nothing proves little unless it finds what is there. Each line is a bug that was planted into",
        "a copy of our own code in memory, one at a time, and what found it: which guarantee the simulator saw broken, and",
        "in which world: a drill of `tests/sim/drills.py`, or one drawn freely, with its seed. `pstp verify` was then given the",
        "task-events of a few worlds with the same bug in which nobody else judged: what it says is in the last column. It sees",
        "less, since it knows only what the schedulers and workers say of themselves.", "",
        "Repeat it with `python tests/sim/planted.py` (all worlds, until one shows the bug), one of them with",
        "`python tests/sim/planted.py NAME`; `--known` plays the worlds below first. `make test` plays the quickest of them, and",
        "tries whether all bugs can still be planted; `make test-all` plays them all. What happens in such a world, shrunk to",
        "what matters: `python -m tests.sim --plant NAME --world WORLD --first SEED --seeds 1`.", "",
        "| bug | what is wrong | broken | how it was seen | in world | `pstp verify` |", "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for mutation in table:
        how = found[mutation.name]
        verdicts = ", ".join(how["verify"]) or "–"
        text = how["text"].replace("|", "/").replace("\n", " ").replace("`", "'")
        cells = [
            f"`{mutation.name}`",
            mutation.words,
            how["guarantee"],
            f"`{text[:110]}`",
            f"{how['world']} {how['seed']}",
            verdicts,
        ]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Prints one JSON object per line: the mutation's name and what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="only these")
    parser.add_argument("--known", action="store_true", help="first the world that is known to show it; keep nothing")
    parser.add_argument("--quickest", type=int, metavar="N", help="with --known: only the N that are found soonest")
    parser.add_argument("--missing", action="store_true", help="only those not known to be found")
    parser.add_argument("--only", default="", metavar="PREFIX", help="only in worlds whose names begin like this")
    parser.add_argument("--dry", action="store_true", help="keep nothing of what is found")
    options = parser.parse_args()
    if os.environ.get("PYTHONHASHSEED") != "0":
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | {"PYTHONHASHSEED": "0"})
    sys.path.insert(0, str(ROOT))
    warnings.filterwarnings("ignore")
    for name in OTHERS:
        importlib.import_module(name)
    assert not any(module.split(".")[0] in OURS for module in sys.modules), "nothing of ours is imported yet"
    table, found, missed = mutations(), known(), 0
    names = set(options.names) or {mutation.name for mutation in table}
    if options.missing:
        names -= found.keys()
    if options.quickest:
        quickest = sorted(names & found.keys(), key=lambda name: (found[name]["played"], found[name]["steps"]))
        names = set(quickest[: options.quickest])
    for mutation in (m for m in table if m.name in names):
        if options.known:
            where = found[mutation.name]
            result = plant(mutation, (where["world"], where["seed"]), 0)
        else:
            result = plant(mutation, only=options.only)
        missed += not result["found"]
        print(json.dumps({"name": mutation.name} | result), flush=True)
        if result["found"] and not (options.known or options.dry):
            found[mutation.name] = result
            keep(table, found)
    return 1 if missed else 0


def keep(table: tuple[Any, ...], found: dict[str, Found]) -> None:
    found = {m.name: found[m.name] for m in table if m.name in found}
    KNOWN.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if len(found) == len(table):
        TABLE.write_text(rendered(table, found), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
