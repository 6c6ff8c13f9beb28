"""Clients in closed loops over TCP: each sends a request, waits for its answer, sends the next.

One thread and one epoll serve all connections. What is said on them is a Conversation's business.
redis-benchmark, in C, serves the peers that it can; this is for those that it cannot.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from time import perf_counter
from typing import NamedTuple, Protocol

from bench.errors import BenchError
from p4xos.tables import Address

STALL_LIMIT_S = 30.0
"""No answer to anyone for so long, and the run is void."""
_RECEIVE_BYTES = 65_536


class Conversation(Protocol):
    """One connection's protocol; one request at a time is under way."""

    def opening(self) -> bytes:
        """What is sent once, before the first request."""
        ...

    def request(self, number: int) -> bytes:
        """The request of this number."""
        ...

    def receive(self, data: bytes) -> tuple[bool, bytes]:
        """Takes received bytes: whether the answer is complete, and what to send back meanwhile.

        Raises:
          BenchError: the answer is an error.
        """
        ...


class Outcome(NamedTuple):
    """What a load did; every request that was sent was answered."""

    acknowledged: list[int]  # numbers of requests, in the order of their answers
    latencies_s: list[float]  # of the same requests, in the same order
    elapsed_s: float  # from the first request to the last answer


@dataclass
class _Client:
    connection: socket.socket
    conversation: Conversation
    number: int = 0
    asked_at_s: float = 0.0


def closed_loop(
    address: Address, clients: int, seconds: float, converse: Callable[[], Conversation]
) -> Outcome:
    """Runs clients against one address; after `seconds` none asks again, and all answers come.

    Args:
      address: of the server.
      clients: connections, each with one request under way.
      seconds: may be 0: then each client asks once.
      converse: makes the conversation of one connection.

    Raises:
      BenchError: no connection, an error for an answer, a closed connection, or silence.
    """
    try:
        with ExitStack() as stack:
            poll = stack.enter_context(select.epoll())
            by_descriptor: dict[int, _Client] = {}
            for _ in range(clients):
                connection = socket.create_connection(address, STALL_LIMIT_S)
                stack.enter_context(connection)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                poll.register(connection, select.EPOLLIN)
                client = _Client(connection, converse())
                connection.sendall(client.conversation.opening())
                by_descriptor[connection.fileno()] = client
            return _run(poll, by_descriptor, seconds)
    except OSError as error:
        raise BenchError(f"a connection to {address} failed: {error}") from error


def _run(poll: select.epoll, by_descriptor: dict[int, _Client], seconds: float) -> Outcome:
    acknowledged: list[int] = []
    latencies_s: list[float] = []
    start = now = perf_counter()
    for number, client in enumerate(by_descriptor.values()):
        client.number, client.asked_at_s = number, perf_counter()
        client.connection.sendall(client.conversation.request(number))
    asked = under_way = len(by_descriptor)
    while under_way:
        ready = poll.poll(STALL_LIMIT_S)
        if not ready:
            raise BenchError(f"{under_way} requests had no answer for {STALL_LIMIT_S:g} s")
        for descriptor, _ in ready:
            client = by_descriptor[descriptor]
            data = client.connection.recv(_RECEIVE_BYTES)
            if not data:
                raise BenchError("the server closed a connection")
            answered, sending = client.conversation.receive(data)
            if answered:
                now = perf_counter()
                acknowledged.append(client.number)
                latencies_s.append(now - client.asked_at_s)
                if now - start < seconds:
                    client.number, client.asked_at_s = asked, now
                    asked += 1
                    sending += client.conversation.request(client.number)
                else:
                    under_way -= 1
            if sending:
                client.connection.sendall(sending)
    return Outcome(acknowledged, latencies_s, now - start)
