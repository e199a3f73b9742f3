"""The Faust wiring: the app around one scheduler, its agent over all inputs, and the table `groups`."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import faust
from faust.stores import base as faust_stores
from faust.types import TP

from streams.group import Group
from streams.transport import Transport

if TYPE_CHECKING:
    from streams.scheduler import Scheduler


class App(faust.App):  # type: ignore[misc]
    """A Faust app whose driver is ours."""

    scheduler: "Scheduler"

    def _new_transport(self) -> Transport:
        return Transport(self.conf.broker_consumer, self)

    _new_producer_transport = _new_transport

    async def crash(self, reason: BaseException) -> None:
        """Faust would stop working and leave the process standing there."""
        self.scheduler.fail(reason)
        await super().crash(reason)

    def _create_directories(self) -> None:
        pass  # nothing of ours lives in Faust's data folder


class GroupStore(faust_stores.Store):  # type: ignore[misc]
    """The table's rows, by partition, in the engine's memory.  Faust may look, the transaction writes."""

    def persisted_offset(self, tp: TP) -> int | None:
        return None

    async def need_active_standby_for(self, tp: TP) -> bool:
        return False

    async def on_rebalance(
        self, assigned: set[TP], revoked: set[TP], newly_assigned: set[TP], generation_id: int = 0
    ) -> None:
        await self.app.scheduler.take_over(assigned)

    def apply_changelog_batch(self, batch: Any, to_key: Any, to_value: Any) -> None:
        raise NotImplementedError("the store reads its changelog itself")

    def reset_state(self) -> None:
        pass

    async def backup_partition(self, tp: TP, flush: bool = True, purge: bool = False, keep: int = 1) -> None:
        raise NotImplementedError("the changelog is the backup")

    def restore_backup(self, tp: TP, latest: bool = True, backup_id: int = 0) -> None:
        raise NotImplementedError("the changelog is the backup")

    def __getitem__(self, key: bytes) -> Group:
        for partition in self.app.scheduler.engine.partitions.values():
            if key in partition.entries:
                group: Group = partition.entries[key].group
                return group
        raise KeyError(key)

    def __setitem__(self, key: bytes, value: Any) -> None:
        raise TypeError("rows are written by the transaction")

    def __delitem__(self, key: bytes) -> None:
        raise TypeError("rows are written by the transaction")

    def __iter__(self) -> Iterator[bytes]:
        return (key for p in self.app.scheduler.engine.partitions.values() for key in p.entries)

    def __len__(self) -> int:
        return sum(len(p.entries) for p in self.app.scheduler.engine.partitions.values())


class GroupTable(faust.Table):  # type: ignore[misc]
    def _new_store_by_url(self, url: Any) -> GroupStore:
        return GroupStore(url, self.app, self, table_name=self.name)


def new_app(scheduler: "Scheduler") -> App:
    """The Faust app around one scheduler: an agent over all inputs, the table `groups`, and rebalance signals."""
    settings = scheduler.settings
    app = App(
        settings.app, broker=f"kafka://{settings.bootstrap_servers.split(',')[0]}", store="memory://",
        topic_partitions=settings.partitions, web_enabled=False, topic_disable_leader=True, topic_allow_declare=False,
        stream_wait_empty=False, datadir=str(settings.data_dir / "faust" / scheduler.instance),
        loghandlers=[], logging_config={"version": 1, "disable_existing_loggers": False},
    )  # fmt: skip
    app.scheduler = scheduler
    inputs = app.topic(
        *scheduler.input_topics(), key_serializer="raw", value_serializer="raw", partitions=settings.partitions,
        acks=False,
    )  # fmt: skip
    app.tables.add(GroupTable(app, name="groups", partitions=settings.partitions))

    @app.agent(inputs)  # type: ignore[untyped-decorator]
    async def schedule(stream: Any) -> None:
        async for event in stream.events():
            await scheduler.handle(event.message.value)

    @app.on_partitions_revoked.connect  # type: ignore[untyped-decorator]
    async def revoked(app: App, revoked: set[TP], **_: Any) -> None:
        await scheduler.let_go(revoked)

    return app
