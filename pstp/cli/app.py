"""The commands, put together; each group of them has its own file."""

import typer

from pstp.cli import bench, commands, dead_letters, dev, live, offline, processes, submit, topics, web

app = typer.Typer(
    name="pstp",
    help="Tasks of one group run strictly in order, groups run in parallel. On Kafka.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
for part in (dev, processes, web, submit, live, commands, dead_letters, topics, offline, bench):
    part.register(app)
