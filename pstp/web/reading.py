"""Routes that read: all from the read model, but for who is alive."""

import hashlib
from typing import Annotated, Any, Final

from fastapi import APIRouter, HTTPException, Query, Request
from fastapi.responses import Response

from pstp.web import answers, models
from pstp.web.queries import LANE_MAX, GroupFilter
from pstp.web.site import Site, overview_of
from streams import limits

PAGE: Final = 100
PAGE_MAX: Final = 1000
Id = Annotated[str, Query(min_length=1, max_length=limits.TASK_BYTES_MAX)]
Word = Annotated[str | None, Query(max_length=limits.TASK_BYTES_MAX)]
Limit = Annotated[int, Query(ge=1, le=PAGE_MAX)]
Cursor = Annotated[str | None, Query(max_length=60, description="`next` of the page before")]


def routes(site: Site) -> APIRouter:
    router = APIRouter(prefix="/api")
    _groups(router, site)
    _tasks(router, site)
    _others(router, site)
    return router


def _groups(router: APIRouter, site: Site) -> None:
    queries = site.queries

    @router.get("/groups", response_model=models.Groups)
    def groups(
        request: Request, state: Word = None, q: Word = None, cursor: Cursor = None, limit: Limit = PAGE
    ) -> Response:
        """Groups in the order in which they first appeared."""
        after = numbers(cursor, 1)[0] if cursor else 0
        found = queries.list_groups(GroupFilter(state, q), after, limit)
        items = [answers.group_summary(group) for group in found]
        return tagged(
            request,
            models.Groups(
                items=items, next=str(found[-1].id) if len(found) == limit else None, counts=queries.group_counts(q)
            ),
        )

    @router.get("/groups/columns", response_model=models.GroupColumns)
    def columns(request: Request) -> Response:
        """All groups, a column each."""
        tag = f'W/"{hashlib.blake2b(str(site.model.version).encode(), digest_size=12).hexdigest()}"'
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=_caching(tag))
        return _json(answers.columns(queries.columns()), tag)

    @router.get("/groups/detail", response_model=models.GroupDetail)
    def detail(request: Request, id: Id, before: Cursor = None) -> Response:
        """One group: why it waits, its executions, its line."""
        return tagged(request, group_detail(site, id, before))

    @router.get("/groups/{group:path}", response_model=models.GroupDetail)
    def one_group(request: Request, group: str, before: Cursor = None) -> Response:
        """The same, by path; groups that are called `columns` or `detail` only by query."""
        return tagged(request, group_detail(site, group, before))


def group_detail(site: Site, name: str, before: str | None) -> models.GroupDetail:
    group = site.queries.group(name)
    if group is None:
        raise HTTPException(404, "no such group in the read model: it has had no task, or it ended long ago")
    line = site.queries.line(group.id)
    lane = site.queries.lane(group.id, numbers(before, 1)[0] if before else None)
    head = line[0] if line else None
    running_since = lane[-1].start_ms if lane and lane[-1].end_ms is None else None
    live = site.explain(name, group.partition) if group.state in ("ready", "dispatched", "retrying", "blocked") else {}
    return models.GroupDetail(
        group=name, state=group.state, explanation=answers.explanation(group, head, running_since, live),
        executions=[answers.execution(row) for row in lane], parked=[answers.task_row(row) for row in line[1:]],
        group_state=site.mask(group.group_state), partition=group.partition,
        older=str(lane[0].id) if len(lane) == LANE_MAX else None,
    )  # fmt: skip


def _tasks(router: APIRouter, site: Site) -> None:
    queries = site.queries

    def find(task_id: str, group: str | None) -> Any:
        found = queries.task(task_id, group)
        if found is None:
            raise HTTPException(404, "no such task in the read model: it is not accepted yet, or it ended long ago")
        return found

    def detail(task_id: str, group: str | None) -> models.TaskDetail:
        return answers.task_detail(find(task_id, group), site.mask, site.web.text_max)

    @router.get("/tasks", response_model=models.Tasks)
    def tasks(
        request: Request, group: Word = None, state: Word = None, type: Word = None, cursor: Cursor = None,
        limit: Limit = PAGE,
    ) -> Response:  # fmt: skip
        """Tasks, those accepted last first."""
        found = queries.list_tasks(group, state, type, numbers(cursor, 1)[0] if cursor else None, limit)
        last = str(found[-1][0].id) if len(found) == limit else None
        return tagged(request, models.Tasks(items=[answers.task_summary(named) for named in found], next=last))

    @router.get("/tasks/detail", response_model=models.TaskDetail)
    def task(request: Request, id: Id, group: Word = None) -> Response:
        """One task; of an id that several have, the one that changed last, unless its group is named."""
        return tagged(request, detail(id, group))

    @router.get("/tasks/payload", response_class=Response)
    def payload(id: Id, group: Word = None) -> Response:
        """The payload, byte for byte, but for what is masked."""
        text = site.mask(find(id, group)[0].payload) or "null"
        headers = {"content-disposition": 'attachment; filename="payload.json"'}
        return Response(text.encode(), media_type="application/json", headers=headers)

    @router.get("/tasks/{task_id:path}", response_model=models.TaskDetail)
    def one_task(request: Request, task_id: str, group: Word = None) -> Response:
        """The same, by path; tasks that are called `detail` or `payload` only by query."""
        return tagged(request, detail(task_id, group))


def _others(router: APIRouter, site: Site) -> None:
    queries = site.queries

    @router.get("/overview", response_model=models.Overview)
    def overview(request: Request) -> Response:
        return tagged(request, overview_of(site.settings, queries, site.members, site.follower.lag_s))

    @router.get("/dead-letters", response_model=models.DeadLetters)
    def letters(
        request: Request, reason: Word = None, group: Word = None, type: Word = None, cursor: Cursor = None,
        limit: Limit = PAGE_MAX,
    ) -> Response:  # fmt: skip
        """Open dead letters, and records that never were tasks, newest first."""
        before = numbers(cursor, 2) if cursor else None
        found = queries.letters(reason, group, type, (before[0], before[1]) if before else None, limit)
        last = f"{found[-1][0].updated_ms}.{found[-1][0].id}" if len(found) == limit else None
        items = [answers.dead_letter(named, site.mask, site.web.text_max) for named in found]
        return tagged(request, models.DeadLetters(items=items, next=last, reasons=queries.letter_reasons(group, type)))

    @router.get("/members", response_model=models.Members)
    def members(request: Request) -> Response:
        return tagged(request, answers.members(site.alive(), queries.running(), site.settings.lease_s))


def numbers(cursor: str, count: int) -> list[int]:
    """Raises `HTTPException` for a cursor that is none of ours."""
    parts = cursor.split(".")
    if len(parts) != count or not all(
        p.lstrip("-").isascii() and p.lstrip("-").isdigit() and len(p) < 20 for p in parts
    ):
        raise HTTPException(422, "no cursor of ours: take `next` of the page before as it is")
    return [int(part) for part in parts]


def tagged(request: Request, model: models.Model) -> Response:
    """The answer with its tag, or 304 if the browser has it."""
    body = model.model_dump_json(by_alias=True).encode()
    tag = f'"{hashlib.blake2b(body, digest_size=12).hexdigest()}"'
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=_caching(tag))
    return Response(body, media_type="application/json", headers=_caching(tag))


def _json(model: models.Model, tag: str) -> Response:
    return Response(model.model_dump_json(by_alias=True), media_type="application/json", headers=_caching(tag))


def _caching(tag: str) -> dict[str, str]:
    return {"etag": tag, "cache-control": "private, no-cache"}
