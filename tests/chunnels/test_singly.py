"""Messages that need nothing of one another: whatever is lost, doubled, late or told by others."""

from __future__ import annotations

from random import Random

import pytest

from p4xos.chunnels.singly import (
    ACK,
    HEADER,
    MESSAGE,
    MESSAGE_BYTES_MAX,
    SPAN_MESSAGES,
    Singly,
    acknowledgement_untrusted,
    seen_untrusted,
)
from p4xos.chunnels.window import GIVE_UP_S
from p4xos.errors import BadPacket


class Way:
    """Datagrams between one client and several servers, in virtual time."""

    def __init__(self, seed: int, servers: int, loss: float) -> None:
        self.random = Random(seed)
        self.loss = loss
        self.client = Singly(client=True)
        self.servers = [Singly(k + 1) for k in range(servers)]
        self.now = 0.0
        self.on_the_way: list[tuple[float, Singly, bytes]] = []

    def send(self, to: Singly, datagram: bytes) -> None:
        for _ in range(self.random.choice((1, 1, 1, 2))):
            if self.random.random() >= self.loss:
                delay_s = self.random.random() * 0.02
                self.on_the_way.append((self.now + delay_s, to, datagram))

    def steer(self, datagram: bytes) -> Singly:
        """As a program on the way: by what stands in the datagram alone."""
        seen = seen_untrusted(datagram)
        if seen.kind == ACK:
            return self.servers[seen.origin - 1]
        return self.servers[int(seen.message) % len(self.servers)]

    def step(self) -> None:
        self.now += 0.002
        arrived = [each for each in self.on_the_way if each[0] <= self.now]
        self.on_the_way = [each for each in self.on_the_way if each[0] > self.now]
        self.random.shuffle(arrived)
        for _, to, datagram in arrived:
            to.receive_untrusted(datagram, self.now)
        for end in (self.client, *self.servers):
            end.tick(self.now)
            for datagram in end.transmit(self.now):
                self.send(self.steer(datagram) if end is self.client else self.client, datagram)


@pytest.mark.parametrize("seed", range(12))
def test_each_message_exactly_once_at_the_server_that_it_is_for(seed: int) -> None:
    way = Way(seed, servers=3, loss=0.3)
    way.client.write(b"%d" % k for k in range(400))
    taken: list[list[int]] = [[] for _ in way.servers]
    answers: list[bytes] = []
    while not (way.client.idle and all(each.idle for each in way.servers)):
        way.step()
        for k, server in enumerate(way.servers):
            found = [server.unread.popleft() for _ in range(len(server.unread))]
            server.took(found)
            taken[k] += map(int, found)
            server.write(b"answer to " + each for each in found)
        answers += way.client.unread
        way.client.took(list(way.client.unread))
        way.client.unread.clear()
        assert way.client.failure is None
        assert way.now < 120
    assert [sorted(each) for each in taken] == [list(range(k, 400, 3)) for k in range(3)]
    assert sorted(answers) == sorted(b"answer to %d" % k for k in range(400))


def test_one_server_that_is_down_holds_up_nobody_else() -> None:
    """docs/traps.md, 17: one dead shard stalled all."""
    way = Way(0, servers=2, loss=0.0)
    silent = way.servers[1]
    way.client.write(b"%d" % (2 * k + (k < 20)) for k in range(300))
    while len(way.servers[0].unread) < 280:
        way.step()
        way.on_the_way = [each for each in way.on_the_way if each[1] is not silent]
        assert way.now < 5
    assert not way.client.idle


def test_nothing_is_heard_for_too_long() -> None:
    end = Singly(client=True)
    end.write([b"x"])
    end.transmit(0.0)
    end.tick(GIVE_UP_S + 1)
    assert end.failure is not None
    assert end.transmit(GIVE_UP_S + 1) == []


def test_what_was_acknowledged_by_another_is_not_sent_again() -> None:
    end = Singly(client=True)
    end.write([b"x", b"y"])
    end.receive_untrusted(acknowledgement_untrusted(end.transmit(0.0)[0]), 0.01)
    assert [seen_untrusted(each).number for each in end.transmit(5.0)] == [2]


def test_a_server_that_begins_again_is_heard() -> None:
    client, old, new = Singly(client=True), Singly(1, life=7), Singly(1, life=8)
    for server in (old, new):
        server.write([b"of life %d" % server._life] * 2)
    first, late = old.transmit(0.0)
    client.receive_untrusted(first, 0.0)
    for datagram in new.transmit(0.0):
        client.receive_untrusted(datagram, 0.0)
    client.receive_untrusted(late, 0.0)
    assert list(client.unread) == [b"of life 7", b"of life 8", b"of life 8"]
    assert client.counters["stale"] == 1
    for datagram in client.transmit(1.0):
        old.receive_untrusted(datagram, 1.0)
        new.receive_untrusted(datagram, 1.0)
    assert (old.idle, new.idle) == (False, True)


def test_a_bound_for_what_is_remembered() -> None:
    end = Singly()
    far = HEADER.pack(MESSAGE, 0, SPAN_MESSAGES + 1, 1, 0, 0)
    end.receive_untrusted(far, 0.0)
    assert (end.counters["beyond"], list(end.unread)) == (1, [])
    end.receive_untrusted(HEADER.pack(MESSAGE, 0, 3, 3, 0, 0), 0.0)
    end.receive_untrusted(HEADER.pack(MESSAGE, 0, 2, 1, 0, 0), 0.0)
    assert (end.counters["duplicates"], len(end.unread)) == (1, 1)
    with pytest.raises(ValueError, match="a datagram holds"):
        end.write([bytes(MESSAGE_BYTES_MAX + 1)])


@pytest.mark.parametrize(
    "datagram",
    [b"", bytes(HEADER.size), HEADER.pack(ACK, 0, 0, 0, 0, 1), HEADER.pack(3, 0, 1, 1, 0, 0)],
)
def test_what_is_none_is_counted(datagram: bytes) -> None:
    with pytest.raises(BadPacket):
        seen_untrusted(datagram)
    end = Singly()
    end.receive_untrusted(datagram, 0.0)
    assert end.counters["malformed"] == 1
