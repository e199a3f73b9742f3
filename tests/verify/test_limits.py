"""Memory grows with groups and not with tasks."""

import gc
import tracemalloc

from histories import Log

from pstp.verify import History, Options
from pstp.verify.ledger import Ledger
from streams.protocol import encode


def test_memory_grows_with_groups_and_not_with_tasks() -> None:
    log = Log()
    for number in range(6_000):
        log.set_state(log.run(log.park(f"g{number % 10}")))
    data = [encode(event) for event in log.events]
    history = History(Options(partitions=1))
    sizes = []
    tracemalloc.start()
    try:
        for offset, value in enumerate(data):
            history.record(0, offset, value)
            if offset in (len(data) // 3, len(data) - 1):
                gc.collect()
                sizes.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert (sizes[1] - sizes[0]) / 4_000 < 24, "bytes for each finished task"


def test_ledger() -> None:
    ledger = Ledger()
    numbers = [0, 1, 65_535, 65_536, (1 << 53) - 1]
    for value, number in enumerate(numbers, start=1):
        ledger[number] = value
    assert [ledger[number] for number in numbers] == [1, 2, 3, 4, 5]
    assert ledger[2] == ledger[1 << 40] == 0
    assert list(ledger) == [(number, value) for value, number in enumerate(numbers, start=1)]
