"""Each peer that is installed, for an instant: what it has acknowledged can be read back."""

from __future__ import annotations

import base64
import json
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import cast
from urllib.request import Request, urlopen

import pytest

from bench.errors import BenchError
from bench.peers.closed_loop import closed_loop
from bench.peers.etcd import Etcd
from bench.peers.grpc import Call
from bench.peers.libpaxos import Libpaxos
from bench.peers.ours import Ours
from bench.peers.peer import Peer, item
from bench.peers.pysyncobj import PySyncObj, order
from bench.peers.redis import RedisAlone, RedisReplicated
from bench.peers.resp import Writes
from bench.peers.scenario import needs, peers
from bench.processes import wait_until
from bench.writers import connect
from p4xos.tables import Address

CLIENTS, SECONDS = 4, 0.1


@pytest.mark.parametrize("peer", peers(), ids=lambda peer: peer.name)
def test_acknowledged_writes_can_be_read(peer: Peer, tmp_path: Path) -> None:
    try:
        needs()
    except BenchError as error:
        pytest.skip(str(error))
    why = peer.missing()
    if why is not None:
        pytest.skip(f"{peer.name}: {why}")
    try:
        peer.start(tmp_path / "run")
        assert peer.load(CLIENTS, "write", SECONDS).per_s > 0
        if peer.reads:
            assert peer.load(CLIENTS, "read", SECONDS).per_s > 0
        check(peer)
    finally:
        peer.stop()
    for address in addresses(peer):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address)


def check(peer: Peer) -> None:
    """Writes again, remembers what was acknowledged, and looks for it."""
    if isinstance(peer, Libpaxos):
        return  # its load counts what a learner has learned; there is no store to read
    if isinstance(peer, PySyncObj):
        check_members(peer)
        return
    (address,) = addresses(peer)
    if isinstance(peer, Etcd):
        outcome = closed_loop(address, CLIENTS, SECONDS, lambda: Call("write", str(address)))
        found = gateway_values(address, outcome.acknowledged)
    else:
        replicas = 1 if isinstance(peer, RedisReplicated) else 0
        outcome = closed_loop(address, CLIENTS, SECONDS, lambda: Writes(replicas))
        with connect(address) as client:
            keys = [item(number)[0] for number in outcome.acknowledged]
            found = cast("list[bytes | None]", client.mget(keys))
    assert len(found) >= CLIENTS
    assert found == [item(number)[1] for number in outcome.acknowledged]


def addresses(peer: Peer) -> list[Address]:
    """Where a peer that runs is connected to."""
    if isinstance(peer, PySyncObj):
        return peer.controls
    return [peer.address] if isinstance(peer, Ours | Etcd | RedisAlone | RedisReplicated) else []


def gateway_values(address: Address, numbers: Iterable[int]) -> list[bytes | None]:
    """By etcd's JSON gateway, so that its own code reads what our frames have written."""
    found = []
    for number in numbers:
        key = base64.b64encode(item(number)[0]).decode()
        data = json.dumps({"key": key}).encode()
        with urlopen(Request(f"http://{address}/v3/kv/range", data)) as answer:
            pairs = json.load(answer).get("kvs", [])
        found.append(base64.b64decode(pairs[0]["value"]) if pairs else None)
    return found


def check_members(peer: PySyncObj) -> None:
    """Every member gets what was acknowledged; the others a heartbeat later."""
    (leader,) = (c for c in peer.controls if order(c, {"do": "look"})["leads"])
    told = order(leader, {"do": "load", "clients": CLIENTS, "seconds": SECONDS})
    items = [item(number) for number in told["acknowledged"]]
    assert len(items) >= CLIENTS
    keys = [key.decode() for key, _ in items]
    values = [value.decode() for _, value in items]
    for control in peer.controls:

        def same(control: Address = control) -> bool:
            return bool(order(control, {"do": "get", "keys": keys})["values"] == values)

        wait_until(same, 30, f"that the member at {control} has all")
