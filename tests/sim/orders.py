"""The half of the independent model that is about operators: what they asked, and whether what was answered is so.

Commands are judged by what the history says at the moment of their answer.  One that is refused must be refused with
reason; that it changed nothing shows in that what memory and log hold is compared with this model after each step.
"""

from typing import TYPE_CHECKING, Any

from streams.protocol import CommandKind, Event, EventKind, FailurePolicy, Outcome, Reason, Refusal, TaskState
from tests.sim.loop import Violation
from tests.sim.probes import Probes
from tests.sim.scenario import CommandPlan, Scenario
from tests.sim.tale import BEGUN, Tale, Task

if TYPE_CHECKING:
    from tests.sim.truth import Truth

K, STATE = CommandKind, TaskState
NAMING = (K.CANCEL_TASK, K.REDRIVE, K.EDIT_AND_REDRIVE, K.DISCARD_DEAD_LETTER)
STOPS = (K.CANCEL_TASK, K.CANCEL_GROUP, K.SKIP_HEAD)


class Order:
    """One command.  `head`: the id of the head that it means, if it names one; `task`: what it is about."""

    def __init__(self, plan: CommandPlan, head: str | None, task: Task | None) -> None:
        self.plan, self.kind, self.head, self.task = plan, CommandKind(plan.kind), head, task
        self.id = f"c{plan.number}"
        self.payload: Any = None
        self.sent = self.answered = 0
        self.outcome: Outcome | None = None  # of the one that was not refused as a repetition


class Orders:
    def __init__(self, truth: "Truth", scenario: Scenario) -> None:
        settings = dict(scenario.settings)
        self._truth = truth
        self.by_id: dict[str, Order] = {}
        self.of_group: dict[str, list[Order]] = {}
        self.default_policy = FailurePolicy(settings.get("on_failure", "skip"))
        self._group_max = settings.get("group_parked_max", 0)
        self._partition_max = settings.get("partition_tasks_max", 0)
        self.probes = Probes(truth)

    def sent(self, order: Order) -> None:
        order.sent += 1
        self.by_id[order.id] = order
        if order.sent == 1:
            self.of_group.setdefault(order.plan.group, []).append(order)

    def unanswered(self) -> list[str]:
        return [order.id for order in self.by_id.values() if order.answered < order.sent]

    def _asked(self, tale: Tale, *kinds: CommandKind) -> list[Order]:
        """Those of these kinds that may have been carried out by now."""
        orders = self.of_group.get(tale.name, ())
        return [o for o in orders if o.kind in kinds and o.outcome is not Outcome.REFUSED]

    def _may_sweep(self, tale: Tale) -> bool:
        return bool(tale.doomed) or any(o.outcome is None for o in self._asked(tale, K.CANCEL_GROUP))

    # -- events about tasks

    def hear_of_task(self, partition: int, tale: Tale, event: Event) -> bool:
        """Whether it was something that only operators, limits and failure policies bring about."""
        truth, reason = self._truth, event.reason
        task = truth.by_sequence.get((partition, event.sequence or 0))
        if reason == Reason.DISPLACED:
            if task is not tale.head() or tale.has_begun():
                raise Violation("G2", f"{event.task_id} makes room, and is no head that has not begun", tale.name)
            tale.displaced = True
            tale.next()
            return True
        if reason in (Reason.REDRIVEN_HEAD, Reason.REDRIVEN_TAIL):
            self._redriven(partition, tale, event)
            return True
        if task is None or task not in tale.queue:
            return False
        if reason == Reason.EDITED:
            if task is not tale.head() or event.state is not tale.phase or event.attempt != tale.attempt:
                raise Violation("commands", f"{event.task_id} is edited while it is {tale.phase}", tale.name)
            return True
        if reason == Reason.CASCADE:
            if not tale.doomed or tale.doomed[0] is not task or (task is tale.head() and tale.has_begun()):
                raise Violation("commands", f"{event.task_id} is taken along by nobody's failure", tale.name)
            tale.doomed.pop(0)
        elif reason == Reason.GROUP_FULL:
            self._check_full(partition, tale, task, event)
            key = tale.name, task.plan.idempotency_key or ""
            if truth.seen.get(key) is task:
                del truth.seen[key]  # what was turned away may be sent again
        elif reason == Reason.BY_COMMAND and event.state is STATE.CANCELLING:
            self._check_asked(tale, task, event)
            tale.stopping = True
            return True
        elif reason == Reason.BY_COMMAND:
            self._check_stopped(partition, tale, task, event)
            if task in tale.doomed:  # it was being cancelled with its group when the head failed
                tale.doomed.remove(task)
        else:
            return False
        truth.leave(partition, tale, task, event)
        return True

    def _redriven(self, partition: int, tale: Tale, event: Event) -> None:
        origin, _, offset = (event.task_id or "").partition("-")
        task = self._truth.tasks[int(origin), int(offset)]
        to_head = event.reason == Reason.REDRIVEN_HEAD
        if task in tale.queue or task.terminals != task.submissions:
            raise Violation("G3", f"{event.task_id} is redriven and has no end", tale.name)
        if (event.sequence == task.sequence) is not to_head:
            raise Violation("G2", f"{event.task_id} is redriven under number {event.sequence}", tale.name)
        task.submissions += 1
        task.sequence = event.sequence or 0
        self._truth.by_sequence[partition, task.sequence] = task
        before = tale.head()
        self._truth.enqueue(partition, tale, task, by_number=to_head)
        if (before is not None and tale.head() is not before) is not tale.displaced and not self._may_sweep(tale):
            raise Violation("G2", f"{event.task_id} is put before {before and before.id}", tale.name)
        tale.displaced = False

    def _check_asked(self, tale: Tale, task: Task, event: Event) -> None:
        """Somebody asked for its end, and meant it."""
        kinds = {STATE.SKIPPED: [K.SKIP_HEAD], STATE.CANCELLED: [K.CANCEL_TASK, K.CANCEL_GROUP]}
        for order in self._asked(tale, *kinds.get(event.state or STATE.PARKED, [*STOPS])):
            is_open = order.kind is K.CANCEL_GROUP or order.outcome is not Outcome.DONE
            is_meant = order.task is task if order.kind is K.CANCEL_TASK else order.head in (None, task.id)
            if is_open and (is_meant or order.kind is K.CANCEL_GROUP):
                return
        raise Violation("commands", f"{event.task_id} is {event.state}, and nobody asked for it", tale.name)

    def _check_stopped(self, partition: int, tale: Tale, task: Task, event: Event) -> None:
        """Cancelled or skipped: never while its handler goes on."""
        self._check_asked(tale, task, event)
        if task is not tale.head():
            if event.fencing_token:
                raise Violation("commands", f"{event.task_id} is {event.state} as a head", tale.name)
            return
        run = self._truth.runs.get((partition, tale.token))
        goes_on = tale.phase is STATE.RUNNING and run is not None and run.is_live and run.token not in tale.released
        if goes_on and run is not None and not self._truth.is_cut_off(run):
            raise Violation("commands", f"{event.task_id} is {event.state} while its handler goes on", tale.name)

    def check_released(self, tale: Tale, event: Event) -> None:
        """An operator gave it up: what still runs of it is his business."""
        if not self._asked(tale, K.RELEASE):
            raise Violation("commands", f"{event.task_id} is released, and nobody asked for it", tale.name)

    # -- limits

    def _is_full(self, partition: int, tale: Tale, more: int = 0) -> bool:
        parked = len(tale.queue) - (0 if self._may_sweep(tale) else 1)  # who knows whether there is a head
        full_group = self._group_max and parked + more > self._group_max
        return bool(full_group or (self._partition_max and self._truth.waiting[partition] + more > self._partition_max))

    def _check_full(self, partition: int, tale: Tale, task: Task, event: Event) -> None:
        if tale.queue[-1] is not task or not self._is_full(partition, tale):
            raise Violation("limits", f"{event.task_id} is turned away though there is room", tale.name)

    def check_limits(self, touched: set[str]) -> None:
        truth = self._truth
        for tale in filter(None, map(truth.tales.get, touched)):
            if self._group_max and len(tale.queue) - 1 > self._group_max:
                raise Violation("limits", f"{len(tale.queue) - 1} tasks are parked, not {self._group_max}", tale.name)
        if self._partition_max and max(truth.waiting) > self._partition_max:
            raise Violation("limits", f"{max(truth.waiting)} tasks wait in a partition, not {self._partition_max}")

    # -- everything else that is told

    def hear(self, partition: int, event: Event) -> None:
        if event.kind is EventKind.BREAKER:
            self.probes.told(event)
            return
        tale = self._truth.tale(event.group or "")
        match event.kind:
            case EventKind.COMMAND:
                self._answered(partition, tale, event)
            case EventKind.PROGRESS if event.reason in (Reason.TIMEOUT, Reason.BY_COMMAND):
                tale.goes_on = event.fencing_token or 0
            case EventKind.GROUP_PAUSED:
                tale.paused = True
            case EventKind.GROUP_RESUMED:
                tale.paused = tale.is_still = False
                tale.moved_us = self._truth.loop.now_us
            case EventKind.GROUP_BLOCKED:
                self._blocked(tale)
            case EventKind.GROUP_UNBLOCKED:
                tale.blocked = False
                tale.moved_us = self._truth.loop.now_us
            case EventKind.GROUP_FORGOTTEN:
                if tale.phase in BEGUN:
                    raise Violation("G8", "the state is forgotten while a task is out that was given it", tale.name)
                tale.state = None
            case EventKind.DUPLICATE:
                self._duplicate(partition, tale, event)
            case EventKind.DEAD_LETTER_CLOSED:
                self._truth.dead.remove((partition, event.sequence or 0))

    def _blocked(self, tale: Tale) -> None:
        head = tale.head()
        wanted = head.plan.on_failure if head is not None and head.plan.on_failure else self.default_policy
        if tale.phase is not STATE.RETRYING or wanted != FailurePolicy.BLOCK:
            raise Violation("commands", "a group is blocked by a task that should not", tale.name)
        tale.blocked = True

    def _duplicate(self, partition: int, tale: Tale, event: Event) -> None:
        truth = self._truth
        task = truth.next_in_order(partition, tale, event)
        first = truth.seen.get((tale.name, task.plan.idempotency_key or ""))
        if first is None or first is task or first.id != event.duplicate_of:
            raise Violation("G3", f"{event.task_id} is told to repeat {event.duplicate_of}", tale.name)
        truth.finish(task, event)

    # -- answers

    def _answered(self, partition: int, tale: Tale, event: Event) -> None:
        order = self.by_id[event.command_id or ""]
        order.answered += 1
        self._truth.count(f"{order.kind} {event.outcome} {event.reason or ''}")
        self._truth.note(f"       {tale.name} answers {order.id} {order.kind}: {event.outcome} {event.reason or ''}")
        if event.reason == Refusal.REPEATED:
            if order.sent < 2:
                raise Violation("commands", f"{order.id} is refused as repeated, and was sent once", tale.name)
            return
        if order.outcome is not None:
            raise Violation("commands", f"{order.id} is answered twice: {event.outcome}", tale.name)
        order.outcome = event.outcome
        tale.moved_us = self._truth.loop.now_us
        is_right = (
            self._is_refused_rightly(partition, tale, order, event.reason)
            if event.outcome is Outcome.REFUSED
            else self._is_done(tale, order, event)
        )
        if not is_right:
            words = f"{order.id} {order.kind} is {event.outcome} {event.reason or ''}, and that is not so"
            raise Violation("commands", words, tale.name)

    def _is_refused_rightly(self, partition: int, tale: Tale, order: Order, why: str | None) -> bool:
        head = tale.head()
        sweeps = self._may_sweep(tale)
        match why:
            case Refusal.OTHER_HEAD:
                return order.head is not None and (head is None or order.head != head.id or sweeps)
            case Refusal.NO_HEAD:
                return head is None or sweeps
            case Refusal.NO_SUCH_TASK:
                return order.task not in tale.queue
            case Refusal.NOT_PAUSED:
                return not tale.paused
            case Refusal.NOT_BLOCKED:
                return not tale.blocked
            case Refusal.NOT_WAITING:
                return head is not None and tale.phase not in BEGUN and not tale.blocked
            case Refusal.NOT_BEFORE:
                return head is not None and head.plan.not_before_ms is not None and not tale.has_begun()
            case Refusal.NOT_RUNNING:
                return tale.phase is not STATE.RUNNING
            case Refusal.RUNS_IN_TIME:
                return tale.phase is STATE.RUNNING and tale.goes_on != tale.token
            case Refusal.IN_FLIGHT:
                return tale.phase in BEGUN
            case Refusal.STOPPING:
                return tale.phase in BEGUN and bool(self._asked(tale, *STOPS))
            case Refusal.SWEEPING:
                return sweeps
            case Refusal.NO_DEAD_LETTER:
                return order.task is None or (partition, order.task.sequence) not in self._truth.dead
            case Refusal.NOTHING_TO_FORGET:
                return tale.state is None
            case Refusal.BAD_COMMAND:
                return order.task is None and order.kind in NAMING
            case Refusal.GROUP_FULL:
                return self._is_full(partition, tale, more=1)
            case _:
                return False

    def _is_done(self, tale: Tale, order: Order, event: Event) -> bool:
        """By now; what the answer means for the rest of the tale is noted."""
        head = tale.head()
        match order.kind:
            case K.PAUSE_GROUP:
                if tale.paused:  # not resumed meanwhile
                    tale.is_still = True
                    tale.still_token = tale.token if tale.phase is STATE.RUNNING else 0
                return event.outcome is Outcome.DONE
            case K.RESUME_GROUP:
                return not tale.paused
            case K.CANCEL_TASK | K.SKIP_HEAD if event.outcome is Outcome.ACCEPTED:
                return tale.stopping and tale.phase is STATE.RUNNING
            case K.CANCEL_TASK:
                return order.task not in tale.queue
            case K.SKIP_HEAD:
                return order.head is None or head is None or order.head != head.id
            case K.UNBLOCK | K.RETRY_NOW | K.EDIT_HEAD:
                return self._begins_anew(tale, order, event)
            case K.RELEASE:
                tale.released.add(tale.token)
                return tale.phase is STATE.RUNNING and tale.goes_on == tale.token
            case K.FORGET_GROUP:
                return tale.state is None
            case K.EDIT_AND_REDRIVE | K.REDRIVE:
                if order.kind is K.EDIT_AND_REDRIVE and order.task is not None:
                    order.task.payload = order.payload
                return order.task in tale.queue
            case _:
                return event.outcome is Outcome.DONE

    def _begins_anew(self, tale: Tale, order: Order, event: Event) -> bool:
        head = tale.head()
        if order.kind is not K.EDIT_HEAD:
            tale.due_us = 0 if head is None or tale.has_begun() else tale.due_us
        if order.kind is K.RETRY_NOW:
            tale.one_more = True
            return head is not None and not tale.blocked
        if order.kind is K.EDIT_HEAD:
            if head is None or head.id != event.task_id:
                return False
            head.payload = order.payload
            if tale.blocked:  # that it is not any more is told next
                tale.attempts_before = tale.attempt - 1
            return True
        if head is not None:
            tale.attempts_before = tale.attempt - 1
        return not tale.blocked


def command_value(order: Order, wall_until: Any) -> dict[str, Any]:
    """What is published for it."""
    plan = order.plan
    fields: dict[str, Any] = {"id": order.id, "kind": plan.kind, "actor": "ada", "note": "n"}
    if order.head is not None:
        fields["if_head"] = order.head
    if order.task is not None:
        fields["task_id"] = order.task.id
    if order.kind in (K.REDRIVE, K.EDIT_AND_REDRIVE):
        fields["position"] = plan.position
    if order.payload is not None:
        fields["payload"] = order.payload
    if plan.running:
        fields["running"] = True
    if wall_until is not None:
        fields["until"] = wall_until
    return fields


def choose(truth: "Truth", plan: CommandPlan, partition: int) -> Order:
    """What an operator would name who sees the history as it is now."""
    tale = truth.tale(plan.group)
    head = tale.head()
    tasks: list[Task] = []
    match CommandKind(plan.kind):
        case K.CANCEL_TASK:
            tasks = tale.queue or tale.order
        case K.REDRIVE | K.EDIT_AND_REDRIVE | K.DISCARD_DEAD_LETTER:
            tasks = [t for t in tale.order if (partition, t.sequence) in truth.dead] or tale.order
    task = tasks[plan.which % len(tasks)] if tasks else None
    order = Order(plan, head.id if plan.expects and head is not None else None, task)
    about = task if order.kind is K.EDIT_AND_REDRIVE else head
    if order.kind in (K.EDIT_HEAD, K.EDIT_AND_REDRIVE):
        order.payload = {"n": about.plan.number if about else -1, "edited": plan.number}
    return order
