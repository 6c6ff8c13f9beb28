"""The network of a cluster on one machine: a bridge, the learners beside it, a port a switch.

    learners' sockets ── bridge ──┬── eth0 of acceptor 0: XDP
                                  ├── eth0 of acceptor 1: XDP
                                  └── eth0 of coordinator 0: XDP ...

The launcher holds the namespace of the bridge and writes where it is into the cluster's directory.
A node that runs a switch makes the namespace of its own, with the one link into that of the bridge,
and holds it: when the process ends, however it does, link, program and registers are gone, as when
a switch is switched off. Clients are served where the nodes are started, as ever.
"""

from __future__ import annotations

import fcntl
import os
import struct
from array import array
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from socket import AF_INET, SOCK_DGRAM, socket

from p4xos.config import Cluster, Member, RoleName
from p4xos.tables import Address
from switch.control.packets import mac_of
from switch.xdp.errors import XdpUnavailable
from switch.xdp.namespaces import Namespace

FILE = "fabric"
BRIDGE = "fabric"
INTERFACE = "eth0"
_PREFIX = {"learner": "10.80.0", "acceptor": "10.80.1", "coordinator": "10.80.2"}
_MASK = 16
_SIOCETHTOOL = 0x8946  # linux/sockios.h
_SET_GRO, _SET_TX_CHECKSUMS = 0x2C, 0x17  # linux/ethtool.h


def address(role: RoleName, member: Member) -> Address:
    """Where a member is in this network."""
    return Address(f"{_PREFIX[role]}.{member.id + 1}", member.address.port)


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
    file = cluster.directory / FILE
    try:
        addresses = [m.address.host for m in cluster.learners]
        namespace.set_up([
            "link set dev lo up",
            f"link add name {BRIDGE} address {_mac(addresses[0])} type bridge mcast_snooping 0",
            f"link set dev {BRIDGE} up",
            *(f"address add {host}/{_MASK} dev {BRIDGE}" for host in addresses),
        ])  # fmt: skip
        file.write_text(f"{namespace.path} {os.readlink(namespace.path)}\n")
        yield
    finally:
        with suppress(FileNotFoundError):
            file.unlink()
        namespace.close()


def found(cluster: Cluster) -> Namespace:
    """The namespace of the bridge, for a node.

    Raises:
      XdpUnavailable: no launcher holds it, or it is not ours to enter.
    """
    try:
        path, _, identity = (cluster.directory / FILE).read_text().strip().partition(" ")
        if os.readlink(path) == identity:  # else the number is another process's by now
            return Namespace.open(Path(path))
    except PermissionError:
        raise XdpUnavailable("it needs root", "run it as root") from None
    except OSError:
        pass
    raise XdpUnavailable(
        "the network of this cluster is not there", "its launcher makes it: start that first"
    )


@contextmanager
def beside_bridge(cluster: Cluster) -> Iterator[None]:
    """Sockets made in the block are where the bridge is."""
    namespace = found(cluster)
    try:
        with namespace.entered():
            yield
    finally:
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
    unplug(cluster, role, member.id)
    _plugged[cluster.id, role, member.id] = own
    return own


_plugged: dict[tuple[int, RoleName, int], Namespace] = {}  # of this process


def plugged(cluster: Cluster, role: RoleName, id: int) -> Namespace | None:
    """What `plug_in` made for a member in this process; None: the member is on the machine."""
    return _plugged.get((cluster.id, role, id))


def unplug(cluster: Cluster, role: RoleName, id: int) -> None:
    """Lets go of what `plug_in` made; the link goes when the last socket there is closed."""
    own = _plugged.pop((cluster.id, role, id), None)
    if own is not None:
        own.close()


def offload(interface: str, *, gro: bool | None = None, checksums: bool | None = None) -> None:
    """Switches offloads of an interface of this thread's namespace.

    A veth takes what XDP sends to it only where its GRO is on, or XDP runs on it too.
    """
    with socket(AF_INET, SOCK_DGRAM) as any_socket:
        for command, value in ((_SET_GRO, gro), (_SET_TX_CHECKSUMS, checksums)):
            if value is None:
                continue
            asked = array("I", (command, value))
            request = struct.pack("16sP8x", interface.encode(), asked.buffer_info()[0])
            fcntl.ioctl(any_socket, _SIOCETHTOOL, request)


def _mac(host: str) -> str:
    octets = mac_of(Address(host, 0)).to_bytes(6, "big")
    return octets.hex(":")
