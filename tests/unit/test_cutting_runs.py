"""A worker's run that is wanted back in any moment: between its claim and its start, and between two of its tasks."""

from typing import Any

from msgspec import Raw

from consumers.outcomes import Outcome
from consumers.reports import Claim
from consumers.runs import Run
from streams.clock import mono_ns
from streams.protocol import PROTOCOL, Dispatch, DispatchedTask, Reason, Report, ReportKind
from streams.settings import Settings

TASKS = tuple(DispatchedTask(n, f"t{n}", "t", 10 + n, 1, Raw(b"null")) for n in range(4))
DISPATCH = Dispatch(PROTOCOL, "g", 0, "s1", TASKS)


class Parts:
    """Everything around a run, and what it says; `between`: called as a report is sent, as other threads may."""

    def __init__(self) -> None:
        self.said: list[tuple[str, int]] = []
        self.acknowledge: Any = None
        self.executions: list[Any] = []
        self.between: Any = lambda: None
        self.slots = 0
        self.draining = False
        self.runs: dict[Any, Any] = {}
        self.settings, self.instance = Settings(_env_file=None), "w"  # type: ignore[call-arg]
        self.registry = {"t": type("H", (), {"policy": None, "timeout_s": None})()}
        self.reporter = self.keeper = self.metrics = self.started = self.ended = self.handler_s = self

    def send(self, claim: Claim, reports: tuple[Report, ...], acknowledged: Any = None) -> None:
        if reports[0].kind is ReportKind.STARTED:
            self.acknowledge = acknowledged
        self.between()
        self.said += [(report.kind.value, report.token) for report in reports]

    def submit(self, execution: Any) -> None:
        self.executions.append(execution)

    def release_slot(self) -> None:
        self.slots += 1

    def nothing(self, *_: Any) -> Any:
        return self

    add = discard = labels = inc = observe = step = executor_of = nothing


def new_run(parts: Parts) -> Run:
    return Run(parts, Claim(DISPATCH, 0, 5, "c", mono_ns()))  # type: ignore[arg-type]


def succeed(parts: Parts) -> None:
    execution = parts.executions[-1]
    execution.begin()
    execution.end(Outcome(ReportKind.SUCCEEDED))


BACK = [("returned", token) for token in (11, 12, 13)]


def test_wanted_back_before_its_start_is_sent_it_says_so_after_it() -> None:
    parts = Parts()
    run = new_run(parts)
    parts.between = lambda: setattr(parts, "between", lambda: None) or run.cut()
    run.announce()
    assert parts.said == [("started", 10), *BACK]
    parts.acknowledge(None)
    succeed(parts)
    assert parts.said[4:] == [("succeeded", 10)] and parts.slots == 1 and not parts.runs


def test_wanted_back_while_the_next_one_is_begun_that_one_goes_on() -> None:
    parts = Parts()
    run = new_run(parts)
    run.announce()
    parts.acknowledge(None)
    parts.between = lambda: setattr(parts, "between", lambda: None) or run.cut()
    succeed(parts)
    assert parts.said[1:] == [*BACK[1:], ("succeeded", 10), ("started", 11)]
    succeed(parts)
    assert parts.said[-1] == ("succeeded", 11) and parts.slots == 1


def test_wanted_back_twice_or_when_nothing_is_left_it_says_nothing_more() -> None:
    parts = Parts()
    run = new_run(parts)
    run.announce()
    run.cut()
    run.cut()
    parts.acknowledge(None)
    assert parts.said == [("started", 10), *BACK]
    run.give_back(Reason.RETURNED)
    run.cut()
    assert parts.said[4:] == [("returned", 10)] and parts.slots == 1
