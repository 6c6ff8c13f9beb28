"""A node with its store: the roles of the cluster file, and RESP for clients."""

from __future__ import annotations

import logging
import time
from contextlib import ExitStack

import trio

from kvstore import joining
from kvstore.authentication import Authenticator
from kvstore.config import ClientRules, client_rules, serves_at
from kvstore.digest import Answers
from kvstore.listening import bound_socket
from kvstore.machine import KvStateMachine
from kvstore.metrics import server_status, store_families
from kvstore.report import node_sections
from kvstore.server import KvServer
from kvstore.store import StoreError
from kvstore.tls import ServerTls
from p4xos import logs
from p4xos.application import OneByOne
from p4xos.chunnels import GroupEndpoint, Runtime, ordered_mcast
from p4xos.chunnels.metrics import families
from p4xos.config import Cluster
from p4xos.log import ReplicatedLog
from p4xos.node import Node, run_main, until_signalled

log = logging.getLogger(__name__)

LOG = ordered_mcast(durability="one")
"""What the store asks of its log: a write that was answered is kept by one member at least, which
only a cluster of one node in memory does not exceed. What runs it, is the group's to say."""
_EXPIRES_SOON_S = 30 * 86400


def run(
    cluster: Cluster, name: str, log_format: logs.LogFormat | None = None, *, join: bool = False
) -> None:
    """Runs a node until a signal stops it.

    Args:
      cluster: the cluster file.
      name: which node of it.
      log_format: of its log; None: as the environment says.
      join: whether a node that lost its data may begin with nothing (`kvstore.joining`).

    Raises:
      P4xosError, OSError: what could not be opened, or what broke.
    """
    try:
        run_main(_main, cluster, name, join, node=name, log_format=log_format)
    except StoreError as error:
        joining.condemn(cluster, name, error)
        raise


async def _main(cluster: Cluster, name: str, join: bool) -> None:
    served, rules = serves_at(cluster, name), client_rules(cluster)
    access = None if rules.users is None else Authenticator(rules.users)
    tls = None
    # The ports first: who starts a node twice, or two nodes on one port, leaves no trace on a disk.
    with ExitStack() as stack:
        listener = None
        if served.address is not None:
            listener = stack.enter_context(bound_socket(served.address))
        if served.tls_address is not None and rules.tls is not None:
            spoken = ServerTls(rules.tls)
            _tell_expiry(spoken, rules)
            tls = stack.enter_context(bound_socket(served.tls_address)), spoken
        await joining.check(cluster, name, join=join)
        with await joining.open_store(cluster, name) as store:
            machine = KvStateMachine(
                store, learner_id(cluster, name), alone=len(cluster.learners) == 1
            )
            # Nothing of this end runs the layer, so no implementations are looked for.
            group = GroupEndpoint(f"kvstore on {name}", LOG, Runtime(builtin=False))
            opened = Node(cluster, name, prefer=group.prefer(cluster)).open(OneByOne(machine))
            with opened as node:
                server = KvServer(
                    attached(group, node), machine, listener,
                    lambda: node_sections(node.status()),
                    tls=tls, access=access, limits=rules.limits,
                    copies=len(cluster.acceptors) // 2,  # a majority, this node perhaps among it
                    waits=node,
                )  # fmt: skip
                again = None if access is None and tls is None else server.reload
                _tell_of(node, machine, server)
                await until_signalled(lambda: _serve(node, server), server.leave, again)


def attached(group: GroupEndpoint[bytes], node: Node) -> ReplicatedLog:
    """The log of the node's group, and word of what was chosen: logged, in status and metrics.

    Raises:
      NoAgreement: the group cannot do what the store asks.
    """
    found = group.attach(node)
    log.info("%s", found.explain())
    node.told["log"] = lambda: found.explain().data()
    node.collectors.append(lambda: families(group.runtime))
    return found.log


def learner_id(cluster: Cluster, name: str) -> int:
    """The id of this node's learner: the origin of what its clients write."""
    ids = [member.id for role, member in cluster.members_of(name) if role == "learner"]
    return ids[0] if ids else 0


def _tell_expiry(tls: ServerTls, rules: ClientRules) -> None:
    left_s = tls.expires_at - time.time()
    if left_s < _EXPIRES_SOON_S:
        assert rules.tls is not None
        when = time.strftime("%Y-%m-%d", time.gmtime(tls.expires_at))
        ends = "ended on" if left_s < 0 else "ends on"
        log.warning(
            "%s: the certificate %s %s; put a new one there, then send SIGHUP",
            rules.tls.certificate, ends, when,
        )  # fmt: skip


def _tell_of(node: Node, machine: KvStateMachine, server: KvServer) -> None:
    """The server tells about itself where the node does."""
    assert node.service is not None
    node.service.questions["digest"] = Answers(machine.moments).digest_untrusted
    node.told["store"] = lambda: server_status(server)
    node.collectors.append(lambda: store_families(server))


async def _serve(node: Node, server: KvServer) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(server.run)
        places = [
            f"{server.host}:{port}{how}"
            for port, how in ((server.port, ""), (server.tls_port, " (TLS)"))
            if port
        ]
        log.info("node %s serves RESP on %s", node.name, ", ".join(places))
        nursery.start_soon(node.run)
