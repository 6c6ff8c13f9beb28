"""The C programs on a real cluster that loses its coordinator."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from bench.processes import Child, children, python_module, wait_until
from p4xos import inquiries
from p4xos.client import Client
from p4xos.compat.libpaxos.clients import Clients, Verdict
from p4xos.compat.libpaxos.packs import Values, read_pack_untrusted
from p4xos.config import Cluster
from p4xos.ports import free_addresses
from p4xos.processes import NODE_LOCK, running_process
from tests.libpaxos_c.stand_in import PATIENCE_S, additions, run
from tests.service.clusters import until

LIMIT_S = 60
ADDS = 300
IDS = (0, 1, 2)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A paxos.conf, and the cluster that is made for it, in `data` beside it."""
    directory = tmp_path_factory.mktemp("cluster")
    path = directory / "paxos.conf"
    addresses = free_addresses(len(IDS))
    path.write_text(
        "".join(f"replica {k} {one.host} {one.port}\n" for k, one in enumerate(addresses))
    )
    flags = ["--config", str(path), "--directory", str(directory / "data")]
    with children() as started:
        launcher = Child(
            "p4xos libpaxos", python_module("p4xos", "libpaxos", *flags), directory / "log.txt"
        )
        started.append(launcher)

        def ready() -> bool:
            assert launcher.running, launcher.log_text()
            return "Ctrl-C" in launcher.log_text()

        wait_until(ready, LIMIT_S, "the launcher's greeting")
        yield path


async def log_values(cluster: Cluster, count: int) -> list[bytes]:
    """The first values of the log in order, as our own learner and the packs' rules have them."""
    values: list[bytes] = []
    clients = Clients()
    async with Client.connect(cluster) as client:
        async for instance, payload in client.deliver():
            pack = read_pack_untrusted(payload)
            if clients.take(pack.client, pack.number, instance) is Verdict.NEW:
                values += [value for _, value in Values(1, pack.lengths, pack.data).each()]
            if len(values) >= count:
                break
    return values


async def test_values_on_a_connection_of_the_programs_own(programs: Path, config: Path) -> None:
    """`paxos_submit` in libpaxos' own form, `evlearner_init` with `learner-catch-up no`."""
    with trio.fail_after(PATIENCE_S):
        told = await run(
            programs / "measure", config, "--through", "proposer", "--id", 1,
            "--outstanding", 20, "--size", 300, "--seconds", 0.5, "--warm-up", 0,
        )  # fmt: skip
    assert int(str(told["values"])) >= 20
    assert told["twice"] == 0


async def test_nothing_is_lost_or_comes_twice_when_the_coordinator_is_killed(
    programs: Path, tmp_path: Path, config: Path
) -> None:
    """Three replicated counters; each has the order and the values of our own learner."""
    cluster = Cluster.load(config.parent / "data" / "cluster.toml")
    traces = {id: tmp_path / f"trace-{id}" for id in IDS}
    told: dict[int, dict[str, object]] = {}

    async def one(id: int) -> None:
        told[id] = await run(
            programs / "counter", config, id, "--adds", ADDS, "--until", ADDS * len(IDS),
            "--at-once", 5, "--trim-every", 100, "--trace", traces[id],
        )  # fmt: skip

    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            for id in IDS[:-1]:
                nursery.start_soon(one, id)
            await until(lambda: all(additions_in(traces[id]) >= 50 for id in IDS[:-1]))
            leader = str((await trio.to_thread.run_sync(inquiries.status, cluster))["leader"])
            pid = running_process(cluster.data_directory(leader.rsplit(" ", 1)[1]) / NODE_LOCK)
            assert pid is not None, leader
            os.kill(pid, signal.SIGKILL)
            nursery.start_soon(one, IDS[-1])  # the others wait for its additions too
        delivered = {id: path.read_text().splitlines() for id, path in traces.items()}
        values = await log_values(cluster, max(map(len, delivered.values())))
    assert sorted(value for value in values if value.startswith(b"add")) == sorted(
        additions(ADDS, *IDS)
    )
    expected = [f"{iid} {value.hex()}" for iid, value in enumerate(values, 1)]
    for id in IDS:
        assert told[id]["own"] == ADDS
        assert told[id]["out_of_order"] == 0
        assert told[id]["sum"] == len(IDS) * ADDS * (ADDS + 1) // 2
        assert delivered[id] == expected[: len(delivered[id])]


def additions_in(trace: Path) -> int:
    """How many were delivered to a counter by now."""
    return trace.read_bytes().count(b" " + b"add".hex().encode()) if trace.exists() else 0
