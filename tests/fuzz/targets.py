"""Every parser of bytes from outside, and what it owes.

The oracle of each is its docstring in the product: it returns, or raises the documented error and
nothing else; what it returns is encoded again as it came, where there is an encoder; a state
machine keeps its invariants and still does its work afterwards.
"""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from functools import partial
from pathlib import Path
from random import Random
from typing import NamedTuple

import msgpack
import numpy as np
import trio
import trio.testing

from kvstore import archive, cli, commands, digest, dump, packing, patterns
from kvstore.client import errors as client_errors
from kvstore.client import replies as client_replies
from kvstore.commands.table import Entry, Kind
from kvstore.packing import join_value, pack_commands
from kvstore.replies import CommandError, encode
from kvstore.resp import ChunkReader, Command, CommandParser, PlainParser, ProtocolError
from kvstore.shell import read_reply
from kvstore.store import FORMAT as STORE_FORMAT
from kvstore.store import StoreError
from p4xos import cli as p4xos_cli
from p4xos import envelope, fetching, framing, http, placement, reconfiguring, wire
from p4xos import packing as values
from p4xos.chunnels import (
    BadMessage,
    NoAgreement,
    Runtime,
    anycast,
    introductions,
    local_or_remote,
    passes,
    reliable,
    select,
    shard,
    steering,
)
from p4xos.chunnels import messages as chunnel_messages
from p4xos.chunnels import offers as chunnel_offers
from p4xos.chunnels.choosing import Choice, choose
from p4xos.chunnels.discovery.client import view_untrusted
from p4xos.chunnels.discovery.service import data_untrusted, wanted_untrusted
from p4xos.chunnels.negotiation import Answer, ClientNegotiation, ServerNegotiation
from p4xos.chunnels.serialization import Schema, packed, text
from p4xos.chunnels.sharding import field_of
from p4xos.chunnels.singly import SPAN_MESSAGES, Singly
from p4xos.chunnels.stack import Layer as ChunnelLayer
from p4xos.chunnels.view import View
from p4xos.chunnels.window import WINDOW_SEGMENTS, Window
from p4xos.compat.libpaxos import frames as libpaxos_dialect
from p4xos.compat.libpaxos import messages as libpaxos
from p4xos.compat.libpaxos import packs
from p4xos.compat.libpaxos.conf import PaxosConf
from p4xos.config import Cluster, ConfigError
from p4xos.effects import Effects
from p4xos.errors import BadPacket, P4xosError, RoundsExhausted
from p4xos.framing import FrameStream, encode_frame
from p4xos.remote_errors import raise_error_untrusted
from p4xos.sealing import NONCE_BYTES
from p4xos.secret import Secret
from p4xos.service import OPEN_VERSION, SEALED_VERSION, Connection, Service
from p4xos.storage import frames
from p4xos.wire import Message, Type
from switch.bmv2 import thrift
from tests.fuzz.fuzzing import Target, anything, mutated, noise, number, only, pieces
from tests.kvstore.conversations import Replica as Commands
from tests.kvstore.conversations import fresh_replica
from tests.kvstore.replicas import Replica
from tests.libpaxos_c.receiving import Receiver
from tests.roles import helpers

TARGETS: list[Target] = []


def target(weight: int = 1) -> Callable[[Callable[[Random], None]], Callable[[Random], None]]:
    """Adds a function as a target of its name; see `Target`."""

    def add(run: Callable[[Random], None]) -> Callable[[Random], None]:
        TARGETS.append(Target(run.__name__, run, weight))
        return run

    return add


# Datagrams ---------------------------------------------------------------------------------------


def _message(random: Random) -> Message:
    """A well-formed message: near what the roles hold, with fields out of bounds among them."""
    rounds = (0, 1 << 8, 1 << 8 | 1, 2 << 8, 2 << 8 | 1, 3 << 8, 2**32 - 1)
    type = random.choice(list(Type))
    near = random.random() < 0.8
    instance = random.randint(0, 40) if near else number(random, 64)
    round = random.choice(rounds) if near else number(random, 32)
    vround = random.choice((round, 0, random.choice(rounds), number(random, 32)))
    low = random.randint(0, 20) if random.random() < 0.7 else number(random, 64)
    match random.randrange(5):
        case 0:
            value = wire.pack_end(random.choice((instance + 3, number(random, 64))) % 2**64)
        case 1:
            numbers = (number(random, 64), random.choice((0, 1, 2, number(random, 32))))
            seen = tuple(random.choice((0, 0, number(random, 32))) for _ in range(3))
            value = wire.pack_summary(wire.Summary(*numbers, number(random, 32), seen))
        case 2:
            session = random.choice((0, 1, 2, number(random, 64)))
            count = random.choice((1, 1, 2, 3, number(random, 32)))
            fragment = random.choice((0, 1, number(random, 32)))
            sequence = random.choice((1, 2, 3, number(random, 64)))
            value = envelope.seal(session, sequence, noise(random, 24), fragment, count)
        case 3:
            value = envelope.open_value(random.choice((0, 1, 7)), number(random, 64))
        case _:
            value = noise(random, 70)
    rows = wire.encode(
        helpers.CLUSTER, helpers.GROUP, type, instance=instance, round=round, vround=vround,
        sender=random.choice((0, 1, 2)), low=low, value=value,
        incarnation=random.choice((0, 0, number(random, 32))),
    )  # fmt: skip
    return wire.messages(rows)[0]


def _batch(random: Random) -> wire.Rows:
    found = [_message(random) for _ in range(random.choice((1, 2, 5, 12)))]
    if random.random() < 0.4:  # a run, as busy senders make them
        first = found[0]
        found += [
            first._replace(instance=min(first.instance + k, 2**64 - 1))
            for k in range(1, random.choice((3, 20)))
        ]
    return wire.from_messages(found)


@target(weight=4)
def datagrams(random: Random) -> None:
    """Whatever arrives: what is kept is well-formed and its sender's, the rest is counted."""
    stride = random.choice((40, 48, 64, 112))
    rows = np.zeros((random.choice((1, 3, 9, 20)), stride), np.uint8)
    for row in rows:
        good = wire.from_messages([_message(random)])[0].tobytes()
        data = mutated(random, [good])[:stride]
        row[: len(data)] = np.frombuffer(data, np.uint8)
    peer = wire.Peer(helpers.CLUSTER, helpers.GROUP, {Type.PHASE1B: 0, Type.PHASE2B: 0, 3: 2})
    counters = dict.fromkeys(wire.DROP_REASONS, 0)
    kept = wire.decode_untrusted(rows, peer, counters)
    assert len(kept) + sum(counters.values()) == len(rows)
    for m in wire.messages(kept):
        assert peer.senders[m.type] == m.sender
        assert len(m.value) == m.length
        only(BadPacket, lambda m=m: wire.unpack_end(m.value))  # type: ignore[misc]  # bound now
        only(BadPacket, lambda m=m: wire.unpack_summary(m.value, 3))  # type: ignore[misc]
        envelope.open_envelope(m.value)
        envelope.proposer_of_open(m.value)


def _fits(effects: Effects) -> None:
    for _, rows in effects.send:
        assert len(wire.messages(rows)) == len(rows)


@target(weight=6)
def acceptor(random: Random) -> None:
    """Never raises, keeps its invariants, and still votes for who asks properly."""
    role = helpers.acceptor(scalar_below=random.choice((0, 4, 100)))
    for _ in range(random.randint(1, 6)):
        _fits(role.step(_batch(random), 0.0))
        role.check_invariants()
    if role.floor < 2**32 - 1 and role.highest_round < 2**32 - 1:
        round = role.highest_round + 1
        voted = role.step(helpers.phase2a(role.low, round, b"x" * 30), 0.0)
        assert helpers.sent(voted, Type.PHASE2B)


@target(weight=6)
def coordinator(random: Random) -> None:
    """Never raises, whatever others claim, but to stop where rounds end (section 1)."""
    with suppress(RoundsExhausted):
        _coordinate(random)


def _coordinate(random: Random) -> None:
    role = helpers.coordinator(random=lambda: 0.0)
    now = 0.0
    for _ in range(random.randint(1, 10)):
        now += random.choice((0.0, 0.1, 2.0, 30.0))
        asked = role.tick(now)
        role.check_invariants()
        for to, rows in asked.send:
            question = wire.messages(rows)[0]
            for id in range(3):
                if random.random() < 0.7 and question.type == Type.READ_INDEX:
                    _fits(role.step(helpers.reply(id, question.vround, highest=3, round=7), now))
                if random.random() < 0.7 and question.type == Type.PHASE1A and to.id in (None, id):
                    counted = random.choice((0, 1))
                    told = helpers.summary(
                        id, question.round, question.vround, highest=random.choice((0, 3)),
                        votes=counted,
                    )  # fmt: skip
                    role.step(told, now)
                    role.step(helpers.vote_report(id, 3, question.round, 5, b"v" * 30), now)
            role.check_invariants()
        _fits(role.step(_batch(random), now))
        role.check_invariants()


@target(weight=6)
def learner(random: Random) -> None:
    """Never raises but for two values in one round, which is how it stops; then it asks."""
    role = helpers.learner(scalar_below=random.choice((0, 4, 100)))
    for k in range(random.randint(1, 6)):
        # Acceptors tell one value a round: what a message says is taken from what it is about.
        told = [
            m._replace(value=b"%024d" % (m.instance + m.round), length=24)
            if m.type == Type.PHASE2B
            else m
            for m in wire.messages(_batch(random))
        ]
        role.step(wire.from_messages(told), float(k))
        role.tick(float(k))
        role.check_invariants()


@target(weight=6)
def proposer(random: Random) -> None:
    """Never raises on what coordinators and acceptors say."""
    role = helpers.proposer()
    for k in range(random.randint(1, 6)):
        effects = Effects.none()
        with suppress(P4xosError):
            role.submit([noise(random, 150)], float(k), effects)
        role.read(k, float(k), effects)
        role.step(_batch(random), float(k))
        _fits(role.tick(float(k)))


# The peer port -----------------------------------------------------------------------------------

_HEADS: list[dict[str, object]] = [
    {"ask": "hello", "version": OPEN_VERSION, "cluster": 0x77, "peer": True},
    {"ask": "submit", "id": 1}, {"ask": "recover", "id": 2, "instance": 1},
    {"ask": "status", "id": 3}, {"ask": "deliver", "first": 1}, {"ask": "tail", "first": 1},
    {"ask": "copy", "above": 0}, {"ask": "piece", "copy": 1, "name": "a.sst", "offset": 0},
    {"files": {"a.sst": 3, "CURRENT": 1}}, {"error": "Trimmed", "instance": 3, "low": 4},
    {"error": "NoQuorum", "waited_ms": 3}, {"error": "Other", "text": "x"},
    {"data_plane": "p4", "roles": ["acceptor", "coordinator"]},
    {"roles": [["acceptor", 0, "numpy"], ["coordinator", 1, "p4"]]},
    {
        "data_plane": "p4", "moved": [
            {"role": "acceptor", "member": 0, "node": "n1", "from": "numpy", "to": "p4",
             "at_ms": 7, "pause_us": 3, "outstanding": 4, "waited": 0},
        ],
    },
]  # fmt: skip


def _head(random: Random) -> dict[str, object]:
    head = dict(random.choice(_HEADS))
    for key in list(head):
        if random.random() < 0.2:
            head[key] = anything(random)
    return head


def _packed_head(random: Random) -> bytes:
    packed: bytes = msgpack.packb(_head(random))
    if random.random() < 0.3:  # a map with keys that nobody can hash, and the like
        key = msgpack.packb(random.choice(([], {}, [1], 1, None, 1.5, b"ask", "ask")))
        packed = bytes((0x81 + random.randint(0, 1),)) + key + packed[1:]
    return mutated(random, [packed])


@target(weight=40)
def frame_heads(random: Random) -> None:
    """BadPacket and nothing else; and the errors that a head may carry."""
    data = _packed_head(random)
    try:
        head = framing.decode_head_untrusted(data)
    except BadPacket:
        return
    only(P4xosError, lambda: raise_error_untrusted(head))
    only(BadPacket, lambda: fetching._files_untrusted(head))
    for read in (
        placement.plane_untrusted, placement.roles_untrusted, reconfiguring.reconfigured_untrusted,
        reconfiguring.places_untrusted,
    ):  # fmt: skip
        only(BadPacket, partial(read, head))


_PACKED = [
    values.pack_payloads([b"a", b"", b"bcd"]),
    values.pack_delivered([(1, b"x"), (7, b"yz")]),
    values.pack_chosen(helpers.chosen(3, b"a" * 24, b"b" * 30)),
    values.pack_runs([helpers.chosen(3, b"a" * 24), helpers.chosen(9, b"", b"b")]),
    values.pack_instances([1, 2, 2**63]),
]


@target(weight=20)
def packed_values(random: Random) -> None:
    """BadPacket, or what encodes to the same bytes."""
    data = mutated(random, _PACKED)
    with suppress(BadPacket):
        assert values.pack_payloads(values.unpack_payloads_untrusted(data)) == data
    with suppress(BadPacket):
        assert values.pack_delivered(values.unpack_delivered_untrusted(data)) == data
    with suppress(BadPacket):
        assert values.pack_chosen(values.unpack_chosen_untrusted(data)) == data
    with suppress(BadPacket):
        assert values.pack_runs(values.unpack_runs_untrusted(data)) == data
    with suppress(BadPacket):
        assert values.pack_instances(values.unpack_instances_untrusted(data)) == data


async def _send(random: Random, stream: trio.abc.HalfCloseableStream, data: bytes) -> None:
    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        for piece in pieces(random, data):
            await stream.send_all(piece)
        await stream.send_eof()


def _conversation(random: Random) -> bytes:
    """Frames as a peer sends them, some of them spoilt."""
    hello = _HEADS[0]
    if random.random() < 0.5:
        hello |= {"version": SEALED_VERSION, "nonce": random.randbytes(NONCE_BYTES)}
    sent = [encode_frame(hello)] if random.random() < 0.9 else []
    for _ in range(random.randint(0, 5)):
        body = random.choice((b"", b"", mutated(random, _PACKED)))
        if random.random() < 0.3:
            head = _packed_head(random)
            sizes = len(head).to_bytes(4, "big") + len(body).to_bytes(4, "big")
            sent.append(mutated(random, [sizes + head + body]))
        else:
            sent.append(encode_frame(_head(random), body))
    return b"".join(sent)


@target(weight=4)
def frame_streams(random: Random) -> None:
    """Frames, then the end or BadPacket; never more than was sent."""

    async def main() -> None:
        here, there = trio.testing.memory_stream_pair()
        frames_ = FrameStream(here, body_bytes_max=random.choice((0, 1 << 10, 1 << 25)))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_send, random, there, _conversation(random))
            with suppress(BadPacket):
                while await frames_.receive_untrusted() is not None:
                    pass
            await frames_.aclose()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


@target(weight=3)
def service(random: Random) -> None:
    """A connection ends by itself, by an error of the protocol, or stays; none takes the node."""

    async def main() -> None:
        cluster = Cluster.template(3, base_port=7000, cluster_id=0x77)
        secret = random.choice((None, Secret(bytes(32))))
        served = Service(cluster, "n1", lambda: {"node": "n1"}, None, None, secret)
        here, there = trio.testing.memory_stream_pair()
        frames_ = FrameStream(here, body_bytes_max=0)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_send, random, there, _conversation(random))
            nursery.start_soon(_read_all, there)
            with suppress(P4xosError, BadPacket, trio.BrokenResourceError):
                await Connection(served, frames_).run()
            await frames_.aclose()
        assert served.clients == 0

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


async def _read_all(stream: trio.abc.ReceiveStream) -> None:
    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        while await stream.receive_some(1 << 16):
            pass


_HTTP = [
    b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", b"HEAD /healthz?a=b HTTP/1.0\r\n\r\n",
    b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc",
]  # fmt: skip


# The ports of a paxos.conf ------------------------------------------------------------------------

_MESSAGES = [
    msgpack.packb(message, use_bin_type=True)
    for message in (
        [0, 1, 10], [1, 2, 3, 4, 5, b"v"], [2, 1, 10, b"value"], [3, 0, 300, 1, 1, b"x" * 40],
        [4, 1, 70000, 2], [5, 1, 11], [6, 2**32 - 1], [7, 2, 9], [8, b""], [8, b"x" * 300],
    )
] + [msgpack.packb([8, b"v" * 20], use_bin_type=True) * 12]  # fmt: skip


@target(weight=20)
def libpaxos_messages(random: Random) -> None:
    """BadPacket, or the same messages in whatever pieces; never a byte taken twice."""
    data = b"".join(mutated(random, _MESSAGES) for _ in range(random.choice((1, 2, 5))))
    try:
        whole = libpaxos.parse_untrusted(data, 1000)
    except BadPacket:
        whole = None
    held, lengths, found = b"", list[int](), list[libpaxos.Message]()
    try:
        for piece in pieces(random, data):
            parsed = libpaxos.parse_untrusted(held + piece, 1000)
            assert sum(parsed.lengths) == len(parsed.data)
            held = (held + piece)[parsed.used :]
            lengths += parsed.lengths
            found += parsed.messages
    except BadPacket:
        assert whole is None
        return
    assert whole is not None
    assert (lengths, found, held) == (whole.lengths, whole.messages, data[whole.used :])


@target(weight=10)
def libpaxos_frames(random: Random) -> None:
    """BadPacket or a refusal, for whatever stands in a frame."""
    data = _conversation(random)
    with suppress(BadPacket):
        requests, used = libpaxos_dialect.parse_untrusted(data)
        assert used <= len(data)
        for request in requests:
            only(P4xosError, lambda r=request: libpaxos_dialect.check_hello_untrusted(r, 1, "n1"))  # type: ignore[misc]  # bound now
            only(P4xosError, lambda r=request: libpaxos_dialect.read_submit_untrusted(r, 1000))  # type: ignore[misc]


@target(weight=10)
def libpaxos_packs(random: Random) -> None:
    """What the log holds is read without an error, but for what a later release wrote."""
    good = [packs.pack(3, 1, values.pack_payloads([b"a", b"", b"bcd"])), b"plain", packs.MARK]
    with suppress(packs.NewerPack):
        found = packs.read_pack_untrusted(mutated(random, good))
        assert packs.total(found.lengths) == len(found.data)


@target(weight=4)
def paxos_conf(random: Random) -> None:
    """ConfigError, or a file with acceptors."""
    good = [
        b"# all\nacceptor 0 127.0.0.1 8800\nreplica 1 127.0.0.1 8801\np 0 127.0.0.1 1\n",
        b"a 0 127.0.0.1 1\nverbosity info\ntcp-nodelay yes\nlmdb-mapsize 10 mb\n",
    ]
    text = b"".join(mutated(random, good) for _ in range(random.choice((1, 2))))
    with suppress(ConfigError):
        assert PaxosConf.parse(text.decode(errors="replace")).acceptors


@target(weight=4)
def http_requests(random: Random) -> None:
    """A method and a path, or BadRequest, or the client left."""

    async def main() -> None:
        here, there = trio.testing.memory_stream_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_send, random, there, mutated(random, _HTTP))
            with suppress(http.BadRequest, trio.BrokenResourceError):
                method, path = await http._receive_untrusted(here)
                assert method.isalpha()
                assert path.startswith("/")
            await here.aclose()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


# The client port ---------------------------------------------------------------------------------

_REQUESTS = [
    b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$5\r\nhello\r\n*2\r\n$3\r\nGET\r\n$1\r\na\r\n", b"PING\r\n",
    b"SET a \"b\\x41\\n\" 'c\\'d'\r\n", b"*1\r\n$4\r\nPING\r\n*-1\r\n*0\r\n*1\r\n$0\r\n\r\n",
    b"*2\r\n$4\r\nECHO\r\n$12\r\n*1\r\n$1\r\na\r\n\r\n\r\n", b"*1\r\n:5\r\n", b"%1\r\n*0\r\n+a\r\n",
    b"*2\r\n+a\r\n$1\r\n*\r\n$0\r\n\r\n", b"~1\r\n$1\r\n$\r\n", b"%1\r\n$4\r\n\r\n*a\r\n:5\r\n",
    b"*100000\r\n", b"*2\r\n$8388609\r\n", b"*1048577\r\n", b"get a\n\n\r\nget b\r\n",
]  # fmt: skip
_CHUNKS = ChunkReader()  # of all connections, as in the server: none may spoil it for the others


def _plain(data: bytes) -> tuple[list[Command], str | None]:
    parser = PlainParser()
    parser.feed(data)
    found: list[Command] = []
    try:
        while (command := parser.next_command()) is not None:
            found.append(command)
    except ProtocolError as error:
        return found, str(error)
    return found, None


@target(weight=20)
def resp_requests(random: Random) -> None:
    """The same commands and the same error in whatever pieces, by hiredis and by the plain rule."""
    data = b"".join(mutated(random, _REQUESTS) for _ in range(random.choice((1, 1, 2, 4))))
    parser = CommandParser(_CHUNKS)
    found: list[Command] = []
    for piece in pieces(random, data):
        if parser.error is None:
            found += parser.feed(piece)
    assert (found, parser.error) == _plain(data)
    assert CommandParser(_CHUNKS).feed(b"*1\r\n$4\r\nPING\r\n") == [[b"PING"]]


@target(weight=10)
def resp_crowd(random: Random) -> None:
    """Of many clients each command is its own, and nothing of theirs is left for the next."""
    chunks = [mutated(random, _REQUESTS) or b"*" for _ in range(random.choice((1, 2, 8)))]
    chunks += [b"*1\r\n$4\r\nPING\r\n"] * random.choice((0, 1, 8))
    found = _CHUNKS.read_each(chunks)
    assert found is None or [([each], None) for each in found] == [*map(_plain, chunks)]
    assert _CHUNKS.read_each([b"*1\r\n$4\r\nPING\r\n"]) == [[b"PING"]]


_REPLIES = [
    b"+OK\r\n", b"-ERR no\r\n", b":5\r\n", b"$3\r\nabc\r\n", b"*2\r\n:1\r\n$-1\r\n", b"_\r\n",
    b"#t\r\n", b",1.5\r\n", b"%1\r\n+a\r\n:1\r\n", b"~1\r\n:1\r\n", b"=7\r\ntxt:abc\r\n",
    b"(12\r\n",
    b"!3\r\nERR\r\n", b">1\r\n+x\r\n", b"*-1\r\n",
]  # fmt: skip


@target(weight=40)
def shell_replies(random: Random) -> None:
    """What the shell reads from a server: a reply, or ConnectionError."""
    data = mutated(random, _REPLIES)
    only(ConnectionError, lambda: read_reply(io.BytesIO(data)))


@target(weight=10)
def client_reply_kinds(random: Random) -> None:
    """A reply of another kind than the command's is UnexpectedReply."""
    for name in ("integer", "truth", "text", "text_or_none", "done", "was_done", "number"):
        take = getattr(client_replies, name)
        reply = anything(random)
        only(client_errors.UnexpectedReply, lambda take=take, r=reply: take("GET", r))  # type: ignore[misc]


_DUMPS = [dump.dump(value) for value in (b"", b"abc", b"-7", b"12345", b"1234567", b"x" * 100)]
_DUMPS.append(b"\x00\xc3\x05\x0a\x01ab\x20\x00" + b"\x0a\x00" + bytes(8))  # LZF


@target(weight=40)
def dump_payloads(random: Random) -> None:
    """BadPayload, BadFormat or a string, which DUMP and RESTORE keep."""
    payload = mutated(random, _DUMPS)
    if random.random() < 0.8 and len(payload) >= 8:
        payload = payload[:-8] + bytes(8)  # Redis takes 0 for "not summed up"
    try:
        value = dump.restore_untrusted(payload, 1 << 16)
    except (dump.BadPayload, dump.BadFormat):
        return
    assert len(value) <= 1 << 16
    assert dump.restore_untrusted(dump.dump(value), 1 << 16) == value


@target(weight=10)
def glob_patterns(random: Random) -> None:
    """CommandError or an answer, within CPU time that does not explode."""
    letters = b"ab*?[]^-\\"
    pattern = bytes(random.choice(letters) for _ in range(random.choice((3, 10, 40))))
    pattern = random.choice((pattern, b"*a" * 20 + b"b", mutated(random, [pattern])))
    text = random.choice((noise(random), b"a" * 60, b"ab" * 30))
    try:
        glob = patterns.compile_glob(pattern)
    except CommandError:
        return
    matches = glob.matches(text)
    assert glob.choose([text]) == ([text] if matches else [])


_WORDS = (
    b"0", b"1", b"-1", b"5", b"a", b"b", b"c", b"", b"*", b"a*", b"[", b"EX", b"PX", b"NX", b"XX",
    b"GET", b"KEEPTTL", b"COUNT", b"MATCH", b"TYPE", b"string", b"LEN", b"IDX", b"MINMATCHLEN",
    b"WITHMATCHLEN", b"u8", b"i64", b"u64", b"#1", b"SET", b"INCRBY", b"OVERFLOW", b"SAT", b"WRAP",
    b"FAIL", b"BYTE", b"BIT", b"AND", b"NOT", b"XOR", b"REPLACE", b"ABSTTL", b"DB", b"1.5", b"nan",
    b"inf", b"1e400", b"9223372036854775807", b"-9223372036854775808", b"9223372036854775808",
    b"4294967295", b"4294967296", b"00", b"+1", b" 1", b"1 ", b"0x10", b"\xd9\xa1", b"\xb2", b"1_0",
)  # fmt: skip


def _entries() -> list[Entry]:
    """All commands that work on the state."""
    found = []
    for entry in commands.TABLE.values():
        found += [e for e in (entry, *entry.subcommands.values()) if e.kind in _ON_STATE]
    return found


_ON_STATE = (Kind.READ, Kind.WRITE)


@contextmanager
def _kept_replica() -> Iterator[Commands]:
    with tempfile.TemporaryDirectory(prefix="p4xos-fuzz-") as name, fresh_replica(Path(name)) as r:
        yield r


@target()
def command_arguments(random: Random) -> None:
    """Every command that reads or writes: a reply that can be told, or CommandError."""
    entries = _entries()
    with _kept_replica() as replica:
        replica.run(b"set", b"a", b"hello")
        replica.run(b"set", b"b", b"12")
        for _ in range(120):
            entry = random.choice(entries)
            if entry.name in (b"flushall", b"flushdb") and random.random() < 0.9:
                continue
            size = max(entry.minimum - 1, 0) + random.choice((0, 0, 1, 2, 3, 4, 6))
            size = min(size, entry.maximum - 1)
            words = [
                random.choice(_WORDS) if random.random() < 0.9 else noise(random, 20)
                for _ in range(size)
            ]
            if entry.parent and words:
                words[0] = entry.name.split(b"|")[-1]
            name = entry.parent or entry.name
            try:
                reply = entry.handler(replica.keys, [name, *words])
            except CommandError:
                continue
            encode(reply, 2)
            encode(reply, 3)
        assert replica.run(b"set", b"still", b"works") is not None


# Values of the log -------------------------------------------------------------------------------

_STAMP = 1_700_000_000_000
_COMMANDS: list[Command] = [[b"set", b"a", b"1"], [b"incr", b"a"], [b"nosuch", b"b"]]
_VALUES = [
    join_value(pack_commands(_COMMANDS, 0), _STAMP, 1),
    join_value(pack_commands(_COMMANDS, 3), _STAMP, 2),
    join_value([], _STAMP, 0),
    join_value(
        pack_commands(
            [packing.pack_transaction([packing.Watched(0, b"a", 3)], pack_commands(_COMMANDS, 2))],
            0,
        ),
        _STAMP,
        0,
    ),
]


def _value(random: Random) -> bytes:
    if random.random() < 0.3:
        held = [
            random.choice((_STAMP, anything(random))),
            0,
            anything(random),
            [b"set", b"a", b"b"],
        ]
        packed: bytes = msgpack.packb(held)
        return packed
    return mutated(random, _VALUES)


@target(weight=20)
def value_packing(random: Random) -> None:
    """BadValue, or commands of bytes."""
    data = _value(random)
    with suppress(packing.BadValue):
        for command in packing.split_value(data)[2]:
            packing.take_database(command)
            with suppress(packing.BadValue):
                packing.split_transaction(command)
    only(packing.BadValue, lambda: packing.split_transaction([packing.TRANSACTION, data, data]))


@target()
def log_values(random: Random) -> None:
    """Two replicas take the same log, whatever is in it, to the same state, and go on."""
    log = [_value(random) for _ in range(30)]
    with tempfile.TemporaryDirectory(prefix="p4xos-fuzz-") as name:
        one, two = Replica(Path(name) / "1"), Replica(Path(name) / "2", origin=1)
        try:
            for value in log:
                one.apply(value)
            two.apply(*log[:10])
            two.apply(*log[10:])
            assert _hash(one) == _hash(two)
            assert one.run([b"set", b"still", b"works"]) is not None
        finally:
            one.store.abandon()
            two.store.abandon()


def _hash(replica: Replica) -> str:
    return digest.digest_of(replica.store.view(replica.store.applied)).hash


# Files -------------------------------------------------------------------------------------------


def _segment(random: Random) -> bytes:
    """A segment of an acceptor's log."""
    salt, first = 7, 5
    header = frames.SegmentHeader(1, 1, 0, 0, 16, salt, 1, 1, first, 0).pack()
    parts = [header]
    for k in range(random.randint(0, 4)):
        rows = [_batch(random) for _ in range(random.randint(1, 2))]
        parts += [bytes(part) for part in frames.encode_frame(rows, first + k, salt)]
    if random.random() < 0.3:
        parts.append(frames.encode_seal(first + len(parts) - 1, salt))
    parts.append(bytes(8 * random.choice((0, 1, 20))))
    return b"".join(parts)


@target(weight=4)
def acceptor_log(random: Random) -> None:
    """Damage is found: what is read is a beginning of what was written, whole."""
    good = _segment(random)
    expected = frames.scan(good, 7, 5)
    data = mutated(random, [good])
    if not only(frames.BadHeaderError, lambda: frames.unpack_segment_header(data)):
        return
    found = frames.scan(data, 7, 5)
    frames.classify_tail(data, found, 7)
    read = frames.batches(data, found.frames)
    written = frames.batches(good, expected.frames[: len(found.frames)])
    assert [b.rows.tobytes() for b in read] == [b.rows.tobytes() for b in written]


_CLUSTER_FILE = Cluster.template(3, base_port=7000, cluster_id=0x77).to_toml().encode()


@target(weight=6)
def cluster_files(random: Random) -> None:
    """ConfigError, or a cluster that is written and read as the same."""
    lines = _CLUSTER_FILE.split(b"\n")
    if random.random() < 0.5:
        at = random.randrange(len(lines))
        key = lines[at].partition(b"=")[0]
        others = (b"0", b"-1", b"2.5", b'""', b'"x"', b"[]", b"{}", b"true", b"0x" + b"f" * 5000,
                  b"9" * 30, b"1979-05-27", b"nan", b"[" * 2000, b'"127.0.0.1:99999"')  # fmt: skip
        lines[at] = key + b"= " + random.choice(others)
        data = b"\n".join(lines)
    else:
        data = mutated(random, [_CLUSTER_FILE])
    text = data.decode("utf-8", "replace")
    try:
        found = Cluster.parse(text, "cluster.toml")
    except ConfigError:
        return
    assert Cluster.parse(found.to_toml(), "cluster.toml") == found


def _manifest(random: Random) -> bytes:
    data: dict[str, object] = {
        "format": archive.FORMAT, "store_format": STORE_FORMAT, "cluster": "00000077",
        "node": "n1", "taken_at": "now", "applied": 3, "log_time_ms": 1, "keys": 1,
        "databases": {"0": 1}, "state_hash": "ab", "files": {"CURRENT": {"bytes": 1, "sha256": ""}},
    }  # fmt: skip
    for key in list(data):
        if random.random() < 0.1:
            data[key] = anything(random)
        if random.random() < 0.05:
            del data[key]
    with suppress(TypeError):
        data["checksum"] = archive._checksum(data)
        return json.dumps(data).encode()
    return b"{}"


@target()
def backups(random: Random) -> None:
    """BackupError, StoreError, or a good one; nothing is written outside of its directory."""
    with tempfile.TemporaryDirectory(prefix="p4xos-fuzz-") as name:
        inside = Path(name) / "inside"
        (inside / "made" / archive.STATE).mkdir(parents=True)
        (inside / "made" / archive.MANIFEST).write_bytes(_manifest(random))
        (inside / "made" / archive.STATE / "CURRENT").write_bytes(b"x")
        documented = (archive.BackupError, StoreError)
        only(documented, lambda: archive.check(inside / "made"))
        archive.pack(inside / "made", inside / "good.tar")
        data = mutated(random, [(inside / "good.tar").read_bytes()])
        (inside / "spoilt.tar").write_bytes(data)

        def unpack() -> None:
            with archive.unpacked(inside / "spoilt.tar") as directory:
                archive.check(directory)

        only(documented, unpack)
        assert sorted(path.name for path in inside.iterdir()) == ["good.tar", "made", "spoilt.tar"]
        assert [path.name for path in Path(name).iterdir()] == ["inside"]


# Chunnels ----------------------------------------------------------------------------------------

_RUNTIME = Runtime()
_STACK = shard(bytes, [("h", 1)], by="key") | select(reliable(), anycast())
_OFFERS = [
    chunnel_offers.pack(_RUNTIME.offer((_STACK | local_or_remote()).nodes, View())),
    chunnel_offers.pack(_RUNTIME.offer(None, View())),
]


def _negotiated() -> list[bytes]:
    """One datagram of each kind, as two ends exchange them."""
    ours = _RUNTIME.offer((reliable() | local_or_remote()).nodes, View())
    server = ServerNegotiation(b"k" * 32, lambda offer: Answer(choose(offer, ours)))
    client = ClientNegotiation(ours, "fuzz", b"n" * 16, "there", 0.0, 1.0)
    (offer,) = client.tick(0.0)
    answer = server.offer_untrusted(offer, ("h", 1), 0.0)
    assert answer is not None
    ticket = chunnel_messages.unpack_accept_untrusted(answer).ticket
    refuse = chunnel_messages.pack_refuse(chunnel_messages.Refuse(b"n" * 16, "reliable", "no"))
    return [offer, answer, refuse, chunnel_messages.CONFIRM + ticket]


_NEGOTIATED = _negotiated()


@target(weight=20)
def chunnel_negotiation(random: Random) -> None:
    """Offers and answers: BadPacket, or counted; what is agreed on was offered."""
    with suppress(BadPacket):
        offer = chunnel_offers.unpack_untrusted(mutated(random, _OFFERS))
        chunnel_offers.unpack_untrusted(chunnel_offers.pack(offer))
        ours = _RUNTIME.offer((reliable() | local_or_remote()).nodes, View())
        with suppress(NoAgreement):
            choose(offer, ours)
    ours = _RUNTIME.offer((reliable() | local_or_remote()).nodes, View())
    server = ServerNegotiation(b"k" * 32, lambda offer: Answer(choose(offer, ours)))
    client = ClientNegotiation(ours, "fuzz", b"n" * 16, "there", 0.0, 1.0)
    for _ in range(3):
        data = mutated(random, _NEGOTIATED)
        server.offer_untrusted(data, ("h", 1), 0.0)
        server.admit_untrusted(data[1:], random.choice((None, ("h", 1))), 0.0)
        client.receive_untrusted(data)
    assert server.remembered <= 1
    assert client.over or client.tick(0.0)


@target(weight=4)
def chunnel_segments(random: Random) -> None:
    """Whatever arrives, a window never raises, and holds no more than it may."""
    one, other = Window(), Window()
    one.write([noise(random, 300) for _ in range(5)])
    one.finish()
    sent = one.transmit(0.0)
    for _ in range(8):
        other.receive_untrusted(mutated(random, sent), 0.0)
        one.receive_untrusted(mutated(random, other.transmit(1.0) or sent), 1.0)
    assert len(other._ahead) <= WINDOW_SEGMENTS


@target(weight=4)
def chunnel_messages_singly(random: Random) -> None:
    """The same of messages by themselves; what stands on their way says where they go, or none."""
    one, other = Singly(client=True), Singly(1, 5)
    one.write([_TYPED[0], noise(random, 300)])
    sent = one.transmit(0.0)
    for _ in range(8):
        data = mutated(random, sent)
        with suppress(BadPacket):
            key_of = field_of("key")
            assert steering.shard_untrusted(data, 3, key_of, numbered=random.random() < 0.8) in (
                0, 1, 2,
            )  # fmt: skip
        other.receive_untrusted(data, 0.0)
        one.receive_untrusted(mutated(random, other.transmit(1.0) or sent), 1.0)
    assert len(other.unread) <= 8
    assert all(len(each.numbers) <= SPAN_MESSAGES for each in other._heard.values())


_INTRODUCTION = introductions.pack_introduction(
    b"k", introductions.Introduction(b"12345678", "c", ("10.0.0.1", 1), 1, Choice(0, 0, ())), 0.0
)[1:]


@target(weight=4)
def chunnel_introductions(random: Random) -> None:
    """BadPacket, or what can be opened; also of who has the key."""
    data = mutated(random, [_INTRODUCTION])
    if random.random() < 0.8:
        data = introductions._tag(b"k", data[16:]) + data[16:]
    with suppress(BadPacket):
        found = introductions.introduction_untrusted(b"k", data, 0.0)
        assert 0 < found.client[1] < 65536
        assert 0 < found.number <= 64


_TYPED = [b"\x82\xa3key\xa1a\xa5value\xc4\x01b", b'{"key":"a","value":{"\\u0000bytes":"Yg=="}}']
_PICTURE = msgpack.packb(
    {
        "registered": [["shard", "xdp", {"device": "eth0"}]], "free": {"slots": 3},
        "names": {"kv": [["127.0.0.1", 1, ["p", "h", ""]]]}, "key": b"k" * 32,
    }
)  # fmt: skip


@target(weight=8)
def chunnel_discovery(random: Random) -> None:
    """A picture of the service, and what it is asked to hold."""
    with suppress(BadPacket):
        view_untrusted(mutated(random, [_PICTURE]))
    kind = random.choice(("implementation", "instance", "claim", "x"))
    only(BadPacket, lambda: data_untrusted(kind, anything(random)))
    only(BadPacket, lambda: wanted_untrusted(anything(random)))


_PASS = passes.make(b"k" * 32, b"n" * 16, b"an offer", 0.0)


@target(weight=4)
def chunnel_passes(random: Random) -> None:
    """Of whoever has not the key none is good; of others, one time each."""
    guard, key = passes.Guard(), b"k" * 32
    made = mutated(random, [_PASS])
    good = guard.take_untrusted(made, key, b"n" * 16, b"an offer", 0.0)
    assert good == (made == _PASS)
    assert not guard.take_untrusted(made, key, b"n" * 16, b"an offer", 0.0)
    assert guard.remembered == good


@target(weight=8)
def chunnel_messages_of_a_type(random: Random) -> None:
    """A message of the type, or BadMessage."""
    data = mutated(random, _TYPED)
    for codec in (packed, text):
        assert codec.functions is not None
        _, incoming = codec.functions(ChunnelLayer("serialize", Schema.of(_Pair)))
        with suppress(BadMessage):
            (found,) = incoming([data])
            assert isinstance(found, _Pair)
            assert (type(found.key), type(found.value)) == (str, bytes)


class _Pair(NamedTuple):
    key: str
    value: bytes
# A switch's control plane -------------------------------------------------------------------------

_REPLIES = [
    b"\x80\x01\x00\x02\0\0\0\x04read\0\0\0\x01\x0a\0\0" + bytes(8) + b"\0",
    b"\x80\x01\x00\x02\0\0\0\x05count\0\0\0\x02\x0c\0\0\x0a\0\x02" + bytes(8) + b"\0\0",
    b"\x80\x01\x00\x02\0\0\0\x03all\0\0\0\x03\x0f\0\0\x0a\0\0\0\x02" + bytes(16) + b"\0",
    b"\x80\x01\x00\x03\0\0\0\x01f\0\0\0\x04\x0b\0\x01\0\0\0\x02no\x08\0\x02\0\0\0\x01\0",
]


@target()
def thrift_replies(random: Random) -> None:
    """BadPacket, more to come, or a reply: with what follows it, the same one."""
    data = mutated(random, _REPLIES)
    with suppress(BadPacket):
        found = thrift.decode_reply_untrusted(data)
        if found is not None:
            reply, size = found
            assert size <= len(data)
            assert thrift.decode_reply_untrusted(data[:size] + noise(random, 8)) == (reply, size)
            assert thrift.decode_reply_untrusted(data[: size - 1]) is None


# The C library of libpaxos' interface ------------------------------------------------------------

_LIBRARY = Receiver()


def _served(*parts: tuple[dict[str, object], bytes]) -> bytes:
    """What a gateway sends to the library: the answer to its hello, and frames."""
    hello = {"node": "n1", "version": 1, "cluster": 7, "log": "", "libpaxos": 1}
    return b"".join(encode_frame(head, body) for head, body in [(hello, b""), *parts])


def _told(first: int, *told: bytes) -> tuple[dict[str, object], bytes]:
    return (
        {"next": first + len(told)},
        values.pack_delivered([(first + k, value) for k, value in enumerate(told)]),
    )


_DELIVERED = [
    _served(_told(1, b"a", b"", b"c" * 300), _told(4, b"d"), ({"id": 1}, b"")),
    _served(_told(1, *(b"%d" % k for k in range(200)))),
    _served(({"next": 5}, values.pack_delivered([])), _told(5, b"e", b"f")),
    _served(({"error": "Trimmed", "text": "gone", "low": 9, "instance": 1}, b"")),
]
_SETTLED = [
    _served(({"id": 1}, values.pack_instances([7]))),
    _served(({"id": 1, "error": "SessionLost", "text": "forgotten", "session": 3}, b"")),
    _served(({"id": 1, "error": "Refused", "text": "too long"}, b"")),
    _served(({"id": 1, "error": "NoQuorum", "text": "later"}, b"")),
]
_CONFS = [
    b"acceptor 0 127.0.0.1 8800\nacceptor 1 127.0.0.1 8801\nproposer 0 127.0.0.1 8810\n",
    b"# all of it\nreplica 0 10.0.0.1 1\nr 1 10.0.0.2 65535\nverbosity debug\ntcp-nodelay yes\n"
    b"learner-catch-up no\nproposer-timeout 3\nproposer-preexec-window 128\n"
    b"storage-backend lmdb\nacceptor-trash-files no\nlmdb-sync no\nlmdb-env-path /tmp/x\n"
    b"lmdb-mapsize 10mb\n",
    b"a 0 ::1 9\n",
]


@target(weight=4)
def libpaxos_c_delivered(random: Random) -> None:
    """Values in order, and a bad frame at most a connection; never a crash."""
    data = mutated(random, _DELIVERED)
    for kind in (b"d", b"n"):
        word, _, _, _, bad = _LIBRARY.feed(kind, data)
        assert word == "delivered"
        assert int(bad) <= 1
    assert _LIBRARY.feed(b"d", _DELIVERED[0])[:4] == ["delivered", "4", "302", "bad"]


@target(weight=4)
def libpaxos_c_settled(random: Random) -> None:
    """Each value is settled at most once; what is answered properly, is."""
    found = _LIBRARY.feed(b"s", mutated(random, _SETTLED))
    assert found[0] == "settled"
    assert sum(map(int, found[1:6:2])) in (0, 3)
    assert _LIBRARY.feed(b"s", _SETTLED[0])[:2] == ["settled", "3"]


@target(weight=4)
def libpaxos_c_conf(random: Random) -> None:
    """Addresses, or refused."""
    _LIBRARY.feed(b"c", mutated(random, _CONFS))
    assert _LIBRARY.feed(b"c", _CONFS[0]) == ["addresses", "2"]


# Command lines -----------------------------------------------------------------------------------

_ARGUMENTS = (
    "node", "role", "cluster", "status", "recover", "backup", "verify", "restore", "shell", "top",
    "create", "acceptor", "learner", "--cluster", "--name", "--json", "--nodes", "--base-port",
    "--directory", "--to", "--port", "-p", "--hash", "--join", "--storage", "3", "0", "-1", "", "x",
    "99999999999999999999", "1e5", "nan", "\udcff", "--", "--help", "a" * 3000,
    "--log-format", "json",
)  # fmt: skip


@target(weight=2)
def command_lines(random: Random) -> None:
    """Flags, or one message and exit code 2; `--help` is 0."""
    given = [random.choice(_ARGUMENTS) for _ in range(random.randint(0, 8))]
    for parser in (p4xos_cli.build_parser(), cli.build_parser()):
        code: object = 0
        with redirect_stderr(io.StringIO()), redirect_stdout(io.StringIO()):
            try:
                parser.parse_args(given)
            except SystemExit as left:
                code = left.code
        assert code in (0, 2), code
