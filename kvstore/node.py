"""A node with its store: the roles of the cluster file, and RESP for clients."""

from __future__ import annotations

import logging
import socket

import trio

from kvstore.config import endpoint
from kvstore.listening import bound_socket
from kvstore.machine import KvStateMachine
from kvstore.report import node_sections
from kvstore.server import KvServer
from kvstore.store import Store
from p4xos.application import OneByOne
from p4xos.config import Cluster
from p4xos.node import Node, run_main, until_signalled

log = logging.getLogger(__name__)


def run(cluster: Cluster, name: str) -> None:
    """Runs a node until a signal stops it.

    Raises:
      P4xosError, OSError: what could not be opened, or what broke.
    """
    run_main(_main, cluster, name)


async def _main(cluster: Cluster, name: str) -> None:
    # The port first: who starts a node twice, or two nodes on one port, leaves no trace on a disk.
    with (
        bound_socket(endpoint(cluster, name)) as listener,
        Store(cluster.data_directory(name) / "store", cluster.id) as store,
    ):
        machine = KvStateMachine(store)
        with Node(cluster, name).open(OneByOne(machine)) as node:
            await until_signalled(lambda: _serve(node, machine, listener))


async def _serve(node: Node, machine: KvStateMachine, listener: socket.socket) -> None:
    assert node.application is not None
    server = KvServer(
        node.application, machine, listener, lambda: node_sections(node.status())
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(server.run)
        log.info("node %s serves RESP on %s:%d", node.name, server.host, server.port)
        nursery.start_soon(node.run)
