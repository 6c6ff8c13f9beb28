"""Programs on the links of a network of their own: what they send arrives, and is what it was."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from bench.processes import wait_until
from p4xos import wire
from p4xos.config import Cluster
from p4xos.effects import Role, To
from p4xos.tables import Address
from p4xos.testing import vectors
from p4xos.wire import Frame, Message
from switch.control.packets import Datagram, frame
from switch.control.plan import Plan
from switch.xdp import fabric, links, places
from switch.xdp.errors import InterfaceGone
from switch.xdp.namespaces import Namespace
from switch.xdp.planes import XdpPlanes
from switch.xdp.wired import PATIENCE_S, WiredPlane
from tests.switch.kernel import in_the_kernel

pytestmark = in_the_kernel
LIMIT_S = 60.0  # for a hung test, never for a verdict
LONGEST = bytes(range(256)) * 5 + b"x" * 152
assert len(LONGEST) == wire.VALUE_BYTES_MAX


class Lab:
    """Acceptor 0 in the kernel; all others are sockets beside the bridge."""

    def __init__(self, cluster: Cluster, native: bool | None) -> None:
        self.cluster = cluster
        self.bridge = fabric.found(cluster)
        others = (*cluster.coordinators, *cluster.acceptors[1:])
        self.bridge.set_up(
            [f"address add {m.address.host}/16 dev {fabric.BRIDGE}" for m in others]
        )
        member = cluster.acceptors[0]
        own = fabric.plug_in(cluster, "acceptor", member)
        self.plan = Plan.of(cluster, "acceptor", Frame(cluster.id, cluster.group, 0))
        self.plane = WiredPlane(own, native=native)
        self.plane.load(self.plan)
        self.own = own
        self.sockets: dict[Address, socket.socket] = {}
        for to, address in self.plan.addresses.items():
            if to != To(Role.ACCEPTOR, 0) and address not in self.sockets:
                self.sockets[address] = self.bound(self.bridge, address)
        self.process = self.bound(own, self.plan.own)  # the process beside the program

    @staticmethod
    def bound(namespace: Namespace, address: Address) -> socket.socket:
        with namespace.entered():
            made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            made.bind(address)
        made.setsockopt(socket.SOL_SOCKET, 33, 4 << 20)  # SO_RCVBUFFORCE: a copy takes a page
        made.settimeout(LIMIT_S)
        return made

    def begin(self) -> None:
        """The port opens, and all learners are known."""
        self.plane.write("low", 1)
        self.plane.open(7)
        if self.plane.native:
            wait_until(self.ready, LIMIT_S, "that the learners are found")

    def ready(self) -> bool:
        self.plane.keep_up()
        return self.plane.endpoint.ready

    def packet(self, text: str) -> bytes:
        return vectors.packet(f"{text} cluster={self.cluster.id} group={self.cluster.group}")

    def send(self, role: Role, packet: bytes) -> None:
        self.sockets[self.plan.addresses[To(role, 0)]].sendto(packet, self.plan.own)

    def received(self, role: Role, id: int = 0) -> Message:
        """What a member hears next, from the program's address."""
        data, source = self.sockets[self.plan.addresses[To(role, id)]].recvfrom(2048)
        assert source == self.plan.own
        return vectors.read(data)

    def counted(self, name: str) -> int:
        return self.plane.statistics()[name]

    def wait_for(self, name: str, count: int = 1) -> None:
        wait_until(lambda: self.counted(name) >= count, LIMIT_S, f"that {name} is {count}")

    def close(self) -> None:
        self.plane.teardown()
        for made in (self.process, *self.sockets.values()):
            made.close()
        places.let_go(self.cluster, "acceptor", 0)
        self.bridge.close()


@contextmanager
def lab(directory: Path, native: bool | None = None) -> Iterator[Lab]:
    cluster = replace(XdpPlanes().fit(Cluster.template(3, storage="memory")), directory=directory)
    with fabric.laid(cluster):
        made = Lab(cluster, native)
        try:
            yield made
        finally:
            made.close()


@pytest.mark.parametrize("offloads", [True, False], ids=["offloads", "no offloads"])
def test_votes_reach_every_learner_whole(tmp_path: Path, offloads: bool) -> None:
    """docs/PROTOCOL.md, section 3; the receivers' kernel has checked every checksum."""
    with lab(tmp_path) as it:
        with it.bridge.entered():
            links.offload(fabric.BRIDGE, checksums=offloads)
            links.offload("a0", checksums=offloads)
        it.begin()
        values = (b"", b"abc", b"12345678", LONGEST)
        for instance, value in enumerate(values, start=1):
            shown = f" value=0x{value.hex()}" if value else ""
            asked = it.packet(f"PHASE2A instance={instance} round=1.0 low=1{shown}")
            it.send(Role.COORDINATOR, asked)
            for learner in range(3):
                vote = it.received(Role.LEARNER, learner)
                assert vote == Message(
                    1, wire.Type.PHASE2B, it.cluster.group, it.cluster.id, instance, 256, 256, 0,
                    len(value), 7, 0, value,
                )  # fmt: skip
        # Again from the slot, whatever the packet says.
        other = it.packet(f"PHASE2A instance=2 round=1.0 low=1 value=0x{1400 * '77'}")
        it.send(Role.COORDINATOR, other)
        assert {it.received(Role.LEARNER, k).value for k in range(3)} == {b"abc"}
        # Replies: as long as what was asked, longer, and far longer.
        it.send(Role.LEARNER, it.packet("LEARN instance=3 end=4"))
        assert it.received(Role.LEARNER).value == b"12345678"
        it.send(Role.COORDINATOR, it.packet("PHASE1A instance=2 round=2.0 end=3"))
        assert it.received(Role.COORDINATOR).value == b"abc"
        it.send(Role.COORDINATOR, it.packet("PHASE1A instance=9 round=2.0 end=9 low=2"))
        assert wire.is_summary(0, it.received(Role.COORDINATOR).length)
        it.send(Role.LEARNER, it.packet("READ_INDEX nonce=9"))
        assert it.received(Role.LEARNER).instance == 4
        counted = it.plane.statistics()
        assert (counted["votes"], counted["repeated_votes"], counted["handed_up"]) == (4, 1, 0)
        # Far longer: where the driver left no room behind the question, the process gets it.
        asked = it.packet("LEARN instance=4 end=5")
        it.send(Role.LEARNER, asked)
        it.wait_for("answers", 3)
        if it.counted("handed_up"):
            assert it.process.recv(2048) == asked
            ((_, rows),) = it.plane.receive(it.plan.addresses[To(Role.LEARNER, 0)], asked)
            assert wire.message(rows, 0).value == LONGEST
        else:
            assert it.received(Role.LEARNER).value == LONGEST
        assert counted["checksum"] == 0


def test_a_batch_of_one_call_is_so_many_packets(tmp_path: Path) -> None:
    """What a socket sends in segments reaches the program as datagrams."""
    with lab(tmp_path) as it:
        it.begin()
        sender = it.sockets[it.plan.addresses[To(Role.COORDINATOR, 0)]]
        packets = [it.packet(f'PHASE2A instance={i} round=1.0 low=1 value="v{i:03}"')
                   for i in range(1, 101)]  # fmt: skip
        sender.setsockopt(socket.SOL_UDP, 103, len(packets[0]))  # UDP_SEGMENT, linux/udp.h
        sender.sendto(b"".join(packets), it.plan.own)
        for learner in range(3):
            votes = [it.received(Role.LEARNER, learner) for _ in packets]
            assert [vote.instance for vote in votes] == [*range(1, 101)]


def test_votes_that_come_together_are_heard_together(tmp_path: Path) -> None:
    """The kernel joins them (GRO) where identifications follow one another, as a sender's do."""
    with lab(tmp_path) as it:
        it.begin()
        sender = it.sockets[it.plan.addresses[To(Role.COORDINATOR, 0)]]
        packets = [it.packet(f'PHASE2A instance={i} round=1.0 low=1 value="v{i:03}"')
                   for i in range(1, 101)]  # fmt: skip
        sender.setsockopt(socket.SOL_UDP, 103, len(packets[0]))  # UDP_SEGMENT, linux/udp.h
        learners = [it.sockets[it.plan.addresses[To(Role.LEARNER, k)]] for k in range(3)]
        for learner in learners:
            learner.setsockopt(socket.SOL_UDP, 104, 1)  # UDP_GRO
        sender.sendto(b"".join(packets), it.plan.own)
        for learner in learners:
            heard = calls = 0
            while heard < len(packets):
                heard += len(learner.recv(1 << 16)) // len(packets[0])
                calls += 1
            assert calls <= len(packets) // 2


def test_a_damaged_packet_is_counted(tmp_path: Path) -> None:
    with lab(tmp_path) as it:
        it.begin()
        source = it.plan.addresses[To(Role.COORDINATOR, 0)]
        good = frame(Datagram(source, it.plan.own, it.packet("HEARTBEAT low=9 round=1.0")))
        with it.bridge.entered(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
            raw.bind((fabric.BRIDGE, 0))
            for at in (len(good) - 1, 26):  # of low; of the sender's address
                raw.send(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
            it.wait_for("checksum", 2)
            assert it.plane.read("low") == 1
            raw.send(good)
            it.wait_for("heartbeats")
        assert it.plane.read("low") == 9


def test_what_the_program_leaves_to_its_process(tmp_path: Path) -> None:
    """A closed port, ranges, other versions, and whatever is not for it."""
    with lab(tmp_path) as it:
        vote = it.packet('PHASE2A instance=1 round=1.0 low=1 value="a"')
        it.send(Role.COORDINATOR, vote)
        assert it.process.recv(2048) == vote
        assert it.counted("closed") == 1
        it.begin()
        several = it.packet("LEARN instance=1 end=5")
        it.send(Role.LEARNER, several)
        assert it.process.recv(2048) == several
        promise = it.packet("PHASE1A instance=1 round=1.0 end=log")
        it.send(Role.COORDINATOR, promise)
        assert it.process.recv(2048) == promise
        newer = it.packet("HEARTBEAT version=2")
        it.send(Role.COORDINATOR, newer)
        assert it.process.recv(2048) == newer
        assert (it.counted("handed_up"), it.counted("version")) == (2, 1)
        with it.own.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.bind((it.plan.own.host, 0))
            other.settimeout(LIMIT_S)
            sender = it.sockets[it.plan.addresses[To(Role.COORDINATOR, 0)]]
            sender.sendto(b"for somebody else", other.getsockname())
            assert other.recv(2048) == b"for somebody else"


def test_a_generic_program_replies_and_leaves_telling_to_its_process(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    with lab(tmp_path, native=False) as it:
        assert "has no XDP (as was asked for)" in caplog.text
        it.begin()
        it.send(Role.LEARNER, it.packet("READ_INDEX nonce=5"))
        assert it.received(Role.LEARNER).vround == 5
        vote = it.packet('PHASE2A instance=1 round=1.0 low=1 value="a"')
        it.send(Role.COORDINATOR, vote)
        assert it.process.recv(2048) == vote
        assert (it.counted("handed_up"), it.counted("votes")) == (1, 0)


def test_a_veth_that_would_lose_what_is_sent_gets_a_generic_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One whose other end is not ours: without GRO it takes nothing that a program redirects."""
    monkeypatch.setattr(fabric, "offload", lambda interface, **switches: None)
    with lab(tmp_path) as it:
        assert not it.plane.native
        assert "its driver does not send what it redirects" in caplog.text
        it.begin()
        it.send(Role.LEARNER, it.packet("READ_INDEX nonce=5"))
        assert it.received(Role.LEARNER).vround == 5


def test_a_learner_that_is_not_there_keeps_no_other_from_hearing(tmp_path: Path) -> None:
    with lab(tmp_path) as it:
        late = [0.0]
        it.plane._clock = lambda: time.monotonic() + late[0]
        it.bridge.set_up([f"address delete {it.plan.addresses[To(Role.LEARNER, 1)].host}/16 "
                          f"dev {fabric.BRIDGE}"])  # fmt: skip
        with it.own.entered():
            Path("/proc/sys/net/ipv4/neigh/eth0/retrans_time_ms").write_text("10")
        it.own.set_up(["neighbour flush dev eth0"])
        it.plane.write("low", 1)
        it.plane.open(0)

        def others_found() -> bool:
            it.plane.keep_up()
            return len(it.plane._told) == 2

        wait_until(others_found, LIMIT_S, "that the others are found")
        late[0] = 2 * PATIENCE_S
        assert it.ready()
        it.send(Role.COORDINATOR, it.packet("PHASE2A instance=1 round=1.0 low=1"))
        for learner in (0, 2):
            assert it.received(Role.LEARNER, learner).instance == 1


def test_an_interface_that_is_gone(tmp_path: Path) -> None:
    with lab(tmp_path) as it:
        it.begin()
        it.bridge.set_up(["link delete dev a0"])
        with pytest.raises(InterfaceGone, match="the interface eth0 is gone"):
            it.plane.keep_up()
