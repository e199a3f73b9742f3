"""A worker as a process of its own, for tests that freeze or kill it: `python -m … NAME STEP SIGNAL`.

It sends itself SIGNAL, once, at STEP of its first claim; STEP "none": never.  Settings come from the environment.
"""

import asyncio
import signal
import subprocess
import sys
import threading
from pathlib import Path

from consumers.handlers import load_handlers
from consumers.worker import Worker
from streams import logs
from streams.settings import Settings
from tests.support.system import HANDLERS, system_env, until


class WorkerProcess:
    """Started at once; killed, if it still lives, at the end of the `with` block."""

    def __init__(
        self,
        settings: Settings,
        folder: Path,
        name: str = "w1",
        step: str = "none",
        send: str = "SIGSTOP",
        **more: object,
    ) -> None:
        env = system_env(settings, folder, **more)
        with (folder / f"{name}.log").open("ab") as log:
            self.popen = subprocess.Popen(
                [sys.executable, "-m", "tests.worker.process", name, step, send], env=env, stdout=log, stderr=log
            )

    def __enter__(self) -> "WorkerProcess":
        return self

    def __exit__(self, *_: object) -> None:
        if self.popen.poll() is None:
            self.popen.kill()
        self.popen.wait(10)

    def wait_frozen(self) -> None:
        """Until it has stopped itself."""
        state = Path(f"/proc/{self.popen.pid}/stat")
        until(lambda: state.read_text().rpartition(")")[2].split()[0] == "T", what="the worker has frozen itself")

    def wake(self) -> None:
        self.popen.send_signal(signal.SIGCONT)


def main(name: str, step: str, send: str) -> None:
    settings = Settings(_env_file=None)
    logs.configure(settings, "worker", name)
    done: list[str] = []

    def at(reached: str) -> None:
        if reached == step and not done:
            done.append(reached)
            # To this very thread: a signal to the process may strike a little later, when the step is over.
            signal.pthread_kill(threading.get_ident(), signal.Signals[send])

    worker = Worker(settings, load_handlers(str(HANDLERS)), name, step=at)
    signal.signal(signal.SIGTERM, lambda *_: worker.request_stop())
    asyncio.run(worker.run())


if __name__ == "__main__":
    main(*sys.argv[1:])
