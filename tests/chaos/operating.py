"""An operator at the command line, in a process of its own: a client that crashes takes nothing along."""

import subprocess
from typing import Final

from tests.chaos.stage import Stage, Steps, aside
from tests.support.system import run_pstp, system_env

DONE, REFUSED = 0, 1
_AGAIN: Final = 20  # times: brokers and schedulers may be away for as long


def ask(stage: Stage, *arguments: str, code: list[int]) -> Steps:
    """One command; its exit code is added to `code`.  Whatever goes wrong is the operator's to look at."""

    def run() -> None:
        try:
            done = run_pstp([*arguments, "--json"], system_env(stage.settings, stage.folder), 60)
            code.append(done.returncode)
        except subprocess.TimeoutExpired:
            code.append(-1)

    yield from aside(run)


def insist(stage: Stage, *arguments: str) -> Steps:
    """Again and again until it is answered."""
    for _ in range(_AGAIN):
        code: list[int] = []
        yield from ask(stage, *arguments, code=code)
        if code[0] in (DONE, REFUSED):
            return
        yield 1.0
    stage.wrong.append(f"`pstp {' '.join(arguments)}` was never answered")
