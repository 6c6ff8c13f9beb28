"""An acceptor that moves to a switch of any kind and back has all that it had.

docs/PROTOCOL.md, section 8; random traffic between the moves: tests/moving/test_memory.py.
"""

from __future__ import annotations

import pytest

from p4xos import wire
from p4xos.roles.acceptor import Acceptor
from p4xos.wire import END_OF_LOG, Frame, Rows, Type
from switch.control.acceptor import SwitchAcceptor
from tests.switch.conftest import SWITCHES, MakePlane
from tests.switch.planes import plan
from tests.switch.switched import same_memory

CLUSTER, GROUP, ID = 0xC1051234, 2, 1
WINDOW, VALUE_BYTES = 8, 32
FRAME = Frame(CLUSTER, GROUP, ID)


def message(type: Type, **fields: int | bytes) -> Rows:
    return wire.encode(CLUSTER, GROUP, type, **fields)  # type: ignore[arg-type]


def promise(round: int, first: int, end: int) -> Rows:
    return message(Type.PHASE1A, instance=first, round=round, value=wire.pack_end(end))


def numpy_acceptor() -> Acceptor:
    return Acceptor(frame=FRAME, acceptors=3, window=WINDOW, value_bytes=VALUE_BYTES)


def remembering() -> Acceptor:
    """One with each kind of thing that there is to remember, its window not at the beginning."""
    acceptor = numpy_acceptor()
    acceptor.join(incarnation=2, round=256, low=21, seen=(4, 2, 0))
    for rows in (
        promise(512, 22, 23),  # bare, and soon below the floor
        promise(600, 21, END_OF_LOG),
        message(Type.PHASE2A, instance=21, round=600, value=b"short"),
        message(Type.PHASE2A, instance=23, round=600),  # a no-op
        message(Type.PHASE2A, instance=25, round=768, low=22, value=b"v" * VALUE_BYTES),
        promise(1024, 25, 26),  # above its vote
        promise(1280, 28, 29),  # bare, above the floor
        message(Type.PHASE2A, instance=29, round=768, value=b"the last"),  # in slot 5
        message(Type.RECORD, instance=2, sender=2, value=wire.pack_incarnation(7)),
    ):
        acceptor.step(rows, 0.0)
    return acceptor


@pytest.mark.parametrize("make", SWITCHES, indirect=True)
def test_all_of_it_comes_back(make: MakePlane) -> None:
    before = remembering()
    memory = before.leave()
    assert memory.instance.tolist() == [22, 23, 25, 28, 29]
    assert (memory.floor, memory.low, memory.highest, memory.votes) == (600, 22, 29, 3)
    loaded = plan(
        "acceptor", ID, window=WINDOW, value_bytes=VALUE_BYTES, cluster=CLUSTER, group=GROUP
    )
    switch = SwitchAcceptor(make(), loaded)
    switch.take(memory)
    assert (switch.incarnation, switch.seen) == (2, (4, 2, 7))
    # It answers as it would have: the vote that it cast, and silence below its promise.
    repeated = message(Type.PHASE2A, instance=29, round=768, value=b"another")
    ((_, told),) = switch.step(repeated.copy(), 0.0).send
    ((_, wanted),) = before.step(repeated, 0.0).send
    assert list(wire.messages(told)) == list(wire.messages(wanted))
    assert switch.step(message(Type.PHASE2A, instance=25, round=768, value=b"v"), 0.0).send == []
    assert switch.step(message(Type.PHASE2A, instance=22, round=512, value=b"v"), 0.0).send == []
    after = numpy_acceptor()
    after.take(switch.leave())
    switch.close()
    same_memory(after.leave(), memory)
    assert after.counters["stale_round"] == before.counters["stale_round"] + 2
