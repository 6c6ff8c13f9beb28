"""The store's part of the cluster file: where each node serves RESP, and to whom.

[[kvstore]]
node = "n1"                      # a node with a learner
address = "127.0.0.1:7101"       # TCP; may be left out where tls_address is given
tls_address = "127.0.0.1:7201"   # TCP, behind TLS

[clients]                        # the same at every node; all of it may be left out
users = "users.txt"
tls_certificate = "node.pem"
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from kvstore.limits import Limits
from kvstore.tls import TlsFiles
from p4xos.config import Cluster
from p4xos.tables import Address, ConfigError, Table, list_of_tables, nearest

TABLE = "kvstore"
CLIENTS = "clients"
_FILES = ("users", "tls_certificate", "tls_key", "tls_client_ca")
_DAY_S = 86400.0


class Served(NamedTuple):
    """Where one node serves RESP: one of the two at least."""

    address: Address | None
    tls_address: Address | None

    @property
    def first(self) -> Address:
        """The plain one, where there is one."""
        chosen = self.address or self.tls_address
        assert chosen is not None, "the file is checked"
        return chosen


@dataclass(frozen=True)
class ClientRules:
    """[clients]: who may use the store, and how much of it."""

    users: Path | None = None
    """The users file; None: whoever reaches the port may do all."""
    tls: TlsFiles | None = None
    limits: Limits = field(default_factory=Limits)


def endpoints(cluster: Cluster) -> dict[str, Address]:
    """Where each node serves RESP, by node, in the order of the file; plainly if it does.

    Raises:
      ConfigError: the tables [[kvstore]] are no good, or there is none.
    """
    return {node: served.first for node, served in served_at(cluster).items()}


def tls_endpoints(cluster: Cluster) -> dict[str, Address]:
    """Where nodes serve RESP behind TLS, by node; those that do not are left out."""
    every = served_at(cluster).items()
    return {node: served.tls_address for node, served in every if served.tls_address is not None}


def served_at(cluster: Cluster) -> dict[str, Served]:
    """All addresses for clients, by node, in the order of the file.

    Raises:
      ConfigError: the tables [[kvstore]] are no good, or there is none.
    """
    learners = {learner.node for learner in cluster.learners}
    taken = {node.peer for node in cluster.nodes} | {
        node.metrics for node in cluster.nodes if node.metrics is not None
    }
    found: dict[str, Served] = {}
    keys = ("node", "address", "tls_address")
    tables = list_of_tables(cluster.extensions, cluster.source, TABLE, keys)
    for table in tables:
        node = table.text("node", "the name of a [[node]] with a learner")
        if node not in learners:
            mend = nearest(node, learners)
            raise table.wrong("node", "the name of a [[node]] with a learner", mend)
        if node in found:
            raise table.wrong("node", "a node of its own", "another [[kvstore]] has it; remove one")
        plain = table.has("address") or not table.has("tls_address")
        served = Served(
            _own_address(table, "address", taken) if plain else None,
            _own_address(table, "tls_address", taken) if table.has("tls_address") else None,
        )
        found[node] = served
    if not found:
        raise ConfigError(cluster.source, f"[[{TABLE}]]", "there is none; add one for each store")
    return found


def _own_address(table: Table, key: str, taken: set[Address]) -> Address:
    """An address that nothing else of the file has."""
    address = table.address(key)
    if address in taken:
        raise table.wrong(key, "a TCP address of its own", "it is given twice; change it")
    taken.add(address)
    return address


def endpoint(cluster: Cluster, node: str) -> Address:
    """Where one node serves RESP, or a ConfigError that says what is missing."""
    return serves_at(cluster, node).first


def serves_at(cluster: Cluster, node: str) -> Served:
    """All addresses of one node, or a ConfigError that says what is missing."""
    cluster.node(node)
    found = served_at(cluster)
    if node not in found:
        complaint = f'node "{node}" has none; add one with its address, or start another node'
        raise ConfigError(cluster.source, f"[[{TABLE}]]", complaint)
    return found[node]


def client_rules(cluster: Cluster) -> ClientRules:
    """[clients] of a cluster file, with its paths from the file's directory; files are not read.

    Raises:
      ConfigError: the table is no good.
    """
    limits = ("max_clients", "max_per_address", "idle_timeout_s", "greeting_timeout_s",
              "stalled_timeout_s")  # fmt: skip
    table = Table(
        cluster.source, f"[{CLIENTS}]", cluster.extensions.get(CLIENTS, {}), (*_FILES, *limits)
    )
    paths = {key: _path(cluster, table, key) for key in _FILES}
    certificate, key = paths["tls_certificate"], paths["tls_key"]
    tls = None
    if certificate is not None and key is not None:
        tls = TlsFiles(certificate, key, paths["tls_client_ca"])
    elif certificate is not None or key is not None or paths["tls_client_ca"] is not None:
        missing = "tls_key" if certificate is not None else "tls_certificate"
        raise table.error(missing, "the key is missing; a certificate and its key go together")
    if tls is None and TABLE in cluster.extensions and tls_endpoints(cluster):
        complaint = "the key is missing, but a [[kvstore]] has a tls_address; add it, and tls_key"
        raise table.error("tls_certificate", complaint)
    return ClientRules(paths["users"], tls, _limits(table))


def _path(cluster: Cluster, table: Table, key: str) -> Path | None:
    if not table.has(key):
        return None
    allowed = "a file, absolute or relative to this one"
    text = table.text(key, allowed)
    if not text or "\0" in text or len(text) > 4000:
        raise table.wrong(key, allowed, "name the file")
    return cluster.directory / text


def _limits(table: Table) -> Limits:
    default = Limits()

    def count(key: str, least: int, otherwise: int) -> int:
        return table.integer(key, least, (1 << 32) - 1) if table.has(key) else otherwise

    def seconds(key: str, least: float, otherwise: float) -> float:
        return table.seconds(key, least, _DAY_S) if table.has(key) else otherwise

    return Limits(
        max_clients=count("max_clients", 1, default.max_clients),
        max_per_address=count("max_per_address", 0, default.max_per_address),
        idle_timeout_s=seconds("idle_timeout_s", 0.0, default.idle_timeout_s),
        greeting_timeout_s=seconds("greeting_timeout_s", 0.1, default.greeting_timeout_s),
        stalled_timeout_s=seconds("stalled_timeout_s", 1.0, default.stalled_timeout_s),
    )


def with_endpoints(cluster: Cluster, addresses: Mapping[str, Address]) -> Cluster:
    """The cluster with these RESP endpoints in place of its own."""
    tables = [{"node": node, "address": str(address)} for node, address in addresses.items()]
    return replace(cluster, extensions={**cluster.extensions, TABLE: tables})
