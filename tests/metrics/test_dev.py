"""`pstp dev`: whoever scrapes its folder needs no list of ports."""

import os
from pathlib import Path

import pytest

from pstp.broker.ports import free_port
from tests.metrics.scraping import addresses, figure, scrape_all
from tests.support.system import HANDLERS, Process, until


@pytest.mark.long
def test_all_that_it_runs_can_be_scraped_and_leaves_nothing_behind(tmp_path: Path) -> None:
    env = {name: value for name, value in os.environ.items() if not name.startswith("PSTP_")} | {
        "PSTP_BOOTSTRAP_SERVERS": f"127.0.0.1:{free_port()}", "PSTP_DATA_DIR": str(tmp_path),
        "JOURNAL": str(tmp_path / "journal.jsonl"), "PSTP_PARTITIONS": "4",
    }  # fmt: skip
    dev = Process("dev", ["dev", "--handlers", str(HANDLERS)], env, tmp_path / "dev.log")
    try:
        until(lambda: {"scheduler-dev", "worker-dev"} <= addresses(tmp_path).keys(), 120, "both have said where")
        until(lambda: figure(scrape_all(tmp_path)["scheduler-dev"], "pstp_partitions_owned") == 4, 60)
        assert figure(scrape_all(tmp_path)["worker-dev"], "pstp_worker_slots") > 0
        assert dev.terminate(60) == 0
    finally:
        if dev.alive():
            dev.kill()
    assert addresses(tmp_path) == {}
