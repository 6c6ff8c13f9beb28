"""The store's part of the cluster file: where each node serves RESP.

[[kvstore]]
node = "n1"                  # a node with a learner
address = "127.0.0.1:7101"   # TCP
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from p4xos.config import Cluster
from p4xos.tables import Address, ConfigError, list_of_tables, nearest

TABLE = "kvstore"


def endpoints(cluster: Cluster) -> dict[str, Address]:
    """Where each node serves RESP, by node, in the order of the file.

    Raises:
      ConfigError: the tables [[kvstore]] are no good, or there is none.
    """
    learners = {learner.node for learner in cluster.learners}
    peers = {node.peer for node in cluster.nodes} | {node.metrics for node in cluster.nodes}
    found: dict[str, Address] = {}
    tables = list_of_tables(cluster.extensions, cluster.source, TABLE, ("node", "address"))
    for table in tables:
        node = table.text("node", "the name of a [[node]] with a learner")
        if node not in learners:
            mend = nearest(node, learners)
            raise table.wrong("node", "the name of a [[node]] with a learner", mend)
        if node in found:
            raise table.wrong("node", "a node of its own", "another [[kvstore]] has it; remove one")
        address = table.address("address")
        if address in peers or address in found.values():
            raise table.wrong("address", "a TCP address of its own", "it is given twice; change it")
        found[node] = address
    if not found:
        raise ConfigError(cluster.source, f"[[{TABLE}]]", "there is none; add one for each store")
    return found


def endpoint(cluster: Cluster, node: str) -> Address:
    """Where one node serves RESP, or a ConfigError that says what is missing."""
    cluster.node(node)
    found = endpoints(cluster)
    if node not in found:
        complaint = f'node "{node}" has none; add one with its address, or start another node'
        raise ConfigError(cluster.source, f"[[{TABLE}]]", complaint)
    return found[node]


def with_endpoints(cluster: Cluster, addresses: Mapping[str, Address]) -> Cluster:
    """The cluster with these RESP endpoints in place of its own."""
    tables = [{"node": node, "address": str(address)} for node, address in addresses.items()]
    return replace(cluster, extensions={**cluster.extensions, TABLE: tables})
