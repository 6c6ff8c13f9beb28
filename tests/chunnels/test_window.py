"""The reliable stream as a state machine: whatever the network does, in order and exactly once."""

from __future__ import annotations

import heapq
from random import Random

import pytest

from p4xos.chunnels.window import (
    ACK,
    GIVE_UP_S,
    HEADER_BYTES,
    MESSAGE_BYTES_MAX,
    QUEUE_BYTES_MAX,
    SEGMENT_BYTES,
    UNREAD_BYTES_MAX,
    WINDOW_SEGMENTS,
    Window,
)


class Network:
    """Two windows, virtual time, and a network between that loses, doubles and reorders."""

    def __init__(self, seed: int, loss: float = 0.0, double: float = 0.0, jitter_s: float = 0.0):
        self.ends = Window(), Window()
        self.now = 0.0
        self.random = Random(seed)
        self.loss, self.double, self.jitter_s = loss, double, jitter_s
        self.flying: list[tuple[float, int, int, bytes]] = []
        self.sent = 0
        self.received: tuple[list[bytes], list[bytes]] = [], []
        self.reading = True

    def send(self, end: int) -> None:
        for datagram in self.ends[end].transmit(self.now):
            for _ in range(2 if self.random.random() < self.double else 1):
                if self.random.random() >= self.loss:
                    self.sent += 1
                    at = self.now + 0.001 + self.random.random() * self.jitter_s
                    heapq.heappush(self.flying, (at, self.sent, 1 - end, datagram))

    def read(self, end: int) -> None:
        window = self.ends[end]
        while self.reading and window.unread:
            message = window.unread.popleft()
            self.received[end].append(message)
            if window.took([message]):
                self.send(end)

    def run(self, until: float = 600.0) -> None:
        """Until nothing more happens."""
        while self.now < until:
            times = [self.flying[0][0]] if self.flying else []
            times += [d for each in self.ends if (d := each.deadline()) is not None]
            if not times:
                return
            self.now = max(self.now, min(times))
            while self.flying and self.flying[0][0] <= self.now:
                _, _, end, datagram = heapq.heappop(self.flying)
                self.ends[end].receive_untrusted(datagram, self.now)
                self.read(end)
                self.send(end)
            for end, each in enumerate(self.ends):
                each.tick(self.now)
                self.send(end)


@pytest.mark.parametrize("seed", range(12))
def test_in_order_and_exactly_once_whatever_the_network_does(seed: int) -> None:
    random = Random(seed)
    loss = random.choice([0.0, 0.02, 0.3])
    network = Network(seed, loss, random.choice([0, 0.2]), random.choice([0, 0.02]))
    sizes = [0, 1, 30, SEGMENT_BYTES, 5000]
    given = tuple(
        [random.randbytes(random.choice(sizes)) for _ in range(150)] for _ in network.ends
    )
    for end, messages in enumerate(given):
        for start in range(0, len(messages), 10):
            network.ends[end].write(messages[start : start + 10])
            network.send(end)
            network.run(network.now + random.choice([0.0, 0.01]))
        network.ends[end].finish()
        network.send(end)
    network.run()
    assert network.received == given[::-1]
    assert all(each.finished and each.idle for each in network.ends)
    assert not any(each.failure for each in network.ends)


def test_small_messages_share_a_segment() -> None:
    network = Network(0)
    network.ends[0].write([b"x" * 16] * 50)
    network.send(0)
    assert network.sent == 1
    network.run()
    assert network.received[1] == [b"x" * 16] * 50


def test_the_round_trip_is_measured_and_bounds_the_wait() -> None:
    network = Network(0)
    for _ in range(20):
        network.ends[0].write([b"x"])
        network.send(0)
        network.run()
    measured = network.ends[0].round_trip.smoothed_s
    assert measured is not None
    assert 0.002 <= measured <= 0.01
    network.loss = 1.0
    began = network.now
    network.ends[0].write([b"x"])
    network.send(0)
    deadline = network.ends[0].deadline()
    assert deadline is not None
    assert deadline - began < 0.05


def test_a_reader_that_does_not_read_stops_the_writer_and_goes_on() -> None:
    network = Network(0)
    network.reading = False
    message = bytes(100_000)
    for _ in range(60):
        network.ends[0].write([message])
        network.send(0)
        network.run(network.now + 0.2)
    unread = sum(map(len, network.ends[1].unread))
    assert unread < UNREAD_BYTES_MAX + WINDOW_SEGMENTS * SEGMENT_BYTES + len(message)
    assert network.ends[0].full
    network.reading = True
    network.read(1)
    network.send(1)
    network.run(network.now + 30.0)
    assert len(network.received[1]) == 60


def test_silence_is_given_up() -> None:
    network = Network(0, loss=1.0)
    network.ends[0].write([b"x"])
    network.send(0)
    network.run()
    assert "nothing was acknowledged" in str(network.ends[0].failure)
    assert GIVE_UP_S <= network.now < 2 * GIVE_UP_S
    assert network.ends[0].counters["retransmissions"] < 40


def test_a_writer_is_told_to_wait() -> None:
    window = Window()
    window.write([bytes(QUEUE_BYTES_MAX)])
    assert window.full
    with pytest.raises(ValueError, match="divide it"):
        window.write([bytes(MESSAGE_BYTES_MAX + 1)])


@pytest.mark.parametrize("seed", range(6))
def test_garbage_hurts_nothing_but_itself(seed: int) -> None:
    random = Random(seed)
    network = Network(seed)
    window = network.ends[1]
    for _ in range(300):
        window.receive_untrusted(random.randbytes(random.randint(0, 60)), 0.0)
    header = bytes([ACK]) + (2**64 - 1).to_bytes(8, "big") * 3 + b"\0\1"
    assert len(header) == HEADER_BYTES
    window.receive_untrusted(header, 0.0)
    assert window.counters["malformed"] >= 200
    if window.failure is None:
        network.ends[0].write([b"hello"])
        network.send(0)
        network.run()
        assert network.received[1][-1:] == [b"hello"]


def test_a_length_beyond_all_bounds_ends_the_stream() -> None:
    one, other = Window(), Window()
    one._queue += b"\xff\xff\xff\xff"
    (datagram,) = one.transmit(0.0)
    other.receive_untrusted(datagram, 0.0)
    assert "breaks the rules" in str(other.failure)
