"""Sessions and fragments, one chosen value at a time: docs/PROTOCOL.md sections 2 and 5.

What every learner does alike with the chosen values in instance order, so that a command is
applied once or refused, and never applied in part:

    no-op                                nothing
    shorter than its envelope            counted; there is nobody to tell
    OPEN, the living session's nonce     nothing: the same OPEN, chosen twice
    OPEN                                 the proposer's old session goes; Opened
    unknown session                      Refused, session lost
    sequence too far ahead               Refused
    impossible fragment                  counted
    sequence already taken               nothing: a retried value, chosen twice
    whole command                        Delivered
    fragment                             kept; the last one missing delivers the joined command
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

from p4xos.effects import Opened, Refused
from p4xos.envelope import (
    ENVELOPE_BYTES,
    OPEN_SESSION,
    Envelope,
    open_envelope,
    proposer_of_open,
)

SESSIONS_MAX = 4_096
"""Rows at most; one more evicts the one used least recently, by instance."""

SESSION_AHEAD = 65_536
"""Sequences that may be taken beyond the contiguous ones of a session."""

HALF_RECEIVED_BYTES = 64 * 2**20
"""Payload bytes at most of commands whose fragments are not all there."""


class Delivered(NamedTuple):
    """One command: its instance is that of the fragment that completed it."""

    instance: int
    session: int
    sequence: int
    payload: bytes


Event = Delivered | Opened | Refused


@dataclass
class Session:
    """One proposer's session; its id is the instance that chose its OPEN."""

    proposer: int
    nonce: int
    last_used: int
    through: int = 0
    above: set[int] = field(default_factory=set)

    def taken(self, sequence: int) -> bool:
        """Whether this sequence has been delivered, kept as a fragment, or given up."""
        return sequence <= self.through or sequence in self.above

    def take(self, sequence: int) -> None:
        """Marks a sequence; what is contiguous from 1 needs no set."""
        self.above.add(sequence)
        while self.through + 1 in self.above:
            self.through += 1
            self.above.remove(self.through)


@dataclass
class HalfReceived:
    """A command of which some fragments have come."""

    first_instance: int
    fragments: int
    pieces: dict[int, bytes] = field(default_factory=dict)

    def bytes(self) -> int:
        """Payload bytes held."""
        return sum(len(piece) for piece in self.pieces.values())


class ModelSessions:
    """The table that decides, at every learner alike, what a chosen value does."""

    def __init__(
        self,
        *,
        window: int,
        sessions_max: int = SESSIONS_MAX,
        ahead: int = SESSION_AHEAD,
        half_received_bytes: int = HALF_RECEIVED_BYTES,
    ) -> None:
        self.fragments_max = window // 4
        self.sessions_max, self.ahead = sessions_max, ahead
        self.half_received_bytes = half_received_bytes
        self.sessions: dict[int, Session] = {}
        self.half: dict[tuple[int, int], HalfReceived] = {}
        self.dropped: Counter[str] = Counter()

    def apply(self, instance: int, value: bytes) -> list[Event]:
        """The chosen value of the next instance."""
        if value == b"":
            return []
        envelope = open_envelope(value)
        if envelope is None:
            return self.drop("malformed_value")
        if envelope.session == OPEN_SESSION:
            return self.open(instance, envelope, value)
        return self.take(instance, envelope, value[ENVELOPE_BYTES:])

    def drop(self, reason: str) -> list[Event]:
        """Nothing happens, and a reason is counted."""
        self.dropped[reason] += 1
        return []

    def refuse(self, instance: int, envelope: Envelope, *, session_lost: bool) -> list[Event]:
        """Never applied; its submitter learns that the outcome is unknown."""
        self.dropped["refused"] += 1
        return [Refused(instance, envelope.session, envelope.sequence, session_lost)]

    # Sessions ------------------------------------------------------------------------------------

    def open(self, instance: int, envelope: Envelope, value: bytes) -> list[Event]:
        """OPEN: a proposer has one session, its newest."""
        proposer, nonce = proposer_of_open(value), envelope.sequence
        if proposer is None:
            return self.drop("malformed_value")
        for id, session in list(self.sessions.items()):
            if session.proposer == proposer and session.nonce == nonce:
                return self.drop("duplicates")
            if session.proposer == proposer:
                self.close(id)
        if len(self.sessions) == self.sessions_max:
            self.close(min(self.sessions, key=lambda id: (self.sessions[id].last_used, id)))
        self.sessions[instance] = Session(proposer, nonce, last_used=instance)
        return [Opened(instance, proposer, nonce)]

    def close(self, id: int) -> None:
        """Forgets a session and its half-received commands: no fragment of it is taken any more."""
        del self.sessions[id]
        self.half = {key: half for key, half in self.half.items() if key[0] != id}

    def take(self, instance: int, envelope: Envelope, payload: bytes) -> list[Event]:
        """A value of a session: applied once, or refused by every learner."""
        session = self.sessions.get(envelope.session)
        if session is None:
            return self.refuse(instance, envelope, session_lost=True)
        if envelope.sequence > session.through + self.ahead:
            return self.refuse(instance, envelope, session_lost=False)
        session.last_used = instance
        if not self.possible(envelope):
            return self.drop("malformed_value")
        if session.taken(envelope.sequence):
            return self.drop("duplicates")
        session.take(envelope.sequence)
        if envelope.fragments == 1:
            return [Delivered(instance, envelope.session, envelope.sequence, payload)]
        return self.join(instance, envelope, payload)

    # Fragments -----------------------------------------------------------------------------------

    def possible(self, envelope: Envelope) -> bool:
        """Whether index and count can belong to a command, and to what is held of it already."""
        if envelope.fragments == 1:
            return envelope.fragment == 0
        base = envelope.sequence - envelope.fragment
        half = self.half.get((envelope.session, base))
        return (
            envelope.fragment < envelope.fragments <= self.fragments_max
            and base >= 1
            and (half is None or half.fragments == envelope.fragments)
        )

    def join(self, instance: int, envelope: Envelope, payload: bytes) -> list[Event]:
        """Keeps a fragment; delivers the command when it was the last one missing."""
        base = envelope.sequence - envelope.fragment
        key = (envelope.session, base)
        half = self.half.setdefault(key, HalfReceived(instance, envelope.fragments))
        half.pieces[envelope.fragment] = payload
        if len(half.pieces) == half.fragments:
            del self.half[key]
            joined = b"".join(half.pieces[index] for index in range(half.fragments))
            return [Delivered(instance, envelope.session, base, joined)]
        return self.give_up(instance)

    def give_up(self, instance: int) -> list[Event]:
        """Evicts the oldest half-received commands until the rest is within the bound.

        All sequences of an evicted command count as taken, so that fragments of it which come
        later are dropped as duplicates and can never make it whole.
        """
        events: list[Event] = []
        while sum(half.bytes() for half in self.half.values()) > self.half_received_bytes:
            session_id, base = oldest = min(
                self.half, key=lambda key: self.half[key].first_instance
            )
            evicted = self.half.pop(oldest)
            for sequence in range(base, base + evicted.fragments):
                if not self.sessions[session_id].taken(sequence):
                    self.sessions[session_id].take(sequence)
            self.dropped["half_received_evicted"] += 1
            events.append(Refused(instance, session_id, base, session_lost=False))
        return events
