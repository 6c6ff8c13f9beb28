"""A machine with several interfaces as a switch: its ports, the roles that share them, its file."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from bench.processes import wait_until
from p4xos.config import Cluster, ConfigError, Member
from p4xos.effects import Role, To
from p4xos.tables import Address
from p4xos.testing import vectors
from p4xos.wire import Frame, Message, Type
from switch.control.plan import Plan, PlaneRole
from switch.xdp import links, ports, switches
from switch.xdp.errors import InterfaceGone, XdpUnavailable
from switch.xdp.namespaces import Namespace
from switch.xdp.wired import WiredPlane
from tests.switch.kernel import in_kernel, in_the_kernel

LIMIT_S = 60.0  # for a hung test, never for a verdict
PORTS = ("p1", "p2", "p3")
SWITCH = "10.7.0.1"


class Machines:
    """A switch between three hosts, host K at 10.7.K.2 behind its port pK."""

    def __init__(self, stack: ExitStack, *, bridged: bool) -> None:
        self.switch = self._new(stack)
        self.hosts = [self._new(stack) for _ in PORTS]
        lines = ["link set dev lo up"]
        lines += [
            f"link add name {port} type veth peer name eth0 netns {host.path}"
            for port, host in zip(PORTS, self.hosts, strict=True)
        ]
        if bridged:
            lines += [
                "link add name br0 type bridge mcast_snooping 0", "link set dev br0 up",
                f"address add {SWITCH}/16 dev br0",
                *(f"link set dev {port} master br0" for port in PORTS),
            ]  # fmt: skip
        else:
            lines.append(f"address add {SWITCH}/32 dev lo")
        lines += [f"link set dev {port} up" for port in PORTS]
        if not bridged:
            lines += [f"route add 10.7.{k}.2 dev p{k}" for k in (1, 2, 3)]
        with self.switch.entered():
            Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        self.switch.set_up(lines)
        for k, host in enumerate(self.hosts, start=1):
            own = f"address add 10.7.{k}.2/{16 if bridged else 32} dev eth0"
            ways = [] if bridged else [f"route add {SWITCH} dev eth0",
                                       f"route add default via {SWITCH}"]  # fmt: skip
            host.set_up(["link set dev lo up", own, "link set dev eth0 up", *ways])
            with host.entered():
                links.offload("eth0", gro=True)

    @staticmethod
    def _new(stack: ExitStack) -> Namespace:
        namespace = Namespace.new()
        stack.callback(namespace.close)
        return namespace

    def sockets(self, stack: ExitStack, addresses: set[Address]) -> dict[Address, socket.socket]:
        """One for each address of a host."""
        found = {}
        for address in addresses:
            host = self.hosts[int(address.host.split(".")[2]) - 1]
            with host.entered():
                made = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
                made.bind(address)
            made.settimeout(LIMIT_S)
            found[address] = made
        return found


@contextmanager
def machines(*, bridged: bool) -> Iterator[tuple[Machines, ExitStack]]:
    with ExitStack() as stack:
        yield Machines(stack, bridged=bridged), stack


def cluster_with(role: PlaneRole) -> Cluster:
    """A cluster whose first member of a role is at the switch, all others at hosts."""
    new = Cluster.template(3, storage="memory", apart=True)

    def at(host: str, member: Member) -> Member:
        return replace(member, address=Address(host, member.address.port))

    def there(of: PlaneRole) -> tuple[Member, ...]:
        members = tuple(at(f"10.7.{m.id + 1}.2", m) for m in new.members(of))
        return (at(SWITCH, members[0]), *members[1:]) if of == role else members

    learners = tuple(at(f"10.7.{m.id + 1}.2", m) for m in new.learners)
    return replace(
        new, acceptors=there("acceptor"), coordinators=there("coordinator"), learners=learners
    )


class Placed:
    """The role of a cluster that is at the switch."""

    def __init__(
        self, it: Machines, stack: ExitStack, role: PlaneRole, named: Sequence[str]
    ) -> None:
        self.cluster = cluster_with(role)
        self.plan = Plan.of(self.cluster, role, Frame(self.cluster.id, 0, 0))
        self.plane = WiredPlane(it.switch, ports=named)
        stack.callback(self.plane.teardown)
        self.plane.load(self.plan)
        self.sockets = it.sockets(stack, {*self.plan.addresses.values()} - {self.plan.own})

    def begin(self, **registers: int) -> None:
        """The port opens, and all receivers are known."""
        for name, value in registers.items():
            self.plane.write(name, value)
        self.plane.open(0)
        wait_until(self.ready, LIMIT_S, "that the receivers are found")

    def ready(self) -> bool:
        self.plane.keep_up()
        return self.plane.endpoint.ready

    def send(self, role: Role, id: int, text: str) -> None:
        packet = vectors.packet(f"{text} sender={id} cluster={self.cluster.id} group=0")
        self.sockets[self.plan.addresses[To(role, id)]].sendto(packet, self.plan.own)

    def received(self, role: Role, id: int) -> Message:
        data, source = self.sockets[self.plan.addresses[To(role, id)]].recvfrom(2048)
        assert source == self.plan.own
        return vectors.read(data)


@in_the_kernel
@pytest.mark.parametrize("bridged", [False, True], ids=["routes", "bridges"])
def test_roles_share_the_ports_of_a_switch(bridged: bool) -> None:
    """Each tells receivers behind all ports; all else passes as without programs."""
    before = in_kernel()
    with machines(bridged=bridged) as (it, stack):
        named = () if bridged else PORTS
        acceptor = Placed(it, stack, "acceptor", named)
        coordinator = Placed(it, stack, "coordinator", named)
        assert set(acceptor.plane.interfaces) == set(coordinator.plane.interfaces) == set(PORTS)
        assert acceptor.plane.native
        acceptor.begin(low=1)
        coordinator.begin(low=1, next=5, round=1 << 8)
        for k in range(3):  # from behind each port
            acceptor.send(Role.COORDINATOR, k, f'PHASE2A instance={k + 1} round=1.{k} value="v"')
            votes = [acceptor.received(Role.LEARNER, learner) for learner in range(3)]
            assert {(m.type, m.instance, m.value) for m in votes} == {
                (Type.PHASE2B, k + 1, b"v")
            }
            coordinator.send(Role.PROPOSER, k, 'REQUEST value="w"')
            proposals = [coordinator.received(Role.ACCEPTOR, a) for a in range(3)]
            assert {(m.type, m.instance, m.value) for m in proposals} == {
                (Type.PHASE2A, k + 5, b"w")
            }
            acceptor.send(Role.PROPOSER, k, "READ_INDEX nonce=9")
            assert acceptor.received(Role.PROPOSER, k).instance == k + 1
        assert acceptor.plane.statistics()["handed_up"] == 0
        assert coordinator.plane.statistics()["handed_up"] == 0
        # What is for neither: from a host to another, and to the switch itself.
        one, *others = (acceptor.sockets[acceptor.plan.addresses[To(Role.LEARNER, k)]]
                        for k in range(3))  # fmt: skip
        for other in others:
            one.sendto(b"for a host", other.getsockname())
            assert other.recv(2048) == b"for a host"
        with it.switch.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own:
            own.bind((SWITCH, 0))
            own.settimeout(LIMIT_S)
            one.sendto(b"for the switch", own.getsockname())
            assert own.recv(2048) == b"for the switch"
        # One leaves: the other stays.
        acceptor.plane.teardown()
        coordinator.send(Role.PROPOSER, 0, 'REQUEST value="x"')
        assert coordinator.received(Role.ACCEPTOR, 2).value == b"x"
    wait_until(lambda: not in_kernel() - before, LIMIT_S, "that nothing is left")


@in_the_kernel
def test_a_port_that_goes_and_comes_back(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    with machines(bridged=False) as (it, stack):
        acceptor = Placed(it, stack, "acceptor", PORTS)
        acceptor.begin(low=1)
        it.switch.set_up(["link delete dev p3"])
        acceptor.plane.keep_up()
        assert set(acceptor.plane.interfaces) == {"p1", "p2"}
        assert "acceptor is on p1, p2 from now on, it was on p1, p2, p3" in caplog.text
        host = it.hosts[2]
        it.switch.set_up([
            f"link add name p3 type veth peer name eth0 netns {host.path}",
            "link set dev p3 up", "route add 10.7.3.2 dev p3",
        ])  # fmt: skip
        host.set_up(["address add 10.7.3.2/32 dev eth0", "link set dev eth0 up",
                     f"route add {SWITCH} dev eth0",
                     f"route add default via {SWITCH}"])  # fmt: skip
        with host.entered():
            links.offload("eth0", gro=True)
        wait_until(lambda: acceptor.ready() and set(acceptor.plane.interfaces) == {*PORTS},
                   LIMIT_S, "that it is on all ports again")  # fmt: skip
        wait_until(lambda: acceptor.ready() and len(acceptor.plane._told) == 3, LIMIT_S,
                   "that all are told")  # fmt: skip
        acceptor.send(Role.COORDINATOR, 2, "PHASE2A instance=1 round=1.2")
        for learner in range(3):
            assert acceptor.received(Role.LEARNER, learner).instance == 1
        it.switch.set_up([f"link delete dev {port}" for port in PORTS])
        with pytest.raises(InterfaceGone, match="the interfaces p1, p2, p3 are gone"):
            acceptor.plane.keep_up()


@in_the_kernel
def test_receivers_that_no_port_leads_to_are_the_processes() -> None:
    """No copy that leaves by a port gets there: what is for several is told by sockets."""
    with machines(bridged=False) as (it, stack):
        acceptor = Placed(it, stack, "acceptor", ("p1", "p2"))  # learner 2 is behind p3
        acceptor.plane.write("low", 1)
        acceptor.plane.open(0)
        handed_up = 0

        def found() -> bool:
            nonlocal handed_up
            assert not acceptor.ready()
            acceptor.send(Role.COORDINATOR, 0, "PHASE2A instance=1 round=1.0")
            handed_up = acceptor.plane.statistics()["handed_up"]
            return handed_up > 3

        wait_until(found, LIMIT_S, "that it is handed up")
        assert acceptor.plane.statistics()["votes"] == 0


@in_the_kernel
def test_ports_that_are_not_there() -> None:
    with machines(bridged=False) as (it, stack):
        with pytest.raises(XdpUnavailable, match="there is no interface p9 here; name those"):
            Placed(it, stack, "acceptor", ("p1", "p9"))
        it.switch.set_up(["link add name br1 type bridge", "link set dev br1 up",
                          f"address delete {SWITCH}/32 dev lo",
                          f"address add {SWITCH}/16 dev br1"])  # fmt: skip
        with pytest.raises(XdpUnavailable, match=r"the bridge br1, .* has no interface; give it"):
            Placed(it, stack, "acceptor", ())


@in_the_kernel
def test_a_port_that_another_program_has() -> None:
    with machines(bridged=False) as (it, stack):
        first = Placed(it, stack, "acceptor", PORTS)
        # A process of its own would find it so: here, a board that does not know of the first.
        assert first.plane.native
        kept = ports._boards.copy()
        ports._boards.clear()
        try:
            with pytest.raises(XdpUnavailable, match=r"p1 takes no program: .* or put all roles"):
                Placed(it, stack, "coordinator", PORTS)
        finally:
            ports._boards.update(kept)


# The cluster file --------------------------------------------------------------------------------


def read(text: str) -> tuple[str, ...]:
    cluster = Cluster.template(3, 7101, "memory", apart=True)
    return switches.ports_of(Cluster.parse(cluster.to_toml() + text, "file"), "c1")


def test_the_tables_of_switches() -> None:
    assert read("") == ()
    assert read('[[switch]]\nnode = "a1"\nports = ["x"]\n') == ()
    assert read('[[switch]]\nnode = "c1"\nports = ["swp1", "swp2"]\n') == ("swp1", "swp2")
    cluster = switches.with_ports(Cluster.template(3, 7101, "memory", apart=True), {"c1": PORTS})
    assert switches.ports_of(Cluster.parse(cluster.to_toml(), "file"), "c1") == PORTS


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('node = "c1"', r'"ports": the key is missing, allowed is a list of names of interfaces'),
        ('node = "c1"\nports = "swp1"', "write it in brackets"),
        ('node = "c1"\nports = []', r'as in \["swp1", "swp2"\], each once'),
        ('node = "c1"\nports = ["a", "a"]', "each once"),
        ('node = "c1"\nports = [1]', "each once"),
        ('node = "c1"\nports = ["a name that is far too long"]', "each once"),
        ('node = "c9"\nports = ["a"]', 'no node "c9"; known are a1'),
        ('node = "c1"\nports = ["a"]\nport = 1', "this key is unknown; did you mean"),
        ('node = "c1"\nports = ["a"]\n[[switch]]\nnode = "c1"\nports = ["b"]', "join the two"),
    ],
)
def test_tables_of_switches_that_are_no_good(text: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        read(f"[[switch]]\n{text}\n")
