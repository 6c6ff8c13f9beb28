"""`kvstore create`: a cluster for several machines, its file and a directory for each node.

    <directory>/cluster.toml   the same on every machine
    <directory>/<node>/        goes to that node's machine, beside the file: it holds the one-time
                               mark of the node's acceptor, which must not be made a second time

Ports are counted from one base, on every machine alike; nodes on one machine follow one another.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from kvstore.config import endpoints, with_endpoints
from p4xos.config import (
    ACCEPTOR_OFFSET,
    COORDINATOR_OFFSET,
    LEARNER_OFFSET,
    METRICS_OFFSET,
    PEER_OFFSET,
    Cluster,
    Member,
    Node,
    Storage,
)
from p4xos.creation import (
    DEFAULT_BASE_PORT,
    LAUNCHER_LOCK,
    DirectoryRefused,
    Wanted,
    find_or_create,
)
from p4xos.processes import claimed
from p4xos.tables import Address


def parse_places(given: list[str]) -> dict[str, str]:
    """Nodes and their machines from texts `n1=10.0.0.1`, in their order.

    Raises:
      ValueError: one is no such text, or a name is given twice.
    """
    places: dict[str, str] = {}
    for text in given:
        name, equals, host = text.partition("=")
        if not equals or not name:
            raise ValueError(f"--at {text}: write NAME=ADDRESS, as in --at n1=10.0.0.1")
        try:
            address = str(ipaddress.IPv4Address(host))
        except ValueError:
            raise ValueError(
                f"--at {text}: {host!r} is no IPv4 address; give the number at which the other "
                "machines reach this one, no host name"
            ) from None
        if name in places:
            raise ValueError(f"--at {text}: the name {name} is given twice")
        places[name] = address
    return places


def create(
    directory: Path,
    places: Mapping[str, str],
    base_port: int | None = None,
    storage: Storage | None = None,
) -> Cluster:
    """The cluster of this directory; a new one when there is none.

    Args:
      directory: made if need be; empty, or what an earlier call has made.
      places: the IPv4 address of each node's machine; an odd number of nodes.
      base_port: ports are counted from it.
      storage: of the acceptors.

    Raises:
      DirectoryRefused: another cluster is there.
      ConfigError, StorageError, OSError, ValueError: as their messages say.
    """
    directory = directory.absolute()
    base = DEFAULT_BASE_PORT if base_port is None else base_port
    wanted = Wanted(len(places), base, storage)
    Cluster.template(len(places), base)  # refuses numbers before anything is made
    with claimed(directory / LAUNCHER_LOCK, f"a launcher of the cluster in {directory}"):
        cluster = find_or_create(directory, wanted, lambda new, _: placed(new, places, base))
    expected = {name: address.host for name, address in endpoints(cluster).items()}
    if expected != dict(places):
        there = " ".join(f"--at {name}={host}" for name, host in expected.items())
        raise DirectoryRefused(
            directory, f"this cluster was created with {there}; name another with --directory"
        )
    return cluster


def placed(cluster: Cluster, places: Mapping[str, str], base_port: int) -> Cluster:
    """A new cluster with its nodes at these machines."""
    seen: Counter[str] = Counter()
    nodes: list[Node] = []
    roles: list[tuple[Member, Member, Member]] = []
    served: dict[str, Address] = {}
    for number, (name, host) in enumerate(places.items()):
        port = base_port + seen[host]
        seen[host] += 1
        peer, metrics = Address(host, port + PEER_OFFSET), Address(host, port + METRICS_OFFSET)
        nodes.append(Node(name, peer, name, metrics=metrics))
        roles.append(
            (
                Member(number, name, Address(host, port + ACCEPTOR_OFFSET)),
                Member(number, name, Address(host, port + COORDINATOR_OFFSET)),
                Member(number, name, Address(host, port + LEARNER_OFFSET)),
            )
        )
        served[name] = Address(host, port)
    acceptors, coordinators, learners = zip(*roles, strict=True)
    moved = replace(
        cluster, nodes=tuple(nodes), acceptors=acceptors, coordinators=coordinators,
        learners=learners,
    )  # fmt: skip
    moved = with_endpoints(moved, served)
    return Cluster.parse(moved.to_toml(), "<new cluster>", cluster.directory)
