"""A node with its store: the roles of the cluster file, and RESP for clients."""

from __future__ import annotations

import logging
import socket

import trio

from kvstore import joining
from kvstore.config import endpoint
from kvstore.digest import Answers
from kvstore.listening import bound_socket
from kvstore.machine import KvStateMachine
from kvstore.metrics import server_status, store_families
from kvstore.report import node_sections
from kvstore.server import KvServer
from kvstore.store import StoreError
from p4xos import logs
from p4xos.application import OneByOne
from p4xos.config import Cluster
from p4xos.node import Node, run_main, until_signalled

log = logging.getLogger(__name__)


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
    # The port first: who starts a node twice, or two nodes on one port, leaves no trace on a disk.
    with bound_socket(endpoint(cluster, name)) as listener:
        await joining.check(cluster, name, join=join)
        with await joining.open_store(cluster, name) as store:
            machine = KvStateMachine(
                store, learner_id(cluster, name), alone=len(cluster.learners) == 1
            )
            with Node(cluster, name).open(OneByOne(machine)) as node:
                server = _server(node, machine, listener)
                await until_signalled(lambda: _serve(node, server), server.leave)


def learner_id(cluster: Cluster, name: str) -> int:
    """The id of this node's learner: the origin of what its clients write."""
    ids = [member.id for role, member in cluster.members_of(name) if role == "learner"]
    return ids[0] if ids else 0


def _server(node: Node, machine: KvStateMachine, listener: socket.socket) -> KvServer:
    """The node's server for clients, which tells about itself where the node does."""
    assert node.application is not None
    server = KvServer(
        node.application, machine, listener, lambda: node_sections(node.status()),
        copies=len(node.cluster.acceptors) // 2,  # a majority has it, this node perhaps among them
    )
    assert node.service is not None
    node.service.questions["digest"] = Answers(machine.moments).digest_untrusted
    node.told["store"] = lambda: server_status(server)
    node.collectors.append(lambda: store_families(server))
    return server


async def _serve(node: Node, server: KvServer) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(server.run)
        log.info("node %s serves RESP on %s:%d", node.name, server.host, server.port)
        nursery.start_soon(node.run)
