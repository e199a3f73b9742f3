"""Routes that act: commands on groups, tasks, redrives and bulk commands, signing in and out."""

from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, HTTPException, Query, Request
from fastapi.responses import JSONResponse, Response
from msgspec import Raw
from starlette.concurrency import run_in_threadpool

from producers.message import TaskMessage
from pstp import service
from pstp.web import answers, models
from pstp.web.jobs import BulkWork, Job
from pstp.web.keys import SESSION_S, Role
from pstp.web.masking import MASK
from pstp.web.queries import GroupFilter
from pstp.web.reading import Id
from pstp.web.security import COOKIE, KIND_ROLES, principal_of, require
from pstp.web.site import Site
from pstp.web.tables import shown
from streams.clock import now
from streams.protocol import Command, CommandKind, utc

WAIT_S_MAX: Final = 30.0
BULK_MAX: Final = 1_000_000
FIRST: Final = 3
WaitS = Annotated[float, Query(ge=0, le=WAIT_S_MAX, allow_inf_nan=False)]


def routes(site: Site) -> APIRouter:
    router = APIRouter(prefix="/api")
    _commands(router, site)
    _tasks(router, site)
    _redrives(router, site)
    _bulk(router, site)
    _session(router, site)
    return router


def _actor(request: Request) -> str:
    principal = principal_of(request)
    return principal.name if principal else ""


def _commands(router: APIRouter, site: Site) -> None:
    @router.post("/groups/{group:path}/commands", response_model=models.CommandAnswer)
    async def command(
        request: Request, group: str, asked: models.CommandRequest, wait_s: WaitS = 0
    ) -> models.CommandAnswer:
        """Send a command; it is answered by the group's scheduler, in the log."""
        return await _send(site, request, group, asked, wait_s)

    @router.post("/commands", response_model=models.CommandAnswer)
    async def command_of(request: Request, group: Id, asked: models.CommandRequest, wait_s: WaitS = 0) -> Any:
        """The same, for any group: no client keeps `..` in a path."""
        return await _send(site, request, group, asked, wait_s)

    @router.get("/commands/{command_id}", response_model=models.CommandAnswer)
    async def answer(command_id: str, wait_s: WaitS = 0) -> models.CommandAnswer:
        """What the log says about a command; `outcome` is null until its scheduler has answered."""
        return await _answer(site, command_id, wait_s)


async def _send(
    site: Site, request: Request, group: str, asked: models.CommandRequest, wait_s: float
) -> models.CommandAnswer:
    require(principal_of(request), KIND_ROLES.get(asked.kind, Role.OPERATOR))
    made = to_command(group, asked, _actor(request))
    await run_in_threadpool(site.commander.send, made)
    return await _answer(site, made.id, wait_s)


def to_command(group: str, asked: models.CommandRequest, actor: str) -> Command:
    """Raises `HTTPException` for a request that makes no command."""
    if not group:
        raise HTTPException(422, "name the group")
    if asked.payload is not None and MASK in asked.payload:
        raise HTTPException(422, "the payload holds what is masked here: edit it where its secrets are at hand")
    command = service.new_command(
        asked.kind, group, actor=actor, note=asked.note, task_id=asked.task_id,
        sequence=None if asked.sequence is None else int(asked.sequence), position=asked.place,
        payload=None if asked.payload is None else _json(asked.payload), if_head=asked.if_head, if_state=asked.if_state,
        until=None if asked.until_ms is None else utc(asked.until_ms), running=asked.running,
    )  # fmt: skip
    return command if asked.id is None else msgspec.structs.replace(command, id=asked.id)


def _json(text: str) -> Raw:
    try:
        msgspec.json.decode(text.encode())
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        raise HTTPException(422, f"the payload is no JSON: {error}") from None
    return Raw(text.encode())


async def _answer(site: Site, command_id: str, wait_s: float) -> models.CommandAnswer:
    deadline_ms = now().mono_ms + int(wait_s * 1000)
    while True:
        row = await run_in_threadpool(site.queries.command, command_id)
        left_s = (deadline_ms - now().mono_ms) / 1000
        if row is not None or left_s <= 0:
            break
        await site.hub.answered(command_id, min(left_s, 1.0))
    place = site.commander.place(command_id)
    if row is None and place is None:
        raise HTTPException(404, "no command of this id: not sent from here, and not answered in the log")
    return models.CommandAnswer(
        command_id=command_id, outcome=None if row is None else row.outcome,
        partition=row.partition if place is None else place[0],  # type: ignore[union-attr]
        offset=None if place is None else str(place[1]),
        refusal=row.reason if row is not None and row.outcome == "refused" else None,
    )  # fmt: skip


def _tasks(router: APIRouter, site: Site) -> None:
    schema = {"content": {"application/json": {"schema": _task_schema()}}, "required": True}

    @router.post("/tasks", response_model=models.Submitted, status_code=201, openapi_extra={"requestBody": schema})
    async def submit(request: Request) -> models.Submitted:
        """Publish one task.  Payload and unknown fields go to the handler as they came, digit for digit."""
        message = TaskMessage.from_json(await request.body())
        done = await run_in_threadpool(site.publisher.publish_task, message)
        return models.Submitted(task_id=done.task_id, partition=done.partition, offset=str(done.offset))


def _task_schema() -> object:
    return {
        "type": "object", "required": ["group", "type"],
        "properties": {
            "group": {"type": "string", "minLength": 1}, "type": {"type": "string", "minLength": 1},
            "payload": {}, "id": {"type": "string", "minLength": 1},
            "not_before": {"type": "string", "format": "date-time"},
            "timeout_s": {"type": "number", "exclusiveMinimum": 0}, "max_attempts": {"type": "integer", "minimum": 1},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
            "idempotency_key": {"type": "string"},
        },
    }  # fmt: skip


def _redrives(router: APIRouter, site: Site) -> None:
    @router.post("/redrives", response_model=models.Job, status_code=202)
    async def redrive(request: Request, asked: models.RedriveRequest) -> models.Job:
        """Put dead letters back, in their original order.  A dry run only counts them."""
        which = service.DeadLetterFilter(**asked.filter.model_dump())
        letters = await run_in_threadpool(service.list_dead_letters, site.settings, which)
        first = [letter.task_id for letter in letters[:FIRST]]
        if asked.dry_run:
            return _dry_run("redrive", len(letters), first, _actor(request))
        work = service.RedriveJob(
            site.settings, letters, position=asked.place, actor=_actor(request), note=asked.note, per_s=asked.per_s
        )
        job = site.jobs.start(Job("redrive", f"redrive to the {asked.place}", _actor(request), work))
        return answers.job(job, first)

    @router.get("/redrives/{job_id}", response_model=models.Job)
    def watch(job_id: str) -> models.Job:
        return answers.job(_find(site, "redrive", job_id), [])

    @router.delete("/redrives/{job_id}", response_model=models.Job)
    def abort(job_id: str) -> models.Job:
        """End it at the next batch; what was redriven stays so."""
        return _abort(_find(site, "redrive", job_id))


def _bulk(router: APIRouter, site: Site) -> None:
    @router.post("/bulk", response_model=models.Job, status_code=202)
    async def bulk(request: Request, asked: models.BulkRequest) -> models.Job:
        """One command for each group that the filter finds now.  A dry run only counts them."""
        which = GroupFilter(asked.filter.state, asked.filter.q)
        found = await run_in_threadpool(site.queries.list_groups, which, 0, BULK_MAX)
        names = [shown(group.name) for group in found]
        first = [shown(g.name) for g in sorted(found, key=lambda g: g.since_ms)[:FIRST]]
        if asked.dry_run:
            return _dry_run(asked.kind, len(names), first, _actor(request))
        work = BulkWork(site.settings, CommandKind(asked.kind), names, _actor(request), asked.note, {})
        return answers.job(site.jobs.start(Job("bulk", asked.kind, _actor(request), work)), first)

    @router.get("/bulk/{job_id}", response_model=models.Job)
    def watch(job_id: str) -> models.Job:
        return answers.job(_find(site, "bulk", job_id), [])

    @router.delete("/bulk/{job_id}", response_model=models.Job)
    def abort(job_id: str) -> models.Job:
        """End it at the next batch; what was sent is answered all the same."""
        return _abort(_find(site, "bulk", job_id))

    @router.get("/jobs", response_model=models.JobList)
    def jobs() -> models.JobList:
        """Redrives and bulk commands of this process, newest first."""
        return models.JobList(items=[answers.job(job, []) for job in site.jobs.all()])


def _dry_run(kind: str, total: int, first: list[str], actor: str) -> models.Job:
    return models.Job(
        id=None, kind=kind, state="dry_run", total=total, done=0, refused={}, error="", actor=actor,
        started_ms=now().wall_ms, first=first,
    )  # fmt: skip


def _find(site: Site, family: str, job_id: str) -> Job:
    job = site.jobs.find(family, job_id)
    if job is None:
        raise HTTPException(404, "no such job: they are remembered until the server ends")
    return job


def _abort(job: Job) -> models.Job:
    job.work.abort()
    return answers.job(job, [])


def _session(router: APIRouter, site: Site) -> None:
    @router.get("/session", response_model=models.Session)
    def session(request: Request) -> models.Session:
        """Who asks, and whether one has to sign in."""
        who = principal_of(request)
        role = Role.ANYONE if who is None else who.role
        return models.Session(
            name=who.name if who else None, role=role.name.lower(), keys=site.keys is not None
        )  # fmt: skip

    @router.post("/session", response_model=models.Session)
    async def sign_in(given: models.KeyGiven) -> Response:
        """An API key for a cookie, which scripts of the page cannot read."""
        if site.keys is None:
            raise HTTPException(409, "this server asks nobody who they are: no keys are set")
        who = await run_in_threadpool(site.keys.check, given.key)
        if who is None:
            raise HTTPException(401, "this key is none of ours")
        said = models.Session(name=who.name, role=who.role.name.lower(), keys=True)
        answer = JSONResponse(said.model_dump(by_alias=True))
        answer.set_cookie(
            COOKIE, site.keys.open_session(who, now().mono_ms), max_age=SESSION_S, httponly=True, samesite="strict",
            secure=site.web.secure_cookie,
        )  # fmt: skip
        return answer

    @router.delete("/session", status_code=204)
    def sign_out(request: Request) -> Response:
        if site.keys is not None and (token := request.cookies.get(COOKIE)):
            site.keys.close_session(token)
        answer = Response(status_code=204)
        answer.delete_cookie(COOKIE, httponly=True, samesite="strict", secure=site.web.secure_cookie)
        return answer
