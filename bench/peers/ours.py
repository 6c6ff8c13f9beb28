"""This project's store, as a peer among the others."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from bench.peers import resp
from bench.peers.peer import REPLICAS, Figures, Kind
from bench.store_cluster import StoreCluster
from p4xos.config import Storage
from p4xos.tables import Address


class Ours:
    """A cluster of the store; clients connect to its first node, as in the scenario kv."""

    reads = True

    def __init__(self, name: str, storage: Storage, nodes: int = REPLICAS) -> None:
        self.name = name
        self.address: Address
        """Where clients connect, once it was started."""
        self._storage: Storage = storage
        self._nodes = nodes
        self._stack = ExitStack()

    def missing(self) -> str | None:
        """Nothing: the scenario itself needs redis-benchmark."""
        return None

    def start(self, scratch: Path) -> None:
        """Starts all nodes and waits until a write went through each."""
        cluster = self._stack.enter_context(StoreCluster(scratch, self._storage, self._nodes))
        cluster.start()
        cluster.wait_until_writable()
        self.address = cluster.endpoint(cluster.names[0])

    def load(self, clients: int, kind: Kind, seconds: float) -> Figures:
        """redis-benchmark; GET is linearizable here."""
        return resp.measured(self.address, clients, kind, seconds)

    def stop(self) -> None:
        """Kills the nodes."""
        self._stack.close()
