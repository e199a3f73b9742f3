"""`pstp web` as a process: opens everything, serves until told to stop, closes everything."""

import socket
import sys
from collections.abc import Callable
from contextlib import ExitStack
from types import FrameType
from typing import Any

import uvicorn
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from starlette.concurrency import run_in_threadpool

from producers import TaskPublisher
from pstp.service import user
from pstp.web.app import make_app
from pstp.web.commander import Commander
from pstp.web.database import empty, open_database
from pstp.web.follower import Follower
from pstp.web.hub import Hub
from pstp.web.jobs import Jobs
from pstp.web.keys import Keys, Principal, Role, read_keys
from pstp.web.masking import Masker
from pstp.web.metrics import WebMetrics
from pstp.web.queries import Queries
from pstp.web.settings import WebSettings
from pstp.web.site import Site, overview_of
from pstp.web.store import Changed, ReadModel
from streams.errors import UserError
from streams.http import HttpServer
from streams.members import MembersView
from streams.settings import Settings
from streams.targets import Target
from streams.topics import verify_identity

CAUGHT_UP_LOOK_S = 0.3
STOP_S = 5


def serve(
    settings: Settings, web: WebSettings, *, rebuild: bool, console: Console, on_ready: Callable[[str], None]
) -> None:
    """Until SIGTERM or SIGINT.  `on_ready` is told the address.  Raises `UserError`."""
    web.refuse_open_door()
    keys = None if web.keys is None else Keys(read_keys(web.keys))
    partitions = verify_identity(settings).partitions
    with ExitStack() as opened:
        listening = opened.enter_context(_listen(web))
        url = web.database_url(settings.data_dir)
        if rebuild:
            empty(url)
        engine = open_database(url)
        opened.callback(engine.dispose)
        site = _open(settings, web, ReadModel(engine), keys, partitions, opened)
        if rebuild:
            _watch_rebuild(settings, site, console)
        name = f"[{web.host}]" if ":" in web.host else web.host
        config = uvicorn.Config(
            make_app(site), log_config=None, access_log=False, server_header=False, date_header=True,
            timeout_graceful_shutdown=STOP_S, timeout_keep_alive=30, h11_max_incomplete_event_size=256 * 1024,
            ws="none", loop="uvloop" if sys.platform != "win32" else "auto",
        )  # fmt: skip
        on_ready(f"http://{name}:{listening.getsockname()[1]}")
        metrics = HttpServer(
            settings.http, site.metrics.registry, live=site.metrics.is_live, ready=site.metrics.is_ready
        )
        _Server(config, site.hub, metrics, Target(settings, "web", settings.instance_name("web"))).run([listening])


class _Server(uvicorn.Server):
    """Ends streams when asked to stop: they never end by themselves.  Beside it runs what Prometheus asks."""

    def __init__(self, config: uvicorn.Config, hub: Hub, metrics: HttpServer, target: Target) -> None:
        super().__init__(config)
        self._hub, self._metrics, self._target = hub, metrics, target

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Raises `UserError` if PSTP_HTTP is no address to serve on."""
        self._target.write(await self._metrics.start())
        await super().startup(sockets)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._target.remove()
        await super().shutdown(sockets)
        await self._metrics.stop()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A first signal is a wish, a second one an order.  uvicorn's own would raise it once more at the end."""
        self.force_exit = self.should_exit
        self.should_exit = True
        self._hub.end()


def _listen(web: WebSettings) -> socket.socket:
    family = socket.AF_INET6 if ":" in web.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((web.host, web.port))
        listening.listen(1024)
    except OSError as error:
        listening.close()
        raise UserError(
            f"cannot listen on {web.address}: {error.strerror}; set PSTP_WEB_ADDRESS to another host:port"
        ) from error
    return listening


def _open(
    settings: Settings, web: WebSettings, model: ReadModel, keys: Keys | None, partitions: int, opened: ExitStack
) -> Site:
    hubs: list[Hub] = []  # the follower is made before the hub, and tells it

    def tell(changed: Changed | None) -> None:
        hubs[0].publish(changed)

    queries = Queries(model.engine)
    members = MembersView(settings)
    metrics = WebMetrics()
    follower = Follower(settings, web, model, tell, metrics.kafka.conf("history"))

    async def overview() -> dict[str, Any]:
        found = await run_in_threadpool(overview_of, settings, queries, members, follower.lag_s)
        return found.model_dump(by_alias=True)

    hubs.append(Hub(model.version, follower.lag_s, overview))
    metrics.watch(follower, model, hubs[0])
    jobs = Jobs()
    opened.callback(follower.stop)
    opened.callback(jobs.abort_all)
    publisher = opened.enter_context(TaskPublisher(settings))
    members.start()
    opened.callback(members.stop)
    follower.start()
    return Site(
        settings, web, model, queries, follower, members, Commander(settings, partitions), publisher, jobs, keys,
        Principal(user(), Role.ADMIN), Masker(web.mask), hubs[0], metrics,
    )  # fmt: skip


def _watch_rebuild(settings: Settings, site: Site, console: Console) -> None:
    columns = (
        TextColumn("folding the history"),
        BarColumn(),
        TextColumn("{task.fields[events]} events"),
        TimeRemainingColumn(),
    )
    total = site.follower.total
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("", total=total, events=0)
        while not site.follower.caught_up.wait(CAUGHT_UP_LOOK_S):
            if site.follower.fault:
                raise UserError(site.follower.fault)
            version = site.model.version
            progress.update(bar, completed=site.follower.read_offsets(), events=version.events)
    console.print(f"folded {site.model.version.events} events of {settings.topic('task-events')!r}")
