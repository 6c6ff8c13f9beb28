"""A cluster's network on one machine, switches between hosts, as the P4xos slides deploy it.

    hosts    10.81.0.x   a learner with its proposer; a link to its leaf
    leaves   10.81.1.x   an acceptor; a link to its host and to each spine
    spines   10.81.2.x   a coordinator; a link to each leaf

The launcher holds a namespace for each node, and the kernel routes between the links: the programs
take what is for them, and all else is forwarded. So a switch forwards on when the process of its
role is killed: what is gone then is the program. An interface has the name of the node at its other
end. Clients are served where the nodes are started, as ever.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from p4xos.config import Cluster, Member, RoleName
from switch.xdp import places, switches
from switch.xdp.links import offload
from switch.xdp.namespaces import Namespace

_PREFIX: Mapping[RoleName, str] = {
    "learner": "10.81.0", "acceptor": "10.81.1", "coordinator": "10.81.2",
}  # fmt: skip
_SETTINGS = {
    "ip_forward": "1",
    # Packets come in by another interface than the one that answers leave by.
    "conf/all/rp_filter": "0",
    "conf/default/rp_filter": "0",
}


def fitted(cluster: Cluster) -> Cluster:
    """The cluster with its members' addresses in this network, and the ports of its switches."""
    leaves, spines = cluster.acceptors, cluster.coordinators
    above = tuple(spine.node for spine in spines)
    ports = {
        leaf.node: (host.node, *above) for leaf, host in zip(leaves, cluster.learners, strict=True)
    }
    ports |= {spine.node: tuple(leaf.node for leaf in leaves) for spine in spines}
    return switches.with_ports(places.moved(cluster, _PREFIX), ports)


def holds(cluster: Cluster) -> bool:
    """Whether the cluster was made for such a network."""
    return all(m.address.host.startswith(_PREFIX["acceptor"]) for m in cluster.acceptors)


@contextmanager
def laid(cluster: Cluster) -> Iterator[None]:
    """Hosts, switches and links are there in the block; for the launcher.

    Raises:
      XdpUnavailable: the system does not let us make them.
    """
    with ExitStack() as stack:
        namespaces: dict[str, Namespace] = {}
        for node in cluster.nodes:
            namespace = namespaces[node.name] = Namespace.new()
            stack.callback(namespace.close)
            with namespace.entered():  # before there are links: they take over what is set
                for name, value in _SETTINGS.items():
                    Path("/proc/sys/net/ipv4", name).write_text(value)
        lines = _lines(cluster, namespaces)
        for name, namespace in namespaces.items():
            namespace.set_up(lines[name])
        for name, namespace in namespaces.items():
            with namespace.entered():
                for other in _others(cluster, name):
                    offload(other, gro=True)
        stack.enter_context(places.told(cluster, namespaces))
        yield


@contextmanager
def place(cluster: Cluster, role: RoleName, member: Member) -> Iterator[None]:
    """Sockets made in the block are on the host, or the switch, of a member."""
    namespace = places.found(cluster, member.node)
    if role != "learner":
        places.keep(cluster, role, member.id, namespace)
    try:
        with namespace.entered():
            yield
    finally:
        if role == "learner":
            namespace.close()


def _links(cluster: Cluster) -> Iterator[tuple[str, str]]:
    """Every link, from below to above."""
    for host, leaf in zip(cluster.learners, cluster.acceptors, strict=True):
        yield host.node, leaf.node
    for leaf in cluster.acceptors:
        for spine in cluster.coordinators:
            yield leaf.node, spine.node


def _others(cluster: Cluster, node: str) -> Iterator[str]:
    """Whom a node has links to, and so the names of its interfaces."""
    for below, above in _links(cluster):
        if node in (below, above):
            yield above if node == below else below


def _lines(cluster: Cluster, namespaces: Mapping[str, Namespace]) -> dict[str, list[str]]:
    """What `ip -batch` is told in each namespace, links before what is on them.

    Interfaces have no addresses of their own: each node has one, and its neighbours answer for it.
    """
    members: list[tuple[RoleName, Member]] = [
        (role, member) for node in cluster.nodes for role, member in cluster.members_of(node.name)
    ]
    lines: dict[str, list[str]] = {name: [] for name in namespaces}
    for below, above in _links(cluster):
        there = namespaces[above].path
        lines[below].append(f"link add name {above} type veth peer name {below} netns {there}")
    for role, member in members:
        own = lines[member.node]
        own.append("link set dev lo up")
        own.append(f"address add {member.address.host}/32 dev lo")
        own += [f"link set dev {other} up" for other in _others(cluster, member.node)]
        own += [f"route add {line}" for line in _routes(cluster, role, member)]
    return lines


def _routes(cluster: Cluster, role: RoleName, member: Member) -> Iterator[str]:
    """A node's neighbours, and by which of them it reaches all others."""
    hosts, leaves, spines = cluster.learners, cluster.acceptors, cluster.coordinators
    rank = cluster.members(role).index(member)
    if role == "learner":
        yield _on_link(leaves[rank])
        yield _by("default", leaves[rank])
    elif role == "acceptor":
        yield _on_link(hosts[rank])
        for spine in spines:
            yield _on_link(spine)
        yield _by("default", spines[0])
    else:
        for leaf, host in zip(leaves, hosts, strict=True):
            yield _on_link(leaf)
            yield _by(host.address.host, leaf)
        yield _by("default", leaves[0])  # the other spines


def _on_link(neighbour: Member) -> str:
    return f"{neighbour.address.host} dev {neighbour.node}"


def _by(network: str, neighbour: Member) -> str:
    return f"{network} via {neighbour.address.host} dev {neighbour.node}"

