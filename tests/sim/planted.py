"""`python tests/sim/planted.py`: plant each bug of `mutations.py`, and play until the simulator finds it.

Each bug gets a process of its own, forked before anything of ours is imported; there, modules are compiled from their
changed source.  Nothing on disk is touched.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import sys
import time
import traceback
import warnings
from pathlib import Path
from types import CodeType
from typing import Any

ROOT = Path(__file__).absolute().parents[2]
SEEDS = 400
VERIFIED_SEEDS = 15
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


def hunt(mutation: Any, seeds: int) -> dict[str, Any]:
    """Play until the bug is found.  In a process that has imported nothing of ours."""
    sys.meta_path.insert(0, Finder(mutation))
    from tests.sim.run import play, verdict
    from tests.sim.scenario import draw

    began_s, steps = time.monotonic(), 0
    for seed in range(seeds):
        result = play(draw(seed))
        steps += result.steps
        if (violation := result.violation) is not None:
            seconds = round(time.monotonic() - began_s, 1)
            verified = next((v for s in range(seed, seed + VERIFIED_SEEDS) if (v := verdict(draw(s)))), [])
            return {
                "found": True, "guarantee": violation.guarantee, "text": str(violation)[:200], "seed": seed,
                "steps": steps, "seconds": seconds, "verify": verified,
            }  # fmt: skip
    return {"found": False, "steps": steps, "seconds": round(time.monotonic() - began_s, 1)}


def plant(mutation: Any, seeds: int = SEEDS) -> dict[str, Any]:
    """The same in a child process."""
    read_fd, write_fd = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read_fd)
        try:
            found = hunt(mutation, seeds)
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


def main(names: list[str]) -> int:
    """One JSON object per line: the mutation's name and what was found."""
    if os.environ.get("PYTHONHASHSEED") != "0":
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | {"PYTHONHASHSEED": "0"})
    sys.path.insert(0, str(ROOT))
    warnings.filterwarnings("ignore")
    for name in OTHERS:
        importlib.import_module(name)
    spec = importlib.util.spec_from_file_location("mutations", Path(__file__).with_name("mutations.py"))
    assert spec is not None and spec.loader is not None
    table = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(table)
    assert not any(module.split(".")[0] in OURS for module in sys.modules), "nothing of ours is imported yet"
    missed = 0
    for mutation in table.MUTATIONS:
        if not names or mutation.name in names:
            found = plant(mutation)
            missed += not found["found"]
            print(json.dumps({"name": mutation.name} | found), flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
