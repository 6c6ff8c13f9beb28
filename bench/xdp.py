"""Software and the kernel on the same network of veths: latency, rate, CPU; programs alone.

Every role is a process, or a program, behind a link of its own (`switch.xdp.fabric`); the learner
and proposer of the closed loop is this process, beside the bridge. CPU is that of the machine: what
programs in the kernel take is charged to nobody. For SET a store runs in the kernel, then its roles
move to software, in the same processes behind the same links.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench import closed_loop, redis_benchmark
from bench.closed_loop import BURST, Figures, Load
from bench.errors import BenchError
from bench.processes import TICKS_PER_S, Child, children
from bench.quorums import Asker
from bench.results import Metric, Point, Sample
from bench.role_cluster import create, start_role
from bench.store_cluster import StoreCluster
from p4xos import inquiries, wire
from p4xos.config import MOVABLE, NUMPY, Cluster, Member, RoleName
from p4xos.creation import CLUSTER_NAME
from p4xos.effects import Role, To
from p4xos.errors import P4xosError
from p4xos.wire import Frame, Type
from switch.control.packets import Datagram, frame
from switch.control.plan import Plan, PlaneRole
from switch.xdp import fabric, places, planes
from switch.xdp.errors import XdpUnavailable
from switch.xdp.plane import XdpPlane

PAYLOAD_BYTES = 64
WINDOW = 16_384
ONE, VALUES = 10_000, 400_000
PACKETS = 4_000_000
SET = redis_benchmark.Load("set", 1, 1, 10_000, PAYLOAD_BYTES)
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


SIDES = (Side("software", NUMPY, 3072), Side("XDP", "xdp", 144))
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
            quorums = quorums_us(directory / "quorums", side, max(int(ONE * scale), 500))
            for name, part in (("p50", 0.5), ("p99", 0.99)):
                yield _sample(side, f"REQUEST to quorum, plain socket, {name}", "us",
                              float(np.quantile(quorums, part)))  # fmt: skip
        share = p50_us["XDP"] / p50_us["software"]
        metric = Metric("xdp", "p50 of XDP to that of software", "ratio", at_most=SHARE_AT_MOST)
        yield Sample(metric, share)
        for plane_name, set_p50_us in store_us(scratch / f"store-{number}", scale).items():
            yield Sample(Metric("xdp", f"{plane_name}: SET of one client, p50", "us"), set_p50_us)
        packets = max(int(PACKETS * scale), 100_000)
        alone_ns = {"acceptor": acceptor_alone_ns(packets),
                    "coordinator": coordinator_alone_ns(packets)}  # fmt: skip
        for role, cost_ns in alone_ns.items():
            yield Sample(Metric("xdp", f"{role}'s program alone, a packet", "ns"), cost_ns)
        metric = Metric("xdp", "acceptor alone, one core", "packets/s", at_least=ALONE_AT_LEAST)
        yield Sample(metric, 1e9 / alone_ns["acceptor"])


def _sample(
    side: Side, name: str, unit: str, value: float, at_most: float | None = None
) -> Sample:
    return Sample(Metric("xdp", f"{side.name}: {name}", unit, at_most=at_most), value)


def measure(directory: Path, side: Side, load: Load) -> tuple[Figures, float]:
    """One load on a new group; its figures, and the CPU of the machine in us for each value.

    Raises:
      BenchError: a process ended, or nothing was delivered for a long time.
    """
    with _voting(directory, side) as (cluster, started), ExitStack() as stack:
        if side.data_plane == NUMPY:
            stack.enter_context(fabric.place(cluster, "learner", cluster.learners[0]))
        busy_s = _busy_s()
        figures = closed_loop.submit(cluster, started, [load], PAYLOAD_BYTES)[0]
        return figures, (_busy_s() - busy_s) / load.values * 1e6


def quorums_us(directory: Path, side: Side, values: int) -> NDArray[np.float64]:
    """From a REQUEST to a quorum of votes, for each value; BenchError where nobody answers."""
    with _voting(directory, side) as (cluster, started):
        with fabric.place(cluster, "learner", cluster.learners[0]):
            asker = Asker(cluster, started, PAYLOAD_BYTES)
        with closing(asker):
            return asker.latencies_us(values)


@contextmanager
def _voting(directory: Path, side: Side) -> Iterator[tuple[Cluster, list[Child]]]:
    """Acceptors and coordinator of a new group, each behind its link; no learner."""
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
        yield cluster, started


def store_us(directory: Path, scale: float) -> dict[str, float]:
    """The p50 of one client's SETs by where the store's roles are, on the same links.

    Raises:
      BenchError: the store does not serve, or cannot move.
    """
    found = {}
    with StoreCluster(directory, "memory", data_plane="xdp") as store, ExitStack() as stack:
        stack.enter_context(fabric.laid(store.cluster))
        for _, member in voters(store.cluster):
            store.launch(member.node)
        store.start(*(member.node for member in store.cluster.learners))
        served = store.cluster.learners[0].node
        for side in reversed(SIDES):
            try:
                inquiries.reconfigure(store.cluster, side.data_plane, MOVABLE)
            except P4xosError as error:
                raise BenchError(f"the store does not move to {side.data_plane}: {error}") from None
            store.wait_until_writable(served)
            result = redis_benchmark.run(SET.scaled(scale), store.endpoint(served))
            found[side.name] = result.p50_ms * 1e3
    return found


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


def acceptor_alone_ns(packets: int) -> int:
    """What the acceptor's program takes for a PHASE2A, of consecutive instances."""
    return _alone_ns("acceptor", Type.PHASE2A, To(Role.COORDINATOR, 0), packets, "votes")


def coordinator_alone_ns(packets: int) -> int:
    """What the coordinator's program takes for a REQUEST."""
    return _alone_ns("coordinator", Type.REQUEST, To(Role.PROPOSER, 0), packets, "proposed")


def _alone_ns(role: PlaneRole, type: Type, source: To, packets: int, outcome: str) -> int:
    template = Cluster.template(3, storage="memory", apart=True)
    cluster = replace(template, value_bytes=ALONE_VALUE_BYTES, window=WINDOW)
    plan = Plan.of(cluster, role, Frame(cluster.id, cluster.group, 0))
    asks = role == "acceptor"
    question = wire.encode(cluster.id, cluster.group, type, round=(1 << 8) * asks,
                           value=bytes(ALONE_VALUE_BYTES))  # fmt: skip
    packet = frame(Datagram(plan.addresses[source], plan.own, question.tobytes()))
    plane = XdpPlane(str(Path(__file__).with_name(f"xdp_alone_{role}.bpf.c")), "alone")
    plane.load(plan)
    try:
        plane.write("low", 1)
        if not asks:
            plane.write("next", 1)
            plane.write("round", 1 << 8)
        plane.open(0)
        first = struct.pack("=QQ", 1, 0) if asks else b""
        questions = plane.map("questions", len(first) + HEADERS_BYTES + 6)
        questions.write(first + packet[:HEADERS_BYTES] + bytes(6))
        duration_ns = plane.repeat(packet, packets)
        done = plane.statistics()[outcome]
        assert done == packets, f"{done} of {packets} packets: {plane.statistics()}"
    finally:
        plane.teardown()
    return duration_ns
