"""EmbeddedBroker: a real Apache Kafka broker (KRaft) as a child process, on the loopback interface only."""

import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from pstp.broker import ports
from pstp.broker.errors import BrokerError, StartError
from pstp.broker.jars import ensure_jars
from pstp.broker.java import find_java
from pstp.broker.jvm import DetachedJvm, GuardedJvm, Jvm, wait_ended
from pstp.broker.probe import broker_answers, coordinators_ready
from pstp.broker.settings import Quorum, jvm_flags, new_cluster_id, server_properties
from pstp.broker.storage import DataDir, DetachedState, format_storage, in_use

_KILL_TIMEOUT_S = 10.0
_READY_POLL_INTERVAL_S = 0.05


class EmbeddedBroker:
    """One Kafka node with its data, configuration and logs in `data_dir`; use one object from one thread at a time.

    port: where clients connect; None takes a free one at the first start and keeps it for this object.
    heap_mb: the largest heap of the JVM in MB; the process needs some 150 MB more.
    properties: Kafka settings that win over ours (see settings.py).
    detached: the broker outlives this process; another one gets hold of it with `EmbeddedBroker.attach`.
    quorum: this node's place in a larger cluster; None is a cluster of one.

    Without `detached` the JVM is killed as soon as this process is gone, however it ended.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        port: int | None = None,
        heap_mb: int = 256,
        properties: Mapping[str, str] | None = None,
        detached: bool = False,
        quorum: Quorum | None = None,
    ) -> None:
        self._data = DataDir(data_dir)
        self._port = port
        self._heap_mb = heap_mb
        self._properties = dict(properties or {})
        self._detached = detached
        self._quorum = quorum
        self._in_cluster = quorum is not None and len(quorum.voters) > 1
        self._jvm: Jvm | None = None

    @classmethod
    def attach(cls, data_dir: Path) -> "EmbeddedBroker | None":
        """The detached broker that runs on `data_dir`, or None; a restart of it keeps its port, not its settings."""
        data = DataDir(data_dir)
        state = data.detached_state()
        if state is None:
            return None
        broker = cls(data_dir, port=state.port, detached=True)
        broker._jvm = DetachedJvm(state.pid, data.lock_path)
        return broker if broker.running else None

    @property
    def running(self) -> bool:
        """Whether the JVM lives; it may not answer yet, or no longer."""
        return self._jvm is not None and self._jvm.running()

    @property
    def port(self) -> int:
        """The port that clients connect to; raises BrokerError before the first start if none was given."""
        if self._port is None:
            raise BrokerError("The broker has no port before it is started: call start() first.")
        return self._port

    @property
    def bootstrap(self) -> str:
        """host:port for clients' `bootstrap.servers`; stays the same over restarts of this object."""
        return f"{ports.HOST}:{self.port}"

    @property
    def pid(self) -> int:
        """The process id of the JVM; raises BrokerError when the broker does not run."""
        if self._jvm is None or not self._jvm.running():
            raise BrokerError("The broker does not run: call start() first.")
        return self._jvm.pid

    @property
    def log_path(self) -> Path:
        """The broker's log, from its last start on."""
        return self._data.log_path

    def start(self, timeout_s: float = 60.0) -> None:
        """Start on the data that is there and block until the broker answers; no effect while it runs.

        The very first start on a machine fetches Kafka before, which does not count against timeout_s. Raises
        BrokerError: JarError, JavaError, PortTakenError, DataDirInUseError or StartError.
        """
        if self.running:
            return
        self._data.make()
        with self._data.locked() as lock_fd:
            if self._data.kafka_runs():
                raise in_use(self._data.path)
            command = self._prepare()
            self._jvm = self._spawn(command, lock_fd)
        try:
            self._wait_ready(timeout_s)
        except BaseException:
            self.kill()
            raise

    def stop(self, grace_s: float = 15.0) -> None:
        """SIGTERM, then SIGKILL if it still runs after grace_s seconds; no effect when it does not run."""
        if self._jvm is not None:
            self._jvm.terminate()
            if not wait_ended(self._jvm, grace_s):
                self.kill()

    def kill(self) -> None:
        """SIGKILL, and wait for the end of the process; no effect when it does not run."""
        if self._jvm is not None:
            self._jvm.kill()
            if not wait_ended(self._jvm, _KILL_TIMEOUT_S):
                raise BrokerError(f"The broker's process {self._jvm.pid} does not end: look at it with ps.")

    def restart(self) -> None:
        """stop() and start(): the same data, the same port."""
        self.stop()
        self.start()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _prepare(self) -> list[str]:
        """Settle ports and cluster, write the configuration, format a new folder; returns the broker's command."""
        java_command = [
            str(find_java()),
            *jvm_flags(self._heap_mb),
            "-cp",
            os.pathsep.join(map(str, ensure_jars())),
        ]
        if self._port is None:
            self._port = ports.free_port()
        ports.require_free(self._port)
        cluster_id = self._data.cluster_id()
        if self._quorum is None:
            voters = {1: ports.free_port(but_not=self._port)}
            self._quorum = Quorum(node_id=1, voters=voters, cluster_id=cluster_id or new_cluster_id())
        properties = server_properties(self._port, self._quorum, self._properties)
        self._data.properties_path.write_text(properties, encoding="utf-8")
        if cluster_id is None:
            format_storage(self._data, java_command, self._quorum.cluster_id)
        return [*java_command, "kafka.Kafka", self._data.properties_path.name]

    def _spawn(self, command: list[str], lock_fd: int) -> Jvm:
        self._data.clear_last_run()
        if not self._detached:
            return GuardedJvm(command, lock_fd, self._data.path, self._data.output_path)
        jvm = DetachedJvm.start(command, lock_fd, self._data.lock_path, self._data.output_path)
        self._data.save_detached(DetachedState(pid=jvm.pid, port=self.port))
        return jvm

    def _wait_ready(self, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while not self._ready():
            if not self.running:
                raise self._explain_end()
            if time.monotonic() >= deadline:
                raise StartError(
                    f"The broker did not answer on {self.bootstrap} within {timeout_s:g} s: try again with a longer "
                    f"timeout_s, or look into its log ({self.log_path}):\n{self._data.log_excerpt()}"
                )
            time.sleep(_READY_POLL_INTERVAL_S)

    def _ready(self) -> bool:
        # The coordinators' topics want as many nodes as they have replicas: a larger cluster makes them when it can.
        return broker_answers(self.port) and (self._in_cluster or coordinators_ready(self.port))

    def _explain_end(self) -> BrokerError:
        log = self._data.log_text()
        if taken := re.search(rf"bind to {ports.HOST}:(\d+): Address already in use", log):
            return ports.port_taken(int(taken[1]))
        if "Failed to acquire lock on file .lock" in log:
            return in_use(self._data.path)
        return StartError(
            f"The broker ended while starting: mend what its log ({self.log_path}) names, then start again:\n"
            f"{self._data.log_excerpt()}"
        )
