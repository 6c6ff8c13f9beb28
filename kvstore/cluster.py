"""The store as an application of the launcher: `kvstore cluster`."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from kvstore.config import client_rules, endpoints, served_at, with_endpoints
from kvstore.joining import is_lost
from p4xos.config import PEER_OFFSET, Cluster
from p4xos.creation import Wanted
from p4xos.launcher import exchange
from p4xos.ports import free_addresses
from p4xos.tables import Address

_PING = b"*1\r\n$4\r\nPING\r\n"
_ANSWERS = (b"+PONG", b"-NOAUTH")


class StoreApplication:
    """Nodes that serve RESP (p4xos.launcher.Application)."""

    def __init__(self) -> None:
        """Knows no cluster yet."""
        self._tls_only: set[Address] = set()

    def complete(self, cluster: Cluster, wanted: Wanted) -> Cluster:
        """A new cluster with a RESP endpoint for each node with a learner."""
        learners = {learner.node for learner in cluster.learners}
        served = [node for node in cluster.nodes if node.name in learners]
        names = [node.name for node in served]
        taken = {node.peer for node in cluster.nodes} | {node.metrics for node in cluster.nodes}
        if wanted.base_port == 0:
            # Three times as many as needed: some may be the ports that were given just before.
            candidates = [a for a in free_addresses(3 * len(names)) if a not in taken]
        else:
            # The template counts all ports from one base, the endpoints of applications first.
            candidates = [Address(n.peer.host, n.peer.port - PEER_OFFSET) for n in served]
        return with_endpoints(cluster, dict(zip(names, candidates, strict=False)))

    def command(self, cluster_file: Path, node: str) -> Sequence[str]:
        """What starts one node; one without a store is a node of the log alone: a switch."""
        arguments = ["node", "--cluster", str(cluster_file), "--name", node]
        cluster = Cluster.load(cluster_file)
        if node not in served_at(cluster):
            return [sys.executable, "-m", "p4xos", *arguments]
        if is_lost(cluster, node):
            arguments.append("--join")
        return [sys.executable, "-m", "kvstore", *arguments]

    def endpoints(self, cluster: Cluster) -> Mapping[str, Address]:
        """Where each node serves RESP."""
        self._tls_only = {s.first for s in served_at(cluster).values() if s.address is None}
        return endpoints(cluster)

    def _flags(self, cluster: Cluster) -> str:
        """What redis-cli needs beside the port."""
        users = " --user NAME --askpass" if client_rules(cluster).users is not None else ""
        tls_only = any(served.address is None for served in served_at(cluster).values())
        return f" --tls --cacert FILE{users}" if tls_only else users

    async def ready(self, endpoint: Address) -> bool:
        """Whether the store answers PING, or wants a password; behind TLS, whether it listens."""
        if endpoint in self._tls_only:
            return await exchange(endpoint, b"", lambda answer: True)
        return await exchange(endpoint, _PING, lambda answer: answer.startswith(_ANSWERS))

    def try_it(self, cluster: Cluster) -> Sequence[str]:
        """Commands to type: write at one node, read at another, measure at the last."""
        ports = [address.port for address in endpoints(cluster).values()]
        flags = self._flags(cluster)
        if shutil.which("redis-cli") is None:
            shell = shlex.join([sys.executable, "-m", "kvstore", "shell", "--port", str(ports[0])])
            return [
                f"{shell}   # then: set greeting hello",
                "redis-cli does the same; it comes with Debian's package redis-tools",
            ]
        return [
            f"redis-cli -p {ports[0]}{flags} set greeting hello",
            f"redis-cli -p {ports[-1]}{flags} get greeting",
            f"redis-benchmark -p {ports[-1]} -t set -n 100000 -c 64 -q",
        ]
