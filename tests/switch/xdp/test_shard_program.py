"""The steering program on packets, without any interface: the same shard as in software has."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

import msgpack
import pytest

from p4xos.chunnels import messages, shard_of, singly, steering
from p4xos.chunnels.sharding import field_of
from p4xos.errors import BadPacket
from p4xos.tables import Address
from switch.control.packets import Datagram, frame, unframe
from switch.xdp import libbpf
from switch.xdp.errors import XdpUnavailable
from switch.xdp.steering import SteeringProgram, Verdict
from tests.switch.kernel import in_the_kernel

pytestmark = in_the_kernel
SERVER, CLIENT = Address("10.0.0.1", 7000), Address("10.0.7.9", 40_000)
SHARDS = [Address("10.0.0.1" if k < 6 else "10.0.0.2", 8000 + k) for k in range(7)]
PLAIN, NUMBERED, PARTLY = b"plain---", b"numbered", b"partly--"
ALL = (1 << len(SHARDS)) - 1
PAYLOAD_BYTES_MAX = 1472
LIFE = 1 << 60
UDP_CHECKSUM_AT = 14 + 20 + 6
NAME = "key"


@pytest.fixture(scope="module")
def program() -> Iterator[SteeringProgram]:
    made = SteeringProgram(SERVER, NAME, SHARDS)
    made.steer(PLAIN, CLIENT, ALL, numbered=False)
    made.steer(NUMBERED, CLIENT, ALL, numbered=True)
    made.steer(PARTLY, CLIENT, ALL & ~0b101, numbered=False)
    yield made
    made.close()


def packet(
    payload: bytes, id: bytes = PLAIN, kind: bytes = messages.DATA, source: Address = CLIENT
) -> bytes:
    return frame(Datagram(source, SERVER, kind + id + payload))


def numbered(message: bytes, acks: int = 0) -> bytes:
    head = singly.HEADER.pack(singly.MESSAGE, 0, 7, 3, LIFE, acks)
    return head + b"".join(singly.NUMBER.pack(k) for k in range(acks)) + message


def op(key: Any, **more: Any) -> bytes:
    packed: bytes = msgpack.packb({"verb": "put", **more, NAME: key, "value": b""})
    return packed


def verdict_of(program: SteeringProgram, given: bytes) -> tuple[Verdict, int, bytes]:
    """What was counted, what the program says, and the packet afterwards."""
    program.counted()
    action, after = program.run(given)
    (counted,) = [name for name, number in program.counted().items() if number]
    return Verdict[counted.removeprefix("xdp_").upper()], action, after


def goes_to(program: SteeringProgram, given: bytes) -> int:
    """The shard of a packet, which is right and whole."""
    verdict, action, after = verdict_of(program, given)
    assert (verdict, action) == (Verdict.STEERED, libbpf.XDP_PASS)
    found, before = unframe(after), unframe(given)
    assert found.source == CLIENT
    assert found.payload == before.payload
    assert after[:14] == given[:14]
    return SHARDS.index(found.destination)


def test_keys_of_all_lengths(program: SteeringProgram) -> None:
    """docs/traps.md, 17: keys shorter than 4 bytes crashed a shard hash."""
    random = Random(0)
    longest = PAYLOAD_BYTES_MAX - 9 - len(op(b"")) - 2 - singly.HEADER.size
    lengths = [*range(70), *random.sample(range(70, longest), 60), 255, 256, longest]
    seen = set()
    for length in lengths:
        text = "".join(map(chr, random.choices(range(1, 128), k=length)))
        for key in (random.randbytes(length), text):
            expected = shard_of(key, len(SHARDS))
            assert goes_to(program, packet(op(key))) == expected
            assert goes_to(program, packet(numbered(op(key)), NUMBERED)) == expected
            seen.add(expected)
    assert seen == set(range(len(SHARDS)))
    assert goes_to(program, packet(op("ö"))) == shard_of("ö", len(SHARDS))


def test_the_key_among_other_fields(program: SteeringProgram) -> None:
    integers = [0, 127, 128, 1 << 10, 1 << 20, 1 << 40, -1, -33, -200, -70_000, -(1 << 40)]
    texts = ["", "x" * 31, "x" * 32, "x" * 300, b"", b"x" * 255, b"x" * 256]
    for value in [None, True, False, 1.5, *integers, *texts]:
        for first in (True, False):
            fields = {"ke": value, "keys": value, "k": "ey", NAME: "here"}
            given = dict(fields.items() if first else reversed(fields.items()))
            packed = msgpack.packb(given)
            expected = shard_of("here", len(SHARDS))
            assert goes_to(program, packet(packed)) == expected, value
    half = msgpack.packb({"f": 1.5, NAME: "k"}, use_single_float=True)
    assert goes_to(program, packet(half)) == shard_of("k", len(SHARDS))


def test_a_key_with_a_long_name(program: SteeringProgram) -> None:
    name = "n" * 32
    made = SteeringProgram(SERVER, name, SHARDS)
    try:
        made.steer(PLAIN, CLIENT, ALL, numbered=False)
        given = packet(msgpack.packb({name[:-1]: "no", name[:-1] + "x": "no", name: "here"}))
        assert goes_to(made, given) == shard_of("here", len(SHARDS))
    finally:
        made.close()
    with pytest.raises(XdpUnavailable, match="33 bytes"):
        SteeringProgram(SERVER, name + "n", SHARDS)


@pytest.mark.parametrize(
    ("verdict", "given"),
    [
        (Verdict.NO_KEY, packet(op(17))),
        (Verdict.NO_KEY, packet(op(None))),
        (Verdict.NO_KEY, packet(op("x", tags=["a"]))),
        (Verdict.NO_KEY, packet(msgpack.packb({"verb": "put"}))),
        (Verdict.NO_KEY, packet(msgpack.packb({str(k): 1 for k in range(20)} | {NAME: "x"}))),
        (Verdict.NO_KEY, packet(msgpack.packb(["a list"]))),
        (Verdict.NO_KEY, packet(b"")),
        (Verdict.NO_KEY, packet(op("cut off here")[:-12])),
        (Verdict.NO_KEY, packet(numbered(op("x"), singly.ACKS_MAX + 1), NUMBERED)),
        (Verdict.NO_KEY, packet(b"\x09" + numbered(op("x"))[1:], NUMBERED)),
        (Verdict.NO_KEY, packet(b"\x01", NUMBERED)),
        (Verdict.NO_KEY, packet(singly.HEADER.pack(singly.ACK, 8, 0, 0, 0, 0), NUMBERED)),
        (Verdict.NO_KEY, packet(singly.HEADER.pack(singly.ACK, 0, 0, 0, 0, 0), NUMBERED)),
        (Verdict.UNKNOWN, packet(op("x"), b"nobody's")),
        (Verdict.STRANGER, packet(op("x"), source=Address("10.0.7.9", 40_001))),
        (Verdict.STRANGER, packet(op("x"), source=SHARDS[0])),
        (Verdict.CONTROL, packet(b"", kind=messages.PING)),
        (Verdict.CONTROL, packet(b"", kind=messages.CLOSE)),
        (Verdict.LENGTH, packet(op("x" * 1470))),
        (Verdict.FOREIGN, frame(Datagram(CLIENT, SHARDS[0], messages.DATA + PLAIN + op("x")))),
        (Verdict.FOREIGN, packet(op("x"))[:45]),
        (Verdict.FOREIGN, b"\xff" * 12 + b"\x08\x06" + bytes(50)),
        (Verdict.FOREIGN, packet(op("x"))[:20] + b"\x20" + packet(op("x"))[21:]),
    ],
)
def test_what_is_left_to_the_process(
    program: SteeringProgram, verdict: Verdict, given: bytes
) -> None:
    assert verdict_of(program, given) == (verdict, libbpf.XDP_PASS, given)


def test_a_shard_that_is_down_is_the_processs(program: SteeringProgram) -> None:
    for key in map(str, range(40)):
        number = shard_of(key, len(SHARDS))
        verdict, _, after = verdict_of(program, packet(op(key), PARTLY))
        if number in (0, 2):
            assert (verdict, after) == (Verdict.SHARD_DOWN, packet(op(key), PARTLY))
        else:
            assert unframe(after).destination == SHARDS[number]


def test_acknowledgements_go_by_whose_message_it_was(program: SteeringProgram) -> None:
    for number in range(len(SHARDS)):
        head = singly.HEADER.pack(singly.ACK, number + 1, 0, 0, LIFE, 3)
        given = packet(head + bytes(3 * singly.NUMBER.size), NUMBERED)
        assert goes_to(program, given) == number


def test_checksums_that_were_left_to_a_device(program: SteeringProgram) -> None:
    """Those of this machine's own packets have the sum of the pseudo header in their place."""
    random = Random(1)
    for length in (*range(20), 100, 1001, 1400):
        whole = packet(op(random.randbytes(length)))
        expected = goes_to(program, whole)
        udp_bytes = len(whole) - 34
        words = [int.from_bytes(whole[at : at + 2], "big") for at in range(26, 34, 2)]
        total = sum(words) + 17 + udp_bytes
        while total >> 16:
            total = (total & 0xFFFF) + (total >> 16)
        partial = whole[:UDP_CHECKSUM_AT] + total.to_bytes(2, "big") + whole[42:]
        verdict, _, after = verdict_of(program, partial)
        assert verdict is Verdict.STEERED
        assert unframe(after).destination == SHARDS[expected]
        none = whole[:UDP_CHECKSUM_AT] + b"\0\0" + whole[42:]
        _, _, after = verdict_of(program, none)
        assert after[UDP_CHECKSUM_AT : UDP_CHECKSUM_AT + 2] == b"\0\0"
        wrong = whole[:-1] + bytes([whole[-1] ^ 1])  # stays wrong: the receiver drops it
        _, _, after = verdict_of(program, wrong)
        with pytest.raises(BadPacket):
            unframe(after)


def test_random_messages_as_in_software(program: SteeringProgram) -> None:
    """Wherever the program says a shard, software says the same one."""
    random = Random(2)
    key_of = field_of(NAME)
    values: list[Any] = [1, -5, 3.5, None, "text", b"bytes", "x" * 40, ["list"], {"a": 1}]
    steered = 0
    for _ in range(1500):
        names = random.sample(["verb", "value", "a", "kex", "longer name"], random.randrange(5))
        fields = {name: random.choice(values) for name in names}
        fields[NAME] = random.choice(["", "k", b"k" * random.randrange(60), 7, "ö" * 9])
        given = list(fields.items())
        random.shuffle(given)
        payload = msgpack.packb(dict(given))
        with_head = random.random() < 0.5
        if with_head:
            payload = numbered(payload, random.randrange(17))
        if random.random() < 0.3:  # cut, or longer
            payload = payload[: random.randrange(len(payload))] + random.randbytes(3)
        sent = packet(payload, NUMBERED if with_head else PLAIN)
        verdict, _, after = verdict_of(program, sent)
        if verdict is not Verdict.STEERED:
            assert verdict is Verdict.NO_KEY
            assert after == sent
            continue
        steered += 1
        try:
            expected = steering.shard_untrusted(payload, len(SHARDS), key_of, numbered=with_head)
        except BadPacket:
            continue  # damaged behind its key: the shard will say so
        assert unframe(after).destination == SHARDS[expected]
    assert steered > 500


def test_a_shard_of_another_machine(program: SteeringProgram) -> None:
    """It is told that the server asks; what it answers goes to the client, from the server."""
    behind = [k == 6 for k in range(7)]
    key = next(str(k) for k in range(99) if shard_of(str(k), 7) == 6)
    made = SteeringProgram(SERVER, NAME, SHARDS)
    try:
        made.steer(PLAIN, CLIENT, ALL, numbered=False)
        given = packet(op(key))
        made.describe(behind, {})
        assert verdict_of(made, given) == (Verdict.NO_WAY, libbpf.XDP_PASS, given)
        reply = frame(Datagram(SHARDS[6], SERVER, messages.DATA + PLAIN + b"the answer"))
        # Before anything was sent on, it is not known by which way the client came.
        assert verdict_of(made, reply) == (Verdict.NO_WAY, libbpf.XDP_PASS, reply)
        made.describe(behind, {SHARDS[6].host: b"\x02by-sh"})
        verdict, action, after = verdict_of(made, given)
        assert (verdict, action) == (Verdict.SENT_ON, libbpf.XDP_REDIRECT)
        assert unframe(after) == (SERVER, SHARDS[6], unframe(given).payload)
        assert (after[:6], after[6:12]) == (b"\x02by-sh", given[:6])
        made.steer(PLAIN, CLIENT, ALL, numbered=False)  # the way back is kept
        verdict, action, after = verdict_of(made, reply)
        assert (verdict, action) == (Verdict.ANSWERED, libbpf.XDP_REDIRECT)
        assert unframe(after) == (SERVER, CLIENT, unframe(reply).payload)
        assert (after[:6], after[6:12]) == (given[6:12], reply[:6])
        made.forget(PLAIN)
        assert verdict_of(made, reply)[0] is Verdict.UNKNOWN
    finally:
        made.close()
    made.steer(PLAIN, CLIENT, ALL, numbered=False)  # a server's connections end after it
    made.forget(PLAIN)


def test_answers_have_the_servers_address(program: SteeringProgram) -> None:
    """Of a shard of this machine, to a client whose messages are steered; nothing else."""
    answers = program._loaded.program("answers")
    data = messages.DATA + NUMBERED + b"an answer"
    for number, shard in enumerate(SHARDS[:6]):
        _, after = answers.run(frame(Datagram(shard, CLIENT, data + bytes(number))))
        assert unframe(after) == (SERVER, CLIENT, data + bytes(number))
    none = bytearray(frame(Datagram(SHARDS[0], CLIENT, data)))
    none[UDP_CHECKSUM_AT : UDP_CHECKSUM_AT + 2] = b"\0\0"
    _, after = answers.run(bytes(none))
    assert after[UDP_CHECKSUM_AT : UDP_CHECKSUM_AT + 2] == b"\0\0"
    assert unframe(after).source == SERVER
    begins = bytearray(frame(Datagram(SHARDS[0], CLIENT, data)))
    begins[20] = 0x20  # more follows
    _, after = answers.run(bytes(begins))
    assert after[34:36] == SERVER.port.to_bytes(2, "big")
    begins[21] = 0x10  # it is what follows, and has no ports
    assert answers.run(bytes(begins))[1] == bytes(begins)
    other = Address("10.0.7.9", 40_001)
    for given in (
        Datagram(SHARDS[0], other, data),
        Datagram(Address("10.0.0.1", 9999), CLIENT, data),
        Datagram(SHARDS[0], CLIENT, messages.DATA + b"nobody's" + b"x"),
        Datagram(SHARDS[0], CLIENT, messages.PING + NUMBERED),
        Datagram(SHARDS[0], CLIENT, b""),
    ):
        assert answers.run(frame(given))[1] == frame(given)


def test_verdicts_are_those_of_the_program() -> None:
    from switch.xdp import FOLDER

    text = (FOLDER / "steering.h").read_text(encoding="utf-8")
    listed = text.split("enum verdict {")[1].split("}")[0]
    names = [line.split(",")[0].strip() for line in listed.splitlines() if line.strip()]
    assert names == [*(each.name for each in Verdict), "VERDICTS"]
