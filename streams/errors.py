"""Errors that a person can cause and mend."""


class UserError(Exception):
    """Its text is one clear sentence that says what to do next; entry points print it and exit with code 2."""


class InstanceTakenError(UserError):
    """Two running processes use one instance id; the older one, or the one that has not begun yet, gives way."""

    def __init__(self, instance: str) -> None:
        super().__init__(f"another process uses instance id {instance!r}: give each process its own PSTP_INSTANCE")
