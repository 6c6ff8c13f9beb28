"""The envelope in front of every value (docs/PROTOCOL.md, section 2)."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from p4xos import envelope, wire
from p4xos.envelope import ENVELOPE_BYTES, Envelope
from p4xos.wire import Frame, Type

FRAME = Frame(cluster=9, group=2, sender=1)
PROFILE = settings(deadline=None, derandomize=True, database=None)


def test_an_envelope_by_its_bytes() -> None:
    """PROTOCOL 2: session, sequence, fragment index and count, in network order."""
    value = envelope.seal(0x0102030405060708, 0x090A0B0C0D0E0F10, b"payload", 0x11, 0x12)
    assert value.hex() == "0102030405060708090a0b0c0d0e0f100000001100000012" + b"payload".hex()
    assert envelope.open_envelope(value) == Envelope(0x0102030405060708, 0x090A0B0C0D0E0F10, 17, 18)


def test_an_open_names_its_proposer() -> None:
    """PROTOCOL 5: session 0, the nonce as sequence, the proposer as payload."""
    value = envelope.open_value(proposer=7, nonce=99)
    assert envelope.open_envelope(value) == Envelope(envelope.OPEN_SESSION, 99, 0, 1)
    assert envelope.proposer_of_open(value) == 7
    assert envelope.proposer_of_open(value + b"\0") is None


def test_a_short_value_has_no_envelope() -> None:
    """PROTOCOL 2: a value of length 0 is a no-op; any other shorter than 24 bytes is malformed."""
    assert envelope.open_envelope(b"") is None
    assert envelope.open_envelope(bytes(ENVELOPE_BYTES - 1)) is None


@PROFILE
@given(st.lists(st.binary(max_size=20), min_size=1, max_size=6))
def test_requests_carry_sealed_payloads(payloads: list[bytes]) -> None:
    """PROTOCOL 2: the array form gives the same values as the scalar one."""
    rows = envelope.seal_requests(FRAME, 5, 11, payloads)
    for k, m in enumerate(wire.messages(rows)):
        assert (m.version, m.type, m.group, m.cluster, m.sender) == (1, Type.REQUEST, 2, 9, 1)
        assert m.value == envelope.seal(5, 11 + k, payloads[k])


@PROFILE
@given(st.binary(min_size=1, max_size=100), st.integers(1, 40))
def test_fragments_carry_the_pieces_of_a_payload(payload: bytes, piece_bytes: int) -> None:
    """PROTOCOL 2: consecutive sequences, index and count."""
    rows = envelope.fragment_requests(FRAME, 5, 11, payload, piece_bytes)
    values = [m.value for m in wire.messages(rows)]
    heads = [envelope.open_envelope(value) for value in values]
    assert heads == [Envelope(5, 11 + k, k, len(values)) for k in range(len(values))]
    pieces = [value[ENVELOPE_BYTES:] for value in values]
    assert b"".join(pieces) == payload
    assert all(len(piece) <= piece_bytes for piece in pieces)
