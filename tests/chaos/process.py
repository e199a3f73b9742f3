"""A worker that dies at a chosen step of a claim, or a `pstp run` that dies between run and commit:
`python -m tests.chaos.process HANDLERS workers|local`.

While the file `die-<instance>-<step>` is in $CHAOS_FOLDER, the process that comes to that step removes it and is gone.
"""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from consumers.handlers import load_handlers
from consumers.local import LocalRunner
from consumers.worker import Worker
from pstp.cli.processes import run_service
from streams import logs
from streams.errors import UserError
from streams.scheduler import Scheduler
from streams.settings import Settings
from streams.transaction import Transactor

FOLDER = Path(os.environ["CHAOS_FOLDER"])


def main() -> int:
    settings = Settings()
    instance = settings.instance_name("worker")
    logs.configure(settings, "worker", instance)

    def step(name: str) -> None:
        order = FOLDER / f"die-{instance}-{name}"
        if order.exists():
            order.unlink()
            os.kill(os.getpid(), signal.SIGKILL)

    handlers = load_handlers(sys.argv[1])
    try:
        if sys.argv[2] == "local":
            die_before_commits(step)
            run_service(Scheduler(settings, instance, LocalRunner(settings, handlers, instance, os._exit)))
        else:
            run_service(Worker(settings, handlers, instance, step=step))
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def die_before_commits(step: Callable[[str], None]) -> None:
    """What has run is in memory only: there a local execution is as far as a worker's is after its claim."""
    commit = Transactor.commit

    def stepped(self: Transactor, *arguments: Any) -> None:
        step("claimed")
        commit(self, *arguments)

    Transactor.commit = stepped  # type: ignore[method-assign]


if __name__ == "__main__":
    sys.exit(main())
