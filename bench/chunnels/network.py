"""Hosts of a network of their own, for connections: namespaces with an interface each at a bridge.

Nothing is named or mounted, and nothing is added to the machine's own network; it ends with the
block, or with the process.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from switch.xdp import links
from switch.xdp.namespaces import Namespace

INTERFACE = "eth0"
_BRIDGE = "bridge"
_NETWORK, _MASK = "10.82.0", 24


class Host:
    """One of them."""

    def __init__(self, namespace: Namespace, address: str, port: str, bridge: Namespace) -> None:
        """Made by `hosts`."""
        self.namespace = namespace
        self.address = address
        self.port = port
        """Its interface's other end, where the bridge is."""
        self.bridge = bridge

    @contextmanager
    def entered(self) -> Iterator[None]:
        """What this thread opens and starts in the block is on the host."""
        with self.namespace.entered():
            yield

    def offload(self, *, checksums: bool) -> None:
        """Whether what passes its link has checksums, or leaves them to a device."""
        with self.namespace.entered():
            links.offload(INTERFACE, checksums=checksums)
        with self.bridge.entered():
            links.offload(self.port, checksums=checksums)


@contextmanager
def hosts(names: Sequence[str]) -> Iterator[dict[str, Host]]:
    """So many hosts, by name; XdpUnavailable where that is not allowed."""
    with ExitStack() as stack:
        bridge = Namespace.new()
        stack.callback(bridge.close)
        bridge.set_up([f"link add name {_BRIDGE} type bridge mcast_snooping 0",
                       f"link set dev {_BRIDGE} up"])  # fmt: skip
        found: dict[str, Host] = {}
        for number, name in enumerate(names, start=1):
            own = Namespace.new()
            stack.callback(own.close)
            port, address = f"p{number}", f"{_NETWORK}.{number}"
            bridge.set_up([
                f"link add name {port} type veth peer name {INTERFACE} netns {own.path}",
                f"link set dev {port} master {_BRIDGE}",
                f"link set dev {port} up",
            ])  # fmt: skip
            with bridge.entered():
                links.offload(port, gro=True)  # else it takes nothing that a program sends
            own.set_up([
                "link set dev lo up",
                f"address add {address}/{_MASK} dev {INTERFACE}",
                f"link set dev {INTERFACE} up",
            ])  # fmt: skip
            found[name] = Host(own, address, port, bridge)
        yield found
