"""Software and the kernel on the same network of veths: latency, rate, CPU; an acceptor alone.

Every role is a process, or a program, behind a link of its own (`switch.xdp.fabric`); the learner
and proposer of the closed loop is this process, beside the bridge. CPU is that of the machine: what
programs in the kernel take is charged to nobody.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from bench import closed_loop
from bench.closed_loop import BURST, Figures, Load
from bench.errors import BenchError
from bench.processes import TICKS_PER_S, children
from bench.results import Metric, Point, Sample
from bench.role_cluster import create, start_role
from p4xos import wire
from p4xos.config import NUMPY, Cluster, Member, RoleName
from p4xos.creation import CLUSTER_NAME
from p4xos.effects import Role, To
from p4xos.wire import Frame, Type
from switch.control.packets import Datagram, frame
from switch.control.plan import Plan
from switch.xdp import fabric, places, planes
from switch.xdp.errors import XdpUnavailable
from switch.xdp.plane import XdpPlane

PAYLOAD_BYTES = 64
WINDOW = 16_384
ONE, VALUES = 10_000, 400_000
PACKETS = 4_000_000
ALONE_AT_LEAST = 1_000_000  # packets/s of one core
SHARE_AT_MOST, P50_AT_MOST_US = 0.4, 50.0
ALONE_VALUE_BYTES = 96  # 64 and an envelope, for the acceptor alone
HEADERS_BYTES = 82  # Ethernet, IPv4, UDP, ours
_BUSY = (0, 1, 2, 5, 6)  # user, nice, system, irq, softirq: columns of /proc/stat


class Side(NamedTuple):
    """Where roles run, and with how many values in flight the rate is measured."""

    name: str
    data_plane: str
    in_flight: int


SIDES = (Side("software", NUMPY, 3072), Side("XDP", "xdp", 192))
"""Each with what suits it: software lives on large batches. In the kernel a request becomes three
packets on one link, and a veth holds 256: what comes at once beyond that is lost and sent again."""


def needs() -> None:
    """Raises BenchError where the kernel runs no programs."""
    try:
        planes.check(Cluster.template(3, storage="memory", apart=True))
    except XdpUnavailable as refusal:
        raise BenchError(str(refusal)) from None


def run(scratch: Path, runs: int, scale: float) -> Iterator[Sample | Point]:
    """Yields both sides' figures, and the acceptor's."""
    for number in range(runs):
        p50_us = {}
        for side in SIDES:
            directory = scratch / f"{side.data_plane}-{number}"
            alone, _ = measure(directory / "alone", side, Load(max(int(ONE * scale), 500), 1))
            load = Load(max(int(VALUES * scale), 10 * BURST), side.in_flight)
            many, cpu_us = measure(directory / "many", side, load)
            p50_us[side.name] = alone.percentile_us(0.5)
            bound = P50_AT_MOST_US if side.data_plane != NUMPY else None
            yield _sample(side, "one value outstanding, p50", "us", p50_us[side.name], bound)
            yield _sample(side, "one value outstanding, p99", "us", alone.percentile_us(0.99))
            yield _sample(side, "delivered", "values/s", many.values_per_s)
            yield _sample(side, "CPU of the machine", "us/value", cpu_us)
            yield _sample(side, "sent again", "values", many.resent)
        share = p50_us["XDP"] / p50_us["software"]
        metric = Metric("xdp", "p50 of XDP to that of software", "ratio", at_most=SHARE_AT_MOST)
        yield Sample(metric, share)
        metric = Metric("xdp", "acceptor alone, one core", "packets/s", at_least=ALONE_AT_LEAST)
        yield Sample(metric, acceptor_alone(max(int(PACKETS * scale), 100_000)))


def _sample(
    side: Side, name: str, unit: str, value: float, at_most: float | None = None
) -> Sample:
    return Sample(Metric("xdp", f"{side.name}: {name}", unit, at_most=at_most), value)


def measure(directory: Path, side: Side, load: Load) -> tuple[Figures, float]:
    """One load on a new group; its figures, and the CPU of the machine in us for each value.

    Raises:
      BenchError: a process ended, or nothing was delivered for a long time.
    """
    directory.parent.mkdir(exist_ok=True)
    cluster = _behind_links(create(directory, "memory", PAYLOAD_BYTES, window=WINDOW), side)
    with fabric.laid(cluster), children() as started, ExitStack() as stack:
        for role, member in voters(cluster):
            if side.data_plane == NUMPY:
                own = fabric.plug_in(cluster, role, member)
                stack.callback(places.let_go, cluster, role, member.id)
                with own.entered():  # its sockets are there, as a program's interface would be
                    start_role(cluster, role, member.id, started)
            else:
                start_role(cluster, role, member.id, started)
        if side.data_plane == NUMPY:
            stack.enter_context(fabric.place(cluster, "learner", cluster.learners[0]))
        busy_s = _busy_s()
        figures = closed_loop.submit(cluster, started, [load], PAYLOAD_BYTES)[0]
        return figures, (_busy_s() - busy_s) / load.values * 1e6


def voters(cluster: Cluster) -> Iterator[tuple[RoleName, Member]]:
    """Every acceptor and coordinator."""
    roles: tuple[RoleName, ...] = ("acceptor", "coordinator")
    for role in roles:
        for member in cluster.members(role):
            yield role, member


def _behind_links(cluster: Cluster, side: Side) -> Cluster:
    """The same cluster with the addresses of the bridge's network, in its file too."""
    placed = replace(fabric.fitted(cluster), data_plane=side.data_plane)
    file = cluster.directory / CLUSTER_NAME
    file.write_text(placed.to_toml())
    return Cluster.load(file)


def _busy_s() -> float:
    """Seconds that all processors together have worked, the kernel's interrupts among it."""
    columns = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    return sum(int(columns[k]) for k in _BUSY) / TICKS_PER_S


def acceptor_alone(packets: int) -> float:
    """PHASE2A of consecutive instances that the acceptor's program takes a second of one core."""
    template = Cluster.template(3, storage="memory", apart=True)
    cluster = replace(template, value_bytes=ALONE_VALUE_BYTES, window=WINDOW)
    plan = Plan.of(cluster, "acceptor", Frame(cluster.id, cluster.group, 0))
    question = wire.encode(cluster.id, cluster.group, Type.PHASE2A, round=1 << 8,
                           value=bytes(ALONE_VALUE_BYTES))  # fmt: skip
    source = plan.addresses[To(Role.COORDINATOR, 0)]
    packet = frame(Datagram(source, plan.own, question.tobytes()))
    plane = XdpPlane(str(Path(__file__).with_name("xdp_alone.bpf.c")), "alone")
    plane.load(plan)
    try:
        plane.write("low", 1)
        plane.open(0)
        questions = plane.map("questions", 16 + HEADERS_BYTES + 6)
        questions.write(struct.pack("=QQ", 1, 0) + packet[:HEADERS_BYTES] + bytes(6))
        duration_ns = plane.repeat(packet, packets)
        voted = plane.statistics()["votes"]
        assert voted == packets, f"{voted} votes of {packets} packets: {plane.statistics()}"
    finally:
        plane.teardown()
    return 1e9 / duration_ns
