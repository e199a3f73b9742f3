"""Rows of the read model as the API tells them."""

from typing import Any, Final

import msgspec

from pstp.web import models
from pstp.web.folding import GroupRow
from pstp.web.jobs import Job
from pstp.web.masking import MASK, Masker
from pstp.web.queries import Figures, Named, steps_of
from pstp.web.tables import number_of, shown
from streams.protocol import Member

THROUGHPUT_S: Final = 5
FIRST_MAX: Final = 3


def cut(text: str | None, chars_max: int) -> tuple[str, bool]:
    if text is None:
        return "null", False
    return (text, False) if len(text) <= chars_max else (text[:chars_max], True)


def overview(
    figures: Figures, members: list[Member], running: int, lag_s: float, cluster: str, now_ms: int
) -> models.Overview:
    recent = figures.history[-THROUGHPUT_S:]
    executions, begun = figures.counts.get("executions", 0), figures.counts.get("begun", 0)
    return models.Overview(
        throughput=round(sum(recent) / max(1, len(recent)), 1), ready=figures.group("ready"), running=running,
        parked=max(0, figures.unfinished - figures.counts.get("busy", 0)),
        failing=figures.task("retrying") + figures.group("blocked"),
        dead_letters=figures.counts.get("letters", 0) + figures.task("rejected"),
        groups=figures.groups, oldest_ms=figures.oldest_ms, lag_s=round(lag_s, 2),
        workers=sum(m.role == "worker" for m in members), slots=sum(m.slots for m in members if m.role == "worker"),
        slots_used=running, schedulers=sum(m.role == "scheduler" for m in members), cluster=cluster,
        verify=models.VerifyBadge(
            overlaps=figures.counts.get("overlaps", 0), executions=executions, begun=begun, at_ms=now_ms
        ) if begun else None,
        history=[float(n) for n in figures.history],
    )  # fmt: skip


def group_summary(group: GroupRow) -> models.GroupSummary:
    return models.GroupSummary(
        group=shown(group.name), state=group.state, parked=group.behind_head(), done=group.done, since_ms=group.since_ms
    )


def columns(groups: list[GroupRow]) -> models.GroupColumns:
    return models.GroupColumns(
        ids=[shown(g.name) for g in groups], states=[g.state for g in groups],
        parked=[g.behind_head() for g in groups], done=[g.done for g in groups], since_ms=[g.since_ms for g in groups],
    )  # fmt: skip


def execution(row: Any) -> models.Execution:
    return models.Execution(
        task_id=shown(row.task_id or ""), type=shown(row.type or ""), state=row.state, attempt=row.attempt,
        token=str(number_of(row.id)), worker=shown(row.worker), start_ms=row.start_ms, end_ms=row.end_ms,
        refused=bool(row.refused),
    )  # fmt: skip


def _row(row: Any) -> dict[str, Any]:
    return {
        "task_id": shown(row.task_id), "type": shown(row.type), "state": row.state, "attempt": row.attempt,
        "sequence": str(number_of(row.id)),
    }  # fmt: skip


def task_row(row: Any) -> models.TaskRow:
    return models.TaskRow(**_row(row))


def task_summary(named: Named) -> models.TaskSummary:
    row, group = named
    return models.TaskSummary(
        **_row(row), group=group, worker=_maybe(row.worker), reason=row.reason, created_ms=row.created_ms,
        updated_ms=row.updated_ms,
    )  # fmt: skip


def _maybe(text: str | None) -> str | None:
    return None if text is None else shown(text)


def task_detail(named: Named, mask: Masker, text_max: int) -> models.TaskDetail:
    row, group = named
    payload, payload_cut = cut(mask(row.payload), text_max)
    return models.TaskDetail(
        **_row(row), group=group, payload=payload, payload_cut=payload_cut,
        result=None if row.result is None else cut(mask(row.result), text_max)[0],
        error=None if row.error is None else models.TaskError(**_error(row.error)),
        progress=row.progress if row.open == 1 else None, note=_maybe(row.note), worker=_maybe(row.worker),
        token=None if row.token is None else str(row.token),
        events=[
            models.TaskEvent(
                at_ms=at_ms, state=state, kind=kind, attempt=attempt, worker=worker, reason=reason, note=note,
                partition=partition, offset=offset, error=error[0] if error else None,
            )
            for at_ms, state, kind, attempt, worker, reason, note, partition, offset, *error in steps_of(row.steps)
        ],
    )  # fmt: skip


def _error(text: str) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode(shown(text))
    return {"traceback": None} | found


def dead_letter(named: Named, mask: Masker, text_max: int) -> models.DeadLetter:
    row, group = named
    masked = mask(row.payload)
    payload, payload_cut = cut(masked, text_max)
    error = {} if row.error is None else msgspec.json.decode(shown(row.error))
    return models.DeadLetter(
        task_id=shown(row.task_id), sequence=str(number_of(row.id)), group=group, type=shown(row.type),
        reason=row.reason or "",
        error=f"{error['type']}: {error['message']}" if error else _maybe(row.note) or "", at_ms=row.updated_ms,
        attempt=row.attempt, payload=payload, payload_cut=payload_cut, masked=masked != row.payload and MASK in payload,
        redrivable=row.id >= 0,
    )  # fmt: skip


def explanation(
    group: GroupRow, head: Any | None, worker_since_ms: int | None, live: dict[str, Any]
) -> models.Explanation:
    """From the read model; `live` is what the group's scheduler adds: limiter, position, expected start."""
    paused = None if group.paused is None else msgspec.json.decode(shown(group.paused))
    blocked = None if group.blocked is None else msgspec.json.decode(group.blocked)
    limiter = live.get("limiter")
    if limiter and live.get("position") is not None:
        limiter = f"{limiter}, {live['position']} before it"
    return models.Explanation(
        phase=group.state, parked=group.behind_head(),
        head=None if head is None else models.WaitingHead(
            task_id=shown(head.task_id), type=shown(head.type), state=head.state, attempt=head.attempt,
            worker=_maybe(head.worker) or "", since_ms=worker_since_ms or head.updated_ms,
        ),
        paused=None if paused is None else models.Paused(
            actor=paused["actor"], note=paused["note"], since_ms=paused["since_ms"]
        ),
        blocked=None if blocked is None else models.Blocked(reason=blocked["reason"], since_ms=blocked["since_ms"]),
        limiter=limiter, due_ms=None if head is None else head.due_ms, expected_ms=live.get("expected_ms"),
    )  # fmt: skip


def members(found: list[Member], running: dict[str, list[Named]], lease_s: float) -> models.Members:
    return models.Members(lease_s=lease_s, items=[
        models.Member(
            instance=m.instance, role="scheduler" if m.role == "scheduler" else "worker", host=m.host, pid=m.pid,
            version=f"protocol {m.v}", at_ms=m.at_ms, partitions=list(m.partitions), slots=m.slots,
            slots_used=len(running.get(m.instance, ())) if m.role != "scheduler" else 0, types=list(m.types),
            running=[
                models.RunningTask(task_id=shown(row.task_id), group=group, type=shown(row.type), since_ms=row.start_ms)
                for row, group in running.get(m.instance, ())[:200]
            ],
        )
        for m in found
    ])  # fmt: skip


def job(one: Job, first: list[str]) -> models.Job:
    return models.Job(
        id=one.id, kind=one.kind, state=one.state, total=one.work.total, done=one.work.done,
        refused=dict(one.work.refused), error=one.error, actor=one.actor, started_ms=one.started_ms, first=first,
    )  # fmt: skip
