"""The networks that a cluster on one machine may have, by the name that people choose them by."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Protocol

from p4xos.config import Cluster, Member, RoleName
from switch.xdp import fabric, leaf_spine


class Network(Protocol):
    """A module that makes one."""

    def fitted(self, cluster: Cluster) -> Cluster:
        """A new cluster with its members' addresses in this network."""

    def holds(self, cluster: Cluster) -> bool:
        """Whether a cluster was made for it."""

    def laid(self, cluster: Cluster) -> AbstractContextManager[None]:
        """It is there in the block; for the launcher."""

    def place(
        self, cluster: Cluster, role: RoleName, member: Member
    ) -> AbstractContextManager[None]:
        """In the block sockets are made where a member is."""


STAR, LEAF_SPINE = "star", "leaf-spine"
NETWORKS: Mapping[str, Network] = {STAR: fabric, LEAF_SPINE: leaf_spine}


def name_of(cluster: Cluster) -> str | None:
    """That of the network which a cluster was made for; None: machines of its own."""
    return next((name for name, network in NETWORKS.items() if network.holds(cluster)), None)


def network_of(cluster: Cluster) -> Network | None:
    """The network which a cluster was made for."""
    name = name_of(cluster)
    return None if name is None else NETWORKS[name]
