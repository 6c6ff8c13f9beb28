"""What is looked at in each node, from outside and by asking it."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from bench.errors import BenchError
from bench.store_cluster import StoreCluster
from kvstore.status import drops
from p4xos import inquiries


class Sample(NamedTuple):
    """One node at one moment."""

    at_s: float
    node: str
    pid: int
    rss_bytes: int
    descriptors: int
    """Without clients' connections, and files of its data directory: RocksDB opens all it has."""
    clients: int
    data_descriptors: int
    threads: int
    data_bytes: int
    segments: int
    """Files of the acceptor's log."""
    delivered: int
    lag: int
    low: int
    in_flight: int
    dropped: dict[str, int]
    """Messages not acted on, by reason, since the process started."""
    socket_drops: int
    """Datagrams that the kernel had no room for, of the process' UDP sockets."""


def look(cluster: StoreCluster, at_s: float) -> list[Sample]:
    """All nodes that run and answer."""
    told = inquiries.status(cluster.cluster)
    found = []
    for name, child in cluster.children.items():
        status = told[name]
        if not isinstance(status, dict) or "learner" not in status:
            continue
        with suppress(OSError, BenchError):  # it was killed meanwhile
            found.append(_look(cluster, name, child.pid, status, at_s))
    return found


def _look(
    cluster: StoreCluster, name: str, pid: int, status: dict[str, Any], at_s: float
) -> Sample:
    data = cluster.data(name)
    lines = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
    )
    if "VmRSS" not in lines:
        raise BenchError(f"process {pid} has ended")
    targets = open_files(pid)
    inside = sum(target.startswith(f"{data}/") for target in targets)
    learner, clients = status["learner"], status["store"]["clients"]
    return Sample(
        at_s=round(at_s, 3),
        node=name,
        pid=pid,
        rss_bytes=int(lines["VmRSS"].split()[0]) * 1024,
        descriptors=len(targets) - inside - clients,
        clients=clients,
        data_descriptors=inside,
        threads=int(lines["Threads"]),
        data_bytes=tree_bytes(data),
        segments=sum(1 for _ in data.glob("acceptor-*/segment-*.log")),
        delivered=learner["delivered"],
        lag=learner["lag"],
        low=learner["low"],
        in_flight=learner["in_flight"],
        dropped=dict(drops(status)),
        socket_drops=_socket_drops(pid, targets),
    )


def open_files(pid: int) -> list[str]:
    """What each descriptor of a process refers to."""
    targets = []
    for entry in os.scandir(f"/proc/{pid}/fd"):
        with suppress(FileNotFoundError):  # closed meanwhile
            targets.append(os.readlink(entry.path))
    return targets


def tree_bytes(directory: Path) -> int:
    """What the files below a directory take on the disk."""
    total = 0
    for place, _, names in os.walk(directory):
        for name in names:
            with suppress(FileNotFoundError):  # a compaction removes files meanwhile
                total += os.stat(os.path.join(place, name)).st_blocks * 512
    return total


def _socket_drops(pid: int, targets: list[str]) -> int:
    """The kernel's `drops` of the process' UDP sockets: the last column of /proc/<pid>/net/udp."""
    own = {target[8:-1] for target in targets if target.startswith("socket:[")}
    total = 0
    for table in ("udp", "udp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            total += int(fields[12]) if fields[9] in own else 0
    return total
