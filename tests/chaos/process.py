"""A worker that dies at a chosen step of a claim: `python -m tests.chaos.process HANDLERS`.

While the file `die-<instance>-<step>` is in $CHAOS_FOLDER, the worker that comes to that step removes it and is gone.
"""

import os
import signal
import sys
from pathlib import Path

from consumers.handlers import load_handlers
from consumers.worker import Worker
from pstp.cli.processes import run_service
from streams import logs
from streams.errors import UserError
from streams.settings import Settings

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

    try:
        run_service(Worker(settings, load_handlers(sys.argv[1]), instance, step=step))
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
