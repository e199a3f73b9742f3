"""Bugs to plant: each must be found, or the simulator is too weak.  See `planted.py` and docs/planted-bugs.md."""

from typing import NamedTuple


class Edit(NamedTuple):
    """`old` must occur exactly once in the file."""

    path: str
    old: str
    new: str


class Mutation(NamedTuple):
    name: str
    words: str  # what is wrong, for the table
    edits: tuple[Edit, ...]


GROUP, ENGINE, WATCH, READY = "streams/group.py", "streams/engine.py", "streams/watch.py", "streams/ready.py"
PARTITION, STORE, TRANSACTION = "streams/partition.py", "streams/store.py", "streams/transaction.py"
MEMORY, FLOW, BREAKERS = "streams/memory.py", "streams/flow.py", "streams/breakers.py"
SCHEDULER, CLAIMS, CLAIMING = "streams/scheduler.py", "consumers/claims.py", "consumers/claiming.py"
RUNS, LEASES, EXECUTION, WORKER = (
    "consumers/runs.py",
    "consumers/leases.py",
    "consumers/execution.py",
    "consumers/worker.py",
)
EXPRESS, LOCAL, LANE = "streams/express.py", "consumers/local.py", "consumers/express.py"

MUTATIONS = (
    # -- tokens and claims
    Mutation("token_of_a_start", "a start under an old token counts", (
        Edit(GROUP, """        return Ignored.STALE_TOKEN
    if head.claim_id and event""", """        pass
    if head.claim_id and event"""),
    )),
    Mutation("token_of_an_outcome", "an outcome under an old token or claim counts", (
        Edit(GROUP, """        return _reported_behind(group, head, event)
    if event.claim_id != head.claim_id:
        return Ignored.OTHER_CLAIM""", """        pass"""),
    )),
    Mutation("claim_not_checked", "a report under another claim of the same dispatch counts", (
        Edit(GROUP, "    if event.claim_id != head.claim_id:\n        return Ignored.OTHER_CLAIM\n", ""),
    )),
    Mutation("claim_without_commit", "a dispatch is claimed without a commit", (
        Edit(CLAIMS, """        answers = consumer.commit(offsets=wanted, asynchronous=False)""", """        answers = wanted"""),
    )),
    Mutation("claim_read_back_by_offset", "a refused claim counts if somebody has committed the same offset", (
        Edit(CLAIMS, """        and answer.metadata == attempt.claim_id
""", ""),
    )),
    Mutation("start_not_awaited", "the handler begins before its start is in the log", (
        Edit(RUNS, """        self.runtime.reporter.send(self.claim, (self._started_report(),), acknowledged)
""", """        self.runtime.reporter.send(self.claim, (self._started_report(),))
        acknowledged(None)
"""),
    )),
    Mutation("start_after_a_freeze", "the lease is not looked at before the handler begins", (
        Edit(RUNS, "if error is not None or not self.lease.may_start(mono_ns()):", "if error is not None:"),
        Edit(EXECUTION, "            if self.run.lease.may_start(mono_ns()):\n", "            if True:\n"),
    )),
    Mutation("reset_claims_run", "after a reset of the workers' offsets, what ran long ago runs again", (
        Edit(CLAIMS, "Position(next_offset, 0 if proven else end)", "Position(next_offset, 0)"),
    )),
    # -- leases
    Mutation("lease_not_enforced", "a handler goes on when its lease is out", (
        Edit(LEASES, """            if lease.is_out(now_ns) and held in self._held:
""", """            if False:
"""),
    )),
    Mutation("lease_from_acknowledgement", "a worker counts its lease from when a renewal was acknowledged", (
        Edit(RUNS, "            self.lease.extend(sent_ns)\n            if (execution", "            self.lease.extend(mono_ns())\n            if (execution"),
        Edit(RUNS, "            self.lease.extend(sent_ns)\n            self.runtime.keeper", "            self.lease.extend(mono_ns())\n            self.runtime.keeper"),
    )),
    Mutation("zombie_renews", "the acknowledgement of a renewal revives a lease that is out", (
        Edit(RUNS, "if error is None and not self.lease.is_out(mono_ns()):", "if error is None:"),
    )),
    Mutation("no_renewals", "workers renew no lease", (
        Edit(LEASES, "            held.renew(now_ns)\n", "            pass\n"),
    )),
    Mutation("renewal_not_heard", "schedulers do not hear renewals", (
        Edit(GROUP, "            return group, (Lease(head.token),)\n        case ReportKind.PROGRESS", "            return group, ()\n        case ReportKind.PROGRESS"),
    )),
    Mutation("expired_before_reading", "a lease expires before the completions are read to their end", (
        Edit(WATCH, "            if end_offset <= next_offset and self._items.get(out) == item:", "            if self._items.get(out) == item:"),
        Edit(WATCH, "[w for w in waiting if w[0] > next_offset]", "[]"),
    )),
    Mutation("end_of_an_old_look", "an end that was looked up before the lease ran out counts", (
        Edit(WATCH, "        if later := [w for w in waiting if w[1].serial > asked]:", "        if later := []:"),
        Edit(WATCH, "(end_offset, *w) for w in waiting if w[1].serial <= asked)", "(end_offset, *w) for w in waiting)"),
    )),
    Mutation("renewal_during_the_look", "what was heard during the look-up does not save the lease", (
        Edit(WATCH, "end_offset <= next_offset and self._items.get(out) == item:", "end_offset <= next_offset and out in self._items:"),
    )),
    Mutation("unclaimed_taken_for_lost", "a silent dispatch is taken for claimed without a look at the claims", (
        Edit(WATCH, "            if (out.partition, token) not in unclaimed:\n", "            if True:\n"),
    )),
    Mutation("look_of_an_old_dispatch", "a look at the claims counts for what was dispatched after it", (
        Edit(WATCH, "item.stage is not Stage.DISPATCHED or item.token != token:", "item.stage is not Stage.DISPATCHED:"),
    )),
    Mutation("running_not_watched", "a new owner does not watch what runs", (
        Edit(ENGINE, "                    self.watch.running(out, head.token, now.mono_ms)\n", ""),
    )),
    # -- the machine
    Mutation("retry_at_the_tail", "a task that runs again later goes to the end of its group", (
        Edit(ENGINE, "            case Wait():\n", """            case Wait(delay_ms=int()) if entry.parked:
                entry.park(effect.sequence, entry.row)
                entry.group = Group(None, entry.group.parked + 1)
                self._promote(partition, entry)
            case Wait():
"""),
    )),
    Mutation("lost_attempt_not_counted", "an attempt that a worker took with it is not counted", (
        Edit(GROUP, "attempt=head.attempt + 1, why=why, overdue=False, run=())", "attempt=head.attempt, why=why, overdue=False, run=())"),
    )),
    Mutation("slot_not_freed", "a failed task keeps its slot", (
        Edit(GROUP, "(Free(), emit, Wait(head.sequence, due_wall_ms, delay_ms))", "(emit, Wait(head.sequence, due_wall_ms, delay_ms))"),
    )),
    Mutation("promotion_forgotten", "now and then the next task is not promoted", (
        Edit(ENGINE, """        partition.tasks -= 1
        if entry.parked and entry.group.sweep is None:""", """        partition.tasks -= 1
        if entry.parked and entry.group.sweep is None and len(entry.parked) != 3:"""),
    )),
    Mutation("timer_fired_twice", "a timer fires twice, and the second time counts for whatever waits by then", (
        Edit(ENGINE, "                if partition and entry and entry.timer == timer and", "                if partition and entry and (timer < 0 or entry.timer == timer) and"),
        Edit(ENGINE, "                    self._feed(partition, entry, Due(entry.group.head.sequence))\n", """                    self._feed(partition, entry, Due(entry.group.head.sequence))
                    if timer > 0:
                        heapq.heappush(heap, (now_ms + 700, number, key, -timer))
"""),
    )),
    Mutation("timer_too_early", "a retry does not wait for its time", (
        Edit(ENGINE, "        left_ms = max(0, min(wait.delay_ms, wait.due_wall_ms - self._now.wall_ms))\n", "        left_ms = 0\n"),
    )),
    Mutation("ready_twice", "a group can stand in the ready set twice, and does", (
        Edit(READY, '            raise ValueError("group is ready already")\n', "            pass\n"),
        Edit(READY, "            self.discard(ready.partition, ready.key)\n", ""),
        Edit(READY, "found is not None and found[0] == ready.number", "found is not None"),
        Edit(GROUP, "    effects = (*before, MakeReady()) if", "    effects = (*before, MakeReady(), MakeReady()) if"),
        Edit(ENGINE, "        elif (partition.number, entry.key) not in self.ready:\n", "        else:\n"),
    )),
    # -- operators, failure policies, limits
    Mutation("withdrawn_unlooked", "what nobody seems to own is taken for withdrawn without a look at the claims", (
        Edit(ENGINE, "                self.watch.look(out, token, head.dispatch_partition)\n", "                self._asking.forget(out)\n                self._feed(self.partitions[out.partition], entry, Withdrawn(token))\n"),
    )),
    Mutation("cancelled_by_token", "a cancel hits a task of another group that has the same token", (
        Edit(RUNS, "self.runs.get((group, token))", "next((run for name, run in self.runs.items() if name[1] == token), None)"),
    )),
    Mutation("pause_answered_at_once", "a pause is answered while a dispatch is on its way", (
        Edit(GROUP, "    if group.head is not None and group.phase is Phase.DISPATCHED:\n        return _ask_back(group, group.head, event.by, *effects)\n", ""),
    )),
    Mutation("paused_goes_on", "a paused group goes on when its head is ready again", (
        Edit(GROUP, "(held is None or (held.pause is None and held.sweep is None))", "(held is None or held.sweep is None)"),
    )),
    Mutation("stopped_too_soon", "a running task that is cancelled ends at once", (
        Edit(GROUP, "    head = replace(head, stop=event.stop)\n    return replace(group, head=head), (*_cancel_run(head), Answer(event.stop.by, Outcome.ACCEPTED))\n", "    return _stopped(group, head, event.stop, None, head.worker)\n"),
    )),
    Mutation("redriven_behind", "a task redriven to the head goes behind all that is parked", (
        Edit(ENGINE, "        if redriven.to_head:\n", "        if False:\n"),
    )),
    Mutation("cascade_hides_a_cancel", "the failure of a head makes the scheduler forget that its group was being cancelled", (
        Edit(GROUP, "            if (before := group.sweep) is not None:", "            if False and (before := group.sweep) is not None:"),
    )),
    Mutation("keys_not_loaded", "a new owner knows no idempotency keys", (
        Edit(MEMORY, "        memory.remember(sequence, group, row)\n", "        pass\n"),
    )),
    Mutation("commands_not_loaded", "a new owner knows no ids of commands", (
        Edit(MEMORY, "        memory.commands[command_id] = memory.last_command = number\n", "        pass\n"),
    )),
    Mutation("one_too_many", "one task more than the limit may be parked", (
        Edit(FLOW, "in_group >= self.group_max", "in_group > self.group_max"),
    )),
    Mutation("breaker_not_asked", "an open breaker lets everything through", (
        Edit(ENGINE, "            self.capacity.bound(task_type, most)\n", "            pass\n"),
    )),
    Mutation("two_probes", "a half-open breaker lets out all that waits", (
        Edit(BREAKERS, "1 if self.state is BreakerState.HALF_OPEN and self.probe is None else 0", "1 if self.state is BreakerState.HALF_OPEN else 0"),
    )),
    Mutation("probe_forgotten", "a probe whose partition is loaded again is forgotten, and another goes out beside it", (
        Edit(BREAKERS, "        if self.probe is None and place == self._away:\n", "        if False:\n"),
    )),
    Mutation("breaker_told_once", "what a breaker said in a transaction that failed is not said again", (
        Edit(ENGINE, "        self._told = dict.fromkeys(self._told)  # it may stand in a transaction that has failed\n", ""),
    )),
    Mutation("probe_says_nothing", "a half-open breaker does not hear of its probe's success", (
        Edit(BREAKERS, "        elif place == self.probe:\n", "        elif place == self.probe and not succeeded:\n"),
    )),
    Mutation("released_in_time", "what runs in its time can be released", (
        Edit(GROUP, "    if not head.overdue:\n", "    if False:\n"),
    )),
    # -- runs
    Mutation("run_goes_on_after_a_failure", "a worker goes on with a run whose task has failed", (
        Edit(RUNS, "            goes_on = outcome.kind is ReportKind.SUCCEEDED and self._index", "            goes_on = self._index"),
    )),
    Mutation("run_not_cut", "commands do not wait for the end of a run", (
        Edit(ENGINE, "        return entry if entry is not None and (entry.group.run or entry.commands) else None\n", "        return None\n"),
    )),
    Mutation("run_not_handed_on", "the next task of a run is given the state that the first one was given", (
        Edit(RUNS, "        if outcome.state_set:\n", "        if False:\n"),
    )),
    Mutation("run_without_tokens", "the tokens of a run are not reserved", (
        Edit(ENGINE, "partition.next_numbers(1 + len(entry.run))", "partition.next_numbers(1)"),
    )),
    Mutation("run_not_in_the_row", "what is out behind a head is kept in memory only", (
        Edit(ENGINE, "rows.HeadRow(rows.head_format(group.head), group.head,", "rows.HeadRow(rows.ROW_FORMAT, group.head and msgspec.structs.replace(group.head, run=()),"),
    )),
    # -- group state
    Mutation("state_of_a_failure", "the state that a failed attempt has set is applied", (
        Edit(GROUP, "(Free(), emit, Wait(head.sequence, due_wall_ms, delay_ms))", "(Free(), emit, *((SetState(report),) if report.state_set else ()), Wait(head.sequence, due_wall_ms, delay_ms))"),
        Edit(EXECUTION, "        return self.handler.judge(outcomes.raised(error), error)\n", "        import msgspec\n        new = self.task.new_state\n        return msgspec.structs.replace(outcomes.raised(error), state=new, state_set=new is not None)\n"),
    )),
    Mutation("state_twice", "the group state is applied twice", (
        Edit(GROUP, "(Free(), emit, *state, Leave(head.sequence))", "(Free(), emit, *state, *state, Leave(head.sequence))"),
    )),
    Mutation("state_not_in_the_log", "the group state is kept in memory only", (
        Edit(ENGINE, '        self._put("changelog", partition.number, rows.state_key(entry.key), partition.states.get(entry.key))\n', ""),
    )),
    # -- rows
    Mutation("head_row_not_written", "what the head does is kept in memory only", (
        Edit(ENGINE, "            if needs_row(group):\n", "            if False:\n"),
    )),
    Mutation("task_row_dropped_early", "a task's row is deleted when it becomes the head", (
        Edit(ENGINE, "        task = take_head(entry, value)\n", '        task = take_head(entry, value)\n        self._put("changelog", partition.number, rows.task_key(sequence, entry.key), None)\n'),
    )),
    Mutation("epoch_not_raised", "a new owner goes on with its predecessor's numbers", (
        Edit(PARTITION, "        self.counter = ((self.counter >> limits.EPOCH_SHIFT) + 1) << limits.EPOCH_SHIFT\n", "        pass\n"),
    )),
    Mutation("watermarks_forgotten", "a new owner does not know what was taken in", (
        Edit(PARTITION, "dict.fromkeys(INPUTS, 0) | (row.next_offsets if row else {})", "dict.fromkeys(INPUTS, 0)"),
    )),
    Mutation("forwarded_twice", "a task in the wrong partition is forwarded twice", (
        Edit(ENGINE, "        self._out.append(Output(record.topic, home, key, record.value, headers))\n", "        self._out += [Output(record.topic, home, key, record.value, headers)] * 2\n"),
    )),
    # -- the scheduler's shell
    Mutation("no_offsets", "transactions carry no offsets", (
        Edit(TRANSACTION, "            self._producer.send_offsets_to_transaction(positions, group, COMMIT_S)\n", ""),
    )),
    Mutation("dispatch_before_rows", "dispatches are committed before the rows that say so", (
        Edit(TRANSACTION, "            self._write(self._producer, outputs)\n", """            outputs = list(outputs)
            if first := [o for o in outputs if o.topic == "dispatches"]:
                self._write(self._producer, first)
                self._producer.commit_transaction()
            self._write(self._producer, [o for o in outputs if o.topic != "dispatches"])
"""),
    )),
    Mutation("rows_before_dispatch", "rows that tell of a dispatch are committed before it", (
        Edit(TRANSACTION, "            self._write(self._producer, outputs)\n", """            outputs = list(outputs)
            if late := [o for o in outputs if o.topic == "dispatches"]:
                self._write(self._producer, [o for o in outputs if o.topic != "dispatches"])
                self._producer.commit_transaction()
                outputs = late
            self._write(self._producer, outputs)
"""),
    )),
    Mutation("commit_before_produce", "what was read is committed before what it leads to is written", (
        Edit(TRANSACTION, "            self._write(self._producer, outputs)\n", """            self._producer.begin_transaction()
            first = [ck.TopicPartition(self._topic(t), p, offset) for (t, p), offset in offsets.items()]
            self._producer.send_offsets_to_transaction(first, group, COMMIT_S)
            self._producer.commit_transaction(COMMIT_S)
            self._write(self._producer, outputs)
"""),
    )),
    Mutation("reads_uncommitted", "a new owner reads rows that were never committed", (
        Edit(STORE, '"isolation.level": "read_committed"', '"isolation.level": "read_uncommitted"'),
    )),
    Mutation("not_to_the_stable_end", "a new owner neither fences nor waits for open transactions", (
        Edit(STORE, "    return (row.owner, row.boot_id) if row.owner and not row.released else None", "    return None"),
        Edit(STORE, "                before = self._committed(numbers)\n", "                return reader.tables\n"),
        Edit(SCHEDULER, "        for member in silent.values():\n", "        for member in ():\n"),
    )),
    Mutation("kept_memory_trusted", "memory of a released partition is used again though others have owned it", (
        Edit(STORE, "if p in self._kept and self._kept[p][1] == ends[p]}", "if p in self._kept}"),
        Edit(STORE, "            if row and row.released and row.boot_id == boot_id and reader.offsets[number] == ends[number]:\n", "            if True:\n"),
    )),
    Mutation("failed_commit_ignored", "after a failed transaction memory is not loaded afresh", (
        Edit(SCHEDULER, """            self._note_suspect(error)
            self._distrust()
        except TransactionFailed:
            self._distrust()
""", """            self._note_suspect(error)
            self._distrust()
        except TransactionFailed:
            pass
"""),
    )),
    Mutation("ends_not_noted", "what lies behind the last record is not passed", (
        Edit(ENGINE, "            if partition is not None and number not in self.stopped and end >", "            if False and partition is not None and end >"),
    )),
    # -- the worker's shell
    Mutation("drain_forgets_a_claim", "a worker that drains says nothing of what it has claimed", (
        Edit(RUNS, """            if self.runtime.draining:
                self.give_back(Reason.RETURNED)
                return
""", """            if self.runtime.draining:
                return
"""),
    )),
    Mutation("drain_does_not_wait", "a worker leaves before its reports are in the log", (
        Edit(WORKER, "unsaid = self._reporter.stop(_REPORT_S_MAX)", "unsaid = 0"),
    )),
    Mutation("revoked_still_claimed", "dispatches of a revoked partition are kept and claimed when it comes back", (
        Edit(CLAIMING, "            self.ahead.forget(partition)\n", ""),
        Edit(CLAIMS, "        while waiting and waiting[0].offset < offset:\n            waiting.popleft()\n", ""),
    )),
    # -- handlers in the scheduler's process
    Mutation("lane_keeps_no_row", "offsets pass what has not ended in the express lane, and no row keeps it", (
        Edit(EXPRESS, '            engine.put("changelog", line.partition.number, key, rows.encode(item.row()))\n', ""),
    )),
    Mutation("row_of_the_lane_stays", "a row that was written for a task in the lane is not deleted at its end", (
        Edit(EXPRESS, "            if item.rowed:\n", "            if False:\n"),
    )),
    Mutation("lane_beside_the_machine", "a task that cannot take the lane begins beside those of its group that are in it", (
        Edit(ENGINE, "            self.express.settle(line)  # what goes another way stands behind those in the lane\n", "            pass\n"),
    )),
    Mutation("lane_past_a_head", "a task takes the lane though its group has a head in the machine", (
        Edit(EXPRESS, "        if entry is not None and entry.group != IDLE:\n            return False\n", ""),
    )),
    Mutation("careful_start_skipped", "what a dead predecessor may have begun begins before that is committed", (
        Edit(ENGINE, "careful = head.sequence <= partition.careful_below", "careful = False"),
        Edit(EXPRESS, "        if record.offset < partition.careful_end:\n", "        if False:\n"),
    )),
    Mutation("successor_does_not_wait", "whoever takes over from a scheduler that runs handlers does not wait for its lease", (
        Edit(ENGINE, "self._now.mono_ms + self._lease_ms if partition.may_run else 0", "0"),
    )),
    Mutation("care_forgotten", "a clean release makes the next owner forget what the one before it may still be running", (
        Edit(PARTITION, "self.may_run, (self.careful_below, self.careful_end),", "(), (0, 0),"),
    )),
    Mutation("local_lease_not_enforced", "handlers in the scheduler's process go on when membership was last proven a lease ago", (
        Edit(LOCAL, "        self._keeper.add(run)\n        run.begin()\n", "        run.begin()\n"),
        Edit(LOCAL, "        self._keeper.add(run)\n        return run\n", "        return run\n"),
        Edit(LOCAL, "            self._keeper.add(self._drivers)\n", "            pass\n"),
        Edit(LOCAL, '        self._fence("membership was last proven a lease ago, and a handler has ended only now")\n', "        pass\n"),
        Edit(LOCAL, "        if self.lease.is_out(mono_ns()):\n", "        if False:\n"),
        Edit(LANE, "                if lease.is_out(ended.mono_ns):\n", "                if False:\n"),
        Edit(LANE, "            if not self._drivers.lease.is_out(ended.mono_ns):\n", "            if True:\n"),
    )),
    Mutation("outcome_of_old_memory", "an outcome from before a failed transaction is taken in after the partition was loaded afresh", (
        Edit(ENGINE, "        if self.partitions.get(partition.number) is not partition:\n            return False\n        self._now = now\n", "        self._now = now\n"),
    )),
    Mutation("rejoins_while_handlers_run", "after a failed transaction the group is joined again while handlers still run", (
        Edit(SCHEDULER, "        await local.stop_all()\n        await asyncio.sleep(pause_s)\n", "        await asyncio.sleep(pause_s)\n"),
        Edit(SCHEDULER, "                await self._local.stop_all()  # of an earlier assignment\n", "                pass\n"),
        Edit(SCHEDULER, "        if lost or not self._trusted:\n            await self._local.stop_all()\n            return\n", "        if lost or not self._trusted:\n            return\n"),
    )),
    Mutation("lets_go_while_handlers_run", "partitions are let go while handlers still run", (
        Edit(SCHEDULER, "        finished = asyncio.ensure_future(self._local.finish())\n", "        return\n        finished = asyncio.ensure_future(self._local.finish())\n"),
    )),
    Mutation("live_one_fenced", "a scheduler is fenced for what an earlier life of it has left", (
        Edit(STORE, "if left is not None and not self._is_followed(*left):", "if left is not None:"),
    )),
    # -- what hangs in Kafka
    Mutation("hanging_left_alone", "whoever takes up a transactional id does not end what hangs under it", (
        Edit(TRANSACTION, "        producer.init_transactions(30)\n        producer.begin_transaction()\n", "        producer.init_transactions(30)\n        return producer\n        producer.begin_transaction()\n"),
    )),
)  # fmt: skip
