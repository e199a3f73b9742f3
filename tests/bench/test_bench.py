"""The parts of the harness that need no Kafka: the work, the ratios, the lock check, the model."""

import hashlib
import json
from collections import Counter
from pathlib import Path

import pytest

from pstp.bench.flatness import Bench, idle_rows, parked_rows
from pstp.bench.installing import check_jars
from pstp.bench.rounds import add_ratios, cell, share
from pstp.bench.sides import SIDES, Result
from pstp.bench.work import PAYLOAD_BYTES, WORKS, Work
from pstp.sizing import plan
from streams.errors import UserError


def test_tasks_count_within_their_group_and_weigh_what_is_said() -> None:
    seen: Counter[bytes] = Counter()
    for key, value in Work("w", tasks=200, groups=7, skew=1.0).records():
        task = json.loads(value)
        assert task["type"] == "bench"
        assert task["payload"]["n"] == seen[key]
        assert len(json.dumps(task["payload"], separators=(",", ":"))) == PAYLOAD_BYTES
        seen[key] += 1
    assert sum(seen.values()) == 200


def test_zipf_gives_the_first_group_most() -> None:
    counts = Counter(WORKS["zipf"]._replace(tasks=20_000).keys())
    assert 0.11 < counts["group-00000"] / 20_000 < 0.16  # 1 / (1 + 1/2 + … + 1/1000) = 0.134
    assert list(WORKS["zipf"].keys()) == list(WORKS["zipf"].keys())


def test_ratios_are_of_medians() -> None:
    results = [Result(100, seconds, 0, 2.0, 1.0) for seconds in (1.0, 4.0, 2.0)]
    cells = {"pc-produce": cell(results), "pstp-workers": cell([Result(100, 1.0, 0, 1.0, 1.0)])}
    add_ratios(cells)
    assert cells["pc-produce"]["rate"] == 50
    assert cells["pstp-workers"]["ratio_to"] == {"pc-produce": 2.0}
    assert cells["pstp-workers"]["cpu_s_per_100k"] == 1000


def test_slow_sides_do_fewer_tasks() -> None:
    assert share(WORKS["0ms"], SIDES["procrastinate"], 1.0).tasks == 2_000
    assert share(WORKS["0ms"], SIDES["pstp-workers"], 0.1).tasks == 10_000


def test_a_jar_that_differs_from_its_lock_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jar").write_bytes(b"jar")
    check_jars(tmp_path, f"a.jar {hashlib.sha256(b'jar').hexdigest()}\n")
    with pytest.raises(UserError, match=r"a\.jar"):
        check_jars(tmp_path, f"a.jar {'0' * 64}\n")


def test_every_task_of_the_engines_bench_runs() -> None:
    bench = Bench(parked_rows(5) | idle_rows(5))
    bench.run([], 5)
    bench.run([b"a", b"b", b"a"] * 10, 30)
    assert bench.finished == 35
    (partition,) = bench.engine.partitions.values()
    assert (len(partition.states), len(partition.entries)) == (5, 0), "idle groups are their state, the others nothing"


def test_the_model_says_when_groups_are_too_few() -> None:
    enough, few = plan(500, 40, 2_000), plan(500, 40, 10)
    assert enough.slots * enough.workers >= 500 * 0.05
    assert not any("cannot" in note for note in enough.notes)
    assert any("cannot" in note for note in few.notes)
    assert plan(20_000, 0, 10_000).schedulers > 1
