"""What people can ask and do, as functions: the CLI and the web API call these, so both can do the same."""

from producers.commands import CommandSender, NoAnswerError
from pstp.service.asking import ask, ask_all, ask_owner, explain, list_breakers, schedulers
from pstp.service.commanding import find_groups, new_command, send_command, send_commands, user
from pstp.service.redriving import DeadLetter, DeadLetterFilter, RedriveJob, list_dead_letters, read_dead_letter

__all__ = [
    "CommandSender", "DeadLetter", "DeadLetterFilter", "NoAnswerError", "RedriveJob", "ask", "ask_all", "ask_owner",
    "explain", "find_groups", "list_breakers", "list_dead_letters", "new_command", "read_dead_letter", "schedulers",
    "send_command", "send_commands", "user",
]  # fmt: skip
