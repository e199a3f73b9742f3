"""A model of consumer groups (classic protocol): generations, sessions, `range` and `cooperative-sticky`.

What is modelled: a commit is accepted from a member of the current generation, also while others still have to join
again, but not between JoinGroup and SyncGroup (unless it is part of a transaction); a member that was silent for a
session is thrown out and learns of it when it next hears from the coordinator; a group without members takes anybody's
commit that names no member; with `range` everybody lets go before anybody gets; with `cooperative-sticky` what moves is
first given up and then, in one more generation, given away.
"""

from collections import deque
from collections.abc import Callable, Iterable
from typing import NamedTuple

from streams import limits
from tests.sim.loop import MS, Loop, Process

SESSION_US = limits.SESSION_TIMEOUT_MS * MS
HEARTBEAT_US = limits.HEARTBEAT_INTERVAL_MS * MS
UNKNOWN_MEMBER, ILLEGAL_GENERATION, REBALANCING = "UNKNOWN_MEMBER_ID", "ILLEGAL_GENERATION", "REBALANCE_IN_PROGRESS"


class GroupMetadata(NamedTuple):
    """What a consumer says of itself with a commit."""

    group: str
    generation: int
    member_id: str


class Group:
    def __init__(self, loop: Loop, name: str, partitions: int, *, cooperative: bool) -> None:
        self.loop, self.name, self.partitions, self.cooperative = loop, name, partitions, cooperative
        self.generation = 0
        self.members: dict[str, Membership] = {}
        self._joined: set[str] = set()
        self.state = "stable"  # or preparing, or completing
        self._ids = 0

    def new_id(self, client_id: str) -> str:
        self._ids += 1
        return f"{client_id}-{self._ids}"

    def check(self, who: GroupMetadata, *, transactional: bool) -> str | None:
        """Why a commit is refused, or None."""
        if not who.member_id and who.generation < 0 and not self.members:
            return None
        if not who.member_id and who.generation < 0 and transactional:
            return None  # an outsider may take part in a transaction
        if who.member_id not in self.members:
            return UNKNOWN_MEMBER
        if who.generation != self.generation:
            return ILLEGAL_GENERATION
        if self.state == "completing" and not transactional:
            return REBALANCING
        return None

    def join(self, member: "Membership") -> None:
        self.members[member.member_id] = member
        if self.state != "preparing":
            self._prepare()
        self._joined.add(member.member_id)
        self._complete_if_all()

    def leave(self, member_id: str) -> None:
        if self.members.pop(member_id, None) is not None:
            self._joined.discard(member_id)
            if self.state != "preparing":
                self._prepare()
            self._complete_if_all()

    def _prepare(self) -> None:
        self.state = "preparing"
        self._joined.clear()
        for member in self.members.values():
            member.hear_soon()

    def _complete_if_all(self) -> None:
        if self.state != "preparing" or self._joined != self.members.keys():
            return
        self.generation += 1
        self.state = "completing"
        for member in self.members.values():
            member.generation = self.generation
        self.loop.at(self.loop.chance.randrange(1, 30) * MS, lambda g=self.generation: self._sync(g))  # type: ignore[misc]

    def _sync(self, generation: int) -> None:
        if self.state != "completing" or generation != self.generation:
            return
        self.state = "stable"
        for member, partitions in self._assign():
            delay_us = self.loop.chance.randrange(1, 30) * MS
            call = lambda m=member, p=partitions: m.synced(generation, p)  # noqa: E731
            self.loop.at(delay_us, call, member.process)

    def _assign(self) -> list[tuple["Membership", set[int]]]:
        members = [self.members[name] for name in sorted(self.members)]
        if not members:
            return []
        return self._sticky(members) if self.cooperative else self._range(members)

    def _range(self, members: list["Membership"]) -> list[tuple["Membership", set[int]]]:
        each, more = divmod(self.partitions, len(members))
        assigned, start = [], 0
        for place, member in enumerate(members):
            count = each + (place < more)
            assigned.append((member, set(range(start, start + count))))
            start += count
        return assigned

    def _sticky(self, members: list["Membership"]) -> list[tuple["Membership", set[int]]]:
        each, more = divmod(self.partitions, len(members))
        by_size = sorted(members, key=lambda m: (-len(m.held()), m.member_id))
        quota = {m.member_id: each + (place < more) for place, m in enumerate(by_size)}
        keep = {m.member_id: set(sorted(m.held())[: quota[m.member_id]]) for m in members}
        still_owned = set().union(*(m.held() for m in members))  # to be given up first
        free = [p for p in range(self.partitions) if p not in still_owned]
        for member in members:
            mine = keep[member.member_id]
            while free and len(mine) < quota[member.member_id]:
                mine.add(free.pop(0))
        return [(m, keep[m.member_id]) for m in members]


class Membership:
    """The client's side.  `callbacks` wait for the next poll; `wake` is called when there is one."""

    def __init__(self, group: Group, process: Process, client_id: str, wake: Callable[[], None]) -> None:
        self.group, self.process, self._client_id, self._wake = group, process, client_id, wake
        self.member_id = ""
        self.generation = -1
        self.owned: set[int] = set()
        self.callbacks: deque[tuple[str, set[int]]] = deque()
        self._doing = ""  # the callback that runs now
        self._getting: set[int] = set()
        self._wants = False
        self._request = 0
        self._watched_us = -1
        process.on_unreachable.append(self._watch)

    def held(self) -> set[int]:
        """What it has been given and has not given up, also where its application does not know yet."""
        return self.owned.union(self._getting, *(p for kind, p in self.callbacks if kind == "assign"))

    @property
    def metadata(self) -> GroupMetadata:
        return GroupMetadata(self.group.name, self.generation, self.member_id)

    def join(self) -> None:
        """Ask for a place; answered by a callback."""
        self._wants = True
        self._join_soon()

    def leave(self) -> None:
        self._wants = False
        self.callbacks.clear()
        self.owned = set()
        member_id, self.member_id, self.generation = self.member_id, "", -1
        if member_id and self.process.is_reachable():
            self.group.leave(member_id)
        elif member_id:
            self.group.loop.at(SESSION_US, lambda: self.group.leave(member_id))

    def _join_soon(self) -> None:
        """The latest request counts."""
        self._request += 1
        request = self._request
        delay_us = self.group.loop.chance.randrange(1, 20) * MS
        self.group.loop.at(delay_us, lambda: self._join_now(request), self.process)

    def _join_now(self, request: int) -> None:
        if not self._wants or request != self._request:
            return
        if not self.process.is_reachable():
            self.group.loop.at(HEARTBEAT_US // 2, lambda: self._join_now(request), self.process)
            return
        if self.member_id and self.member_id not in self.group.members:
            self._lost()
            return
        if not self.member_id:
            self.member_id = self.group.new_id(self._client_id)
        self.group.join(self)

    def hear_soon(self) -> None:
        """The next heartbeat's answer says that there is a rebalance, or that we are no member any more."""
        self.group.loop.at(self.group.loop.chance.randrange(HEARTBEAT_US), self._heartbeat, self.process)

    def _heartbeat(self) -> None:
        if not self.process.is_reachable():
            self.group.loop.at(HEARTBEAT_US // 2, self._heartbeat, self.process)
        elif not self._wants or not self.member_id:
            return
        elif self.member_id not in self.group.members:
            self._lost()
        elif self.group.state == "preparing" and self.member_id not in self.group._joined:
            self._take_part()

    def _take_part(self) -> None:
        if self._doing:
            self.group.loop.at(HEARTBEAT_US // 10, self._heartbeat, self.process)
        elif not self.group.cooperative and self.owned:
            self._call("revoke", set(self.owned))
        elif not any(kind == "revoke" for kind, _ in self.callbacks):
            if not self.group.cooperative:
                self.callbacks.clear()  # an assignment that is over already
            self._join_soon()

    def _lost(self) -> None:
        """librdkafka forgets the member id at once and the generation with the callback (seen on a real broker): what it
        commits in between names a generation and is refused, also by a group without members.
        """
        self.member_id = ""
        self.callbacks.clear()
        if self.owned:
            self._call("lost", set(self.owned))
        else:
            self.generation = -1
            self._join_soon()

    def _call(self, kind: str, partitions: set[int]) -> None:
        if (kind, partitions) not in self.callbacks:
            self.callbacks.append((kind, partitions))
            self._wake()

    def synced(self, generation: int, partitions: set[int]) -> None:
        if generation != self.generation or self.member_id not in self.group.members:
            return
        if not self.process.is_reachable():
            self.group.loop.at(HEARTBEAT_US // 2, lambda: self.synced(generation, partitions), self.process)
        elif not self.group.cooperative:
            self._call("assign", partitions)
        else:
            gone = self.held() - partitions
            self.callbacks.clear()
            if gone & self.owned:
                self._call("revoke", gone & self.owned)
            elif gone:
                self._join_soon()
            if new := partitions - self.owned:
                self._call("assign", new)

    def take(self) -> tuple[str, set[int]]:
        """The next callback: to be run now, and `done` called after it."""
        kind, partitions = self.callbacks.popleft()
        self._doing = kind
        self._getting = partitions if kind == "assign" else set()
        return kind, partitions

    def done(self, kind: str, partitions: set[int]) -> None:
        """The callback has run."""
        self._doing, self._getting = "", set()
        if kind == "assign":
            self.owned |= partitions
            return
        self.owned -= partitions
        if kind == "lost":
            self.generation = -1
        if kind == "lost" or not self.group.cooperative:
            self._join_soon()
        elif self.member_id:
            self._join_soon()  # what was given up can be given away now

    def _watch(self) -> None:
        """Unreachable from now on; after a session without a word the coordinator gives the member up."""
        since_us = self.group.loop.now_us
        if self._watched_us == since_us:
            return
        self._watched_us = since_us
        delay_us = SESSION_US - self.group.loop.chance.randrange(HEARTBEAT_US)
        self.group.loop.at(delay_us, lambda: self._expel(since_us))

    def _expel(self, since_us: int) -> None:
        """A process that could be reached in between has sent a heartbeat."""
        if self.member_id and not self.process.is_reachable() and not _was_reachable(self.process, since_us):
            self.group.leave(self.member_id)
            self.hear_soon()


def _was_reachable(process: Process, since_us: int) -> bool:
    """Whether there was a gap in its troubles since then."""
    if not process.alive:
        return False
    at_us = since_us
    for begin_us, end_us in sorted(process.trouble):
        if begin_us <= at_us:
            at_us = max(at_us, end_us)
    return at_us < process.loop.now_us


def tell_all(groups: Iterable[Group]) -> None:
    """After an outage every member talks to the coordinator again."""
    for group in groups:
        for member in list(group.members.values()):
            member.hear_soon()
