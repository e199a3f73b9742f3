"""Ask a broker, in Kafka's own protocol, whether it serves clients; too little to need a client library for."""

import socket
import struct

from pstp.broker.ports import HOST

_API_VERSIONS = 18
_FIND_COORDINATOR = 10
_DESCRIBE_GROUPS = 15
_GROUPS = (b"a", b"b", b"c", b"d")  # by their hash, one for each of our four partitions of the offsets topic
_COORDINATOR_TYPES = (0, 1)  # of groups, of transactions
_TIMEOUT_S = 2.0
_CORRELATION_ID = 1


def broker_answers(port: int) -> bool:
    """Whether a Kafka broker serves clients on the port; while it starts, it does not even listen."""
    answer = _ask(port, _API_VERSIONS, 0, b"")
    return answer is not None and answer[:2] == b"\0\0"


def coordinators_ready(port: int) -> bool:
    """Whether groups and transactions have a coordinator that has read its state.

    Asking makes Kafka create the topics that a new cluster lacks. Clients that come too early wait one to three seconds
    before they try again, so it pays to wait here.
    """
    for kind in _COORDINATOR_TYPES:
        answer = _ask(port, _FIND_COORDINATOR, 1, struct.pack(">h4sb", 4, b"pstp", kind))
        if not _without_error(answer):
            return False
    groups = (_ask(port, _DESCRIBE_GROUPS, 0, struct.pack(">ih1s", 1, 1, group)) for group in _GROUPS)
    return all(map(_without_error, groups))


def _without_error(answer: bytes | None) -> bool:
    # Four bytes (the throttle time, or the number of groups) come before the error code.
    return answer is not None and answer[4:6] == b"\0\0"


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
