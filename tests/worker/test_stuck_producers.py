"""A producer that never gets anything through again is replaced, and nothing that was reported is lost."""

from collections.abc import Callable
from typing import Any

import confluent_kafka as ck
import pytest

import consumers.reports
from consumers.reports import Claim, Reporter
from streams.protocol import PROTOCOL, Dispatch, Report, ReportKind, decode_completion
from streams.settings import Settings

NS = 1_000_000_000


class FakeProducer:
    """Acknowledges what it is given when it is told to, and at once if `healthy`."""

    def __init__(self, conf: dict[str, Any], logger: Any) -> None:
        self.given: list[tuple[bytes, Callable[[Any, Any], None]]] = []
        self.healthy = False

    def produce(self, topic: str, value: bytes, key: bytes, partition: int, on_delivery: Any) -> None:
        self.given.append((value, on_delivery))

    def poll(self, timeout_s: float) -> None:
        if self.healthy:
            for _, told in self.given:
                told(None, None)

    def purge(self) -> None:
        for _, told in self.given:
            told(_Purged(), None)

    def flush(self, timeout_s: float) -> int:
        return 0


class _Purged:
    def str(self) -> str:
        return "purged"


def test_a_late_producer_is_replaced_and_its_reports_are_sent_again_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[FakeProducer] = []
    clock = [0]
    monkeypatch.setattr(consumers.reports, "mono_ns", lambda: clock[0])
    monkeypatch.setattr(
        consumers.reports.ck, "Producer", lambda conf, logger: made.append(FakeProducer(conf, logger)) or made[-1]
    )
    reporter = Reporter(Settings(), "w1", "boot", on_fatal=pytest.fail)
    told: list[str | None] = []
    claim = Claim(Dispatch(PROTOCOL, "g", 0, "s1", ()), 0, 0, "claim", 0)
    kinds = [ReportKind.STARTED, ReportKind.RENEWED, ReportKind.SUCCEEDED]
    for kind in kinds:
        reporter.send(claim, (Report(kind, 1, 7),), told.append)
    reporter._serve()
    assert len(made) == 1 and told == []
    clock[0] += 15 * NS
    reporter._serve()
    stuck, healthy = made
    assert [decode_completion(value).reports[0].kind for value, _ in healthy.given] == kinds
    stuck.purge()  # what becomes of the old one is nobody's business any more
    assert told == [] and reporter.unacknowledged() == 3
    healthy.healthy = True
    reporter._serve()
    assert told == [None, None, None] and reporter.unacknowledged() == 0
    stuck.given[0][1](None, None)  # it was in the log all the time: nobody is told twice
    assert len(told) == 3


@pytest.mark.parametrize("hidden", [False, True], ids=["raised", "hidden by the callback after it"])
def test_a_worker_whose_reports_can_never_be_delivered_ends_at_once(
    monkeypatch: pytest.MonkeyPatch, hidden: bool
) -> None:
    class Doomed(FakeProducer):
        def poll(self, timeout_s: float) -> None:
            fatal = ck.KafkaException(ck.KafkaError(ck.KafkaError._FATAL, "the broker forgot this producer"))
            if not hidden:
                raise fatal
            raise SystemError("LogRecord returned a result with an exception set") from fatal

    monkeypatch.setattr(consumers.reports.ck, "Producer", Doomed)
    why: list[str] = []
    Reporter(Settings(), "w1", "boot", on_fatal=why.append)._serve()
    assert why and "the broker forgot this producer" in why[0]
