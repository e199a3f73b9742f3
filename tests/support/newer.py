"""`python -m tests.support.newer ARGUMENTS`: the CLI of a version to come, whose protocol and rows are one major on."""

from streams import protocol, rows


def main() -> None:
    protocol.PROTOCOL += 1  # type: ignore[misc]
    rows.ROW_FORMAT = rows.RUN_FORMAT = rows.NEWEST_FORMAT = rows.NEWEST_FORMAT + 1  # type: ignore[misc]
    from pstp.cli import main as cli  # what it imports takes its numbers from there

    cli()


if __name__ == "__main__":
    main()
