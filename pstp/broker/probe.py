"""Ask a broker, in Kafka's own protocol, whether it serves clients; too little to need a client library for."""

import socket
import struct

from pstp.broker.ports import HOST

_API_VERSIONS = 18
_FIND_COORDINATOR = 10
_COORDINATOR_TYPES = (0, 1)  # of groups, of transactions
_TIMEOUT_S = 2.0
_CORRELATION_ID = 1


def broker_answers(port: int) -> bool:
    """Whether a Kafka broker serves clients on the port; while it starts, it does not even listen."""
    answer = _ask(port, _API_VERSIONS, 0, b"")
    return answer is not None and answer[:2] == b"\0\0"


def coordinators_ready(port: int) -> bool:
    """Whether groups and transactions have their coordinator; asking makes Kafka create the topics they need.

    A new cluster has neither, and clients that meet it in this state wait one to three seconds before they try again.
    """
    key = b"pstp"
    for kind in _COORDINATOR_TYPES:
        answer = _ask(port, _FIND_COORDINATOR, 1, struct.pack(">h4sb", len(key), key, kind))
        if answer is None or answer[4:6] != b"\0\0":  # four bytes of throttle time, then the error code
            return False
    return True


def _ask(port: int, api_key: int, api_version: int, body: bytes) -> bytes | None:
    """The body of the broker's answer; None if it does not answer, or not in Kafka's protocol."""
    request = struct.pack(">hhih", api_key, api_version, _CORRELATION_ID, -1) + body
    try:
        with socket.create_connection((HOST, port), _TIMEOUT_S) as connection, connection.makefile("rb") as answers:
            connection.sendall(struct.pack(">i", len(request)) + request)
            head = answers.read(8)
            if len(head) < 8:
                return None
            size, correlation_id = struct.unpack(">ii", head)
            return answers.read(size - 4) if correlation_id == _CORRELATION_ID else None
    except OSError:
        return None
