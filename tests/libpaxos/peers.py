"""Gateways in one process, and peers that speak libpaxos' protocol as its own programs do."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgpack
import trio

from p4xos.compat.libpaxos.conf import Options, PaxosConf
from p4xos.compat.libpaxos.gateway import Gateway
from p4xos.compat.libpaxos.serving import ids_of, open_gateway, ports_of
from p4xos.compat.libpaxos.store import PackStore
from p4xos.config import Cluster
from p4xos.framing import FrameStream
from p4xos.logstore import Retention
from p4xos.node import Node
from p4xos.tables import Address
from tests.service.clusters import PATIENCE_S, new_cluster


def packed(*message: object) -> bytes:
    """As libpaxos packs it."""
    data: bytes = msgpack.packb(list(message), use_bin_type=True)
    return data


_reserved: dict[Address, socket.socket] = {}
"""Bound, so that nothing else on this machine is given the address; a listener may share it."""


def new_conf(acceptors: int = 3, proposers: int = 1, **options: object) -> PaxosConf:
    """At addresses that are free, and stay so until `release`."""
    addresses = []
    for _ in range(acceptors + proposers):
        holder = socket.socket()
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        addresses.append(Address(*holder.getsockname()))
        _reserved[addresses[-1]] = holder
    return PaxosConf(
        tuple(addresses[:acceptors]), tuple(addresses[acceptors:]),
        Options(**options),  # type: ignore[arg-type]  # as each test says
    )  # fmt: skip


def release(conf: PaxosConf) -> None:
    for address in {*conf.acceptors, *conf.proposers}:
        _reserved.pop(address).close()


@dataclass
class Served:
    """One node with its gateway."""

    node: Node
    store: PackStore
    gateway: Gateway
    scope: trio.CancelScope
    ended: trio.Event = field(default_factory=trio.Event)


class Gateways:
    """A cluster whose nodes are gateways, each started and stopped by name."""

    def __init__(
        self, cluster: Cluster, conf: PaxosConf, nursery: trio.Nursery, retention: Retention
    ) -> None:
        self.cluster, self.conf = cluster, conf
        self.retention = retention
        self.served: dict[str, Served] = {}
        self._nursery = nursery

    def __getitem__(self, name: str) -> Served:
        return self.served[name]

    async def start(self, *names: str) -> None:
        for name in names or [node.name for node in self.cluster.nodes]:
            await self._nursery.start(self._run, name)

    async def stop(self, *names: str) -> None:
        for name in names or list(self.served):
            served = self.served.pop(name)
            served.scope.cancel()
            await served.ended.wait()

    async def _run(
        self, name: str, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        with ExitStack() as stack, trio.CancelScope() as scope:
            store = PackStore(
                self.cluster.data_directory(name) / "log", self.cluster.id, self.retention
            )
            stack.callback(store.close)
            node = stack.enter_context(Node(self.cluster, name).open(store))
            ports = ports_of(self.conf, ids_of(self.conf, self.cluster, name, None))
            gateway = open_gateway(node, store, ports, self.conf)
            stack.callback(gateway.close)
            served = self.served[name] = Served(node, store, gateway, scope)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(gateway.run)
                nursery.start_soon(node.run)
                task_status.started()
        served.ended.set()


@asynccontextmanager
async def gateways(
    directory: Path, nodes: int = 1, retention: Retention | None = None,
    conf: PaxosConf | None = None,
) -> AsyncIterator[Gateways]:  # fmt: skip
    """A running cluster; its nodes are stopped at the end."""
    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            conf = conf or new_conf()
            try:
                cluster = new_cluster(directory, nodes, sealed=False)
                found = Gateways(cluster, conf, nursery, retention or Retention())
                await found.start()
                yield found
                await found.stop()
            finally:
                release(conf)


class Peer:
    """A connection that says and hears libpaxos' messages."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._unpacker = msgpack.Unpacker(raw=False, max_buffer_size=1 << 28)

    @classmethod
    @asynccontextmanager
    async def connect(cls, address: Address) -> AsyncIterator[Peer]:
        with trio.fail_after(PATIENCE_S):
            async with await trio.open_tcp_stream(*address) as stream:
                yield cls(stream)

    async def say(self, *message: object) -> None:
        await self.stream.send_all(packed(*message))

    async def submit(self, *values: bytes) -> None:
        await self.stream.send_all(b"".join(packed(8, value) for value in values))

    async def hear(self) -> list[object]:
        """The next message; the end of the connection is an EOFError."""
        while True:
            for message in self._unpacker:
                assert isinstance(message, list)
                return message
            data = await self.stream.receive_some(1 << 16)
            if not data:
                raise EOFError
            self._unpacker.feed(data)

    async def accepted(self) -> tuple[int, int, bytes]:
        """(acceptor, iid, value) of the next ACCEPTED; ACCEPTOR_STATEs are passed over."""
        while True:
            message = await self.hear()
            if message[0] == 3:
                _, aid, iid, ballot, value_ballot, value = message
                assert ballot == value_ballot == 1
                assert isinstance(aid, int)
                assert isinstance(iid, int)
                assert isinstance(value, bytes)
                return aid, iid, value
            assert message[0] == 7


class Learner:
    """libpaxos' learner: it delivers what a majority of the acceptors has accepted alike."""

    def __init__(self, acceptors: Sequence[Address], after: int = 0, hole_s: float = 0.02) -> None:
        self.acceptors = list(acceptors)
        self.delivered: list[tuple[int, bytes]] = []
        self._next = after + 1
        self._highest = after
        self._votes: dict[int, dict[int, bytes]] = {}
        self._hole_s = hole_s
        self._more = trio.Event()
        self._peers: dict[int, Peer] = {}

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            for k, address in enumerate(self.acceptors):
                nursery.start_soon(self._stay_connected, k, address)
            nursery.start_soon(self._ask_for_holes)

    async def wait(self, count: int) -> list[tuple[int, bytes]]:
        with trio.fail_after(PATIENCE_S):
            while len(self.delivered) < count:
                await self._more.wait()
        return self.delivered[:count]

    async def trim(self, iid: int) -> None:
        for peer in self._peers.values():
            await peer.say(6, iid)

    async def _stay_connected(self, k: int, address: Address) -> None:
        while True:
            try:
                async with Peer.connect(address) as peer:
                    self._peers[k] = peer
                    while True:
                        self._accept(*await peer.accepted())
            except (OSError, EOFError, trio.BrokenResourceError):
                self._peers.pop(k, None)
                await trio.sleep(self._hole_s)

    async def _ask_for_holes(self) -> None:
        while True:
            await trio.sleep(self._hole_s)
            if self._highest >= self._next:
                for peer in list(self._peers.values()):
                    try:
                        await peer.say(5, self._next, min(self._highest, self._next + 10))
                    except (trio.BrokenResourceError, trio.BusyResourceError):
                        continue

    def _accept(self, aid: int, iid: int, value: bytes) -> None:
        if iid < self._next:
            return
        votes = self._votes.setdefault(iid, {})
        votes[aid] = value
        if len(votes) > len(self.acceptors) // 2:
            self._highest = max(self._highest, iid)
        while len(self._votes.get(self._next, ())) > len(self.acceptors) // 2:
            values = set(self._votes.pop(self._next).values())
            assert len(values) == 1, f"acceptors tell of different values in {self._next}"
            self.delivered.append((self._next, values.pop()))
            self._next += 1
            self._more.set()
            self._more = trio.Event()


class FrameClient:
    """This project's dialect at a gateway's port."""

    def __init__(self, frames: FrameStream) -> None:
        self.frames = frames

    @classmethod
    @asynccontextmanager
    async def connect(cls, address: Address) -> AsyncIterator[FrameClient]:
        with trio.fail_after(PATIENCE_S):
            async with await trio.open_tcp_stream(*address) as stream:
                client = cls(FrameStream(stream))
                await client.say({"ask": "hello", "version": 1, "cluster": 0})
                assert (await client.hear())[0]["libpaxos"] == 1
                yield client

    async def say(self, head: dict[str, object], body: bytes = b"") -> None:
        self.frames.post(head, body)
        await self.frames.flush()

    async def hear(self) -> tuple[dict[str, object], bytes]:
        frame = await self.frames.receive_untrusted()
        if frame is None:
            raise EOFError
        return frame.head, frame.body
