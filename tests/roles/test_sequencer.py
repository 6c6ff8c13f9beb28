"""The part of the coordinator that a switch can take over (docs/PROTOCOL.md, section 4)."""

import pytest

from p4xos.effects import ACCEPTORS
from p4xos.roles.sequencer import Sequencer
from p4xos.wire import Frame, Type
from tests.roles.helpers import (
    CLUSTER,
    GROUP,
    VALUE_BYTES,
    WINDOW,
    phase2a,
    request,
    round_of,
    sent,
)


def sequencer(round: int = round_of(1, 2), **registers: int) -> Sequencer:
    role = Sequencer(frame=Frame(CLUSTER, GROUP, 2), window=WINDOW, value_bytes=VALUE_BYTES)
    for name, value in registers.items():
        setattr(role, name, value)
    role.round = round
    return role


@pytest.mark.parametrize("count", [1, 3, 12])
def test_requests_become_proposals(count: int) -> None:
    """PROTOCOL 4: next instance, round, low; PHASE2A to all acceptors; next moves on."""
    role = sequencer(next=5, low=4)
    effects = role.step(request(*(b"%d" % k for k in range(count))), 0.0)
    assert {to for to, _ in effects.send} == {ACCEPTORS}
    assert [
        (m.instance, m.round, m.vround, m.sender, m.incarnation, m.low, m.value)
        for m in sent(effects, Type.PHASE2A)
    ] == [(5 + k, round_of(1, 2), 0, 2, 0, 4, b"%d" % k) for k in range(count)]
    assert role.next == 5 + count


def test_inactive_it_drops() -> None:
    """PROTOCOL 4: a switch coordinator starts inactive: round 0, REQUEST dropped."""
    role = sequencer(round=0)
    assert role.step(request(b"a"), 0.0).send == []
    assert (role.next, role.counters["inactive"]) == (1, 1)


@pytest.mark.parametrize("low", [1, 6])
def test_no_instance_at_or_above_low_plus_window(low: int) -> None:
    """PROTOCOL 4: the window bounds what is proposed; the rest of a batch is dropped."""
    role = sequencer(low=low, next=low + WINDOW - 2)
    effects = role.step(request(b"a", b"b", b"c"), 0.0)
    assert [m.instance for m in sent(effects, Type.PHASE2A)] == [low + WINDOW - 2, low + WINDOW - 1]
    assert role.counters["window_full"] == 1
    assert role.step(request(b"d"), 0.0).send == []
    role.low += 1
    assert [m.value for m in sent(role.step(request(b"e"), 0.0), Type.PHASE2A)] == [b"e"]


def test_a_value_that_the_acceptors_cannot_hold_takes_no_instance() -> None:
    """PROTOCOL 4: it is dropped before, so that no instance is left without a proposal."""
    role = sequencer()
    effects = role.step(request(b"a", b"v" * (VALUE_BYTES + 1), b"c"), 0.0)
    assert [(m.instance, m.value) for m in sent(effects, Type.PHASE2A)] == [(1, b"a"), (2, b"c")]
    assert role.counters["value_too_long"] == 1


def test_anything_else_is_silence_and_a_counter() -> None:
    """PROTOCOL 4: the default action."""
    role = sequencer()
    assert role.step(phase2a(1, round_of(9), b"x"), 0.0).send == []
    assert role.counters["ignored"] == 1
