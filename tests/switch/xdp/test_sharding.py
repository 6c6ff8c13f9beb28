"""`shard` in the kernel, on hosts of a network of their own: who gets what, and what is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import trio

from bench.chunnels.network import Host, hosts
from bench.processes import wait_until
from p4xos.chunnels import Endpoint, Runtime, datagrams, endpoint, reliable, serialize, shard
from p4xos.chunnels import shard_of as shard_of_key
from p4xos.chunnels.implementations import ENTRY_POINTS
from switch.xdp import attaching, sharding
from switch.xdp.errors import XdpUnavailable
from switch.xdp.libbpf import Loaded
from switch.xdp.steering import SteeringProgram
from tests.chunnels.messages import PATIENCE_S, elsewhere, patiently
from tests.switch.kernel import held, in_kernel, in_the_kernel
from tests.switch.xdp.sharded import PORT, STACK, Op

Address = tuple[str, int]
LIMIT_S = 60.0  # for a hung test, never for a verdict
SHARDS = 3
ROOT = Path(__file__).parents[3]
ORDERED = serialize(Op) | reliable() | datagrams()
PUSHING = shard(Op, by="key") | STACK


class Lab:
    """A host with the server, one with clients, and one more that may have shards."""

    def __init__(self, net: dict[str, Host], places: Sequence[str]) -> None:
        self.net = net
        self.addresses = [f"{net[place].address}:{PORT + 1 + k}" for k, place in enumerate(places)]
        self.address = net["server"].address, PORT
        self.started: list[subprocess.Popen[str]] = []
        self.numbers = iter(range(1 << 30))
        self.shards: dict[str, subprocess.Popen[str]] = {}
        self.server: subprocess.Popen[str]
        self.places = places

    def begin(self) -> None:
        for place in set(self.places):
            self.start_shards(place)
        self.start_server()
        self.wait_for(*self.shards.values(), self.server)

    def start(self, host: Host, *words: str) -> subprocess.Popen[str]:
        with host.entered():
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.switch.xdp.sharded", *words], text=True, cwd=ROOT,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )  # fmt: skip
        self.started.append(process)
        return process

    @staticmethod
    def wait_for(*processes: subprocess.Popen[str]) -> None:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "serving\n"

    def start_shards(self, place: str) -> subprocess.Popen[str]:
        own = [str(k) for k, where in enumerate(self.places) if where == place]
        host = self.net[place]
        self.shards[place] = self.start(host, "shards", host.address, *own)
        return self.shards[place]

    def start_server(self) -> subprocess.Popen[str]:
        host = self.net["server"]
        self.server = self.start(host, "server", host.address, *self.addresses)
        return self.server

    def counters(self) -> dict[str, int]:
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        self.server.stdin.write("\n")
        self.server.stdin.flush()
        found: dict[str, int] = json.loads(self.server.stdout.readline())
        return found

    def ops(self, count: int = 60, value: bytes = b"") -> list[Op]:
        return [Op(None, f"key {k}", next(self.numbers), value) for k in range(count)]

    def close(self) -> None:
        for process in self.started:
            process.kill()
            process.communicate()


@contextmanager
def lab(*places: str) -> Iterator[Lab]:
    with hosts(["server", "client", "other"]) as net:
        made = Lab(net, places)
        try:
            made.begin()
            yield made
        finally:
            made.close()


def run(it: Lab, main: object, *arguments: object) -> None:
    """A program on the clients' host."""
    with it.net["client"].entered():
        trio.run(main, *arguments)  # type: ignore[arg-type]


async def answered(client: Endpoint[Op], address: Address, ops: list[Op], how: str) -> None:
    """Each message once, at the shard that has its key."""
    async with patiently(), client.connect(address, timeout=PATIENCE_S) as connection:
        assert connection.explain().implementation("shard") == how, connection.explain()
        await connection.send_many(ops)
        found: dict[int, Op] = {}
        while len(found) < len(ops):
            found |= {reply.number: reply for reply in await connection.receive_many()}
        for op in ops:
            told = f"{shard_of_key(op.key, SHARDS)} 1 ".encode() + op.value
            assert found[op.number].value == told


def client(stack: object = STACK) -> Endpoint[Op]:
    made: Endpoint[Op] = endpoint("c", stack, runtime=elsewhere())  # type: ignore[call-overload]
    return made


@in_the_kernel
@pytest.mark.parametrize("place", ["server", "other"])
def test_messages_of_all_kinds_of_clients(place: str) -> None:
    """With offloads and without: the receivers' kernels check every checksum that is one."""
    with lab("server", place, place) as it:

        async def main() -> None:
            async with trio.open_nursery() as nursery:
                for stack, how in ((STACK, "xdp"), (ORDERED, "relay"), (PUSHING, "push")):
                    for size in (0, 700):
                        ops = it.ops(value=bytes(size))
                        nursery.start_soon(answered, client(stack), it.address, ops, how)

        for offloads in (True, False):
            for host in it.net.values():
                host.offload(checksums=offloads)
            run(it, main)
        counted = it.counters()
        assert counted["xdp_steered"] >= 40
        assert counted["xdp_answered"] >= 40
        assert (counted["xdp_sent_on"] >= 40) == (place == "other")
        assert counted["xdp_steered"] + counted["xdp_sent_on"] >= 240
        assert counted["steered_by_process"] == 0
        assert counted["dropped_by_relay"] == 0

        # What the kernel does not understand reaches its shard too, and exactly once: numbers as
        # keys, lists before it, messages longer than a frame.
        ops = it.ops(30)
        ops += [Op(None, 1000 + k, next(it.numbers)) for k in range(30)]
        ops += [Op(["a", "list"], f"key {k}", next(it.numbers)) for k in range(30)]
        ops += [Op(None, bytes([k]), next(it.numbers), bytes(5000)) for k in range(30)]
        run(it, answered, client(), it.address, ops, "xdp")
        counted = it.counters()
        assert counted["xdp_no_key"] >= 60
        assert counted["steered_by_process"] >= 90
        assert counted["dropped_by_relay"] == 0


@in_the_kernel
def test_one_shard_is_killed_and_comes_back() -> None:
    """docs/traps.md, 17: one dead shard stalled all."""
    with lab("server", "other", "server") as it:

        async def main() -> None:
            async with patiently(), client().connect(it.address, timeout=PATIENCE_S) as connection:

                async def ask(ops: list[Op]) -> None:
                    await connection.send_many(ops)
                    missing = {op.number for op in ops}
                    while missing:
                        missing -= {reply.number for reply in await connection.receive_many()}

                await ask(it.ops())
                it.shards["other"].kill()
                it.shards["other"].wait()
                await connection.send_many(it.ops())
                for _ in range(5):
                    await ask([op for op in it.ops() if shard_of_key(op.key, SHARDS) != 1])
                again = await trio.to_thread.run_sync(it.start_shards, "other")
                await trio.to_thread.run_sync(it.wait_for, again)
                while True:  # until the server has noticed both
                    with trio.move_on_after(0.5):
                        await ask(it.ops())
                        return

        run(it, main)


def gone(left: set[tuple[str, int]]) -> bool:
    return not left & in_kernel()


@in_the_kernel
def test_nothing_is_left() -> None:
    """Of a server that ends, or is killed: no link, no program, no map; the next one finds room."""
    with lab("server", "server", "server") as it:
        for end in (signal.SIGKILL, signal.SIGINT):
            left = held(it.server.pid)
            assert {kind for kind, _ in left} == {"link", "prog", "map"}
            run(it, answered, client(), it.address, it.ops(), "xdp")
            it.server.send_signal(end)
            it.server.wait(LIMIT_S)
            wait_until(partial(gone, left), LIMIT_S, "that nothing is left")
            it.wait_for(it.start_server())
        run(it, answered, client(), it.address, it.ops(), "xdp")


async def offered(by: object, address: Address, targets: list[object]) -> str:
    """Why a server does not have it in the kernel."""
    runtime = Runtime()
    runtime.register(sharding.xdp)
    stack = shard(Op, targets, by=by) | STACK  # type: ignore[arg-type]
    async with (
        patiently(),
        endpoint("kv", stack, runtime=runtime).serving(None, address) as at,
        endpoint("c", STACK, runtime=elsewhere()).connect(("127.0.0.1", at[1])) as connection,
    ):
        told = connection.explain()
        assert told.implementation("shard") == "relay"
        (row,) = [each for each in told.layers if each.type == "shard"]
        return row.reason.partition("not xdp (server): ")[2]


async def here(op: Op) -> Op:
    return op


def its_key(op: Op) -> str | bytes | int:
    return op.key


HERE = ("127.0.0.1", 0)
TARGET: list[object] = [("127.0.0.1", 9)]


async def test_why_it_is_not_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line says what is missing; the server relays."""
    assert await offered(its_key, HERE, TARGET) == (
        "a function finds the key; give the name of a field"
    )
    assert "is a function of this program" in await offered("key", HERE, [here])
    assert "give it that of one interface" in await offered("key", ("0.0.0.0", 0), TARGET)
    assert "limits are 32 and 64" in await offered("k" * 33, HERE, TARGET)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert await offered("key", HERE, TARGET) == "it needs root; run it as root"


@in_the_kernel
async def test_why_this_machine_does_not_offer_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def loaded(self: Loaded, path: Path) -> None:
        raise AssertionError("what can be seen before is looked at before")

    with monkeypatch.context() as patched:
        patched.setattr(Loaded, "__init__", loaded)
        assert "is on the loopback" in await offered("key", HERE, TARGET)
    monkeypatch.setattr(attaching, "interface_with", lambda host: ("eth0", 2))
    with monkeypatch.context() as patched:
        patched.setattr("shutil.which", lambda name: None)
        assert "clang is missing; install it" in await offered("key", HERE, TARGET)

    def refused(self: Loaded, path: Path) -> None:
        raise XdpUnavailable("the kernel refuses the programs: x", "use a newer kernel")

    monkeypatch.setattr(Loaded, "__init__", refused)
    assert await offered("key", HERE, TARGET) == (
        "the kernel refuses the programs: x; use a newer kernel"
    )


@in_the_kernel
def test_an_old_kernel_and_an_interface_that_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is a refusal that says so, and leaves nothing."""
    from p4xos.tables import Address as Place
    from switch.xdp import libbpf

    with hosts(["server"]) as net, net["server"].entered():
        own = Place(net["server"].address, 7000)
        shards = [Place(own.host, 8000)]
        first = SteeringProgram(own, "key", shards)
        first.attach()
        second = SteeringProgram(own, "key", shards)
        with pytest.raises(XdpUnavailable, match="takes no program"):
            second.attach()
        second.close()
        first.close()

        def old(self: libbpf.Program, interface: int) -> int:
            raise OSError(22, "Invalid argument")

        monkeypatch.setattr(libbpf.Program, "attach_egress", old)
        third = SteeringProgram(own, "key", shards)
        with pytest.raises(XdpUnavailable, match=r"use Linux 6\.6 or later"):
            third.attach()
        third.close()
        monkeypatch.undo()
        fourth = SteeringProgram(own, "key", shards)
        fourth.attach(native=False)
        assert fourth.check() is None
        net["server"].namespace.set_up(["link delete dev eth0"])
        assert fourth.check() == "the interface eth0 is gone, and the steering program on it"
        fourth.close()


def test_negotiation_finds_it() -> None:
    points = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    point = EntryPoint("xdp", points[ENTRY_POINTS]["xdp"], ENTRY_POINTS)
    assert point.load() is sharding.xdp
