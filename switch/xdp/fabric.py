"""A cluster's network on one machine, the star: a bridge, the learners beside it, a port a switch.

    learners' sockets ── bridge ──┬── eth0 of acceptor 0: XDP
                                  ├── eth0 of acceptor 1: XDP
                                  └── eth0 of coordinator 0: XDP ...

The launcher holds the namespace of the bridge and writes where it is into the cluster's directory.
A node that runs a switch makes the namespace of its own, with the one link into that of the bridge,
and holds it: when the process ends, however it does, link, program and registers are gone, as when
a switch is switched off. Clients are served where the nodes are started, as ever.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

from p4xos.config import Cluster, Member, RoleName
from p4xos.tables import Address
from switch.control.packets import mac_of
from switch.xdp import places
from switch.xdp.errors import XdpUnavailable
from switch.xdp.links import offload
from switch.xdp.namespaces import Namespace

BRIDGE = "fabric"
INTERFACE = "eth0"
_PREFIX: Mapping[RoleName, str] = {
    "learner": "10.80.0", "acceptor": "10.80.1", "coordinator": "10.80.2",
}  # fmt: skip
_MASK = 16


def fitted(cluster: Cluster) -> Cluster:
    """The cluster with its members' addresses in this network."""
    return places.moved(cluster, _PREFIX)


def holds(cluster: Cluster) -> bool:
    """Whether the cluster was made for such a network."""
    return all(m.address.host.startswith(_PREFIX["acceptor"]) for m in cluster.acceptors)


@contextmanager
def laid(cluster: Cluster) -> Iterator[None]:
    """The bridge is there in the block; for the launcher.

    Raises:
      XdpUnavailable: the system does not let us make it.
    """
    namespace = Namespace.new()
    try:
        addresses = [m.address.host for m in cluster.learners]
        namespace.set_up([
            "link set dev lo up",
            f"link add name {BRIDGE} address {_mac(addresses[0])} type bridge mcast_snooping 0",
            f"link set dev {BRIDGE} up",
            *(f"address add {host}/{_MASK} dev {BRIDGE}" for host in addresses),
        ])  # fmt: skip
        with places.told(cluster, {BRIDGE: namespace}):
            yield
    finally:
        namespace.close()


def found(cluster: Cluster) -> Namespace:
    """The namespace of the bridge, for a node; XdpUnavailable where it is not there."""
    return places.found(cluster, BRIDGE)


@contextmanager
def place(cluster: Cluster, role: RoleName, member: Member) -> Iterator[None]:
    """Sockets made in the block are a member's: beside the bridge, or behind a link of its own."""
    namespace = found(cluster) if role == "learner" else plug_in(cluster, role, member)
    try:
        with namespace.entered():
            yield
    finally:
        if role == "learner":
            namespace.close()


def plug_in(cluster: Cluster, role: RoleName, member: Member) -> Namespace:
    """A namespace with a link to the bridge, whose other end has the member's address."""
    bridge, own = found(cluster), Namespace.new()
    port = f"{role[0]}{member.id}"
    host = member.address.host
    try:
        with suppress(XdpUnavailable):  # a process that was killed: the kernel may not be through
            bridge.set_up([f"link delete dev {port}"])
        bridge.set_up([
            f"link add name {port} type veth "
            f"peer name {INTERFACE} address {_mac(host)} netns {own.path}",
            f"link set dev {port} master {BRIDGE}",
            f"link set dev {port} up",
        ])  # fmt: skip
        with bridge.entered():
            offload(port, gro=True)
        own.set_up([
            "link set dev lo up",
            f"address add {host}/{_MASK} dev {INTERFACE}",
            f"link set dev {INTERFACE} up",
        ])  # fmt: skip
    except BaseException:
        own.close()
        raise
    finally:
        bridge.close()
    places.keep(cluster, role, member.id, own)
    return own


def _mac(host: str) -> str:
    octets = mac_of(Address(host, 0)).to_bytes(6, "big")
    return octets.hex(":")
