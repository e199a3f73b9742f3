"""What other clients of the same topics do: open transactions, and what becomes of those who wait behind them."""

import confluent_kafka as ck

from streams.protocol import TaskState
from tests.support.system import System, until


def test_an_open_transaction_holds_up_only_its_partition_and_is_named(system: System) -> None:
    system.scheduler()
    system.worker()
    groups = {system.home(f"g{n}"): f"g{n}" for n in range(50)}
    held, free = groups[0], groups[1]
    stranger = ck.Producer(system.settings.kafka(**{"transactional.id": f"{system.settings.app}-stranger"}))
    stranger.init_transactions(10)
    stranger.begin_transaction()
    for _ in range(10):
        stranger.produce(system.settings.topic("tasks"), b'{"type":"echo","id":"never"}', held, 0)
    stranger.flush()
    system.publish(held, "echo", id="behind")
    system.publish(free, "echo", id="free")
    system.flush()
    system.history.wait(lambda h: TaskState.SUCCEEDED in h.states("free"))
    until(lambda: system.metric("s1", "pstp_input_held") == 1, what="the metric names it")
    answer = system.get("s1", f"/explain?group={held}")
    assert answer["held_by_transaction"] == f"{system.settings.topic('tasks')}-0"
    assert system.history.states("behind") == []

    stranger.abort_transaction()
    system.history.wait(lambda h: TaskState.SUCCEEDED in h.states("behind"))
    until(lambda: system.metric("s1", "pstp_input_held") == 0, what="the metric forgets it")
    assert system.history.states("never") == []
