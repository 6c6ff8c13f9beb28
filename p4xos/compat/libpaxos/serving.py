"""A node with the gateway: the roles of the cluster file, and ports of a `paxos.conf`."""

from __future__ import annotations

import logging
import resource
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace

import trio

from p4xos import logs
from p4xos.compat.libpaxos.conf import PaxosConf
from p4xos.compat.libpaxos.gateway import CONNECTIONS_MAX, Gateway, Port
from p4xos.compat.libpaxos.metrics import families
from p4xos.compat.libpaxos.store import PackStore
from p4xos.config import Cluster, ConfigError
from p4xos.logstore import Retention
from p4xos.node import Node, run_main, until_signalled

log = logging.getLogger(__name__)

RESERVED_DESCRIPTORS = 512
"""Of a process, for its store, its log, and the other nodes."""

_LEVELS = {
    "quiet": logging.CRITICAL, "error": logging.ERROR, "info": logging.INFO, "debug": logging.DEBUG
}  # fmt: skip


def ids_of(conf: PaxosConf, cluster: Cluster, name: str, ids: Sequence[int] | None) -> list[int]:
    """Which acceptors and proposers of a `paxos.conf` a node speaks for.

    Args:
      conf: the file.
      cluster: the cluster file.
      name: the node.
      ids: as asked for; None: nodes with a learner take turns, in the order of the cluster file.

    Raises:
      ConfigError: the node has no learner, or `ids` names one that is not in the file.
    """
    learning = {learner.node for learner in cluster.learners}
    names = [node.name for node in cluster.nodes if node.name in learning]
    if cluster.node(name).name not in learning:
        complaint = f"node {name} has no learner; give --node one of {', '.join(names)}"
        raise ConfigError(cluster.source, "[[node]]", complaint)
    known = range(max(len(conf.acceptors), len(conf.proposers)))
    if ids is None:
        return list(known)[names.index(name) :: len(names)]
    for wanted in ids:
        if wanted not in known:
            raise ConfigError(
                conf.source, "", f"there is no id {wanted}; its ids are 0 to {known[-1]}"
            )
    return sorted(set(ids))


def ports_of(conf: PaxosConf, ids: Sequence[int]) -> list[Port]:
    """The addresses to serve for these ids; what is both acceptor and proposer is served once."""
    ports = [Port(conf.acceptors[k], k) for k in ids if k < len(conf.acceptors)]
    acceptors = set(conf.acceptors)
    ports += [
        Port(conf.proposers[k], None)
        for k in ids
        if k < len(conf.proposers) and conf.proposers[k] not in acceptors
    ]
    return ports


def check_options(conf: PaxosConf, cluster: Cluster) -> None:
    """Refuses what the cluster cannot do.

    Raises:
      ConfigError: an option asks for more than the cluster file gives.
    """
    options = conf.options
    if options.storage_backend == "lmdb" and cluster.storage == "memory":
        raise conf.refuse(
            "storage_backend", f"lmdb is found, but the acceptors of {cluster.source} keep nothing "
            'on disk; make a cluster with storage = "disk", or write memory here',
        )  # fmt: skip
    if options.proposer_preexec_window > cluster.window:
        raise conf.refuse(
            "proposer_preexec_window", f"{options.proposer_preexec_window} is found, the window of "
            f"{cluster.source} is {cluster.window}: all of it is prepared at once; write less",
        )  # fmt: skip


def run(
    conf: PaxosConf, cluster: Cluster, name: str, ids: Sequence[int] | None = None,
    log_format: logs.LogFormat | None = None,
) -> None:
    """Runs a node with the gateway until a signal stops it.

    Raises:
      P4xosError, ConfigError, OSError: what could not be opened, or what broke.
    """  # fmt: skip
    check_options(conf, cluster)
    ports = ports_of(conf, ids_of(conf, cluster, name, ids))
    run_main(_main, conf, cluster, name, ports, node=name, log_format=log_format)


async def _main(conf: PaxosConf, cluster: Cluster, name: str, ports: list[Port]) -> None:
    logging.getLogger().setLevel(_LEVELS[conf.options.verbosity])
    descriptors = _raise_descriptors()
    most = connections_of(descriptors)
    if most < CONNECTIONS_MAX:
        log.warning(
            "this process may have %d descriptors, so the gateway takes %d connections and not %d; "
            "raise its limit (ulimit -Hn, LimitNOFILE= of a systemd unit) to %d for all of them",
            descriptors, most, CONNECTIONS_MAX, CONNECTIONS_MAX + RESERVED_DESCRIPTORS,
        )  # fmt: skip
    with ExitStack() as stack:
        learner = next(member for member in cluster.learners if member.node == name)
        directory = cluster.member_directory("learner", learner.id) / "log"
        store = PackStore(directory, cluster.id, Retention.of(cluster))
        stack.callback(store.close)
        node = stack.enter_context(Node(cluster, name).open(store))
        gateway = open_gateway(node, store, ports, conf, most)
        stack.callback(gateway.close)
        places = ", ".join(str(port.address) for port in ports) or "no address"
        log.info("node %s serves libpaxos at %s", name, places)
        await until_signalled(lambda: _serve(node, gateway))


def open_gateway(
    node: Node, store: PackStore, ports: Sequence[Port], conf: PaxosConf,
    connections_max: int = CONNECTIONS_MAX,
) -> Gateway:
    """The gateway of an open node; it listens.

    Raises:
      PortTaken: an address cannot be had.
    """  # fmt: skip
    application = node.application
    assert application is not None
    proposer = application.replica.proposer
    # It tells then, and goes on: libpaxos would begin the instance anew.
    deadline_s = max(node.cluster.timing.deadline_s, float(conf.options.proposer_timeout))
    proposer.timing = replace(proposer.timing, deadline_s=deadline_s)

    def awaited(some: bool) -> None:
        application.awaited = some

    gateway = Gateway(
        application, store, ports, node, acceptors=len(conf.acceptors), cluster=node.cluster.id,
        node=node.name, nodelay=conf.options.tcp_nodelay, awaited=awaited,
        connections_max=connections_max,
    )  # fmt: skip
    application.applied_more = gateway.applied
    node.told["libpaxos"] = gateway.status
    node.collectors.append(lambda: families(gateway.status()))
    return gateway


async def _serve(node: Node, gateway: Gateway) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(gateway.run)
        nursery.start_soon(node.run)


def _raise_descriptors() -> int:
    """Thousands of connections: as many descriptors as this process may have; returns how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    return soft


def connections_of(descriptors: int) -> int:
    """How many connections a gateway takes, so that descriptors are left for its node."""
    if descriptors == resource.RLIM_INFINITY:
        return CONNECTIONS_MAX
    return min(CONNECTIONS_MAX, max(descriptors - RESERVED_DESCRIPTORS, descriptors // 2))
