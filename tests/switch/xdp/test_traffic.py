"""Random packets, large values among them: the kernel's acceptor beside the model's and numpy's.

So many as PACKETS says: `make traffic` runs a million.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from random import Random

from p4xos import wire
from p4xos.tables import Address
from p4xos.testing.model import ModelAcceptor
from p4xos.testing.model.messages import reply
from p4xos.wire import END_OF_LOG, Message, Type
from switch.control.numpy_plane import NumpyPlane
from switch.control.packets import Datagram, frame
from switch.xdp import libbpf
from tests.roles.traffic import CLUSTER, GROUP
from tests.switch.kernel import ReusedXdpPlane, in_the_kernel
from tests.switch.planes import plan, read_slots
from tests.switch.test_conformance import as_a_switch, held, injected, of_a_switch

pytestmark = in_the_kernel
PACKETS = int(os.environ.get("PACKETS", "4000"))
SEED = int(os.environ.get("SEED", "1"))
WINDOW = 64
LIFE = 2000  # packets until both forget and begin anew
VALUE_BYTES = wire.VALUE_BYTES_MAX
ID, INCARNATION = 1, 3
REGISTERS = ("floor", "highest_round", "low", "highest", "seen")
TYPES = [Type.PHASE2A] * 12 + [Type.PHASE1A, Type.LEARN] * 3 + [Type.RECORD, *Type]


def drawn(random: Random, low: int, highest_round: int) -> Message:
    """A message that is mostly about the window and the round as they stand."""
    type = random.choice(TYPES)
    near = low + random.randrange(-4, WINDOW + 4)
    instance = random.choice([near] * 15 + [0, 1, 2**63, END_OF_LOG]) & END_OF_LOG
    other = max(1, (highest_round >> 8) + random.choice([-1, 0, 1])) << 8 | random.randrange(2)
    round = random.choice([highest_round or 1 << 8] * 20 + [other, 0])
    value = random.randbytes(random.choice([0, 3, 8, 24, 64, 200, random.randrange(VALUE_BYTES)]))
    sender = random.randrange(3)
    if type in (Type.PHASE1A, Type.LEARN):
        ends = [END_OF_LOG, instance + 1, instance + 1, instance + random.randrange(2 * WINDOW)]
        value = wire.pack_end(min(random.choice(ends), END_OF_LOG))[: random.choice([8] * 20 + [7])]
    elif type == Type.RECORD:
        value = wire.pack_incarnation(random.randrange(5))
        instance = random.choice([sender] * 9 + [7])
    elif type == Type.READ_INDEX:
        instance = random.randrange(3)
    return reply(
        CLUSTER, GROUP, type, instance=instance, round=round,
        vround=random.randrange(2**32), sender=sender, value=value,
        low=random.choice([0] * 30 + [low, low + 1, low + random.randrange(WINDOW), low + 2**41]),
    )  # fmt: skip


def damaged(random: Random, packet: bytes) -> Iterator[bytes]:
    """A packet with a bit that was turned over, and one that was cut; never its MAC addresses."""
    at = random.randrange(14, len(packet))
    yield packet[:at] + bytes([packet[at] ^ 1 << random.randrange(8)]) + packet[at + 1 :]
    yield packet[: random.randrange(15, len(packet))]


def test_the_kernel_does_what_the_model_and_numpy_do() -> None:
    """docs/PROTOCOL.md, section 3: same packets, same answers byte by byte, same registers."""
    random = Random(SEED)
    happened: Counter[str] = Counter()
    loaded = plan("acceptor", ID, window=WINDOW, value_bytes=VALUE_BYTES, cluster=CLUSTER,
                  group=GROUP)  # fmt: skip
    kernel, numpy = ReusedXdpPlane(), NumpyPlane()
    for plane in (kernel, numpy):
        plane.load(loaded)
    for start in range(0, PACKETS, LIFE):
        model = ModelAcceptor(ID, 3, window=WINDOW, value_bytes=VALUE_BYTES,
                              incarnation=INCARNATION, cluster=CLUSTER, group=GROUP)  # fmt: skip
        for plane in (kernel, numpy):
            plane.reset()
            plane.write("low", 1)
            plane.open(INCARNATION)
        for number in range(start, min(start + LIFE, PACKETS)):
            m = drawn(random, model.low, model.highest_round)
            expected = as_a_switch(model, m)
            told = of_a_switch(expected, model.receive(expected.seen))
            where = f"packet {number} of seed {SEED}: {m}"
            assert injected(kernel, m) == told, where
            assert of_a_switch(expected, injected(numpy, expected.seen)) == told, where
            happened[Type(m.type).name if told else "silence"] += 1
            if number % 16 == 0:
                source = loaded.addresses.get(loaded.sender(m), Address("10.9.9.9", 9))
                good = frame(Datagram(source, loaded.own, bytes(wire.from_messages([m])[0])))
                for packet in damaged(random, good):
                    verdict, _ = kernel.run(packet)
                    assert verdict in (libbpf.XDP_DROP, libbpf.XDP_PASS), where
                    happened["damaged"] += 1
        for plane in (kernel, numpy):
            live = {i: s for i, s in read_slots(plane, loaded).items() if model.in_window(i)}
            registers: dict[str, object] = {name: plane.read(name) for name in REGISTERS}
            assert {**registers, "slots": live} == held(model)
    answered = ("PHASE1A", "PHASE2A", "LEARN", "READ_INDEX", "RECORD", "silence", "damaged")
    assert all(happened[name] > PACKETS / 200 for name in answered), happened
    print(f"{PACKETS} packets of seed {SEED}: {dict(happened)}")
