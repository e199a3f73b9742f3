"""One broker or a cluster of three, with a listener per link whose address is the proxy's."""

import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pstp.broker import EmbeddedBroker, Quorum, new_cluster_id
from pstp.broker.ports import HOST, free_port
from tests.chaos.disk import mount, unmount
from tests.chaos.proxy import Proxy


class Cluster:
    """Brokers, each with its data in `folder/broker-<n>`.  `bootstrap` goes straight to them, `through` by a link."""

    def __init__(self, folder: Path, count: int, links: Sequence[str], *, small_disks: bool = False) -> None:
        """`small_disks`: each broker's data on a disk of its own that can be filled, where that is possible."""
        self.mounts: list[Path] = []
        self.no_mounts: str | None = None
        self.proxy = Proxy()
        self.whole = True  # no nemesis has one of the brokers in hand
        self._links: dict[str, list[int]] = {name: [] for name in links}
        voters = {number: free_port() for number in range(1, count + 1)}
        cluster_id = new_cluster_id()
        self.folders = [folder / f"broker-{number}" for number in voters]
        self._small_disks = small_disks
        self.nodes = []
        for number, data_dir in zip(voters, self.folders, strict=True):
            port = free_port()
            quorum = Quorum(number, voters, cluster_id)
            properties = self._listeners(port, voters[number])
            self.nodes.append(EmbeddedBroker(data_dir, port=port, properties=properties, quorum=quorum, heap_mb=384))

    def start(self) -> None:
        """All of them, side by side: none answers before most are there."""
        if self._small_disks:
            self._mount()
        failed: list[BaseException] = []

        def begin(node: EmbeddedBroker) -> None:
            try:
                node.start(120)
            except BaseException as error:
                failed.append(error)

        threads = [threading.Thread(target=begin, args=(node,)) for node in self.nodes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failed:
            raise failed[0]

    def stop(self) -> None:
        for node in self.nodes:
            node.kill()
        for folder in self.mounts:
            unmount(folder)
        self.proxy.close()

    def _mount(self) -> None:
        for folder in self.folders:
            self.no_mounts = mount(folder)
            if self.no_mounts is not None:
                return
            self.mounts.append(folder)

    @contextmanager
    def hurting(self) -> Iterator[None]:
        """One broker at a time."""
        self.whole = False
        try:
            yield
        finally:
            self.whole = True

    def signal(self, node: EmbeddedBroker, number: signal.Signals) -> None:
        os.kill(node.pid, number)

    @property
    def bootstrap(self) -> str:
        return ",".join(node.bootstrap for node in self.nodes)

    def through(self, link: str) -> str:
        return ",".join(f"{HOST}:{port}" for port in self._links[link])

    def _listeners(self, port: int, controller_port: int) -> dict[str, str]:
        listeners = [f"PLAINTEXT://{HOST}:{port}", f"CONTROLLER://{HOST}:{controller_port}"]
        advertised = [f"PLAINTEXT://{HOST}:{port}"]
        protocols = ["PLAINTEXT:PLAINTEXT", "CONTROLLER:PLAINTEXT"]
        for link, ports in self._links.items():
            name, inner, outer = f"LINK_{link.upper()}", free_port(), free_port()
            listeners.append(f"{name}://{HOST}:{inner}")
            advertised.append(f"{name}://{HOST}:{outer}")
            protocols.append(f"{name}:PLAINTEXT")
            ports.append(outer)
            self.proxy.forward(link, HOST, outer, inner)
        return {
            "listeners": ",".join(listeners), "advertised.listeners": ",".join(advertised),
            "listener.security.protocol.map": ",".join(protocols), "inter.broker.listener.name": "PLAINTEXT",
            "num.network.threads": "1", "unclean.leader.election.enable": "false",
        }  # fmt: skip
