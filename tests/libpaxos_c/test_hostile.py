"""Whatever a server sends: the library closes the connection, and goes on with another one."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from random import Random

import msgpack
import trio

from p4xos.framing import BODY_BYTES_MAX, HEAD_BYTES_MAX, FrameStream, encode_frame
from p4xos.packing import VALUES_MAX, pack_delivered
from tests.libpaxos_c.stand_in import Attack, StandIn, additions, delivered, run, welcome

PORTS = 10
"""As many as a paxos.conf has: the library waits after a round of them only."""
COUNT = struct.Struct(">I")


def frame(head: bytes, body: bytes = b"") -> bytes:
    """A frame whose head need not be one."""
    return struct.pack(">II", len(head), len(body)) + head + body


def greetings() -> Iterator[bytes]:
    """Instead of the answer to hello."""
    yield b"\xc1"
    yield b"HTTP/1.1 400 Bad Request\r\n\r\n" * 10
    yield struct.pack(">II", 0, 0)
    yield struct.pack(">II", HEAD_BYTES_MAX + 1, 0) + bytes(100)
    yield struct.pack(">II", 2**32 - 1, 2**32 - 1) + bytes(100)
    yield frame(b"\xc0")
    yield frame(b"\xc1" * 40)
    yield frame(b"\x81\xa7cluster")
    yield welcome(cluster="text")
    yield welcome(cluster=2**40)
    yield welcome(cluster=-1)
    yield welcome(version=[[[[1]]]])
    yield encode_frame({"node": "n1"})
    yield encode_frame({"node": "n1", "version": 1, "cluster": 1, "log": ""})  # a plain node
    yield encode_frame({"error": "Refused", "text": "no\x00\x1b[31m" * 500})
    yield frame(msgpack.packb({"a": b"x" * 300})[:-1])
    yield frame(b"\x81\xa1a" + b"\x91" * 60_000)  # nested
    yield frame(b"\x81\xa1a\xdd\xff\xff\xff\xff")  # an array of four billion
    yield frame(b"\xdf\xff\xff\xff\xff\xa1a\x01")
    yield frame(b"\x81\xa1a\xdb\xff\xff\xff\xff")
    yield frame(b"\x81\xa1a\xc9\xff\xff\xff\xff\x01")
    yield frame(b"\x81\xa1a\x01\x01")  # bytes behind the map


def answers() -> Iterator[bytes]:
    """Behind a good one."""
    yield encode_frame({"id": 77})
    yield encode_frame({})
    yield encode_frame({"next": 2})
    yield encode_frame({"next": 2}, COUNT.pack(1))
    yield encode_frame({"next": 2}, COUNT.pack(2**32 - 1) + bytes(64))
    yield encode_frame({"next": 2}, COUNT.pack(VALUES_MAX + 1) + bytes(12 * (VALUES_MAX + 1)))
    yield encode_frame({"next": 2}, struct.pack(">IQI", 1, 1, 2**32 - 1) + b"x")
    yield encode_frame({"next": 2}, struct.pack(">IQI", 1, 1, 0) + b"x")
    yield encode_frame({"next": 2}, struct.pack(">IQQII", 2, 1, 2, 2**31, 2**31) + b"x")
    yield encode_frame({"next": 1}, pack_delivered([(0, b"instance 0")]))
    yield encode_frame({"next": 0}, pack_delivered([(2**64 - 1, b"the last one")]))
    yield encode_frame({"next": 3}, pack_delivered([(1, b"a"), (1, b"twice")]))
    yield encode_frame({"next": 9}, pack_delivered([(7, b"ahead")]))
    yield encode_frame({"next": "x"}, pack_delivered([(1, b"a")]))
    yield encode_frame({"error": "Trimmed", "text": "gone", "instance": 1, "low": 9})
    yield encode_frame({"error": 5})
    yield encode_frame({"error": "Unknown", "text": "\xff"})
    yield struct.pack(">II", 1, BODY_BYTES_MAX + 1) + bytes(100)


def spoilt(random: Random) -> Iterator[bytes]:
    """What could be answers, with some bytes changed, left out or put in.

    Not the greeting: a cluster whose number is another one would be believed, and no other then.
    """
    whole = encode_frame({"next": 1}, COUNT.pack(0)) + encode_frame({"id": 99, "text": "x"})
    while True:
        data = bytearray(whole)
        for _ in range(random.randint(1, 6)):
            place = random.randrange(len(data))
            match random.randrange(3):
                case 0:
                    data[place] = random.randrange(256)
                case 1:
                    del data[place : place + random.randint(1, 20)]
                case 2:
                    data[place:place] = random.randbytes(random.randint(1, 20))
        yield welcome() + bytes(data)


def attack(data: bytes) -> Attack:
    """Sends it, however little of it the other side waits for."""

    async def send(stream: trio.SocketStream) -> None:
        await stream.receive_some(1)
        await stream.send_all(data)
        await stream.send_eof()
        while await stream.receive_some(4096):
            pass

    return send


async def survived(programs: Path, tmp_path: Path, attacks: list[bytes]) -> None:
    """Both connections meet them; the program then does its work."""
    log = StandIn()
    log.attacks = [attack(data) for data in attacks]
    async with log.serving(tmp_path, PORTS) as config:
        told = await run(programs / "counter", config, 0, "--adds", 50)
    assert not log.attacks
    assert told["own"] == 50
    assert told["out_of_order"] == 0
    assert sorted(log.values) == sorted(additions(50, 0))


async def test_greetings(programs: Path, tmp_path: Path) -> None:
    await survived(programs, tmp_path, list(greetings()))


async def test_answers(programs: Path, tmp_path: Path) -> None:
    """Each twice, so that most meet the connection that submits and the one that delivers."""
    data = [welcome() + answer for answer in answers()]
    await survived(programs, tmp_path, [*data, *reversed(data)])


async def test_spoilt_conversations(programs: Path, tmp_path: Path) -> None:
    made = spoilt(Random(5))
    await survived(programs, tmp_path, [next(made) for _ in range(60)])


async def test_another_cluster_is_not_believed(programs: Path, tmp_path: Path) -> None:
    """The first that answers says which cluster it is; what was delivered must be of one log."""
    log = StandIn()
    log.append(b"one")
    others = welcome(cluster=9) + delivered(1, [b"of another log", b"too"])

    async def answer(stream: trio.SocketStream) -> None:
        hello = await FrameStream(stream).receive_untrusted()
        assert hello is not None
        await stream.send_all(others if hello.head["cluster"] else welcome())

    log.attacks = [answer] * 6
    async with log.serving(tmp_path) as config:
        told = await run(programs / "counter", config, 0, "--adds", 1)
    assert told["own"] == 1
    assert log.values == [b"one", *additions(1, 0)]
    assert told["last"] == 2
