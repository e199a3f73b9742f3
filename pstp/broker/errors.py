"""Errors of the embedded broker. Each message is one sentence with what to do next; all derive from BrokerError."""


class BrokerError(Exception):
    """The embedded broker could not do what was asked."""


class JarError(BrokerError):
    """A jar of Kafka could not be fetched, or its SHA-256 is not the pinned one."""


class JavaError(BrokerError):
    """No usable Java 17 or newer was found."""


class PortTakenError(BrokerError):
    """The port asked for is in use by another program."""


class DataDirInUseError(BrokerError):
    """Another broker runs on the same data folder."""


class StartError(BrokerError):
    """The broker ended, or did not answer in time, while starting; the message ends with the tail of its log."""
