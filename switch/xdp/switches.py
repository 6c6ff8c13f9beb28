"""The ports of machines that are switches: tables of the cluster file.

    [[switch]]
    node = "c1"
    ports = ["swp1", "swp2", "swp3"]

The programs of that node's roles are on these interfaces. A node without such a table has them on
the interface with the role's address, or, where that is a bridge, on all interfaces of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace

from p4xos.config import Cluster
from p4xos.tables import list_of_tables

TABLE = "switch"
PORTS_MAX = 1024
_NAME = re.compile(r"[^\s/:]{1,15}", re.ASCII)  # as Linux has them


def ports_of(cluster: Cluster, node: str) -> tuple[str, ...]:
    """Those that the cluster file names for a node; none where it names none.

    Raises:
      ConfigError: the tables are no good; the message says where and how to mend it.
    """
    return dict(_read(cluster)).get(node, ())


def with_ports(cluster: Cluster, ports: Mapping[str, tuple[str, ...]]) -> Cluster:
    """The cluster with these ports of its nodes in its file."""
    tables = [{"node": node, "ports": list(names)} for node, names in ports.items()]
    return replace(cluster, extensions={**cluster.extensions, TABLE: tables})


def _read(cluster: Cluster) -> Iterator[tuple[str, tuple[str, ...]]]:
    seen: set[str] = set()
    tables = {TABLE: cluster.extensions.get(TABLE, [])}
    for table in list_of_tables(tables, cluster.source, TABLE, ("node", "ports")):
        node = table.text("node", "the name of a [[node]]")
        cluster.node(node)
        if node in seen:
            raise table.wrong("node", "a node of its own", "join the two lists of ports")
        seen.add(node)
        allowed = "a list of names of interfaces"
        names = table.items("ports", allowed)
        ports = tuple(name for name in names if isinstance(name, str) and _NAME.fullmatch(name))
        if not 0 < len(names) == len({*ports}) <= PORTS_MAX:
            raise table.wrong("ports", allowed, 'as in ["swp1", "swp2"], each once')
        yield node, ports
