"""Every format that outlives a process or leaves one: the next version is refused, and told of.

One row for each row of docs/versions.md, which a test compares. What is refused stays as it is:
the release that wrote it finds all of it again.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

import numpy as np
import pytest
import trio

from kvstore import archive, commands, dump, packing
from kvstore import store as kv_store
from kvstore.archive import MANIFEST, BackupError
from kvstore.dump import BadPayload, crc64
from kvstore.machine import KvStateMachine, NewerEntry
from kvstore.packing import NEWER, join_value, pack_commands
from kvstore.store import Store, StoreError
from p4xos import logstore, placement, secret, service, wire
from p4xos.chunnels import discovery as spoken
from p4xos.chunnels import messages
from p4xos.chunnels.discovery import client as discovery_client
from p4xos.chunnels.discovery import service as discovery
from p4xos.chunnels.discovery.book import Hold
from p4xos.chunnels.negotiation import Answer, ServerNegotiation
from p4xos.compat.libpaxos import packs
from p4xos.compat.libpaxos import store as pack_store
from p4xos.compat.libpaxos.store import PackStore
from p4xos.config import Cluster
from p4xos.effects import Chosen
from p4xos.framing import encode_frame
from p4xos.log import Delivered
from p4xos.logstore import LogStore, LogStoreError
from p4xos.storage import AcceptorLog, RoundFile, create_mark, directory, frames, rounds
from p4xos.storage.disk import StorageError
from p4xos.tables import Address, ConfigError
from p4xos.wire import Type
from tests.service.clusters import running
from tests.service.test_secret import said

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "versions.md"
CLUSTER, WINDOW = 7, 16


class Refusal(NamedTuple):
    """What was said, and the versions that it must name."""

    text: str
    found: int
    known: int


@contextmanager
def next_version(module: object, name: str) -> Iterator[int]:
    """What a later release would write: this one's code with the number one higher."""
    with pytest.MonkeyPatch.context() as patch:
        found = getattr(module, name) + 1
        patch.setattr(module, name, found)
        yield found


def checksummed(data: bytes) -> bytes:
    return data[:-4] + crc32(data[:-4]).to_bytes(4, "big")


def with_version(path: Path, offset: int, version: int) -> bytes:
    """Changes the version in a file's first record of `size`, its checksum with it."""
    data = bytearray(path.read_bytes())
    struct.pack_into(">I", data, offset, version)
    return bytes(data)


# What is sent -------------------------------------------------------------------------------------


def datagrams(_: Path) -> Refusal:
    """Dropped and counted, in both ways of looking; the node tells who and which (below)."""
    found = wire.VERSION + 1
    for count in (1, 20):
        rows = np.repeat(wire.encode(CLUSTER, 0, Type.PHASE2B, sender=1), count, axis=0)
        wire.headers(rows)["version"][-1] = found
        peer = wire.Peer(CLUSTER, 0, {Type.PHASE2B: 1})
        drops: dict[str, int] = {}
        assert len(wire.decode_untrusted(rows, peer, drops)) == count - 1
        assert (drops, peer.other_version) == ({"version": 1}, found)
    return Refusal(f"version {peer.other_version}, {wire.VERSION}: upgrade", found, wire.VERSION)


# What is in the log -------------------------------------------------------------------------------


def entries(place: Path) -> Refusal:
    """The replica stops before it applies anything of the batch, also what stands before it."""
    found = packing.VERSION + 1
    good = join_value(pack_commands([[b"INCR", b"k"]], 0), 0, 0)
    later = NEWER + bytes((found,)) + good
    store = Store(place / "store", CLUSTER)
    replica = KvStateMachine(store)
    replica.apply([Delivered(1, None, good)], 1, {})
    for payloads in ([later], [good, later], [later, good]):
        batch = [Delivered(2 + k, None, payload) for k, payload in enumerate(payloads)]
        with pytest.raises(NewerEntry) as refused:
            replica.apply(batch, 1 + len(payloads), {b"table": b"x"})
        assert (store.applied, store.keyspaces[0].get(b"k")) == (1, b"1")
    assert refused.value.version == found
    store.close()
    store = Store(place / "store", CLUSTER)
    assert (store.applied, store.keyspaces[0].get(b"k"), store.learner_state()) == (1, b"1", {})
    with next_version(packing, "VERSION"):  # of a release that knows it, nothing is in the way
        KvStateMachine(store).apply([Delivered(2, None, good)], 2, {})
    store.close()
    return Refusal(str(refused.value), found, packing.VERSION)


def test_a_mark_without_a_later_version_is_garbage() -> None:
    """Which is skipped by all alike, as before: no release writes it."""
    assert packing.newer_version(NEWER) is None
    for version in range(packing.VERSION + 1):
        assert packing.newer_version(NEWER + bytes((version,))) is None
    assert packing.newer_version(b"") is None
    assert packing.newer_version(join_value([], 0, 0)) is None


WRITERS_OF_VERSION_1 = [
    "append", "bitfield", "bitop", "copy", "decr", "decrby", "del", "eval", "evalsha", "expire",
    "expireat", "flushall", "flushdb", "getdel", "getex", "getset", "incr", "incrby",
    "incrbyfloat", "move", "mset", "msetnx", "persist", "pexpire", "pexpireat", "psetex",
    "rename", "renamenx", "restore", "set", "setbit", "setex", "setnx", "setrange", "swapdb",
    "unlink",
]  # fmt: skip


def test_commands_that_write_are_those_of_their_version() -> None:
    """A replica of an older release skips a command that it does not know, and is then another.

    Once this release is in use, a new name here needs values of version 2 (`kvstore.packing`).
    """
    writers = {name.decode() for name, entry in commands.TABLE.items() if entry.writes}
    assert writers == set(WRITERS_OF_VERSION_1), "pack what is new as the next version"


# What is on the disk ------------------------------------------------------------------------------


def new_mark(place: Path) -> Refusal:
    create_mark(place, cluster=CLUSTER, group=0, acceptor=0)
    path = place / directory.MARK_NAME
    found = directory._MARK_VERSION + 1
    path.write_bytes(checksummed(with_version(path, 8, found)))
    before = path.read_bytes()
    with pytest.raises(StorageError) as refused:
        open_acceptor(place)
    assert path.read_bytes() == before, "it is not used up"
    assert not list(place.glob("segment-*"))
    return Refusal(str(refused.value), found, directory._MARK_VERSION)


def open_acceptor(place: Path) -> AcceptorLog:
    opened = AcceptorLog.open(
        place, cluster=CLUSTER, group=0, acceptor=0, window=WINDOW, carry_over=list
    )
    assert not isinstance(opened, directory.Forgetful), opened
    return opened.log


def acceptor_log(place: Path) -> Refusal:
    create_mark(place, cluster=CLUSTER, group=0, acceptor=0)
    log = open_acceptor(place)
    log.append([wire.encode(CLUSTER, 0, Type.PHASE2B, instance=3, value=b"voted")])
    log.close()
    (path,) = place.glob("segment-*")
    found = frames.FORMAT_VERSION + 1
    good = path.read_bytes()
    data = bytearray(good)
    struct.pack_into(">I", data, 8, found)
    data[: frames.SEGMENT_HEADER_BYTES] = checksummed(bytes(data[: frames.SEGMENT_HEADER_BYTES]))
    path.write_bytes(data)
    with pytest.raises(StorageError) as refused:
        open_acceptor(place)
    assert path.read_bytes() == data
    path.write_bytes(good)
    open_acceptor(place).close()
    return Refusal(str(refused.value), found, frames.FORMAT_VERSION)


def round_file(place: Path) -> Refusal:
    path = place / "round"
    file = RoundFile(path, cluster=CLUSTER, group=0, coordinator=0)
    with next_version(rounds, "_VERSION") as found:
        file.write(513)
    before = path.read_bytes()
    with pytest.raises(StorageError) as refused:
        RoundFile(path, cluster=CLUSTER, group=0, coordinator=0).read()
    assert path.read_bytes() == before
    return Refusal(str(refused.value), found, rounds._VERSION)


def written_store(place: Path) -> Store:
    store = Store(place, CLUSTER)
    value = join_value(pack_commands([[b"SET", b"k", place.name.encode()]], 0), 0, 0)
    KvStateMachine(store).apply([Delivered(1, None, value)], 1, {b"table": b"\x92\x90\x90"})
    return store


def store_data(place: Path) -> Refusal:
    with next_version(kv_store, "FORMAT") as found:
        written_store(place / "later").close()
    for _ in range(2):  # refusing changes nothing
        with pytest.raises(StoreError) as refused:
            Store(place / "later", CLUSTER)
    with next_version(kv_store, "FORMAT"):
        store = Store(place / "later", CLUSTER)
        assert (store.applied, store.keyspaces[0].get(b"k")) == (1, b"later")
        assert store.learner_state() == {b"table": b"\x92\x90\x90"}
        store.close()
    return Refusal(str(refused.value), found, kv_store.FORMAT)


def store_copy(place: Path) -> Refusal:
    """What a peer of a later release gives: it is not installed, and the state stays."""
    with next_version(kv_store, "FORMAT") as found:
        later = written_store(place / "later")
        later.write_out()
        later.snapshot(place / "copy")
        later.close()
    store = written_store(place / "own")
    with pytest.raises(StoreError) as refused:
        store.install(place / "copy")
    assert store.keyspaces[0].get(b"k") == b"own"
    store.close()
    store = Store(place / "own", CLUSTER)
    assert (store.applied, store.keyspaces[0].get(b"k")) == (1, b"own")
    store.close()
    return Refusal(str(refused.value), found, kv_store.FORMAT)


def chosen(value: bytes) -> Chosen:
    return Chosen(1, np.frombuffer(value, np.uint8).reshape(1, -1), np.array([len(value)]))


def written_log(place: Path) -> LogStore:
    log = LogStore(place, CLUSTER)
    log.append(chosen(b"value"))
    log.apply([], 1, {b"table": b"\x92\x90\x90"})
    log.sync()
    return log


def log_data(place: Path) -> Refusal:
    with next_version(logstore, "FORMAT") as found:
        written_log(place / "later").close()
    for _ in range(2):
        with pytest.raises(LogStoreError) as refused:
            LogStore(place / "later", CLUSTER)
    with next_version(logstore, "FORMAT"):
        log = LogStore(place / "later", CLUSTER)
        assert log.applied == 1
        log.close()
    return Refusal(str(refused.value), found, logstore.FORMAT)


def log_copy(place: Path) -> Refusal:
    with next_version(logstore, "FORMAT") as found:
        later = written_log(place / "later")
        later.snapshot(place / "copy")
        later.close()
    log = LogStore(place / "own", CLUSTER)
    with pytest.raises(LogStoreError) as refused:
        log.install(place / "copy")
    assert log.applied == 0
    log.close()
    LogStore(place / "own", CLUSTER).close()
    return Refusal(str(refused.value), found, logstore.FORMAT)


def libpaxos_count(place: Path) -> Refusal:
    with next_version(pack_store, "FORMAT") as found:
        log = PackStore(place, CLUSTER)
        log.append(chosen(b"v" * 24))
        log.apply([], 1, {})
        log.close()
    with pytest.raises(LogStoreError) as refused:
        PackStore(place, CLUSTER)
    return Refusal(str(refused.value), found, pack_store.FORMAT)


def libpaxos_pack(_: Path) -> Refusal:
    with next_version(packs, "VERSION") as found:
        later = packs.MARK[:3] + b"%d" % found
    with pytest.raises(packs.NewerPack) as refused:
        packs.read_pack_untrusted(later + b"whatever")
    return Refusal(str(refused.value), found, packs.VERSION)


def backup(place: Path) -> Refusal:
    store = written_store(place / "own")
    store.write_out()
    (place / "backup").mkdir()
    store.snapshot(place / "backup" / archive.STATE)
    store.close()
    with next_version(archive, "FORMAT") as found:
        manifest = archive.describe(place / "backup" / archive.STATE, "n1", "today")
        archive.write_manifest(place / "backup", manifest)
    with pytest.raises(BackupError) as refused:
        archive.check(place / "backup")
    assert json.loads((place / "backup" / MANIFEST).read_text())["format"] == found
    with next_version(archive, "FORMAT"):
        archive.check(place / "backup")
    return Refusal(str(refused.value), found, archive.FORMAT)


# What people and programs hand in -----------------------------------------------------------------


def dumped(_: Path) -> Refusal:
    found = dump._VERSION_MAX + 1
    body = dump.dump(b"value")[:-10] + struct.pack("<H", found)
    with pytest.raises(BadPayload) as refused:
        dump.restore_untrusted(body + struct.pack("<Q", crc64(body)), 100)
    body = body[:-2] + struct.pack("<H", dump._VERSION_MAX)
    assert dump.restore_untrusted(body + struct.pack("<Q", crc64(body)), 100) == b"value"
    return Refusal(str(refused.value), found, dump._VERSION_MAX)


def moved_role(place: Path) -> Refusal:
    cluster = Cluster.template(1, storage="memory", directory=place)
    with next_version(placement, "_VERSION") as found:
        placement.write(cluster, "acceptor", 0, "numpy")
    path = placement.plane_file(cluster, "acceptor", 0)
    before = path.read_bytes()
    with pytest.raises(ConfigError) as refused:
        placement.read(cluster, "acceptor", 0)
    assert path.read_bytes() == before
    return Refusal(str(refused.value), found, placement._VERSION)


def secret_file(place: Path) -> Refusal:
    path = place / secret.SECRET_NAME
    with next_version(secret, "VERSION") as found:
        secret.create(path)
    before = path.read_bytes()
    with pytest.raises(ConfigError) as refused:
        secret.read(path)
    with pytest.raises(secret.SecretExists):
        secret.create(path)
    assert path.read_bytes() == before
    return Refusal(str(refused.value), found, secret.VERSION)


def negotiation(_: Path) -> Refusal:
    """A client of a later release is told by the server's answer, which it reads."""
    nonce = b"n" * messages.NONCE_BYTES
    with next_version(messages, "VERSION") as found:
        offer = messages.pack_offer(nonce, "client", b"")

    def choose(offer: object) -> Answer:
        raise AssertionError("nothing is chosen")

    answer = ServerNegotiation(b"k" * 32, choose).offer_untrusted(offer, ("10.0.0.1", 1), 0.0)
    assert answer is not None
    with next_version(messages, "VERSION"):
        refuse = messages.unpack_refuse_untrusted(answer)
    assert refuse.nonce == nonce
    return Refusal(refuse.why, found, messages.VERSION)


def discovery_state(place: Path) -> Refusal:
    path = place / "discovery.sock"
    service = discovery.Service(path)
    hold = Hold("implementation", 1.0, 1.0, {"capacities": {}}, ["true"])
    service.book.hold(hold)
    with next_version(discovery, "STATE_VERSION") as found:
        service._tell()
    state = place / "discovery.sock.state"
    before = state.read_bytes()
    with pytest.raises(discovery.NewerState) as refused:
        discovery.Service(path)._stored_holds()
    assert state.read_bytes() == before
    return Refusal(str(refused.value), found, discovery.STATE_VERSION)


REFUSED: dict[str, Callable[[Path], Refusal]] = {
    "datagrams": datagrams,
    "entries of the store's log": entries,
    "mark of a new acceptor": new_mark,
    "acceptor's log": acceptor_log,
    "round file": round_file,
    "data of the store": store_data,
    "copy of the store": store_copy,
    "data of a plain log": log_data,
    "copy of a plain log": log_copy,
    "count of libpaxos' values": libpaxos_count,
    "packs of libpaxos' values": libpaxos_pack,
    "backup": backup,
    "DUMP payload": dumped,
    "data plane of a role that moved": moved_role,
    "secret": secret_file,
    "negotiation of Chunnels": negotiation,
    "what outlives the discovery service": discovery_state,
}
ELSEWHERE = {"connections of peers", "discovery service", "cluster file"}
"""Those that have a test of their own below."""


@pytest.mark.parametrize("name", REFUSED)
def test_the_next_version_is_refused(tmp_path: Path, name: str) -> None:
    refused = REFUSED[name](tmp_path)
    numbers = set(map(int, re.findall(r"(?<![\w/.-])\d+\b", refused.text)))
    assert {refused.found, refused.known} <= numbers, refused.text
    assert re.search(r"upgrade|release|program that wrote it", refused.text), refused.text


def test_the_page_has_a_row_for_each() -> None:
    rows = re.findall(r"^\| ([^|]+?) \| `", PAGE.read_text(), flags=re.MULTILINE)
    assert sorted(rows) == sorted([*REFUSED, *ELSEWHERE])


@pytest.mark.parametrize("sealed", [True, False])
async def test_connections_of_peers(tmp_path: Path, sealed: bool) -> None:
    speaks = service.SEALED_VERSION if sealed else service.OPEN_VERSION
    later = service.SEALED_VERSION + 1
    async with running(tmp_path, nodes=1, sealed=sealed) as nodes:
        hello = {"ask": "hello", "version": later, "cluster": 0, "peer": True, "nonce": bytes(32)}
        answer = await said(nodes.cluster.nodes[0].peer, encode_frame(hello))
        assert f"speaks version {speaks} of this service and you {later}".encode() in answer
        assert b"upgrade the older one" in answer


async def test_discovery_service(tmp_path: Path) -> None:
    path = tmp_path / "discovery.sock"
    async with trio.open_nursery() as nursery:
        await nursery.start(discovery.Service(path).run)
        with next_version(discovery_client, "VERSION") as later:
            view = await discovery_client.Discovery(path).look()
        assert f"speaks version {spoken.VERSION} and you {later}" in view.note
        assert "upgrade the older one" in view.note
        nursery.cancel_scope.cancel()


async def test_a_node_tells_who_sends_datagrams_of_another_version(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path, nodes=1) as nodes:
        node, address = nodes.running["n1"], Address("10.0.0.9", 7131)
    node.directory.peers[address] = peer = wire.Peer(nodes.cluster.id, 0, {})
    told: dict[tuple[str, int], int] = {}
    for version in (wire.VERSION + 1, wire.VERSION + 1, 0):
        peer.other_version = version
        node._tell_versions(told)
    lines = [line.getMessage() for line in caplog.records if "datagrams of" in line.getMessage()]
    assert lines == [
        f"datagrams of version {wire.VERSION + 1} from 10.0.0.9:7131 are dropped: this node "
        f"speaks version {wire.VERSION}; upgrade this node",
        f"datagrams of version 0 from 10.0.0.9:7131 are dropped: this node speaks version "
        f"{wire.VERSION}; upgrade the node there",
    ]


def test_a_cluster_file_of_a_later_release() -> None:
    """It has keys that this one does not know, and each is refused by name: that is its version."""
    text = Cluster.template(1).to_toml()
    for known, more in (
        ("[cluster]", 'compression = "yes"'), ("[timing]", "patience_s = 1"),
        ("[[node]]", "weight = 2"), ("[cluster]", "version = 2"),
    ):  # fmt: skip
        key = more.split()[0]
        with pytest.raises(ConfigError, match=f'"{key}": this key is unknown'):
            Cluster.parse(text.replace(known, f"{known}\n{more}", 1), "cluster.toml")
    with pytest.raises(ConfigError, match='the table "witness" is unknown'):
        Cluster.parse(text + "\n[[witness]]\nid = 1\n", "cluster.toml")
