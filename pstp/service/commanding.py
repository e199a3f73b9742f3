"""Commands as functions: what the CLI and the web API call."""

import getpass
from collections.abc import Iterable
from typing import Any

from producers.commands import ANSWER_S, CommandSender
from pstp.service.asking import ask_all
from streams.clock import new_id
from streams.errors import UserError
from streams.protocol import Command, CommandKind, Event
from streams.settings import Settings
from streams.topics import verify_identity


def new_command(kind: CommandKind, group: str, *, actor: str = "", **fields: Any) -> Command:
    """A command with an id of its own; its actor is the user of this process unless told otherwise."""
    return Command(new_id(), kind, group, actor=actor or user(), **fields)


def user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"


def send_command(settings: Settings, command: Command, timeout_s: float = ANSWER_S) -> Event:
    """Send it and return its answer (`outcome` done, accepted or refused; `reason` and `note` say why).

    Raises `NoAnswerError` when nobody has answered in time, or another `UserError`.
    """
    with CommandSender(settings, verify_identity(settings).partitions) as sender:
        return sender.ask(command, timeout_s)


def send_commands(settings: Settings, commands: Iterable[Command], timeout_s: float = ANSWER_S) -> list[Event]:
    """Send several at once; their answers in the same order.  Raises like `send_command`."""
    with CommandSender(settings, verify_identity(settings).partitions) as sender:
        return list(sender.ask_all(commands, timeout_s))


def find_groups(
    settings: Settings, *, task_type: str | None = None, label: str | None = None, state: str | None = None
) -> list[str]:
    """Groups whose head is of this type, or carries this label (`name=value`), or that are in this state (such as
    `paused`), as their schedulers see them now, sorted.

    Raises `UserError`.
    """
    if label is not None and "=" not in label:
        raise UserError("give a label as name=value")
    wanted = (("type", task_type), ("label", label), ("state", state))
    query = {k: v for k, v in wanted if v is not None} | {"limit": 0}
    return sorted(group["group"] for answer in ask_all(settings, "/groups", query) for group in answer["groups"])
