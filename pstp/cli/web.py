"""`pstp web`: the web UI and its API; `pstp web-key`: who may use it from other machines."""

from pathlib import Path
from typing import Annotated

import typer

from pstp.cli.console import console
from streams import logs
from streams.errors import UserError
from streams.settings import Settings

ROLES = ("viewer", "operator", "admin")


def register(app: typer.Typer) -> None:
    app.command()(web)
    app.command("web-key")(web_key)


def web(
    address: Annotated[str | None, typer.Option(help="host:port to listen on; default 127.0.0.1:8080")] = None,
    rebuild: Annotated[bool, typer.Option(help="first fold the whole history anew, into an empty read model")] = False,
) -> None:
    """Serve the web UI and its API until Ctrl-C or SIGTERM.

    It follows the history into a database of its own (PSTP_WEB_DATABASE; SQLite in PSTP_DATA_DIR by default), listens
    on loopback, and on another address only with API keys.  Example: `pstp web --address 127.0.0.1:8080`
    """
    try:
        from pstp.web.serve import serve
        from pstp.web.settings import WebSettings
    except ModuleNotFoundError as error:
        raise UserError(f"the web UI needs {error.name}: install `pstp[web]`") from error
    settings = Settings()
    chosen = WebSettings() if address is None else WebSettings(address=address)
    logs.configure(settings, "web", settings.instance_name("web"))

    def ready(at: str) -> None:
        typer.echo(f"the web UI answers on {at}; Ctrl-C stops it")

    serve(settings, chosen, rebuild=rebuild, console=console, on_ready=ready)


def web_key(
    name: Annotated[str, typer.Argument(help="who gets it; shown in the history as the actor of commands")],
    role: Annotated[str, typer.Option(help="viewer reads, operator acts, admin also forgets and discards")] = "viewer",
    file: Annotated[Path, typer.Option(help="file of keys, as in PSTP_WEB_KEYS; made if it is not there")] = Path(
        "keys.json"
    ),
) -> None:
    """Make an API key: it is shown once, the file keeps a hash of it.

    Example: `pstp web-key ada --role operator --file keys.json`
    """
    from pstp.web.keys import Role, add_key, new_key

    if role not in ROLES:
        raise UserError(f"--role is one of {', '.join(ROLES)}, not {role!r}")
    if not name.strip() or len(name) > 64 or not name.isprintable():
        raise UserError("give a name of 1 to 64 printable characters")
    key, kept = new_key(name, Role[role.upper()])
    add_key(file, kept)
    typer.echo(key)
