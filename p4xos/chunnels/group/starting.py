"""Nodes without an application, and single roles: what runs them is negotiated when they start.

As in a node with a store, by the operator's policy, and told in the same way: in the log, and in
the status under "log". They ask for nothing of their own; what applications ask for, these
negotiate themselves.
"""

from __future__ import annotations

import logging
from functools import partial

from p4xos import logs, node
from p4xos.chunnels.group.connection import GroupEndpoint
from p4xos.chunnels.group.layer import ordered_mcast
from p4xos.chunnels.runtime import Runtime
from p4xos.config import Cluster, RoleName

log = logging.getLogger(__name__)


def run(cluster: Cluster, name: str, log_format: logs.LogFormat | None = None) -> None:
    """As `node.run`."""
    group = _group(f"p4xos on {name}")
    node.run(
        cluster, name, log_format, prefer=group.prefer(cluster), opened=partial(_tell, group)
    )


def run_role(
    cluster: Cluster, role: RoleName, member_id: int, log_format: logs.LogFormat | None = None
) -> None:
    """As `node.run_role`."""
    group = _group(f"{role} {member_id}")
    node.run_role(
        cluster, role, member_id, log_format,
        prefer=group.prefer(cluster), opened=partial(_tell, group),
    )  # fmt: skip


def _group(name: str) -> GroupEndpoint[bytes]:
    # Nothing of this end runs the layer, so no implementations are looked for.
    return GroupEndpoint(name, ordered_mcast(), Runtime(builtin=False))


def _tell(group: GroupEndpoint[bytes], opened: node.Node) -> None:
    explain = group.explaining(opened)
    log.info("%s", explain())
    opened.told["log"] = lambda: explain().data()
