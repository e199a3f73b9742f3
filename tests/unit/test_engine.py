"""`streams.engine`: what one batch leads to, and what a successor finds."""

from collections import Counter

import msgspec
import pytest
from msgspec import Raw

from streams import history, limits, protocol, rows
from streams.clock import Now
from streams.engine import ORIGIN_HEADER, Engine, Input, RecordFailed, read_origin
from streams.group import Phase
from streams.murmur2 import home_partition
from streams.partition import load
from streams.protocol import PROTOCOL, EventKind, HandlerPolicy, Reason, ReportKind, TaskState, utc
from streams.rows import Headers
from streams.settings import TopicName
from tests.unit.world import LEASE_MS, Execution, N, World, group_of, state_json

K = ReportKind
TRACE: Headers = [("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")]
HEADERS: Headers = [("a", b"\x00\xff"), ("a", None), ("b", b""), ("pstp.reason", b"not ours")]


@pytest.fixture
def world() -> World:
    world = World()
    world.start("s1")
    world.hire("w1")
    return world


def run_next(world: World, worker: str = "w1") -> Execution:
    """Claim and start whatever is next."""
    execution = world.claim(world.workers[worker])
    assert execution is not None
    assert world.begin(execution)
    world.step()
    return execution


def elsewhere(group: str) -> int:
    return (home_partition(group.encode(), N) + 1) % N


def dead_letters(world: World) -> list[tuple[bytes | None, bytes | None, Headers]]:
    return list(world.records("dead-letters"))


def marks(headers: Headers) -> dict[str, str]:
    """What we added: everything from the first of our marks on."""
    begin = next(i for i, (name, value) in enumerate(headers) if (name, value) == ("pstp.topic", b"tasks"))
    return {name.removeprefix("pstp."): (value or b"").decode() for name, value in headers[begin:]}


# -- the ordinary way


def test_a_task_goes_out_with_all_that_its_handler_needs(world: World) -> None:
    value = b'{"type":"t","payload":{"n": 1},"timeout_s":3,"labels":{"team":"a"},"id":"x1","mine":[1]}'
    home = home_partition(b"g", N)
    world.append("tasks", home, b"g", value, [*TRACE, ("other", b"1")])
    world.step()
    execution = world.claim(world.workers["w1"])
    assert execution is not None
    dispatch, task = execution.dispatch, execution.task
    assert (dispatch.group, dispatch.partition, dispatch.scheduler, dispatch.state) == ("g", home, "s1", None)
    assert (task.task_id, task.type, task.attempt, task.timeout_s, task.labels) == ("x1", "t", 1, 3.0, {"team": "a"})
    assert (bytes(task.payload), bytes(task.extra["mine"])) == (b'{"n": 1}', b"[1]")
    assert task.trace == {"traceparent": TRACE[0][1].decode()}  # type: ignore[union-attr]


def test_the_history_of_one_task(world: World) -> None:
    partition, offset = world.publish("g", payload=[1], labels={"team": "a"}, priority=5)
    world.step()
    execution = run_next(world)
    world.say(execution, K.PROGRESS, fraction=0.5, note="x" * 5000)
    world.end(execution, K.SUCCEEDED, result=Raw(b'{"rows":12}'), state=Raw(b"[7]"), state_set=True)
    world.step()
    events = world.events()
    assert [e.kind.value if e.state is None else e.state.value for e in events] == [
        "parked", "dispatched", "running", "progress", "succeeded", "group_state",
    ]  # fmt: skip
    parked, dispatched, running, progress, succeeded, state = events
    for event in events:
        assert (event.group, event.task_id, event.sequence) == ("g", f"{partition}-{offset}", parked.sequence)
    assert (parked.origin_partition, parked.origin_offset, bytes(parked.payload or b"")) == (partition, offset, b"[1]")
    assert all(e.payload is None and e.origin_offset is None for e in events[1:]), "the payload comes once"
    assert (parked.type, parked.labels, parked.priority, parked.attempt) == ("t", {"team": "a"}, 5, 1)
    assert (running.worker, running.boot_id, running.started_mono_ns) == ("w1", "boot", world.now.mono_ms * 1_000_000)
    assert (progress.progress, len(progress.note or "")) == (0.5, 1000)
    assert (progress.note or "").endswith("… [cut, 5000 characters]")
    assert bytes(succeeded.result or b"") == b'{"rows":12}' and succeeded.ended_at == utc(world.now.wall_ms)
    tokens = {e.fencing_token for e in events[1:]}
    assert tokens == {execution.task.token} and parked.fencing_token is None
    assert dispatched.fencing_token is not None and dispatched.fencing_token > (parked.sequence or 0)
    assert state_json(state.group_state) == [7]


def test_tasks_of_a_group_go_out_one_after_the_other_and_groups_side_by_side(world: World) -> None:
    for name in ("a", "b", "a", "b", "a"):
        world.publish(name)
    world.step()
    assert sum(len(world.logs["dispatches", p]) for p in range(3)) == 2
    world.work_off()
    order = [(e.group, e.task_id) for e in world.events() if e.state is TaskState.SUCCEEDED]
    assert sorted(order) == sorted((e.group, e.task_id) for e in world.events() if e.state is TaskState.DISPATCHED)
    for name in ("a", "b"):
        assert [t for g, t in order if g == name] == sorted(t for g, t in order if g == name)


def test_a_completion_and_the_next_dispatch_are_in_one_transaction(world: World) -> None:
    world.publish("g")
    world.publish("g")
    world.step()
    world.end(run_next(world))
    outputs = world.step()
    assert [o.topic for o in outputs].count("dispatches") == 1
    assert world.states("g")[-2:] == ["succeeded", "dispatched"]


def test_idle_groups_leave_no_row_and_no_memory(world: World) -> None:
    for i in range(50):
        world.publish(f"group-{i}")
    world.work_off()
    assert all(table.keys() == {rows.PARTITION_KEY} for table in world.tables.values())
    assert all(not p.entries for p in world.engines["s1"].partitions.values())
    assert len(world.engines["s1"].watch) == 0 and world.engines["s1"]._delays == []


def test_a_ready_head_costs_no_row_of_its_own(world: World) -> None:
    world.workers.clear()
    world.publish("g")
    world.publish("g")
    world.step()
    assert sorted(key[:1] for key in world.rows_of_group("g")) == [b"T", b"T"]


# -- group state


def test_group_state_is_handed_on(world: World) -> None:
    for _ in range(3):
        world.publish("g")
    world.step()
    seen = []
    for n in (1, 2, 3):
        execution = run_next(world)
        seen.append(state_json(execution.dispatch.state))
        world.end(execution, K.SUCCEEDED, state=Raw(str(n).encode()), state_set=True)
        world.step()
    assert seen == [None, 1, 2]
    assert world.rows_of_group("g") == [rows.state_key(b"g")]
    world.check_memory()


def test_group_state_outlives_the_group_and_its_owner(world: World) -> None:
    world.publish("g")
    world.step()
    world.end(run_next(world), K.SUCCEEDED, state=Raw(b'{"n": 1}'), state_set=True)
    world.step()
    world.crash("s1")
    world.start("s2")
    world.publish("g")
    world.step("s2")
    execution = world.claim(world.workers["w1"])
    assert execution is not None and bytes(execution.dispatch.state or b"") == b'{"n": 1}'


@pytest.mark.parametrize("none", [None, Raw(b"null")])
def test_cleared_group_state_leaves_nothing(world: World, none: Raw | None) -> None:
    for _ in range(2):
        world.publish("g")
    world.step()
    world.end(run_next(world), K.SUCCEEDED, state=Raw(b"1"), state_set=True)
    world.step()
    world.end(run_next(world), K.SUCCEEDED, state=none, state_set=True)
    world.step()
    assert world.rows_of_group("g") == [] and not world.engines["s1"].partitions[home_partition(b"g", N)].entries
    told = [e.group_state for e in world.events() if e.kind is EventKind.GROUP_STATE]
    assert [state_json(state) for state in told] == [1, None] and told[1] is None


@pytest.mark.parametrize("kind", [K.FAILED, K.REJECTED, K.SNOOZED, K.RETURNED, K.ABANDONED])
def test_what_does_not_succeed_changes_no_group_state(world: World, kind: ReportKind) -> None:
    world.publish("g")
    world.step()
    world.end(run_next(world), kind, state=Raw(b"1"), state_set=True)
    world.step()
    assert rows.state_key(b"g") not in world.rows_of_group("g")
    assert not [e for e in world.events() if e.kind is EventKind.GROUP_STATE]


def test_a_repeated_success_applies_its_state_once(world: World) -> None:
    world.publish("g")
    world.publish("g")
    world.step()
    execution = run_next(world)
    world.end(execution, K.SUCCEEDED, state=Raw(b"1"), state_set=True)
    log = world.logs["completions", execution.dispatch.partition]
    log += [log[-1], log[-1]]
    world.step()
    run_next(world)
    log.append(log[1])
    world.step()
    assert len([e for e in world.events() if e.kind is EventKind.GROUP_STATE]) == 1
    refused = [e for e in world.events() if e.kind is EventKind.STALE_REPORT]
    assert [(e.reason, e.note) for e in refused] == [("stale_token", "succeeded refused")] * 3
    totals = [p.totals for p in world.engines["s1"].partitions.values()]
    assert [t["refused"] for t in totals if "refused" in t] == [{"stale_token": 3}]


def test_refused_renewals_and_progress_are_counted_and_not_told(world: World) -> None:
    world.publish("g")
    world.step()
    execution = run_next(world)
    world.end(execution)
    world.say(execution, K.RENEWED)
    world.say(execution, K.PROGRESS, fraction=1.0)
    world.step()
    assert not [e for e in world.events() if e.kind is EventKind.STALE_REPORT]
    assert world.engines["s1"].counts["renewal_refused", "stale_token"] == 2


# -- time


def test_a_failed_task_runs_again_before_the_one_behind_it(world: World) -> None:
    for _ in range(2):
        world.publish("g")
    world.step()
    execution = run_next(world)
    world.end(execution, K.FAILED, delay_s=5.0)
    world.step()
    assert group_of(world, "g").phase is Phase.WAITING
    world.pass_time(4999)
    assert world.step() == []
    world.pass_time(1)
    world.step()
    again = run_next(world)
    assert (again.task.sequence, again.task.attempt) == (execution.task.sequence, 2)
    assert again.task.token > execution.task.token


def test_backoff_runs_on_the_monotonic_clock(world: World) -> None:
    world.publish("g")
    world.step()
    world.end(run_next(world), K.FAILED, delay_s=5.0)
    world.step()
    world.pass_time(100, wall_ms=3_600_000)
    assert world.step() == []
    world.pass_time(4900, wall_ms=-7_200_000)
    assert world.step() != []


def test_after_a_load_backoff_waits_what_is_left_and_never_longer_than_it_said(world: World) -> None:
    world.publish("g")
    world.step()
    world.end(run_next(world), K.FAILED, delay_s=5.0)
    world.step()
    world.crash("s1")
    world.pass_time(3000)
    world.start("s2")
    world.pass_time(1999)
    assert world.step("s2") == []
    world.pass_time(1)
    assert world.step("s2") != []
    world.end(run_next_of(world, "s2"), K.FAILED, delay_s=5.0)
    world.step("s2")
    world.crash("s2")
    world.pass_time(0, wall_ms=-3_600_000)  # the successor's wall clock is an hour behind
    world.start("s3")
    world.pass_time(5000)
    assert world.step("s3") != []


def run_next_of(world: World, scheduler: str) -> Execution:
    execution = world.claim(world.workers["w1"])
    assert execution is not None and world.begin(execution)
    world.step(scheduler)
    return execution


def test_not_before_is_wall_time(world: World) -> None:
    world.publish("g", not_before=utc(world.now.wall_ms + 1000).isoformat())
    world.publish("g")
    world.step()
    assert group_of(world, "g").phase is Phase.WAITING
    world.pass_time(999)
    assert world.step() == []
    world.pass_time(0, wall_ms=1)
    world.step()
    assert group_of(world, "g").phase is Phase.DISPATCHED


def test_not_before_survives_its_owner(world: World) -> None:
    world.publish("g", not_before=utc(world.now.wall_ms + 1000).isoformat())
    world.step()
    world.crash("s1")
    world.start("s2")
    assert group_of(world, "g", "s2").phase is Phase.WAITING
    world.pass_time(1000)
    world.step("s2")
    assert group_of(world, "g", "s2").phase is Phase.DISPATCHED


def test_what_is_due_in_ten_years_is_remembered_once_however_often_its_partition_moves(world: World) -> None:
    world.publish("g", not_before=utc(world.now.wall_ms + 10 * 365 * 86_400_000).isoformat())
    world.step()
    engine = world.engines["s1"]
    for _ in range(5):
        world.let_go("s1", range(N))
        world.take_over("s1", range(N))
        world.step()
    assert len(engine._times) == 1


def test_a_timer_that_no_longer_counts_fires_nothing(world: World) -> None:
    world.publish("g")
    world.step()
    for _ in range(2):
        world.end(run_next(world), K.FAILED, delay_s=5.0)
        world.step()
        (timer,) = world.engines["s1"]._delays
        world.pass_time(5000)
        world.step()
    world.end(run_next(world), K.SNOOZED, delay_s=5.0)
    world.step()
    world.engines["s1"]._delays.insert(0, (0, *timer[1:]))
    assert world.step() == []
    assert group_of(world, "g").phase is Phase.WAITING


# -- silence


def test_a_lost_worker_costs_an_attempt_and_the_group_goes_on(world: World) -> None:
    world.publish("g")
    world.step()
    first = run_next(world)
    world.vanish("w1")
    world.hire("w2")
    world.pass_time(LEASE_MS - 1)
    world.step()
    world.answer_all()
    assert world.step() == [] and group_of(world, "g").phase is Phase.RUNNING
    world.pass_time(1)
    world.step()
    world.answer_all()
    world.step()
    second = run_next(world, "w2")
    assert (second.task.attempt, second.task.sequence) == (2, first.task.sequence)
    assert world.engines["s1"].counts["worker_lost", ""] == 1


def test_a_task_that_kills_its_workers_becomes_a_dead_letter(world: World) -> None:
    world.publish("g", max_attempts=2)
    world.publish("g")
    world.step()
    for name in ("w1", "w2"):
        run_next(world, name)
        world.vanish(name)
        world.hire(f"w{int(name[1]) + 1}")
        world.pass_time(LEASE_MS)
        world.step()
        world.answer_all()
        world.step()
    ((_, _, headers),) = dead_letters(world)
    assert marks(headers)["reason"] == "worker_lost" and marks(headers)["attempts"] == "2"
    assert run_next(world, "w3").task.task_id.endswith("-1")


def test_lag_of_the_scheduler_expires_nothing(world: World) -> None:
    world.publish("g")
    world.step()
    run_next(world)
    for _ in range(12):
        world.pass_time(LEASE_MS // 4)
        world.renew()
        world.step(limit=0)  # everything lies there and is not read
        world.answer_all()
    world.step()
    assert group_of(world, "g").phase is Phase.RUNNING
    assert world.engines["s1"].counts["worker_lost", ""] == 0


def test_a_successor_restarts_every_lease(world: World) -> None:
    world.publish("g")
    world.step()
    execution = run_next(world)
    world.crash("s1")
    world.pass_time(10 * LEASE_MS)
    world.start("s2")
    world.step("s2")
    world.answer_all()
    world.step("s2")
    world.end(execution)
    world.step("s2")
    assert world.states("g")[-1] == "succeeded"


def test_lost_before_start_costs_no_attempt(world: World) -> None:
    world.publish("g")
    world.step()
    assert world.claim(world.workers["w1"])
    world.vanish("w1")
    world.hire("w2")
    for _ in range(2):
        world.pass_time(LEASE_MS)
        world.step()
        world.answer_all()
    world.step()
    assert run_next(world, "w2").task.attempt == 1
    assert world.engines["s1"].counts["lost_before_start", ""] == 1


def test_an_unclaimed_dispatch_keeps_its_token_for_its_partitions_next_owner(world: World) -> None:
    world.publish("g")
    world.step()
    token = group_of(world, "g").head.token  # type: ignore[union-attr]
    world.vanish("w1")
    for _ in range(5):
        world.pass_time(LEASE_MS)
        world.step()
        world.answer_all()
    world.hire("w2")
    assert run_next(world, "w2").task.token == token


def test_a_dispatch_that_nobody_claims_is_taken_back_when_a_slot_is_free_elsewhere(world: World) -> None:
    world.publish("g")
    world.step()
    world.pass_time(1000)
    assert world.step() == [], "nobody else could run it"
    world.hire("w2", [1, 2])
    world.workers["w1"].partitions = (0,)
    outputs = world.step()
    assert outputs == []  # it was looked at a moment ago
    world.pass_time(1000)
    outputs = world.step()
    (control,) = (protocol.decode_control(o.value or b"") for o in outputs if o.topic == "control")
    head = group_of(world, "g").head
    assert head is not None
    assert (control.kind, control.dispatch_partition, control.token) == (
        "take_back",
        head.dispatch_partition,
        head.token,
    )
    given_back = world.claim(world.workers["w1"])
    assert given_back is not None and not world.workers["w1"].claimed
    world.step()
    assert [e.reason for e in world.events() if e.state is TaskState.PARKED] == [None, "taken_back"]
    again = group_of(world, "g").head
    assert again is not None and (again.phase, again.attempt) == (Phase.DISPATCHED, 1)
    assert again.token > head.token


def test_a_transaction_that_only_takes_back_is_fenced_too(world: World) -> None:
    """Without the partition's positions in it, a scheduler that lost the partition could still commit it."""
    world.publish("g")
    world.step()
    world.hire("w2", [1, 2])
    world.workers["w1"].partitions = (0,)
    world.pass_time(1000)
    outputs = world.step()
    home = home_partition(b"g", N)
    assert {(o.topic, o.partition) for o in outputs} == {("control", 0), ("changelog", home)}


def test_other_schedulers_dispatches_take_slots_too() -> None:
    world = World()
    world.start("s1", [0])
    world.start("s2", [1, 2])
    world.hire("w1", slots=2)
    for i in range(30):
        world.publish(f"group-{i}")
    world.step("s1")
    world.step("s2")
    assert sum(len(world.logs["dispatches", p]) for p in range(3)) == 2


def test_attempts_survive_their_owner_while_the_head_waits_for_a_slot(world: World) -> None:
    world.publish("g", max_attempts=2)
    world.step()
    world.end(run_next(world), K.FAILED, delay_s=0.0)
    world.vanish("w1")
    world.step()
    world.step()
    assert group_of(world, "g").phase is Phase.READY
    world.crash("s1")
    world.start("s2")
    world.hire("w2")
    world.step("s2")
    execution = world.claim(world.workers["w2"])
    assert execution is not None and execution.task.attempt == 2
    world.begin(execution)
    world.end(execution, K.FAILED)
    world.step("s2")
    assert world.states("g")[-1] == "dead_lettered"


def test_a_dispatch_that_was_inherited_is_watched_like_any_other(world: World) -> None:
    world.publish("g")
    world.step()
    assert world.claim(world.workers["w1"])
    world.crash("s1")
    world.start("s2")
    world.vanish("w1")
    world.hire("w2")
    for _ in range(2):
        world.pass_time(LEASE_MS)
        world.step("s2")
        world.answer_all()
    world.step("s2")
    again = world.claim(world.workers["w2"])
    assert again is not None and again.task.attempt == 1


def test_a_schedulers_own_announcement_is_not_counted_on_top_of_what_it_knows() -> None:
    world = World()
    world.start("s1")
    world.hire("w1", slots=2)
    for group in ("a", "b"):
        world.publish(group)
        world.step()
    assert sum(len(world.logs["dispatches", p]) for p in range(3)) == 2


# -- offsets


def test_old_records_change_nothing(world: World) -> None:
    for i in range(6):
        world.publish("ab"[i % 2], partition=elsewhere("ab"[i % 2]) if i > 3 else None)
    world.work_off()
    world.check_memory()
    before = [(place, len(log)) for place, log in world.logs.items()]
    tables = {n: table | {rows.PARTITION_KEY: b""} for n, table in world.tables.items()}
    world.crash("s1")
    world.committed.clear()
    engine = world.start("s2")
    world.work_off()
    assert [(place, len(log)) for place, log in world.logs.items()] == before
    assert {n: table | {rows.PARTITION_KEY: b""} for n, table in world.tables.items()} == tables
    assert sum(n for (what, _), n in engine.counts.items() if what == "already_taken") > 6


def test_an_uncommitted_step_never_happened(world: World) -> None:
    world.publish("g")
    world.publish("g", partition=elsewhere("g"))
    thrown_away = world.step(commit=False)
    assert {o.topic for o in thrown_away} == {"changelog", "task-events", "dispatches", "tasks"}
    world.crash("s1")
    world.start("s2")
    world.work_off()
    states = world.states("g")
    assert [states.count(s) for s in ("parked", "dispatched", "running", "succeeded")] == [2, 2, 2, 2]
    used = {o.value for o in thrown_away if o.topic == "dispatches"}
    tokens = {t.token for value in used for t in protocol.decode_dispatch(value or b"").tasks}
    assert tokens and max(tokens) < min(e.fencing_token for e in world.events() if e.fencing_token)


def test_each_owner_counts_in_an_epoch_of_its_own(world: World) -> None:
    epochs = []
    for owner in ("s2", "s3", "s4"):
        world.publish("g")
        world.work_off(next(iter(world.engines)))
        world.crash(next(iter(world.engines)))
        engine = world.start(owner)
        epochs.append(engine.partitions[home_partition(b"g", N)].counter >> limits.EPOCH_SHIFT)
    assert epochs == sorted(set(epochs))
    tokens = [e.fencing_token for e in world.events() if e.state is TaskState.DISPATCHED]
    assert tokens == sorted(tokens)  # type: ignore[type-var]


def test_positions_follow_what_is_no_record(world: World) -> None:
    """Transaction markers at the end of a partition count as read, for others' lag and for our own leases."""
    stray = elsewhere("g")
    world.publish("g", partition=stray)
    world.step()
    home = home_partition(b"g", N)
    assert world.logs["tasks", home][-1] is None
    world.work_off()
    assert world.committed["tasks", home] == len(world.logs["tasks", home]) == 2
    assert world.step() == [], "and that is all: a marker must not lead to another"


def test_a_marker_alone_is_reason_enough_to_commit(world: World) -> None:
    world.logs["completions", 1].append(None)
    outputs = world.step()
    assert [(o.topic, o.partition) for o in outputs] == [("changelog", 1)]
    assert world.committed["completions", 1] == 1
    assert world.step() == []


def test_records_of_partitions_that_are_not_ours_change_nothing(world: World) -> None:
    engine = world.engines["s1"]
    engine.drop(home_partition(b"g", N))
    record = Input("tasks", home_partition(b"g", N), 0, b"g", b'{"type":"t"}', [])
    assert engine.step([record], {}, world.now) == []


# -- forwarding


def test_a_stray_task_is_moved_home_once_byte_for_byte(world: World) -> None:
    value = b'{"type": "t",  "payload": 1}'
    stray = elsewhere("g")
    offset = world.append("tasks", stray, b"g", value, HEADERS)
    world.work_off()
    home = home_partition(b"g", N)
    forwarded = [record for record in world.logs["tasks", home] if record is not None]
    assert forwarded == [(b"g", value, [*HEADERS, (ORIGIN_HEADER, f"{stray}:{offset}".encode())])]
    assert world.engines["s1"].counts["forwarded", ""] == 1
    events = world.events()
    assert [e.state.value for e in events if e.state] == ["parked", "dispatched", "running", "succeeded"]
    assert (events[0].task_id, events[0].origin_partition, events[0].origin_offset) == (
        f"{stray}-{offset}",
        stray,
        offset,
    )


def test_a_stray_event_without_a_key_is_restored_at_home(world: World) -> None:
    value = b'{"specversion":"1.0","id":"x","source":"/","type":"t","partitionkey":"g","data":{"n":1}}'
    headers: Headers = [("content-type", b"application/cloudevents+json")]
    stray = elsewhere("g")
    world.append("tasks", stray, None, value, headers)
    world.work_off()
    home = home_partition(b"g", N)
    ((key, forwarded, _),) = [record for record in world.logs["tasks", home] if record is not None]
    assert (key, forwarded) == (b"g", value)
    assert world.states("g") == ["parked", "dispatched", "running", "succeeded"]
    assert world.events()[0].task_id == "x"


def test_a_stray_event_without_a_key_dies_without_one(world: World) -> None:
    value = b'{"specversion":"1.0","id":"x","source":"/","type":"t","partitionkey":"g"}'
    headers: Headers = [("content-type", b"application/cloudevents+json"), ("mine", b"\xff")]
    world.append("tasks", elsewhere("g"), None, value, headers)
    world.step()
    world.step()
    world.end(run_next(world), K.REJECTED)
    world.step()
    ((key, dead, dead_headers),) = dead_letters(world)
    assert (key, dead, dead_headers[:2]) == (None, value, headers)


def test_order_is_that_of_the_home_partition(world: World) -> None:
    stray = elsewhere("g")
    published = [world.publish("g", partition=p) for p in (stray, None, stray, None)]
    world.step()
    world.work_off()
    home = home_partition(b"g", N)
    expected = [p for p in published if p[0] == home] + [p for p in published if p[0] == stray]
    started = [e.task_id for e in world.events() if e.state is TaskState.RUNNING]
    assert started == [f"{p}-{o}" for p, o in expected]


def test_a_forward_that_comes_twice_is_refused(world: World) -> None:
    stray = elsewhere("g")
    world.publish("g", partition=stray)
    world.work_off()
    home = home_partition(b"g", N)
    world.logs["tasks", home].append(world.logs["tasks", home][0])
    world.step()
    assert world.states("g").count("parked") == 1
    assert [marks(h)["reason"] for _, _, h in dead_letters(world)] == ["wrong_partition"]


def test_what_was_forwarded_and_is_still_not_at_home_is_refused(world: World) -> None:
    wrong = elsewhere("g")
    origin = next(p for p in range(N) if p != wrong)
    world.append("tasks", wrong, b"g", b'{"type":"t"}', [(ORIGIN_HEADER, f"{origin}:4".encode())])
    world.step()
    ((_, _, headers),) = dead_letters(world)
    assert (marks(headers)["reason"], marks(headers)["partition"]) == ("wrong_partition", str(origin))
    assert [(e.task_id, e.state) for e in world.events()] == [(f"{origin}-4", TaskState.REJECTED)]


ODD_ORIGINS = [
    None, b"", b"x", b"1", b":", b"1:", b":1", b"1:x", b"1:2:", b"1:2:keyles", b"1:2:keyless:", b"-1:2", b"1:-2",
    b"1.0:2", b" 1:2", b"1:2\n", "١:٢".encode(), b"9" * 5000 + b":1", b"1:" + b"9" * 5000, b"1:" + b"9" * 19,
    b"3:1", b"1024:1", b"home:1",
]  # fmt: skip


@pytest.mark.parametrize("origin", ODD_ORIGINS, ids=range(len(ODD_ORIGINS)))
def test_a_header_that_is_no_origin_of_ours_is_its_publishers(world: World, origin: bytes | None) -> None:
    home = home_partition(b"g", N)
    if origin == b"home:1":
        origin = f"{home}:1".encode()  # nothing is ever forwarded from where it lives
    headers: Headers = [(ORIGIN_HEADER, origin)]
    record = Input("tasks", home, 0, b"g", b"{}", headers)
    assert read_origin(record, N) == (home, 0, b"g", headers, False)
    world.append("tasks", home, b"g", b'{"type":"t"}', headers)
    world.append("tasks", home, b"g", b"no task", headers)
    world.work_off()
    assert world.states("g").count("succeeded") == 1
    ((_, _, dead_headers),) = dead_letters(world)
    assert dead_headers[:1] == headers
    assert world.engines["s1"].partitions[home].origins == {}


# -- dead letters


def test_a_rejected_record_is_kept_byte_for_byte(world: World) -> None:
    world.append("tasks", 1, b"\xff\x00", b"\xfe{", HEADERS)
    world.step()
    ((key, value, headers),) = dead_letters(world)
    assert (key, value, headers[: len(HEADERS)]) == (b"\xff\x00", b"\xfe{", HEADERS)
    added = marks(headers)
    assert added.keys() == {"topic", "reason", "detail", "partition", "offset", "v"}
    assert (added["topic"], added["reason"], added["partition"], added["offset"]) == ("tasks", "key_not_utf8", "1", "0")
    (event,) = world.events(1)
    assert (event.state, event.reason, event.task_id, event.group) == (
        TaskState.REJECTED,
        "key_not_utf8",
        "1-0",
        "\\xff\x00",
    )
    assert (event.note, event.origin_partition, event.origin_offset) == (added["detail"], 1, 0)


@pytest.mark.parametrize(("key", "value"), [(None, b'{"type":"t"}'), (b"g", None), (None, None), (b"", b"")])
def test_what_was_absent_stays_absent(world: World, key: bytes | None, value: bytes | None) -> None:
    world.append("tasks", 1, key, value)
    world.step()
    ((dead_key, dead_value, _),) = dead_letters(world)
    assert (dead_key, dead_value) == (key, value)


def test_a_poison_message_stops_nothing(world: World) -> None:
    for value in (b"{", b"\xff", None, b"[" * 10_000, b'{"type":"t","payload":' + b"[" * 5000):
        world.append("tasks", home_partition(b"g", N), b"g", value)
        world.publish("g")
    world.work_off()
    assert world.states("g").count("succeeded") == 5 and world.states("g").count("rejected") == 5


def test_a_task_whose_attempts_are_spent_is_kept_byte_for_byte(world: World) -> None:
    value = b'{"type":"t" , "id":"x1", "max_attempts":1}'
    home = home_partition(b"g", N)
    world.append("tasks", home, b"g", value, HEADERS)
    world.publish("g")
    world.step()
    world.end(run_next(world), K.FAILED, error=protocol.ErrorInfo("ValueError", "no ☕", "Traceback"))
    world.step()
    ((key, dead, headers),) = dead_letters(world)
    assert (key, dead, headers[: len(HEADERS)]) == (b"g", value, HEADERS)
    sequence = next(e.sequence for e in world.events() if e.task_id == "x1")
    assert marks(headers) == {
        "topic": "tasks", "reason": "attempts_spent", "partition": str(home), "offset": "0", "group": "g",
        "task-id": "x1", "type": "t", "sequence": str(sequence), "attempts": "1",
        "error-type": "ValueError", "error": "no ☕", "traceback": "Traceback", "v": "1",
        "first-error-type": "ValueError", "first-error": "no ☕", "first-traceback": "Traceback",
    }  # fmt: skip
    assert run_next(world).task.task_id == f"{home}-1", "policy skip: the next one goes on"


def test_unreadable_completions_and_commands_are_set_aside(world: World) -> None:
    home = home_partition(b"g", N)
    world.publish("g")
    world.step()
    rubbish = [b"", b"{", b"\xff", b'{"v":1,"group":"\xff"}', b'{"v":1}', b'{"v":1,"x":' + b"[" * 100_000]
    for value in rubbish:
        world.append("completions", home, b"g", value, HEADERS)
    world.append("commands", home, b"g", b"{}")
    world.step()
    letters = dead_letters(world)
    assert {value for _, value, _ in letters} == {*rubbish, b"{}"}
    assert all(dict(headers)["pstp.topic"] in (b"completions", b"commands") for _, _, headers in letters)
    assert world.engines["s1"].counts["unreadable", "completions"] == len(rubbish)
    assert group_of(world, "g").blocked is None
    world.work_off()


NEWER = b'{"v":%d}' % (PROTOCOL + 1)


@pytest.mark.parametrize("topic", ["completions", "commands", "tasks"])
def test_a_newer_protocol_stops_its_partition_before_that_record(world: World, topic: TopicName) -> None:
    """What stood before it is taken in, it and what is behind it are not, and other partitions go on."""
    stopped, _ = world.publish("g", id="before")
    offset = world.append(topic, stopped, b"g", NEWER, [(protocol.VERSION_HEADER, b"%d" % (PROTOCOL + 1))])
    world.append("completions", stopped, b"g", b"behind, if that topic is read later")
    world.publish("g", id="behind")
    assert world.publish("other", id="elsewhere")[0] != stopped
    world.step()
    engine = world.engines["s1"]
    assert set(engine.stopped) == {stopped} and f"{topic}-{stopped} holds at offset {offset}" in engine.stopped[stopped]
    assert engine.partitions[stopped].next_offsets[topic] == engine.partitions[stopped].read_up_to[topic] == offset
    told = {e.task_id for e in world.events()}
    assert told >= {"before", "elsewhere"} and ("behind" in told) is (topic != "tasks")
    assert all(letter[1] != NEWER for letter in dead_letters(world))


# -- records that break us


def break_for(monkeypatch: pytest.MonkeyPatch, task_id: str, states: set[TaskState]) -> None:
    """Telling of these states of that task raises, as a bug of ours would."""
    real = history.state_changed

    def broken(group: str, task: object, emit: object, *rest: object) -> object:
        if getattr(task, "task_id", None) == task_id and getattr(emit, "state", None) in states:
            raise ZeroDivisionError("a bug")
        return real(group, task, emit, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(history, "state_changed", broken)


def fail_and_reload(world: World, old: str, new: str) -> Engine:
    """What the shell does: load afresh; what failed before is set aside when it fails again."""
    with pytest.raises(RecordFailed) as failed:
        world.step(old, commit=False)
    world.crash(old)
    engine = world.start(new)
    engine.quarantined.add(failed.value.place)
    return engine


def test_a_record_that_breaks_us_is_set_aside_and_its_partition_goes_on(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_for(monkeypatch, "bad", {TaskState.PARKED})
    home = home_partition(b"g", N)
    neighbour = next(n for n in map(str, range(100)) if home_partition(n.encode(), N) == home)
    world.publish("g", id="bad")
    world.publish(neighbour)
    fail_and_reload(world, "s1", "s2")
    world.work_off("s2")
    assert world.states(neighbour)[-1] == "succeeded"
    ((key, value, headers),) = dead_letters(world)
    assert (key, value) == (b"g", b'{"type":"t","id":"bad"}') and marks(headers)["reason"] == "internal_error"
    assert world.states("g") == ["rejected"]


def test_the_group_of_a_completion_that_breaks_us_is_blocked_and_stays_so(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_for(monkeypatch, "bad", {TaskState.SUCCEEDED})
    world.publish("g", id="bad")
    world.publish("g")
    world.publish("h")
    world.step()
    executions = [run_next(world), run_next(world)]
    for execution in executions:
        world.end(execution)
    fail_and_reload(world, "s1", "s2")
    world.step("s2")
    assert group_of(world, "g", "s2").blocked is Reason.INTERNAL_ERROR
    assert world.states("h")[-1] == "succeeded"
    world.check_memory("s2")
    for _ in range(4):
        world.pass_time(LEASE_MS)
        world.step("s2")
        world.answer_all()
        world.step("s2")
    assert group_of(world, "g", "s2").phase is Phase.READY and len(world.engines["s2"].ready) == 0
    world.crash("s2")
    world.start("s3")
    world.work_off("s3")
    assert group_of(world, "g", "s3").blocked is Reason.INTERNAL_ERROR
    assert world.claim(world.workers["w1"]) is None, "nothing of a blocked group goes out"


def test_a_group_that_waits_for_a_slot_when_it_is_blocked_does_not_go_out(world: World) -> None:
    world.workers.clear()
    home = home_partition(b"g", N)
    world.publish("g")
    world.step()
    offset = world.append("completions", home, b"g", b"broken")
    world.engines["s1"].quarantined.add(("completions", home, offset))
    world.hire("w1")
    world.step()
    assert group_of(world, "g").phase is Phase.READY
    assert world.claim(world.workers["w1"]) is None
    world.check_memory()


def test_a_broken_step_names_the_record(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    break_for(monkeypatch, "bad", {TaskState.PARKED})
    world.publish("g")
    partition, offset = world.publish("g", id="bad")
    with pytest.raises(RecordFailed) as failed:
        world.step(commit=False)
    assert failed.value.place == ("tasks", partition, offset)
    assert isinstance(failed.value.__cause__, ZeroDivisionError)


# -- policies


def test_the_handlers_policy_survives_its_scheduler(world: World) -> None:
    world.publish("g")
    world.step()
    execution = world.claim(world.workers["w1"])
    assert execution is not None
    world.begin(execution, HandlerPolicy(max_attempts=1))
    world.step()
    world.crash("s1")
    world.start("s2")
    world.end(execution, K.FAILED)
    world.step("s2")
    assert world.states("g")[-1] == "dead_lettered"


# -- cost


def cost(world: World) -> tuple[int, int]:
    """Records and bytes that one task costs, from its success to the next one's start."""
    execution = world.claim(world.workers["w1"])
    assert execution is not None
    world.begin(execution)
    started = world.step()
    world.end(execution)
    ended = world.step()
    outputs = [*started, *ended]
    return len(outputs), sum(len(o.key or b"") + len(o.value or b"") for o in outputs)


def test_many_parked_tasks_cost_no_more_per_step_than_ten() -> None:
    costs = {}
    for parked in (10, 200_000):
        world = World()
        world.start("s1")
        world.hire("w1")
        home = home_partition(b"g", N)
        table, value = world.tables[home], b'{"type":"t","payload":{"n":1}}'
        row = rows.encode(rows.TaskRow(rows.ROW_FORMAT, home, 0, b"g", value, []))
        world.crash("s1")
        for sequence in range(1, parked + 2):
            table[rows.task_key(sequence, b"g")] = row
        world.start("s1")
        world.step()
        costs[parked] = [cost(world) for _ in range(3)]
        assert group_of(world, "g").parked == parked - 3
    records = {parked: [n for n, _ in found] for parked, found in costs.items()}
    assert records[10] == records[200_000]
    for (_, few), (_, many) in zip(costs[10], costs[200_000], strict=True):
        assert abs(few - many) < 100


def test_parking_costs_one_row_and_one_event(world: World) -> None:
    world.publish("g")
    world.step()
    for _ in range(5):
        world.publish("g")
    outputs = world.step()
    (told,) = [o for o in outputs if o.topic == "task-events"]
    assert [e.state for e in protocol.decode_events(told.value or b"")] == [TaskState.PARKED] * 5
    changelog = [o.key[:1] for o in outputs if o.topic == "changelog" and o.key]
    assert sorted(changelog) == [b"P"] + [b"T"] * 5


def test_a_step_without_news_writes_nothing(world: World) -> None:
    world.publish("g")
    world.step()
    run_next(world)
    assert world.engines["s1"].step([], {}, Now(world.now.wall_ms, world.now.mono_ms)) == []


def test_metrics_count_what_the_history_tells(world: World) -> None:
    for name in ("a", "b", "b"):
        world.publish(name)
    world.append("tasks", 0, b"", b'{"type":"t"}')
    world.work_off()
    engine = world.engines["s1"]
    states = sum((Counter(p.totals["states"]) for p in engine.partitions.values() if p.totals), Counter[str]())
    for state in (TaskState.PARKED, TaskState.DISPATCHED, TaskState.RUNNING, TaskState.SUCCEEDED):
        assert states[state] == sum(e.state is state for e in world.events()) == 3
    assert states[TaskState.REJECTED] == 1 == engine.partitions[0].totals["buried"][Reason.NO_GROUP]
    assert engine.counts["accepted", "t"] == 3
    assert engine.waits["t"].buckets()[-1] == engine.durations["t"].buckets()[-1] == ("+Inf", 3)


def test_totals_go_on_with_the_next_owner(world: World) -> None:
    world.publish("a")
    world.work_off()
    (before,) = [p for p in world.engines["s1"].partitions.values() if p.totals.get("states")]
    row = before.to_row("pstp-s2", "boot-s2", released=False)
    assert load(before.number, {rows.PARTITION_KEY: row}).totals == before.totals != {}


def test_the_stamp_names_its_owner_and_whether_it_let_go(world: World) -> None:
    for released in (False, True):
        (output,) = world.engines["s1"].stamp(1, released=released)
        row = rows.decode_partition(output.value or b"")
        assert (output.topic, output.partition, output.key) == ("changelog", 1, b"P")
        assert (row.owner, row.boot_id, row.released) == ("pstp-s1", "boot-s1", released)


def test_dropped_partitions_take_everything_along(world: World) -> None:
    for i in range(20):
        world.publish(f"group-{i}", "t" if i % 2 else "nobody")
    world.step()
    run_next(world)
    engine = world.engines["s1"]
    for number in range(N):
        engine.drop(number)
        engine.drop(number)
    assert not engine.partitions and not len(engine.ready) and not len(engine.watch)
    assert not engine.unclaimed and not engine.running and not engine._dirty
    assert engine.step([], {}, world.now) == []


def test_no_group_of_a_dropped_partition_is_touched_by_late_answers(world: World) -> None:
    world.publish("g")
    world.step()
    run_next(world)
    world.pass_time(LEASE_MS)
    world.step()
    world.let_go("s1", range(N))
    world.take_over("s1", range(N))
    world.answer_all()
    world.step()
    assert group_of(world, "g").phase is Phase.RUNNING


def test_events_are_json_that_anyone_reads(world: World) -> None:
    name = "tenant/1\n..\u2028☕" + "x" * 1000
    world.publish(name)
    world.work_off()
    for key, value, _ in world.records("task-events"):
        assert key == name.encode()
        record = msgspec.json.decode(value or b"")
        assert {event["group"] for event in record.get("events", [record])} == {name}
