"""librdkafka's own statistics, as far as an operator acts on them.

Fields as in librdkafka's STATISTICS.md: `brokers.*.rtt.avg` (microseconds), `msg_cnt`, `tx_bytes`, `rx_bytes`,
`brokers.*.txerrs` and `rxerrs`.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec
from msgspec import Struct
from prometheus_client.core import Metric

from streams.exposition import counter, gauge

INTERVAL_MS: Final = 10_000


class _Window(Struct, frozen=True):
    avg: float = 0


class _Broker(Struct, frozen=True):
    nodeid: int = -1
    rtt: _Window = _Window()
    txerrs: int = 0
    rxerrs: int = 0


class _Statistics(Struct, frozen=True):
    msg_cnt: int = 0
    tx_bytes: int = 0
    rx_bytes: int = 0
    brokers: dict[str, _Broker] = {}


_decode = msgspec.json.Decoder(_Statistics).decode


class KafkaStats:
    """The latest statistics of each client of this process, by a name that we give it."""

    def __init__(self) -> None:
        self._latest: dict[str, _Statistics] = {}

    def conf(self, client: str) -> dict[str, Any]:
        """Settings for this client; it must be polled, as producers and consumers are anyway."""
        return {"statistics.interval.ms": INTERVAL_MS, "stats_cb": self._noter(client)}

    def _noter(self, client: str) -> Callable[[str], None]:
        def note(text: str) -> None:
            self._latest[client] = _decode(text)

        return note

    def collect(self) -> Iterator[Metric]:
        found = list(self._latest.items())
        yield gauge("pstp_kafka_queued_records", (((client,), s.msg_cnt) for client, s in found))
        yield counter("pstp_kafka_sent_bytes", (((client,), s.tx_bytes) for client, s in found))
        yield counter("pstp_kafka_received_bytes", (((client,), s.rx_bytes) for client, s in found))
        yield counter("pstp_kafka_errors", (
            ((client,), sum(b.txerrs + b.rxerrs for b in s.brokers.values())) for client, s in found
        ))  # fmt: skip
        yield gauge("pstp_kafka_round_trip_seconds", (
            ((client, str(broker.nodeid)), broker.rtt.avg / 1e6)
            for client, s in found
            for broker in s.brokers.values()
            if broker.nodeid >= 0  # the others are where to begin, and the coordinator
        ))  # fmt: skip
