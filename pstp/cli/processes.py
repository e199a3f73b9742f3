"""Commands that run a process of the system: broker, scheduler, worker."""

import asyncio
import faulthandler
import gc
import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Any, Protocol

import structlog
import typer

from streams import logs
from streams.errors import UserError
from streams.settings import Settings

log = structlog.get_logger("pstp")

Handlers = Annotated[
    str, typer.Option("--handlers", "-m", help="module (`shop.tasks`) or file (`tasks.py`) with @handler functions")
]


class Service(Protocol):
    """A scheduler or a worker."""

    async def run(self) -> None: ...

    def request_stop(self) -> None: ...


def register(app: typer.Typer) -> None:
    app.command()(broker)
    app.command()(scheduler)
    app.command()(worker)
    app.command()(run)


def broker(
    port: Annotated[int | None, typer.Option(help="port for clients; a free one if not given")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="folder for its data; default $PSTP_DATA_DIR/kafka")] = None,
) -> None:
    """Run the embedded Kafka broker until Ctrl-C.

    The first run fetches Apache Kafka (43 MB) into your cache.  Example: `pstp broker --port 9092 --data-dir ./kafka`
    """
    from pstp.broker import BrokerError, EmbeddedBroker

    settings = Settings()
    embedded = EmbeddedBroker(data_dir or settings.data_dir / "kafka", port=port)
    ends = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    try:
        embedded.start()
        typer.echo(f"Kafka answers on {embedded.bootstrap} (pid {embedded.pid}); Ctrl-C stops it")
        while signal.sigtimedwait(ends, 1.0) is None:
            if not embedded.running:
                raise UserError(f"the broker ended: its log is {embedded.log_path}")
    except BrokerError as error:
        raise UserError(str(error)) from error
    finally:
        embedded.stop()


def scheduler() -> None:
    """Run one scheduler until Ctrl-C or SIGTERM.

    Start several for failover; each needs its own name.  Example: `PSTP_INSTANCE=scheduler-1 pstp scheduler`
    """
    from streams.scheduler import Scheduler

    settings = Settings()
    instance = settings.instance_name("scheduler")
    logs.configure(settings, "scheduler", instance)
    run_service(Scheduler(settings, instance))


def worker(handlers: Handlers) -> None:
    """Run one worker with your handlers until Ctrl-C or SIGTERM; running tasks get PSTP_DRAIN_S to end.

    Example: `PSTP_INSTANCE=worker-1 pstp worker --handlers shop.tasks`
    """
    from consumers.handlers import load_handlers
    from consumers.worker import Worker

    settings = Settings()
    instance = settings.instance_name("worker")
    logs.configure(settings, "worker", instance)
    run_service(Worker(settings, load_handlers(handlers), instance))


def run(handlers: Handlers) -> None:
    """Run a scheduler that also runs your handlers in its own process, until Ctrl-C or SIGTERM.

    Quick handlers (timeout of 5 s or less) and those with placement="local" run here, the rest on workers, or here too
    while no worker handles their type.  Example: `PSTP_INSTANCE=run-1 pstp run --handlers shop.tasks`
    """
    from consumers.handlers import load_handlers
    from consumers.local import LocalRunner
    from streams.scheduler import Scheduler

    settings = Settings()
    instance = settings.instance_name("run")
    logs.configure(settings, "run", instance)
    runner = LocalRunner(settings, load_handlers(handlers), instance, os._exit)
    run_service(Scheduler(settings, instance, runner))


def run_service(service: Service) -> None:
    """Run it in a fresh event loop; SIGTERM and SIGINT ask it to stop, a second one is an order."""
    asked: list[bool] = []

    def stop() -> None:
        if asked:
            os._exit(1)  # what is open is for the successor to fence and for leases to decide
        asked.append(True)
        service.request_stop()

    async def run() -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop)
        await service.run()

    if hasattr(signal, "SIGUSR1"):
        faulthandler.register(signal.SIGUSR1)  # `kill -USR1` writes where each thread is
    gc.freeze()  # what was imported stays
    gc.set_threshold(100_000, 20, 100)  # steps make much that is gone at once; looking for cycles often finds none
    new_runner(run())


def new_runner(main: Any) -> None:
    """On uvloop where there is one."""
    if sys.platform == "win32":
        asyncio.run(main)
        return
    import uvloop

    uvloop.run(main)
