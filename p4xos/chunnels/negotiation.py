"""The handshake of two ends: state machines without a clock, chance or a socket.

Client: an offer is sent, and sent again with a growing pause, until the deadline. What answers
another nonce, or names what was not offered, is counted and changes nothing.

Server: an offer leaves no trace. It is answered by a choice and a ticket: the choice once more,
with the client's address and an end of its validity, under a key that only this server has. The
ticket makes the connection, once: it may be repeated, and is then only confirmed again. A forged,
stale or foreign ticket is counted and changes nothing.

One round trip makes a connection: the client may send as soon as it has the ticket, since the
ticket goes before its messages. Where a resource must be claimed at the server, it is claimed
before an offer with a pass (`passes`) is answered, and kept for the ticket; without a pass it is
claimed for the ticket, and the client waits for a second round trip.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import NamedTuple

import msgpack

from p4xos.chunnels import messages, offers
from p4xos.chunnels.choosing import Choice
from p4xos.chunnels.errors import NoAgreement, NoAnswer
from p4xos.chunnels.messages import Accept, Refuse
from p4xos.chunnels.offers import Offer
from p4xos.errors import BadPacket, P4xosError

FIRST_PAUSE_S = 0.05
"""Before an offer is sent again; then twice as long, and so on."""
LONGEST_PAUSE_S = 1.0
TICKET_S = 15.0
"""How long a ticket may be used; a client uses it at once."""
PREPARED_S = 3.0
"""The same where resources are kept for it."""
CONNECTIONS_MAX = 1 << 16
"""Of a server, those of the last TICKET_S among them."""
ANSWERS_MAX = 256
"""Answers to equal offers that are kept: a program's connections are mostly alike."""
_TAG_BYTES = 16

Address = tuple[str, int]
Sign = Callable[[bytes, bytes], bytes]


class ClientNegotiation:
    """One attempt to agree with one server."""

    def __init__(
        self, offer: Offer, name: str, nonce: bytes, peer: str, now: float, until: float,
        sign: Sign = lambda nonce, packed: b"",
    ) -> None:  # fmt: skip
        """Nothing is sent yet.

        Args:
          offer: what this end offers.
          name: of the endpoint, for the server's log.
          nonce: random, for this attempt alone.
          peer: the server, for people.
          now: seconds, as of `until`.
          until: when it is given up.
          sign: makes a pass for the nonce and the packed offer.

        Raises:
          ValueError: the offer is too long.
        """
        self.offer = offer
        self.accepted: Accept | None = None
        self.failure: P4xosError | None = None
        self.attempts = 0
        self.counters = {"malformed": 0, "stale": 0, "not_offered": 0}
        packed = offers.pack(offer)
        self._datagram = messages.pack_offer(
            nonce, name[: offers.TEXT_MAX], packed, sign(nonce, packed)
        )
        self._nonce = nonce
        self._peer = peer
        self._began = now
        self._until = until
        self._next = now
        self._pause = FIRST_PAUSE_S

    @property
    def over(self) -> bool:
        """Whether it has ended, well or not."""
        return self.accepted is not None or self.failure is not None

    def deadline(self) -> float:
        """When `tick` next matters."""
        return min(self._next, self._until)

    def tick(self, now: float) -> list[bytes]:
        """What to send now; at the end, nothing, and a failure."""
        if self.over:
            return []
        if now >= self._until:
            self.failure = NoAnswer(self._peer, self._until - self._began, self.attempts)
            return []
        if now < self._next:
            return []
        self.attempts += 1
        self._next = now + self._pause
        self._pause = min(2 * self._pause, LONGEST_PAUSE_S)
        return [self._datagram]

    def receive_untrusted(self, data: bytes) -> None:
        """A datagram of the server, or of whoever pretends to be it."""
        if self.over:
            return
        try:
            if data[:1] == messages.ACCEPT:
                self._accept(messages.unpack_accept_untrusted(data))
            elif data[:1] == messages.REFUSE:
                self._refuse(messages.unpack_refuse_untrusted(data))
            else:
                self.counters["malformed"] += 1
        except BadPacket:
            self.counters["malformed"] += 1

    def _accept(self, accept: Accept) -> None:
        if accept.nonce != self._nonce:
            self.counters["stale"] += 1
        elif not self._was_offered(accept.choice):
            self.counters["not_offered"] += 1
        else:
            self.accepted = accept

    def _refuse(self, refuse: Refuse) -> None:
        if refuse.nonce != self._nonce:
            self.counters["stale"] += 1
        else:
            self.failure = NoAgreement(refuse.layer, refuse.why, self._peer)

    def _was_offered(self, choice: Choice) -> bool:
        """Whether all that this end is to run is its own."""
        ways = [self.offer.nodes] if self.offer.dictated else self.offer.alternatives()
        if not 0 <= choice.client_alternative < len(ways):
            return False
        able = {
            (each.type, implementation.name)
            for each in ways[choice.client_alternative]
            if isinstance(each, offers.OfferedLayer)
            for implementation in each.implementations
        }
        merging = set(self.offer.merging)
        return all(
            each.client is None
            or ((each.client, each.merged) in merging if each.merged
                else (each.type, each.client) in able)
            for each in choice.layers
        )  # fmt: skip


class Admitted(NamedTuple):
    """A connection that a ticket made."""

    id: bytes
    client: str
    """The client's endpoint, as it calls itself."""
    address: Address
    choice: Choice
    notes: tuple[str, ...]
    origin: int = 0
    """As `Carrier.origin`."""


class Answer(NamedTuple):
    """What a server chose for an offer."""

    choice: Choice
    notes: tuple[str, ...] = ()
    wait: bool = False
    """Whether something must be claimed, or done, before the connection begins."""


class Vouched(NamedTuple):
    """An offer with a good pass, for which something may be claimed before it is answered."""

    nonce: bytes
    client: str
    address: Address
    offer: Offer
    answer: Answer


Chooser = Callable[[Offer], Answer]
"""Raises NoAgreement."""
Vouch = Callable[[messages.Asked], bool]
Prepare = Callable[[Vouched], None]
"""Sees to it that the client is told what `grant` or `refuse` says, and `forget` is called."""


class ServerNegotiation:
    """The server's part of all its connections."""

    def __init__(
        self, key: bytes, choose: Chooser, vouch: Vouch | None = None,
        prepare: Prepare | None = None,
    ) -> None:  # fmt: skip
        """A server without connections.

        Args:
          key: random, for this server's life alone.
          choose: answers an offer.
          vouch: whether the pass of an offer is good; it is asked once. None: none is.
          prepare: claims what such an offer needs.
        """
        self.counters = dict.fromkeys(
            (
                "offers", "refused", "malformed", "forged", "stale", "repeated", "too_many",
                "unused",
            ),
            0,
        )  # fmt: skip
        self._key = key
        self._choose = choose
        self._vouch = vouch
        self._prepare = prepare
        self._prepared: dict[tuple[bytes, Address], bytes | None] = {}  # by nonce: what is answered
        self._answers: dict[bytes, Answer] = {}
        self._open: dict[bytes, None] = {}
        self._closed: dict[bytes, float] = {}  # until when a ticket may come again, oldest first

    def offer_untrusted(self, data: bytes, address: Address, now: float) -> bytes | None:
        """The answer to an OFFER; None to what is none. It opens nothing here."""
        try:
            asked = messages.unpack_offer_untrusted(data)
            if (asked.nonce, address) in self._prepared:
                return self._prepared[asked.nonce, address]
            answer = self._answers.get(asked.offer)
            offer = offers.unpack_untrusted(asked.offer) if answer is None else None
        except BadPacket:
            self.counters["malformed"] += 1
            other = messages.other_version_untrusted(data)
            return None if other is None else messages.pack_refuse(other)
        self.counters["offers"] += 1
        try:
            if answer is None:
                assert offer is not None
                answer = self._choose(offer)
                if len(self._answers) >= ANSWERS_MAX:
                    self._answers.clear()
                self._answers[asked.offer] = answer
        except NoAgreement as error:
            return self._refuse(asked.nonce, error)
        if answer.wait and self._prepare is not None and self._vouch is not None:
            full = len(self._prepared) + self.remembered >= CONNECTIONS_MAX
            if not full and self._vouch(asked):
                offer = offers.unpack_untrusted(asked.offer) if offer is None else offer
                self._prepared[asked.nonce, address] = None
                self._prepare(Vouched(asked.nonce, asked.name, address, offer, answer))
                return None
        return messages.pack_accept(
            self._accept(asked.nonce, asked.name, address, answer, now + TICKET_S)
        )

    def ticket_for(self, vouched: Vouched, now: float) -> Accept:
        """What will be answered; its ticket is good from now on."""
        return self._accept(
            vouched.nonce, vouched.client, vouched.address, vouched.answer, now + PREPARED_S
        )

    def grant(self, vouched: Vouched, accept: Accept, *, wait: bool) -> bytes:
        """The answer to an offer, also when it comes again.

        Args:
          vouched: the offer.
          accept: made by `ticket_for`.
          wait: whether something is not claimed yet.
        """
        answer = messages.pack_accept(accept._replace(wait=wait))
        self._prepared[vouched.nonce, vouched.address] = answer
        return answer

    def refuse(self, vouched: Vouched, error: NoAgreement) -> bytes:
        """The answer to one for which nothing was left."""
        return self._refuse(vouched.nonce, error)

    def forget(self, vouched: Vouched) -> None:
        """Its connection has ended, or has never begun."""
        self._prepared.pop((vouched.nonce, vouched.address), None)

    def _refuse(self, nonce: bytes, error: NoAgreement) -> bytes:
        self.counters["refused"] += 1
        told = str(error).removeprefix(f"layer {error.layer}: ")
        return messages.pack_refuse(Refuse(nonce, error.layer, told))

    def _accept(
        self, nonce: bytes, name: str, address: Address, answer: Answer, until: float
    ) -> Accept:
        choice, notes, wait = answer
        body: bytes = msgpack.packb(
            [round(until * 1000), nonce, name, list(address), messages.plain_choice(choice), notes]
        )
        ticket = self._tag(body) + body
        return Accept(nonce, self.id_of(ticket), ticket, choice, notes, wait)

    def admit_untrusted(
        self, ticket: bytes, address: Address | None, now: float
    ) -> Admitted | bytes | str:
        """Opens the connection of a ticket.

        Args:
          ticket: what came.
          address: from where; None where it cannot be forged, as by a Unix socket.
          now: seconds, as of `offer_untrusted`.

        Returns:
          The connection; or its id, where it is open already; or why there is none.
        """
        tag, body = ticket[:_TAG_BYTES], ticket[_TAG_BYTES:]
        if not hmac.compare_digest(tag, self._tag(body)):
            self.counters["forged"] += 1
            return "the ticket is not of this server, or of one that has ended; connect again"
        # From here on it is what this server has written itself.
        expires_ms, _, name, (host, port), choice, notes = msgpack.unpackb(body)
        if address is not None and address != (host, port):
            self.counters["forged"] += 1
            return "the ticket was given to another address; connect again"
        id = self.id_of(ticket)
        self._forget(now)
        if id in self._open:
            self.counters["repeated"] += 1
            return id
        if now * 1000 > expires_ms or id in self._closed:
            self.counters["stale"] += 1
            return "the ticket was used, or has expired; connect again"
        if len(self._open) + len(self._closed) >= CONNECTIONS_MAX:
            self.counters["too_many"] += 1
            return f"this server has {CONNECTIONS_MAX} connections; try later, or another one"
        self._open[id] = None
        return Admitted(
            id, name, (host, port), messages.choice_untrusted(choice), tuple(notes)
        )

    def choose_anew(self) -> None:
        """What answers were made of has changed."""
        self._answers.clear()

    def close(self, id: bytes, now: float) -> None:
        """A connection has ended."""
        if id in self._open:
            del self._open[id]
            self._closed[id] = now + TICKET_S

    def was_closed(self, id: bytes) -> bool:
        """Whether a connection was open here, and has ended not long ago."""
        return id in self._closed

    def _forget(self, now: float) -> None:
        while self._closed:
            oldest = next(iter(self._closed))
            if self._closed[oldest] > now:
                return
            del self._closed[oldest]

    @property
    def remembered(self) -> int:
        """Connections that are open, or whose tickets may still come again."""
        return len(self._open) + len(self._closed)

    def id_of(self, ticket: bytes) -> bytes:
        """The id of the connection that a ticket makes."""
        return self._tag(ticket)[: messages.ID_BYTES]

    def _tag(self, data: bytes) -> bytes:
        return hmac.digest(self._key, data, "sha256")[:_TAG_BYTES]
