"""From the /metrics of all processes to what a person wants to know.  Pure."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from msgspec import Struct
from prometheus_client.parser import text_string_to_metric_families

# (metric's name, its labels in order)
Key = tuple[str, tuple[tuple[str, str], ...]]
Samples = Mapping[Key, float]


class Look(Struct, frozen=True):
    """What all processes said at one moment.  `missing`: those that did not answer."""

    mono_ms: int
    by_instance: dict[str, Samples]
    missing: tuple[str, ...] = ()


class Process(Struct, frozen=True):
    instance: str
    role: str
    owned: int  # input partitions of a scheduler, dispatch partitions of a worker
    used: int  # slots, of who runs handlers
    slots: int
    per_s: float  # of a scheduler: state changes; of a worker: executions begun


class Figures(Struct, frozen=True):
    """Rates are per second since the look before; None where there is none."""

    parked: int
    ready: int
    in_flight: int
    blocked: int
    without_handler: int
    oldest_s: float
    lag_records: int
    slots: int
    ended_per_s: float | None
    states: dict[str, int]  # ever
    per_s: dict[str, float]
    wait_p50_s: float | None  # of the tasks that started in between
    wait_p99_s: float | None
    processes: tuple[Process, ...]
    missing: tuple[str, ...]


ENDS = ("succeeded", "dead_lettered", "cancelled", "skipped", "rejected")


def parse(text: str) -> Samples:
    """Raises `ValueError` on what is no text of Prometheus."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def figures(now: Look, before: Look | None) -> Figures:
    everything = list(now.by_instance.values())
    states = _by(everything, "pstp_task_states_total", "state")
    elapsed_s = (now.mono_ms - before.mono_ms) / 1000 if before else 0.0
    earlier = _by(before.by_instance.values(), "pstp_task_states_total", "state") if before else Counter[str]()
    per_s = {s: max(0.0, (n - earlier[s]) / elapsed_s) for s, n in states.items()} if before and elapsed_s else {}
    waits = _waits(now, before)
    return Figures(
        parked=_sum(everything, "pstp_tasks_parked"), ready=_sum(everything, "pstp_groups_ready"),
        in_flight=_sum(everything, "pstp_tasks_in_flight"), blocked=_sum(everything, "pstp_groups_blocked"),
        without_handler=_sum(everything, "pstp_groups_without_handler"),
        oldest_s=max(_values(everything, "pstp_oldest_unfinished_seconds"), default=0.0),
        lag_records=_sum(everything, "pstp_lag_records"), slots=_sum(everything, "pstp_worker_slots"),
        ended_per_s=sum(per_s.get(state, 0.0) for state in ENDS) if per_s else None,
        states={state: int(count) for state, count in states.items()}, per_s=per_s,
        wait_p50_s=_quantile(waits, 0.5), wait_p99_s=_quantile(waits, 0.99),
        processes=tuple(
            _process(instance, samples, (before.by_instance if before else {}).get(instance), elapsed_s)
            for instance, samples in sorted(now.by_instance.items())
        ),
        missing=now.missing,
    )  # fmt: skip


def _process(instance: str, samples: Samples, before: Samples | None, elapsed_s: float) -> Process:
    role = next((dict(labels)["role"] for name, labels in samples if name == "pstp_build_info"), "")
    is_worker = role == "worker"
    owned = "pstp_worker_partitions" if is_worker else "pstp_partitions_owned"
    counted = "pstp_worker_started_total" if is_worker else "pstp_task_states_total"
    change = _sum([samples], counted) - (_sum([before], counted) if before else 0)
    return Process(
        instance, role, _sum([samples], owned),
        _sum([samples], "pstp_worker_running"), _sum([samples], "pstp_worker_slots"),
        max(0.0, change / elapsed_s) if before and elapsed_s else 0.0,
    )  # fmt: skip


def _waits(now: Look, before: Look | None) -> Counter[float]:
    """How many tasks began, by the upper end of how long they had waited, cumulative as Prometheus has it."""

    def buckets(look: Look) -> Counter[float]:
        found: Counter[float] = Counter()
        for samples in look.by_instance.values():
            for (name, labels), value in samples.items():
                if name == "pstp_wait_seconds_bucket":
                    found[float(dict(labels)["le"])] += int(value)
        return found

    found = buckets(now)
    return found - buckets(before) if before else found


def _quantile(cumulative: Counter[float], q: float) -> float | None:
    """The upper end of the bucket that holds it."""
    total = max(cumulative.values(), default=0)
    return min((bound for bound, count in cumulative.items() if count >= q * total), default=None) if total else None


def _by(everything: Iterable[Samples], name: str, label: str) -> Counter[str]:
    found: Counter[str] = Counter()
    for samples in everything:
        for (sampled, labels), value in samples.items():
            if sampled == name:
                found[dict(labels)[label]] += int(value)
    return found


def _sum(everything: Iterable[Samples], name: str) -> int:
    return int(sum(_values(everything, name)))


def _values(everything: Iterable[Samples], name: str) -> Iterator[float]:
    return (value for samples in everything for (sampled, _), value in samples.items() if sampled == name)
