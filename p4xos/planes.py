"""Where acceptors and sequencers have their registers: in numpy arrays here, or on a data plane.

Others than "numpy" belong to packages of their own, which register under the entry point group
`p4xos.data_planes`: nothing here imports them. One with an attribute `among`, names of others,
leaves open which of them it is: each role takes the first that it can have when it is opened.
One with an attribute `networks` is `Networked`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib.metadata import entry_points
from typing import Protocol, cast

from p4xos.config import NUMPY, Cluster, Member, RoleName
from p4xos.errors import P4xosError
from p4xos.roles.acceptor import Acceptor
from p4xos.roles.rejoining import Voter
from p4xos.roles.sequencer import Sequencer
from p4xos.wire import Frame

ENTRY_POINTS = "p4xos.data_planes"


class NoDataPlane(P4xosError):
    """The cluster file names a data plane that is not there."""


class DataPlanes(Protocol):
    """What a package registers."""

    def fit(self, cluster: Cluster) -> Cluster:
        """A new cluster with the sizes that the data plane is built for."""

    def prepare(self, cluster: Cluster) -> None:
        """Does beforehand what takes long, and changes nothing; may be called in a thread.

        Raises:
          ValueError: it cannot have the cluster's sizes; the message names the value and the limit.
          P4xosError, OSError: something else is missing here.
        """

    def laid(self, cluster: Cluster) -> AbstractContextManager[bool]:
        """What a launcher keeps around the nodes; whether they have a network of their own."""

    def place(
        self, cluster: Cluster, role: RoleName, member: Member
    ) -> AbstractContextManager[None]:
        """In the block sockets are made where the role's address is."""

    def acceptor(self, cluster: Cluster, frame: Frame) -> Voter:
        """An empty acceptor; ValueError where it cannot have the cluster's sizes.

        May be called in a thread, as `sequencer`, and while the role is still elsewhere.
        """

    def sequencer(self, cluster: Cluster, frame: Frame) -> Sequencer:
        """An inactive sequencer; ValueError where it cannot have the cluster's sizes."""


class Networked(DataPlanes, Protocol):
    """Data planes that can have networks of several kinds on one machine."""

    networks: Sequence[str]
    """Their names, the usual one first."""

    def network_of(self, cluster: Cluster) -> str | None:
        """The network that a cluster was made for; None: none of them."""

    def fit(self, cluster: Cluster, network: str = ...) -> Cluster:
        """As DataPlanes, for a network."""


Prefer = Callable[[Sequence[str]], Sequence[str]]
"""Which of several data planes a role tries first; those that it leaves out are not tried.

It may raise where none is good enough."""


def in_order(names: Sequence[str]) -> Sequence[str]:
    """As whoever leaves it open has put them."""
    return names


class OnThisNetwork:
    """Data planes whose members' addresses are this machine's."""

    def laid(self, cluster: Cluster) -> AbstractContextManager[bool]:
        """As DataPlanes: nothing is needed."""
        return nullcontext(False)

    def place(
        self, cluster: Cluster, role: RoleName, member: Member
    ) -> AbstractContextManager[None]:
        """As DataPlanes: where the process is."""
        return nullcontext()


class NumpyPlanes(OnThisNetwork):
    """The roles' own registers."""

    def fit(self, cluster: Cluster) -> Cluster:
        """As it is: there is no size that they cannot have."""
        return cluster

    def prepare(self, cluster: Cluster) -> None:
        """Nothing takes long."""

    def acceptor(self, cluster: Cluster, frame: Frame) -> Acceptor:
        """As DataPlanes."""
        return Acceptor(
            frame=frame, acceptors=len(cluster.acceptors), window=cluster.window,
            value_bytes=cluster.value_bytes,
        )  # fmt: skip

    def sequencer(self, cluster: Cluster, frame: Frame) -> Sequencer:
        """As DataPlanes."""
        return Sequencer(frame=frame, window=cluster.window, value_bytes=cluster.value_bytes)


def names() -> list[str]:
    """Those that are installed here."""
    return sorted({NUMPY, *(point.name for point in entry_points(group=ENTRY_POINTS))})


def among(name: str) -> tuple[str, ...]:
    """The data planes that a name leaves open, the best first; none where it is one itself."""
    return () if name == NUMPY else tuple(getattr(find(name), "among", ()))


def networked(name: str) -> Networked | None:
    """The data planes of a name, where they can have networks of several kinds."""
    found = find(name)
    return cast(Networked, found) if hasattr(found, "networks") else None


def find(name: str) -> DataPlanes:
    """The data planes of a name; NoDataPlane where none is installed."""
    if name == NUMPY:
        return NumpyPlanes()
    found = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
    if name not in found:
        known = ", ".join(sorted((NUMPY, *found)))
        raise NoDataPlane(
            f'no data plane "{name}" is installed: there is {known}; choose one of them, or '
            "install the package that has it (pip install -e . registers the ones of this tree)"
        )
    planes: DataPlanes = found[name].load()()
    return planes
