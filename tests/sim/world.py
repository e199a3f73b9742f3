"""One world: plays a scenario to its end, heals it, and waits until everything is done."""

import random
from functools import partial

import msgspec

from streams.murmur2 import home_partition
from streams.partition import INPUTS
from streams.protocol import utc
from streams.settings import Settings
from tests.sim import ending
from tests.sim.broker import Broker, Txn
from tests.sim.client import Wire
from tests.sim.groups import Group, tell_all
from tests.sim.local import LocalLife
from tests.sim.loop import FOUND, MS, Fault, Loop, Process, S
from tests.sim.orders import Order, choose, command_value
from tests.sim.scenario import CommandPlan, FaultPlan, Scenario, TaskPlan
from tests.sim.scheduler import SchedulerLife
from tests.sim.stage import STAGE
from tests.sim.tale import Task
from tests.sim.truth import Truth
from tests.sim.worker import WorkerLife

Life = SchedulerLife | WorkerLife
OPERATIONS = 10_000
ARMED = ("kill", "freeze", "cut", "drain", "lose_answer", "lose_request")
RUBBISH: list[tuple[bytes | None, bytes | None]] = [
    (None, b'{"type":"a"}'), (b"g0", None), (b"g0", b"\xff"), (b"\xff", b'{"type":"a"}'), (b"g0", b"{"),
    (b"g1", b'{"type":7}'),
]  # fmt: skip


class World:
    """`play` raises `Violation`.  With `trace` it keeps a line for everything that happens.  A blind world sees none."""

    def __init__(self, scenario: Scenario, *, trace: bool = False, is_blind: bool = False) -> None:
        self.scenario = scenario
        self.trace: list[str] = []
        self.loop = Loop(scenario.seed)
        self.broker = Broker(self.loop, lambda txn: self.truth.committed(txn))
        self.truth = Truth(scenario, self.loop, self.broker, is_blind=is_blind)
        self.truth.note = self.note = self._trace if trace else _silent  # type: ignore[method-assign]
        self.wire = Wire(self.loop, self.broker, self.note, self.truth.written)
        STAGE.loop, STAGE.wire, STAGE.truth = self.loop, self.wire, self.truth
        STAGE.ids, STAGE.wall_ms_max = 0, 0
        STAGE.loops, STAGE.boots, STAGE.runners = [], {}, {}
        FOUND.clear()
        self.settings = Settings(
            _env_file=None, partitions=scenario.partitions, dispatch_partitions=scenario.dispatch_partitions,  # type: ignore[call-arg]
            lease_s=scenario.lease_s, drain_s=scenario.drain_s, **dict(scenario.settings),
        )  # fmt: skip
        self.settings_of = {
            w.name: self.settings.model_copy(update={"slots": w.slots}) for w in scenario.workers
        }  # fmt: skip
        self.schedulers = Group(self.loop, self.settings.scheduler_group, scenario.partitions, cooperative=False)
        self.workers = Group(self.loop, self.settings.worker_group, scenario.dispatch_partitions, cooperative=True)
        self.broker.groups = {g.name: g for g in (self.schedulers, self.workers)}
        self.processes: dict[str, Process] = {}
        self.lives: dict[str, Life] = {}
        self.wall_offset_ms: dict[str, int] = {}
        self.healed = False
        self._boots = 0
        self._rng = random.Random(f"world {scenario.seed}")
        self._replaced: list[Life] = []
        self._operations = OPERATIONS  # numbers of commands of the time after the last fault

    def _trace(self, text: str) -> None:
        self.trace.append(f"{self.loop.now_us / S:10.4f} {text}")

    def play(self) -> None:
        scenario = self.scenario
        for number in range(scenario.partitions):
            for topic in INPUTS:
                self.broker.log(topic, number)
        for name in [*scenario.schedulers, *(w.name for w in scenario.workers)]:
            self.loop.at(self._rng.randrange(S), partial(self._boot, name))
        for task in scenario.tasks:
            self.loop.at(task.at_us, partial(self._publish, task))
        for fault in scenario.faults:
            self.loop.at(fault.at_us, partial(self._strike, fault))
        for command in scenario.commands:
            self.loop.at(command.at_us, partial(self._command, command))
        ends_us = [*(task.at_us for task in scenario.tasks), *(c.at_us + (c.again_us or 0) for c in scenario.commands)]
        self.loop.run(max([scenario.heal_us, *ends_us]))
        self._heal()
        if self.truth.is_blind:
            ending.wait(self)
        else:
            ending.drain(self)
            ending.check(self)

    def bury(self) -> None:
        """What is under way in event loops ends now, and not when Python happens to find it."""
        self.truth.note = _silent  # type: ignore[method-assign]
        self.wire.note = _silent
        for loop in STAGE.loops:
            loop.bury()
        FOUND.clear()

    # -- processes

    def _boot(self, name: str) -> None:
        """Start the process, unless it lives."""
        before = self.processes.get(name)
        if before is not None and before.alive:
            return
        self._boots += 1
        rng = self._rng
        # Two hosts in three share a monotonic clock with others.
        mono_offset_ms = rng.choice([1_000, 1_000, 7_000_000])
        wall_offset_ms = self.wall_offset_ms.setdefault(name, rng.choice([0, 0, 5, -300]))
        process = Process(self.loop, name, self._boots, wall_offset_ms, mono_offset_ms)
        self.processes[name] = process
        self.truth.lives.setdefault(name, []).append(process)
        process.on_death.append(lambda: self._died(process))
        self.note(f"{name}: starts")
        self.loop.at(0, lambda: self._start(process), process)

    def _start(self, process: Process) -> None:
        name = process.name
        life: Life
        if name in self.settings_of:
            plan = next(w for w in self.scenario.workers if w.name == name)
            life = WorkerLife(process, self.settings_of[name], plan, self.scenario)
        elif name in self.scenario.locals:
            life = LocalLife(process, self.settings, name, self.scenario)
        else:
            life = SchedulerLife(process, self.settings, name)
        self.lives[name] = life
        process.on_stop = life.stop
        life.start()

    def _died(self, process: Process) -> None:
        """Somebody starts it again in any case."""
        self.note(f"{process.name}: dead")
        self.loop.at(self._rng.choice([50 * MS, S, S, 8 * S, 25 * S]), partial(self._boot, process.name))

    # -- faults

    def _strike(self, plan: FaultPlan) -> None:
        if self.healed:
            return
        self.note(
            f"fault {plan.kind} of {plan.target} at {plan.where} {plan.countdown} for {plan.duration_us / S:.3f} s"
        )
        self.truth.count(f"fault {plan.kind}")
        if plan.kind == "outage":
            self._outage(plan.duration_us)
            return
        if plan.kind in ("reset_offsets", "reset_claims"):
            self._reset(plan)
            return
        life = self.lives.get(plan.target)
        if life is None or not life.process.alive:
            return
        process = life.process
        if plan.kind in ARMED:
            if not plan.where and plan.countdown == 0 and not plan.kind.startswith("lose"):
                self._now(life, plan)
            else:
                process.armed.append(Fault(plan.kind, plan.where, plan.countdown, plan.duration_us))
            return
        match plan.kind:
            case "wall_jump":
                process.wall_offset_ms += self._rng.choice([-3_600_000, -10_000, 10_000, 3_600_000])
                self.wall_offset_ms[process.name] = process.wall_offset_ms
            case "lag":
                assert isinstance(life, SchedulerLife)
                topic = self._rng.choice(["", "tasks", "completions", "completions"])
                life.pump.lag(plan.duration_us, plan.where if plan.where in INPUTS else topic)
            case "slow_lookups":
                assert isinstance(life, SchedulerLife)
                life.scheduler.slow_until_us = self.loop.now_us + plan.duration_us
            case "fence":
                process.doubts.append(self.loop.now_us)
                self.broker.init_producer(self.settings.transactional_id(process.name))
            case "replace":
                self._replace(life, plan)
            case _:
                raise AssertionError(plan)

    def _now(self, life: Life, plan: FaultPlan) -> None:
        process = life.process
        match plan.kind:
            case "kill":
                process.die()
            case "freeze":
                process.freeze(plan.duration_us)
            case "drain":
                if not process.frozen:
                    life.stop()
            case _:
                process.cut(plan.duration_us)

    def _outage(self, duration_us: int) -> None:
        now_us = self.loop.now_us
        self.truth.outages.append((now_us, now_us + duration_us))
        self.broker.down_until_us = max(self.broker.down_until_us, now_us + duration_us)
        self.loop.at(duration_us, lambda: tell_all(self.broker.groups.values()))

    def _reset(self, plan: FaultPlan) -> None:
        """An operator stops all schedulers, or all workers, and sets their group's offsets back; or they expired."""
        schedulers = plan.kind == "reset_offsets"
        for process in self._everyone():
            if (process.name in self.scenario.schedulers) is schedulers:
                process.die()
        group = self.settings.scheduler_group if schedulers else self.settings.worker_group
        for key, (offset, _) in list(self.broker.offsets.items()):
            if key[0] == group and self._rng.random() < 0.7:
                self.broker.offsets[key] = self._rng.randint(0, offset), ""
            elif key[0] == group and not schedulers:
                del self.broker.offsets[key]

    def _everyone(self) -> list[Process]:
        return [process for lives in self.truth.lives.values() for process in lives if process.alive]

    def _replace(self, life: Life, plan: FaultPlan) -> None:
        """Frozen for long, it is taken for dead, and another process is started under its name."""
        life.process.freeze(plan.duration_us)
        self._replaced.append(life)
        del self.processes[life.process.name], self.lives[life.process.name]
        self.loop.at(4 * S, partial(self._boot, life.process.name))

    def _heal(self) -> None:
        """From here on nothing goes wrong any more."""
        self.healed = True
        self.note("healed")
        self.broker.down_until_us = self.loop.now_us
        for life in [*self.lives.values(), *self._replaced]:
            life.process.armed.clear()
            life.process.cut_until_us = self.loop.now_us
            life.process.wall_offset_ms = self.wall_offset_ms[life.process.name] = 0
            life.process.thaw(now=True)
            if isinstance(life, SchedulerLife):
                life.pump.lag(0, "")
                life.scheduler.slow_until_us = 0
        for life in self._replaced:  # should its name not have been taken, it has lived on
            life.process.die()
        for name in [*self.scenario.schedulers, *(w.name for w in self.scenario.workers)]:
            self._boot(name)

    # -- publishers

    def _publish(self, plan: TaskPlan) -> None:
        group, now_us = plan.group.encode(), self.loop.now_us
        if self.broker.down_until_us > now_us:
            self.loop.at(self.broker.down_until_us - now_us + 1, partial(self._publish, plan))
            return
        partition = home_partition(group, self.scenario.partitions) if plan.elsewhere is None else plan.elsewhere
        key, value = (RUBBISH[plan.number % len(RUBBISH)]) if plan.rubbish else (group, self._value(plan))
        txn = Txn("stranger", 0) if plan.stranger else None
        message = self.broker.append("tasks", partition, key, value, None, txn)
        task = self.truth.published(plan, message)
        task.expected = txn is None
        self.note(f"published {partition}-{message.offset()} of {plan.group} {plan.stranger}")
        if txn is not None:
            self.loop.at(plan.stranger_ms * MS, partial(self._decide, txn, task))

    # -- operators

    def _command(self, plan: CommandPlan, order: Order | None = None) -> None:
        broker, now_us, count = self.broker, self.loop.now_us, self.scenario.partitions
        if broker.down_until_us > now_us:
            self.loop.at(broker.down_until_us - now_us + 1, partial(self._command, plan, order))
            return
        home = home_partition(plan.group.encode(), count)
        if order is None:
            order = choose(self.truth, plan, home)
            if plan.again_us is not None:
                self.loop.at(plan.again_us, partial(self._command, plan, order))
        self.truth.orders.sent(order)
        until = None
        if plan.pause_ms is not None:
            until = utc(STAGE.wall_epoch_ms + now_us // MS + plan.pause_ms).isoformat()
        value = msgspec.json.encode(command_value(order, until))
        partition = home if plan.elsewhere is None else plan.elsewhere % count
        self.note(
            f"{plan.group} is asked {order.id} {plan.kind} {order.head or ''} {order.task.id if order.task else ''}"
        )
        broker.append("commands", partition, plan.group.encode(), value)

    def operate(self) -> None:
        """After the last fault somebody looks after groups that stand still by command or failure policy."""
        for tale in list(self.truth.tales.values()):
            before = self.truth.orders.by_id.get(tale.operating or "")
            if not (tale.paused or tale.blocked) or (before is not None and not before.answered):
                continue
            kind = "resume_group" if tale.paused else self._rng.choice(["unblock", "retry_now", "skip_head", "unblock"])
            tale.operating = self._operate(kind, tale.name)

    def operate_blindly(self) -> None:
        """The same where nobody looks."""
        if self.scenario.commands or any(name != "run_ms" for name, _ in self.scenario.settings):
            for group in sorted({task.group for task in self.scenario.tasks}):
                self._operate("resume_group", group)
                self._operate("unblock", group)

    def _operate(self, kind: str, group: str) -> str:
        self._operations += 1
        plan = CommandPlan(self._operations, self.loop.now_us, kind, group)
        self._command(plan)
        return f"c{plan.number}"

    def _decide(self, txn: Txn, task: Task) -> None:
        task.expected = task.plan.stranger == "commit"
        txn.state = "committed" if task.expected else "aborted"
        txn.unmarked = {*txn.logs, "offsets"}
        self.broker.complete(txn)

    def _value(self, plan: TaskPlan) -> bytes:
        fields: dict[str, object] = {"type": plan.type, "payload": {"n": plan.number}}
        if plan.not_before_ms is not None:
            wall_ms = STAGE.wall_epoch_ms + self.loop.now_us // MS
            fields["not_before"] = utc(wall_ms + plan.not_before_ms).isoformat()
        if plan.max_attempts is not None:
            fields["max_attempts"] = plan.max_attempts
        if plan.timeout_s is not None:
            fields["timeout_s"] = plan.timeout_s
        if plan.on_failure is not None:
            fields["on_failure"] = plan.on_failure
        if plan.idempotency_key is not None:
            fields["idempotency_key"] = plan.idempotency_key
        return msgspec.json.encode(fields)


def _silent(_text: str) -> None:
    pass
