"""The closed-loop generator, against a server of lines whose answers are chosen here."""

from __future__ import annotations

import itertools
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from bench.errors import BenchError
from bench.peers import closed_loop as module
from bench.peers.closed_loop import closed_loop
from bench.peers.peer import Figures, figures
from p4xos.ports import free_addresses
from p4xos.tables import Address


class Lines:
    """Each number is a line, and so is its answer."""

    def __init__(self) -> None:
        self._buffer = b""
        self._number = -1

    def opening(self) -> bytes:
        return b"hello\n"

    def request(self, number: int) -> bytes:
        self._number = number
        return b"%d\n" % number

    def receive(self, data: bytes) -> tuple[bool, bytes]:
        self._buffer += data
        if not self._buffer.endswith(b"\n"):
            return False, b""
        if self._buffer == b"who?\n":
            self._buffer = b""
            return False, b"me\n"
        if self._buffer != b"%d\n" % self._number:
            raise BenchError(f"answered {self._buffer!r}")
        self._buffer = b""
        return True, b""


@contextmanager
def serving(
    answer: Callable[[socketserver.StreamRequestHandler, bytes], None],
) -> Iterator[Address]:
    """A server that gives each line after the greeting to `answer`."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            assert self.rfile.readline() == b"hello\n"
            for line in self.rfile:
                answer(self, line)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = False  # so that closing the server waits for them

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield Address("127.0.0.1", server.server_address[1])
        server.shutdown()
        thread.join()


def echo(handler: socketserver.StreamRequestHandler, line: bytes) -> None:
    handler.wfile.write(line)


def test_each_client_asks_once_when_there_is_no_time() -> None:
    with serving(echo) as address:
        outcome = closed_loop(address, 10, 0, Lines)
    assert sorted(outcome.acknowledged) == [*range(10)]
    assert len(outcome.latencies_s) == 10
    assert outcome.elapsed_s >= max(outcome.latencies_s)


def test_a_client_asks_again_after_each_answer_until_time_is_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = itertools.count()  # a second at each look: at the start, at a request, at answers
    monkeypatch.setattr(module, "perf_counter", lambda: float(next(clock)))
    with serving(echo) as address:
        outcome = closed_loop(address, 1, 5, Lines)
    assert outcome == ([0, 1, 2, 3], [1.0, 1.0, 1.0, 1.0], 5.0)


def test_answers_in_pieces_and_questions_of_the_server() -> None:
    def answer(handler: socketserver.StreamRequestHandler, line: bytes) -> None:
        if line == b"me\n":
            handler.wfile.write(b"0")
            handler.wfile.write(b"\n")
        else:
            handler.wfile.write(b"who?\n")

    with serving(answer) as address:
        assert closed_loop(address, 1, 0, Lines).acknowledged == [0]


def test_an_error_for_an_answer_makes_the_run_void() -> None:
    def answer(handler: socketserver.StreamRequestHandler, line: bytes) -> None:
        handler.wfile.write(b"no\n")

    with serving(answer) as address, pytest.raises(BenchError, match="answered b'no"):
        closed_loop(address, 2, 0, Lines)


def test_a_closed_connection_makes_the_run_void() -> None:
    def answer(handler: socketserver.StreamRequestHandler, line: bytes) -> None:
        handler.connection.shutdown(2)

    with serving(answer) as address, pytest.raises(BenchError, match="closed a connection"):
        closed_loop(address, 1, 0, Lines)


def test_silence_makes_the_run_void(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STALL_LIMIT_S", 0.2)

    def answer(handler: socketserver.StreamRequestHandler, line: bytes) -> None:
        if line == b"0\n":
            handler.wfile.write(line)

    with serving(answer) as address, pytest.raises(BenchError, match="1 requests had no answer"):
        closed_loop(address, 2, 0, Lines)


def test_nobody_there() -> None:
    (address,) = free_addresses(1)
    with pytest.raises(BenchError, match=f"{address} failed"):
        closed_loop(address, 1, 0, Lines)


def test_figures_by_nearest_rank() -> None:
    hundred = [k / 1000 for k in range(100, 0, -1)]
    assert figures(hundred, 2.0) == Figures(50.0, 50.0, 99.0)
    assert figures([0.004], 0.5) == Figures(2.0, 4.0, 4.0)
    assert figures([0.001, 0.002, 0.003], 1.0) == Figures(3.0, 2.0, 3.0)
