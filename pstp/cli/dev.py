"""`pstp dev`: broker, scheduler and worker in one terminal."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from pstp.cli.console import console
from pstp.cli.processes import Handlers
from streams.errors import UserError
from streams.settings import Settings
from streams.topics import create_topics

STOP_S = 20.0


def register(app: typer.Typer) -> None:
    app.command()(dev)


def dev(
    handlers: Handlers,
    data_dir: Annotated[Path | None, typer.Option(help="folder for its data; default $PSTP_DATA_DIR/dev")] = None,
) -> None:
    """Run the whole system here: an embedded Kafka, a scheduler and a worker with your handlers.

    The broker listens where PSTP_BOOTSTRAP_SERVERS says (default 127.0.0.1:9092), so every other command finds it.
    What you publish is kept in the data folder and goes on after a restart.  Example: `pstp dev --handlers tasks.py`
    """
    from pstp.broker import BrokerError, EmbeddedBroker

    settings = Settings()
    host, _, port = settings.bootstrap_servers.rpartition(":")
    if host not in ("127.0.0.1", "localhost") or not port.isdigit():
        raise UserError(
            f"`pstp dev` runs its own broker, and PSTP_BOOTSTRAP_SERVERS is {settings.bootstrap_servers}: unset it, or "
            "run `pstp scheduler` and `pstp worker` against that cluster"
        )
    ends = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    broker = EmbeddedBroker(data_dir or settings.data_dir / "dev", port=int(port))
    children: dict[str, subprocess.Popen[bytes]] = {}
    try:
        with console.status("starting Kafka …"):
            broker.start()
            create_topics(settings)
        children["scheduler"] = _start("scheduler")
        children["worker"] = _start("worker", "--handlers", handlers)
        console.print(
            f"Kafka answers on {broker.bootstrap}; publish with `pstp submit GROUP TYPE JSON`; Ctrl-C stops all"
        )
        while signal.sigtimedwait(ends, 0.5) is None:
            for name, child in children.items():
                if child.poll() is not None:
                    raise UserError(f"the {name} ended with code {child.returncode}: its reason is above")
            if not broker.running:
                raise UserError(f"the broker ended: its log is {broker.log_path}")
    except BrokerError as error:
        raise UserError(str(error)) from error
    finally:
        _stop(children)
        broker.stop()


def _start(*arguments: str) -> "subprocess.Popen[bytes]":
    """A child that Ctrl-C in this terminal does not reach: it is asked to stop, in order."""
    env = {"PSTP_LOG_FORMAT": "text"} | os.environ
    env |= {"PSTP_INSTANCE": f"{arguments[0]}-dev", "PSTP_HTTP": "127.0.0.1:0"}
    return subprocess.Popen(
        [sys.executable, "-m", "pstp", *arguments], env=env, start_new_session=True, preexec_fn=_unblock_signals
    )


def _unblock_signals() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def _stop(children: "dict[str, subprocess.Popen[bytes]]") -> None:
    """Worker first, so that the scheduler still hears what it says."""
    for child in reversed(children.values()):
        if child.poll() is None:
            child.terminate()
            try:
                child.wait(STOP_S)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
