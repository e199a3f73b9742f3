"""Commands about topics."""

import typer

from pstp.cli.console import AsJson, console, print_json, print_table
from streams.settings import Settings
from streams.topics import adopt_topics, check_topics, create_topics

topics = typer.Typer(help="Create, check and adopt the topics.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    app.add_typer(topics, name="topics")


@topics.command()
def create(as_json: AsJson = False) -> None:
    """Create the topics that are missing and set the configuration of all; running it again is harmless.

    Example: `PSTP_PARTITIONS=32 pstp topics create`
    """
    made = create_topics(Settings())
    if as_json:
        print_json({"created": made})
    else:
        console.print(f"created: {', '.join(made)}" if made else "all topics exist and are as they should be")


@topics.command()
def check(as_json: AsJson = False) -> None:
    """Look for what is wrong with the topics, and say what to do; exit code 1 if anything is.

    Example: `pstp topics check`
    """
    problems = check_topics(Settings())
    if as_json:
        print_json([p._asdict() for p in problems])
    else:
        rows = [(p.topic, "fatal" if p.fatal else "warning", p.text) for p in problems]
        print_table("problems", ("topic", "", "what, and what to do"), rows, "all topics are as they should be")
    raise typer.Exit(1 if problems else 0)


@topics.command()
def adopt(as_json: AsJson = False) -> None:
    """Accept topics that were deleted and recreated; stop all schedulers first.

    What was in the old ones is gone.  Example: `pstp topics adopt`
    """
    record = adopt_topics(Settings())
    if as_json:
        print_json(record)
    else:
        console.print(f"adopted {len(record.topic_ids)} topics with {record.partitions} partitions")
