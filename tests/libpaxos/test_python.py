"""libpaxos' names in Python: in trio, and for scripts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from p4xos.compat import libpaxos
from p4xos.compat.libpaxos import client as client_module
from p4xos.compat.libpaxos.clients import Clients
from p4xos.errors import Overloaded, Trimmed
from p4xos.logstore import Retention
from p4xos.remote_errors import Refused
from tests.libpaxos.peers import Gateways, Peer, gateways, new_conf
from tests.service.clusters import until


@asynccontextmanager
async def served(
    directory: Path, nodes: int = 1, options: str = "", retention: Retention | None = None
) -> AsyncIterator[tuple[Gateways, Path]]:
    """A running cluster, and its paxos.conf."""
    conf = new_conf(3, 3)
    file = directory / "paxos.conf"
    lines = [f"acceptor {k} {a.host} {a.port}" for k, a in enumerate(conf.acceptors)]
    lines += [f"proposer {k} {a.host} {a.port}" for k, a in enumerate(conf.proposers)]
    file.write_text("\n".join([*lines, options]))
    async with gateways(directory, nodes, conf=conf, retention=retention) as cluster:
        yield cluster, file


class Program:
    """A replicated program: it remembers what it is told."""

    def __init__(self) -> None:
        self.delivered: list[tuple[int, bytes]] = []

    def deliver(self, iid: int, value: bytes, size: int, arg: object) -> None:
        assert size == len(value)
        assert arg is self
        self.delivered.append((iid, value))

    async def slowly(self, iid: int, value: bytes, size: int, arg: object) -> None:
        await trio.lowlevel.checkpoint()
        self.deliver(iid, value, size, arg)


async def test_replicas_deliver_alike_while_a_node_goes_and_comes(tmp_path: Path) -> None:
    """What got no answer goes out again through another gateway, and counts once."""
    async with served(tmp_path, 3) as (cluster, file), trio.open_nursery() as base:
        one, other, late = Program(), Program(), Program()
        replica = libpaxos.evpaxos_replica_init(0, file, one.deliver, one, base)
        libpaxos.evlearner_init(file, other.slowly, other, base)
        assert libpaxos.evpaxos_replica_count(replica) == 3
        values = [b"value %d" % k for k in range(3000)]
        submissions = []
        for k, value in enumerate(values):
            submissions.append(libpaxos.evpaxos_replica_submit(replica, value))
            if k == 1000:
                await submissions[0].wait()
                await cluster.stop("n1")
            if k == 2000:
                await trio.sleep(0.1)
                await cluster.start("n1")
        for submission in submissions:
            await submission.wait()
        await until(lambda: len(one.delivered) == len(other.delivered) == 3000)
        assert one.delivered == other.delivered
        assert [iid for iid, _ in one.delivered] == list(range(1, 3001))
        assert sorted(value for _, value in one.delivered) == sorted(values)
        learner = libpaxos.evlearner_init(file, late.deliver, late, base)
        libpaxos.evlearner_set_instance_id(learner, 2990)
        await until(lambda: len(late.delivered) == 10)
        assert late.delivered == one.delivered[2990:]
        libpaxos.evlearner_free(learner)
        base.cancel_scope.cancel()


async def test_a_client_that_the_log_has_forgotten_goes_on_under_another_name(
    tmp_path: Path,
) -> None:
    async with served(tmp_path) as (cluster, file), trio.open_nursery() as base:
        program = Program()
        replica = libpaxos.evpaxos_replica_init(1, file, program.deliver, program, base)
        await libpaxos.evpaxos_replica_submit(replica, b"a").wait()
        cluster["n1"].store.clients = Clients()
        await libpaxos.paxos_submit(replica.submitting, b"b").wait()
        await until(lambda: len(program.delivered) == 2)
        assert program.delivered == [(1, b"a"), (2, b"b")]
        libpaxos.evpaxos_replica_free(replica)
        base.cancel_scope.cancel()


async def test_trims_bounds_and_refusals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = "learner-catch-up no"
    async with served(tmp_path, options=options, retention=Retention(1 << 20, 1 << 10)) as (
        cluster, file,
    ), trio.open_nursery() as base:  # fmt: skip
        async with Peer.connect(cluster.conf.acceptors[0]) as peer:
            await peer.submit(b"before")
            await peer.accepted()
        program = Program()
        replica = libpaxos.evpaxos_replica_init(0, file, program.deliver, program, base)
        gateway = cluster["n1"].gateway
        await until(lambda: gateway.learners == 1)
        with pytest.raises(Refused, match="split it"):
            await libpaxos.evpaxos_replica_submit(replica, b"x" * 500_000).wait()
        assert await libpaxos.evpaxos_replica_submit(replica, b"after").wait() == 2
        await until(lambda: bool(program.delivered))
        assert program.delivered[0] == (2, b"after")
        libpaxos.evpaxos_replica_send_trim(replica, 1)
        await libpaxos.evpaxos_replica_submit(replica, b"more").wait()
        await until(lambda: gateway.counters["trims"] == 1)
        monkeypatch.setattr(client_module, "WAITING_BYTES", 10)
        with pytest.raises(Overloaded):
            libpaxos.evpaxos_replica_submit(replica, b"x" * 11)
        libpaxos.evpaxos_replica_free(replica)
        base.cancel_scope.cancel()


async def test_a_learner_of_what_is_no_longer_kept_is_told(tmp_path: Path) -> None:
    async with served(tmp_path) as (cluster, file):
        store = cluster["n1"].store
        async with Peer.connect(cluster.conf.acceptors[0]) as peer:
            await peer.submit(b"a", b"b", b"c")
            await until(lambda: store.next_iid == 4)
        store._tail.clear()
        store.low_iid = 3
        with pytest.raises(ExceptionGroup) as caught:
            async with trio.open_nursery() as base:
                libpaxos.evlearner_init(file, Program().deliver, None, base)
        assert caught.group_contains(Trimmed)


def test_a_configuration_has_the_names_of_c(tmp_path: Path) -> None:
    file = tmp_path / "paxos.conf"
    file.write_text("a 0 127.0.0.1 1\na 1 127.0.0.1 2\np 0 127.0.0.1 3\n")
    conf = libpaxos.evpaxos_config_read(str(file))
    assert libpaxos.evpaxos_acceptor_count(conf) == 2
    assert libpaxos.evpaxos_acceptor_address(conf, 1) == ("127.0.0.1", 2)
    assert libpaxos.evpaxos_acceptor_listen_port(conf, 0) == 1
    assert libpaxos.evpaxos_proposer_address(conf, 0) == ("127.0.0.1", 3)
    assert libpaxos.evpaxos_proposer_listen_port(conf, 0) == 3
    libpaxos.evpaxos_config_free(conf)


async def test_acceptors_and_proposers_are_the_clusters(
    tmp_path: Path, nursery: trio.Nursery
) -> None:
    file = tmp_path / "paxos.conf"
    file.write_text("r 0 127.0.0.1 1\n")
    proposer = libpaxos.evproposer_init(0, file, nursery)
    libpaxos.evproposer_set_instance_id(proposer, 7)
    libpaxos.evproposer_free(proposer)
    libpaxos.evacceptor_free(libpaxos.evacceptor_init(0, file, nursery))
    with pytest.raises(IndexError):
        libpaxos.evacceptor_init(1, file, nursery)


async def test_scripts_need_no_trio(tmp_path: Path) -> None:
    async with served(tmp_path) as (_, file):

        def script() -> list[tuple[int, bytes]]:
            with libpaxos.Blocking(file) as paxos:
                assert paxos.submit(b"one") == 1
                assert paxos.submit(b"two") == 2
                found = []
                for iid, value in paxos.deliver():
                    found.append((iid, value))
                    if iid == 1:
                        assert next(paxos.deliver(after=1)) == (2, b"two")
                        assert paxos.submit(b"three") == 3
                    if iid == 3:
                        return found
            return []

        found = await trio.to_thread.run_sync(script)
        assert found == [(1, b"one"), (2, b"two"), (3, b"three")]
