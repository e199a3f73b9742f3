"""What handlers return, raise and say, in words that fit into a report."""

import time
from typing import Any

import msgspec
import pytest
from msgspec import Raw
from pydantic import BaseModel

from consumers import Reject, Retry, Snooze, Task
from consumers.faults import describe
from consumers.outcomes import (
    InvalidPayloadError,
    NotJsonError,
    Outcome,
    StateTooLargeError,
    raised,
    returned,
    timed_out,
    to_json,
)
from streams import limits
from streams.protocol import DispatchedTask, ErrorInfo, Reason, Report, ReportKind, encode


class Row(BaseModel):
    number: int


def task(said: list[Any] | None = None, **more: Any) -> Task:
    wire = DispatchedTask(1, "t1", "a", 7, 2, **{"payload": Raw(b"null"), **more})
    return Task(wire, "g", None, lambda fraction, note: (said if said is not None else []).append((fraction, note)))


def fits(error: ErrorInfo | None) -> ErrorInfo:
    """Within the limits, and UTF-8."""
    assert error is not None
    assert len(error.message) <= limits.ERROR_TEXT_CHARS_MAX + 100
    assert len(error.traceback or "") <= limits.TRACEBACK_CHARS_MAX + 100
    encode(Report(ReportKind.FAILED, 1, 1, error=error))
    return error


@pytest.mark.parametrize(("value", "json"), [
    (None, None), ({"rows": 12}, b'{"rows":12}'), ([1.5, "ü", True], '[1.5,"ü",true]'.encode()), (0, b"0"),
    (Row(number=1), b'{"number":1}'), ([Row(number=1)], b'[{"number":1}]'), (2**63, b"9223372036854775808"),
])  # fmt: skip
def test_json_results(value: Any, json: bytes | None) -> None:
    outcome = returned(value, None)
    assert outcome.kind is ReportKind.SUCCEEDED
    assert outcome.result is None if json is None else bytes(outcome.result or b"") == json
    assert not outcome.state_set


def test_a_result_over_the_limit_is_dropped_and_says_so() -> None:
    outcome = returned("x" * 3_000_000, Raw(b"1"))
    assert (outcome.kind, outcome.result, outcome.result_cut) == (ReportKind.SUCCEEDED, None, True)
    assert outcome.state_set


def holds_itself() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("value", [
    object(), {1j}, lambda: 1, "\ud800", holds_itself(), nested(5_000), nested(limits.JSON_DEPTH_MAX), Row, {(1,): 2},
])  # fmt: skip
def test_what_is_no_json_is_rejected_with_a_sentence(value: Any) -> None:
    outcome = returned(value, Raw(b"1"))
    assert (outcome.kind, outcome.reason, outcome.state_set) == (ReportKind.REJECTED, Reason.INVALID_RESULT, False)
    fits(outcome.error)


@pytest.mark.parametrize(("error", "kind", "reason"), [
    (Retry(5), ReportKind.FAILED, Reason.FAILED),
    (Snooze(5), ReportKind.SNOOZED, Reason.SNOOZED),
    (Reject("no"), ReportKind.REJECTED, Reason.HANDLER_REJECTED),
    (InvalidPayloadError("no"), ReportKind.REJECTED, Reason.INVALID_PAYLOAD),
    (StateTooLargeError("no"), ReportKind.REJECTED, Reason.STATE_TOO_LARGE),
    (NotJsonError("no"), ReportKind.FAILED, Reason.FAILED),
    (ValueError("no"), ReportKind.FAILED, Reason.FAILED),
    (SystemExit(1), ReportKind.FAILED, Reason.FAILED),
    (KeyboardInterrupt(), ReportKind.FAILED, Reason.FAILED),
])  # fmt: skip
def test_what_is_raised(error: BaseException, kind: ReportKind, reason: Reason) -> None:
    outcome = raised(error)
    assert (outcome.kind, outcome.reason) == (kind, reason)
    assert outcome.delay_s == getattr(error, "after_s", None)


def test_delays_are_kept_within_the_limits() -> None:
    assert Retry().after_s is None
    assert Snooze(-3).after_s == 0
    assert Snooze(float("inf")).after_s == limits.DELAY_S_MAX
    with pytest.raises(ValueError, match="number of seconds"):
        Snooze(float("nan"))
    with pytest.raises((TypeError, ValueError)):
        Retry("soon")  # type: ignore[arg-type]


def test_a_timeout_carries_the_place_where_it_struck() -> None:
    try:
        raise TimeoutError
    except TimeoutError as error:
        outcome = timed_out(2.5, error)
    assert (outcome.kind, outcome.reason) == (ReportKind.FAILED, Reason.TIMEOUT)
    info = fits(outcome.error)
    assert info.message == "timed out after 2.5 s"
    assert "test_a_timeout_carries" in (info.traceback or "")


def test_an_outcome_survives_the_pipe_of_a_child_process() -> None:
    outcome = returned({"a": 1}, Raw(b"null"))
    again = msgspec.json.decode(msgspec.json.encode(outcome), type=Outcome)
    assert (again.kind, bytes(again.result or b""), bytes(again.state or b"")) == (outcome.kind, b'{"a":1}', b"null")


class TestFaults:
    def test_type_message_and_place(self) -> None:
        try:
            raise ValueError("wrong number")
        except ValueError as error:
            info = describe(error)
        assert (info.type, info.message) == ("ValueError", "wrong number")
        assert "test_type_message_and_place" in (info.traceback or "")
        assert (info.traceback or "").endswith("ValueError: wrong number")

    def test_a_message_of_three_megabytes_is_cut_and_says_so(self) -> None:
        info = fits(describe(ValueError("x" * 3_000_000)))
        assert "cut, 3000000 characters" in info.message

    def test_five_hundred_chained_errors_cost_little(self) -> None:
        def fail(depth: int) -> None:
            try:
                if depth:
                    fail(depth - 1)
                raise KeyError("the first" * 1000)
            except Exception as error:
                raise RuntimeError(f"number {depth} " + "x" * 100_000) from error

        with pytest.raises(RuntimeError) as caught:
            fail(250)
        began = time.perf_counter()
        text = fits(describe(caught.value)).traceback or ""
        assert time.perf_counter() - began < 1
        assert "number 250" in text
        assert "was caused by" in text

    def test_an_error_that_caused_itself_ends(self) -> None:
        one, two = ValueError("one"), ValueError("two")
        one.__cause__, two.__cause__ = two, one
        assert "two" in (fits(describe(one)).traceback or "")

    def test_an_endless_recursion(self) -> None:
        def deeper() -> None:
            deeper()

        with pytest.raises(RecursionError) as caught:
            deeper()
        fits(describe(caught.value))

    def test_groups_show_what_they_hold(self) -> None:
        group = ExceptionGroup("several", [ValueError(f"number {i}") for i in range(1000)])
        text = fits(describe(group)).traceback or ""
        assert "ValueError: number 0" in text

    @pytest.mark.parametrize("error", [
        type("Unprintable", (Exception,), {"__str__": lambda self: 1 / 0})(),
        type("Odd", (Exception,), {"__str__": lambda self: 5})(),
        type("Leaves", (Exception,), {"__str__": lambda self: exit(3)})(),
        ValueError("half a character: \ud800"),
        type("Long" * 1000, (Exception,), {})(),
    ])  # fmt: skip
    def test_errors_that_cannot_be_shown(self, error: BaseException) -> None:
        assert len(fits(describe(error)).type) < limits.NAME_CHARS_MAX + 100


class TestTask:
    def test_what_a_handler_is_given(self) -> None:
        given = task(
            payload=Raw(b'{"id": 1970670598291982290}'), labels={"a": "b"}, extra={"x": Raw(b"[1]")},
            trace={"traceparent": "00-1"},
        )  # fmt: skip
        assert (given.group, given.id, given.type, given.attempt, given.fencing_token) == ("g", "t1", "a", 2, 7)
        assert given.payload == {"id": 1970670598291982290}
        assert given.payload is given.payload
        assert (given.labels, given.extra, given.trace) == ({"a": "b"}, {"x": [1]}, {"traceparent": "00-1"})
        assert (given.state, given.cancelled) == (None, False)

    def test_a_number_too_large_for_python_is_an_invalid_payload(self) -> None:
        with pytest.raises(InvalidPayloadError):
            _ = task(payload=Raw(b"1e999")).payload

    def test_state_is_what_the_task_before_left(self) -> None:
        given = Task(DispatchedTask(1, "t", "a", 1, 1), "g", Raw(b'{"n": 1}'), lambda fraction, note: None)
        given.set_state({"n": 2})
        assert given.state == {"n": 1}
        assert bytes(given.new_state or b"") == b'{"n":2}'

    def test_state_has_a_limit(self) -> None:
        given = task()
        given.set_state("x" * (limits.STATE_BYTES_MAX - 2))
        with pytest.raises(StateTooLargeError, match="65537 bytes"):
            given.set_state("x" * (limits.STATE_BYTES_MAX - 1))
        with pytest.raises(NotJsonError):
            given.set_state(object())
        assert len(bytes(given.new_state or b"")) == limits.STATE_BYTES_MAX

    async def awaited(self, given: Task) -> None:
        await given.progress(0.5, "half way")

    def test_progress_may_be_awaited_or_not(self) -> None:
        said: list[Any] = []
        given = task(said)
        given.progress(1.5, "x" * 3_000_000)
        given.progress(float("nan"))
        given.progress(-1, "\ud800")
        given.progress(note="only a note")
        with pytest.raises(StopIteration):
            self.awaited(given).send(None)
        fractions = [fraction for fraction, _ in said]
        assert fractions == [1.0, None, 0.0, None, 0.5]
        assert len(said[0][1]) < limits.NOTE_CHARS_MAX + 100
        encode(Report(ReportKind.PROGRESS, 1, 1, note=said[2][1]))

    def test_to_json_refuses_what_nests_too_deep_for_other_processes(self) -> None:
        to_json(nested(limits.JSON_DEPTH_MAX - 1))
        with pytest.raises(NotJsonError, match="nests deeper"):
            to_json(nested(limits.JSON_DEPTH_MAX))
