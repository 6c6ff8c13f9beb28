"""The handshake without sockets: loss, repetition, forgery, age."""

from __future__ import annotations

from itertools import pairwise
from random import Random

import pytest

from p4xos.chunnels import NoAgreement, NoAnswer, Runtime, local_or_remote, messages, reliable
from p4xos.chunnels.choosing import choose
from p4xos.chunnels.negotiation import (
    CONNECTIONS_MAX,
    FIRST_PAUSE_S,
    TICKET_S,
    Admitted,
    Answer,
    ClientNegotiation,
    ServerNegotiation,
)
from p4xos.chunnels.offers import Offer
from p4xos.chunnels.view import View

HERE = ("10.0.0.1", 4000)
THERE = ("10.0.0.9", 4000)
STACK = reliable() | local_or_remote()
RUNTIME = Runtime()
OFFER = RUNTIME.offer(STACK.nodes, View())


def server(key: bytes = b"k" * 32) -> ServerNegotiation:
    def chooser(offer: Offer) -> Answer:
        return Answer(choose(offer, OFFER))

    return ServerNegotiation(key, chooser)


def client(nonce: bytes = b"n" * 16, until: float = 5.0) -> ClientNegotiation:
    return ClientNegotiation(OFFER, "tests", nonce, "there", 0.0, until)


def accepted(to: ServerNegotiation, nonce: bytes = b"n" * 16, now: float = 0.0) -> bytes:
    """A ticket."""
    asking = client(nonce)
    (datagram,) = asking.tick(now)
    answer = to.offer_untrusted(datagram, HERE, now)
    assert answer is not None
    asking.receive_untrusted(answer)
    assert asking.accepted is not None
    return asking.accepted.ticket


def test_one_round_trip_agrees_and_the_ticket_opens() -> None:
    at = server()
    ticket = accepted(at)
    assert at.remembered == 0  # an offer leaves no trace
    opened = at.admit_untrusted(ticket, HERE, 0.1)
    assert isinstance(opened, Admitted)
    assert [each.type for each in opened.choice.layers] == ["reliable", "transport"]
    assert at.remembered == 1


@pytest.mark.parametrize("seed", range(20))
def test_a_third_of_all_datagrams_may_be_lost(seed: int) -> None:
    random = Random(seed)
    at, asking, now = server(), client(until=60.0), 0.0
    while not asking.over:
        for datagram in asking.tick(now):
            answer = at.offer_untrusted(datagram, HERE, now)
            if random.random() > 0.3 and answer is not None and random.random() > 0.3:
                asking.receive_untrusted(answer)
        now = asking.deadline()
    assert asking.accepted is not None
    # So is the ticket repeated, and opens one connection all the same.
    outcomes = [at.admit_untrusted(asking.accepted.ticket, HERE, now) for _ in range(5)]
    assert isinstance(outcomes[0], Admitted)
    assert outcomes[1:] == [outcomes[0].id] * 4
    assert at.remembered == 1


def test_retries_back_off_and_end_at_the_deadline() -> None:
    asking, now = client(until=5.0), 0.0
    sent_at = []
    while not asking.over:
        if asking.tick(now):
            sent_at.append(now)
        now = min(asking.deadline(), 5.0)
    pauses = [later - earlier for earlier, later in pairwise(sent_at)]
    assert pauses[0] == pytest.approx(FIRST_PAUSE_S)
    assert pauses == sorted(pauses)
    assert max(pauses) <= 1.0
    assert now == 5.0
    assert isinstance(asking.failure, NoAnswer)
    assert asking.failure.attempts == len(sent_at) < 12
    assert asking.tick(6.0) == []


def test_a_refusal_names_the_layer() -> None:
    asking = client()
    asking.receive_untrusted(
        messages.pack_refuse(messages.Refuse(b"n" * 16, "reliable", "the server is tired"))
    )
    assert isinstance(asking.failure, NoAgreement)
    assert asking.failure.layer == "reliable"
    assert str(asking.failure) == "there refuses: layer reliable: the server is tired"


def test_stale_and_forged_answers_change_nothing() -> None:
    at = server()
    (datagram,) = client(b"o" * 16).tick(0.0)
    of_another_attempt = at.offer_untrusted(datagram, HERE, 0.0)
    assert of_another_attempt is not None
    asking = client()
    (datagram,) = asking.tick(0.0)
    answer = at.offer_untrusted(datagram, HERE, 0.0)
    assert answer is not None
    told = messages.unpack_accept_untrusted(answer)
    first = told.choice.layers[0]._replace(client="not-mine")
    not_offered = told._replace(choice=told.choice._replace(layers=(first,)))
    for forged in (
        of_another_attempt,
        messages.pack_refuse(messages.Refuse(b"x" * 16, "reliable", "go away")),
        messages.pack_accept(not_offered),
        messages.pack_accept(
            told._replace(choice=told.choice._replace(client_alternative=7))
        ),
        b"", b"\xc1", b"GET / HTTP/1.1\r\n", answer[:-1], answer[:1] + b"\x93\x01",
    ):  # fmt: skip
        asking.receive_untrusted(forged)
        assert not asking.over
    assert asking.counters == {"malformed": 5, "stale": 2, "not_offered": 2}
    asking.receive_untrusted(answer)
    assert asking.accepted is not None


def test_forged_foreign_and_stale_tickets_change_nothing() -> None:
    at = server()
    ticket = accepted(at)
    broken = ticket[:-1] + bytes([ticket[-1] ^ 1])
    of_another_server = accepted(server(b"o" * 32))
    for bad, address, now in (
        (b"", HERE, 0.0), (b"x" * 100, HERE, 0.0), (broken, HERE, 0.0),
        (of_another_server, HERE, 0.0), (ticket, THERE, 0.0), (ticket, HERE, TICKET_S + 0.1),
    ):  # fmt: skip
        assert isinstance(at.admit_untrusted(bad, address, now), str)
        assert at.remembered == 0
    assert at.counters["forged"] == 5
    assert at.counters["stale"] == 1
    opened = at.admit_untrusted(ticket, HERE, 1.0)
    assert isinstance(opened, Admitted)
    # Once it has ended, the same ticket never opens another one; and it is forgotten in time.
    at.close(opened.id, 2.0)
    assert "was used" in str(at.admit_untrusted(ticket, HERE, 3.0))
    assert "was used" in str(at.admit_untrusted(ticket, HERE, 30.0))
    assert at.remembered == 0


def test_offers_that_are_none_are_counted() -> None:
    at = server()
    for bad in (b"", messages.OFFER, messages.OFFER + b"\x94\x01\x01\x01\x01", b"\xc1" * 50):
        assert at.offer_untrusted(bad, HERE, 0.0) is None
    assert at.counters["malformed"] == 4


def test_connections_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("p4xos.chunnels.negotiation.CONNECTIONS_MAX", 3)
    at = server()
    outcomes = [
        at.admit_untrusted(accepted(at, bytes([k]) * 16), HERE, 0.0) for k in range(5)
    ]
    assert [isinstance(each, Admitted) for each in outcomes] == [True] * 3 + [False] * 2
    assert "later" in str(outcomes[-1])
    assert CONNECTIONS_MAX > 10_000
