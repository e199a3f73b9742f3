"""Our driver stands in for a piece of Faust.  When Faust changes beneath it, one of these fails: read what changed,
check `streams/transport.py` and `streams/app.py` against it, then write down the new digest.
"""

import hashlib
import inspect
from collections.abc import Callable
from typing import Any

import faust.app.base
import faust.stores.base
import faust.tables.base
import faust.tables.manager
import faust.tables.recovery
import faust.transport.base
import faust.transport.conductor
import faust.transport.consumer
import pytest

from streams import app, transport

Recovery = faust.tables.recovery.Recovery
Consumer = faust.transport.consumer.Consumer
App = faust.app.base.App

Tables = faust.tables.manager.TableManager
Table = faust.tables.base.Collection
Conductor = faust.transport.conductor.Conductor

# What our driver is called by, or relies on to call it back.
RELIED_ON: dict[Callable[..., Any], str] = {
    App._on_partitions_assigned: "de932b7927db",
    App._on_partitions_revoked: "d5c895bbe57d",
    App.on_rebalance_start: "5c1e23de3067",
    Recovery.on_rebalance: "aa4d997a1795",
    Recovery._resume_streams: "d986a6710c1a",
    Tables.on_rebalance: "2d2c23a07bf5",
    Table.on_rebalance: "0812ad692171",
    Consumer._drain_messages: "44a2500309e8",
    Consumer.perform_seek: "0e8c130ff4b0",
    Consumer.on_partitions_assigned: "29ce96596f05",
    Consumer.on_partitions_revoked: "d04b7ae72c6f",
    Conductor._build_handler: "5c071d127798",
}


def digest(function: Callable[..., Any]) -> str:
    return hashlib.sha256(inspect.getsource(function).encode()).hexdigest()[:12]


@pytest.mark.parametrize("function", RELIED_ON, ids=lambda f: f.__qualname__)
def test_what_we_rely_on_in_faust_is_what_we_read(function: Callable[..., Any]) -> None:
    assert digest(function) == RELIED_ON[function]


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (transport.Consumer, Consumer),
        (transport.Producer, faust.transport.producer.Producer),
        (transport.Transport, faust.transport.base.Transport),
        (app.App, App),
        (app.GroupStore, faust.stores.base.Store),
        (app.GroupTable, faust.tables.base.Collection),
    ],
)
def test_what_we_override_still_exists_in_faust(ours: type, theirs: type) -> None:
    own = {"pump", "scheduler", "default_port", "driver_version"}
    overridden = {
        name for name in vars(ours)
        if not (name.startswith("__") and name.endswith("__")) and name not in own and not name.startswith("_abc")
    }  # fmt: skip
    added = {name for name in overridden if not hasattr(theirs, name)}
    assert added <= {"_assigned", "_revoked", "_failed"}


def test_our_driver_implements_everything_that_faust_calls_abstract() -> None:
    for ours in (transport.Consumer, app.GroupStore):
        assert not getattr(ours, "__abstractmethods__", frozenset())
