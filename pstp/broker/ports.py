"""TCP ports on the loopback interface."""

import errno
import fcntl
import os
import random
import socket
import tempfile
import threading
from pathlib import Path

from pstp.broker.errors import BrokerError, PortTakenError

HOST = "127.0.0.1"

# Below the range that systems hand out for outgoing connections: in it, a client that retries while the broker is
# down can be given the broker's own port and so keep the broker from coming back.
_FREE_PORTS = range(20_000, 32_000)
_FREE_PORT_TRIES = 100

_lock = threading.Lock()
_given: set[int] = set()
_reservations: int | None = None  # a file, of which byte n is locked by the process that was given port n


def free_port(*, but_not: int | None = None) -> int:
    """A port that is free now and that nobody else who asks here is given while this process lives, so that brokers
    which start side by side, or start again, do not meet. Other programs may take it. Raises BrokerError if none is
    found.
    """
    for port in random.sample(_FREE_PORTS, _FREE_PORT_TRIES):
        if port != but_not and _bind_error(port) is None and _reserve(port):
            return port
    raise BrokerError(f"No free port was found between {_FREE_PORTS[0]} and {_FREE_PORTS[-1]}: give one with port=.")


def _reserve(port: int) -> bool:
    """Whether it was nobody's; then it is ours until this process ends."""
    global _reservations
    with _lock:
        if port in _given:  # a process does not stand in the way of its own lock
            return False
        if _reservations is None:
            path = Path(tempfile.gettempdir()) / f"pstp-ports-{os.getuid()}"
            _reservations = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.lockf(_reservations, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
        except (BlockingIOError, PermissionError):
            return False
        _given.add(port)
        return True


def require_free(port: int) -> None:
    """Raise PortTakenError if something listens on the port, BrokerError if it cannot be used at all."""
    error = _bind_error(port)
    if error is None:
        return
    if error.errno == errno.EADDRINUSE:
        raise port_taken(port)
    raise BrokerError(f"Port {port} on {HOST} cannot be used ({error.strerror}): choose another one.")


def port_taken(port: int) -> PortTakenError:
    """The error for a port that another program has."""
    return PortTakenError(
        f"Port {port} on {HOST} is taken by another program: stop that program, or choose another port "
        "(none given takes a free one)."
    )


def _bind_error(port: int) -> OSError | None:
    with socket.socket() as probe:
        # As Kafka does: connections of an earlier broker that still wait to close are no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            return error
    return None
