"""Where the namespaces of a running cluster are: its launcher writes it, nodes read it.

    <directory>/fabric    a line each: PATH IDENTITY NAME

A path leads by way of the launcher's open descriptor, so it ends with the launcher; the identity
tells it from that of another process with the same number.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace

from p4xos.config import Cluster, Member, RoleName
from p4xos.tables import Address
from switch.xdp.errors import XdpUnavailable
from switch.xdp.namespaces import Namespace

FILE = "fabric"


@contextmanager
def told(cluster: Cluster, namespaces: Mapping[str, Namespace]) -> Iterator[None]:
    """Nodes find these, by name, in the block; for the launcher."""
    file = cluster.directory / FILE
    lines = [f"{n.path} {os.readlink(n.path)} {name}\n" for name, n in namespaces.items()]
    try:
        file.write_text("".join(lines))
        yield
    finally:
        with suppress(FileNotFoundError):
            file.unlink()


def found(cluster: Cluster, name: str) -> Namespace:
    """A namespace of that name, for a node.

    Raises:
      XdpUnavailable: no launcher holds it, or it is not ours to enter.
    """
    try:
        for line in (cluster.directory / FILE).read_text().splitlines():
            path, _, rest = line.partition(" ")
            identity, _, of = rest.partition(" ")
            if of == name and os.readlink(path) == identity:
                return Namespace.open(path)
    except PermissionError:
        raise XdpUnavailable("it needs root", "run it as root") from None
    except OSError:
        pass
    raise XdpUnavailable(
        "the network of this cluster is not there", "its launcher makes it: start that first"
    )


def moved(cluster: Cluster, networks: Mapping[RoleName, str]) -> Cluster:
    """The cluster with each member's address in its role's network, by id."""

    def there(role: RoleName) -> tuple[Member, ...]:
        return tuple(
            replace(m, address=Address(f"{networks[role]}.{m.id + 1}", m.address.port))
            for m in cluster.members(role)
        )

    return replace(
        cluster, acceptors=there("acceptor"), coordinators=there("coordinator"),
        learners=there("learner"),
    )  # fmt: skip


# Of this process ---------------------------------------------------------------------------------

_kept: dict[tuple[int, RoleName, int], Namespace] = {}


def keep(cluster: Cluster, role: RoleName, id: int, namespace: Namespace) -> None:
    """From here on a member of this process is there, and no more where it was."""
    let_go(cluster, role, id)
    _kept[cluster.id, role, id] = namespace


def kept(cluster: Cluster, role: RoleName, id: int) -> Namespace | None:
    """Where a member of this process is; None: on the machine."""
    return _kept.get((cluster.id, role, id))


def let_go(cluster: Cluster, role: RoleName, id: int) -> None:
    """Of where a member was; what is there lasts as long as anybody has it open."""
    before = _kept.pop((cluster.id, role, id), None)
    if before is not None:
        before.close()
