"""Work on many groups or dead letters: counted first, watched while it runs, ended at the next batch when asked."""

import threading
import traceback
from collections import Counter, OrderedDict
from collections.abc import Iterator
from typing import Any, Final, Literal, Protocol

import structlog

from producers.commands import CommandSender
from pstp.service import new_command
from streams.clock import new_id, now
from streams.errors import UserError
from streams.protocol import CommandKind, Outcome, Refusal
from streams.settings import Settings
from streams.topics import verify_identity

log = structlog.get_logger("web")

RUNNING_MAX: Final = 4
KEPT: Final = 100
BATCH: Final = 200


class BusyError(UserError):
    """Too many jobs run already."""


class Work(Protocol):
    """What `pstp.service.RedriveJob` and `BulkWork` have in common."""

    @property
    def total(self) -> int: ...
    @property
    def done(self) -> int: ...
    @property
    def refused(self) -> Counter[str]: ...
    @property
    def aborted(self) -> bool: ...
    def abort(self) -> None: ...
    def run(self) -> Iterator[Any]: ...


class BulkWork:
    """One command for each of many groups."""

    def __init__(
        self, settings: Settings, kind: CommandKind, groups: list[str], actor: str, note: str, fields: Any
    ) -> None:
        self._settings = settings
        self._commands = [new_command(kind, group, actor=actor, note=note, **fields) for group in groups]
        self.total, self.done, self.aborted = len(groups), 0, False
        self.refused: Counter[str] = Counter()

    def abort(self) -> None:
        self.aborted = True

    def run(self) -> Iterator["BulkWork"]:
        """Raises `UserError`; what was answered until then is counted."""
        with CommandSender(self._settings, verify_identity(self._settings).partitions) as sender:
            for first in range(0, self.total, BATCH):
                if self.aborted:
                    return
                for answer in sender.ask_all(self._commands[first : first + BATCH]):
                    if answer.outcome is Outcome.REFUSED:
                        self.refused[answer.reason or Refusal.BAD_COMMAND.value] += 1
                    else:
                        self.done += 1
                yield self


class Job:
    """One work in a thread of its own."""

    def __init__(self, family: Literal["redrive", "bulk"], kind: str, actor: str, work: Work) -> None:
        self.id, self.family, self.kind, self.actor, self.work = new_id(), family, kind, actor, work
        self.started_ms = now().wall_ms
        self.state = "running"
        self.error = ""

    def run(self) -> None:
        try:
            for _ in self.work.run():
                pass
            self.state = "aborted" if self.work.aborted else "done"
        except UserError as error:
            self.state, self.error = "failed", str(error)
        except Exception:
            log.error("a job failed", job=self.id, traceback=traceback.format_exc()[-8000:])
            self.state, self.error = "failed", "an error of ours: the server's log has it"


class Jobs:
    """The jobs of this process; the last ones that ended are remembered."""

    def __init__(self) -> None:
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._lock = threading.Lock()

    def start(self, job: Job) -> Job:
        """Raises `BusyError`."""
        with self._lock:
            if sum(one.state == "running" for one in self._jobs.values()) >= RUNNING_MAX:
                raise BusyError(f"{RUNNING_MAX} jobs run already: wait for one to end, or abort one")
            self._jobs[job.id] = job
            for old in [one.id for one in self._jobs.values() if one.state != "running"][: -KEPT or None]:
                del self._jobs[old]
        threading.Thread(target=job.run, name=f"job-{job.id}", daemon=True).start()
        return job

    def find(self, family: str, job_id: str) -> Job | None:
        found = self._jobs.get(job_id)
        return found if found is not None and found.family == family else None

    def all(self) -> list[Job]:
        return list(self._jobs.values())[::-1]

    def abort_all(self) -> None:
        for job in self.all():
            job.work.abort()
