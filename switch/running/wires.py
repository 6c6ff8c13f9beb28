"""A switch whose wires are UDP: each port has an own socket, and one peer at its other end.

A frame is the payload of one datagram. What comes from anyone but the peer is counted and thrown
away, as on a wire nobody else can send.
"""

from __future__ import annotations

import selectors
import socket
import time
from collections import Counter
from collections.abc import Mapping
from types import TracebackType

from switch.lang.interpreter import Interpreter
from switch.running.settings import Wire

FRAME_BYTES_MAX = 65_535
FRAMES_PER_TURN = 64
"""From one port before the others have theirs: a port that is flooded does not starve them."""


class Wires:
    """The sockets of a switch; close it, or use it in a `with`."""

    def __init__(self, switch: Interpreter, wires: Mapping[int, Wire]) -> None:
        """Bound; OSError where an address cannot be had."""
        self.switch = switch
        self.strangers = 0
        """Datagrams that did not come from a port's peer."""
        self.unsent: Counter[int] = Counter()
        """Packets that could not leave, by port: it has no wire, or the system refused them."""
        self._wires = dict(wires)
        self._sockets: dict[int, socket.socket] = {}
        self._ready = selectors.DefaultSelector()
        self._begun = time.monotonic_ns()
        try:
            for port, wire in self._wires.items():
                self._sockets[port] = bound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                bound.setblocking(False)
                bound.bind(wire.local)
                self._ready.register(bound, selectors.EVENT_READ, port)
        except OSError as error:
            self.close()
            error.filename = str(wire.local)
            raise

    def __enter__(self) -> Wires:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """All sockets."""
        self._ready.close()
        for each in self._sockets.values():
            each.close()

    def turn(self, timeout_s: float | None) -> int:
        """Waits until some port has packets, and takes them; how many there were."""
        return sum(self._take(key.data) for key, _ in self._ready.select(timeout_s))

    def _take(self, port: int) -> int:
        for number in range(FRAMES_PER_TURN):
            try:
                frame, sender = self._sockets[port].recvfrom(FRAME_BYTES_MAX)
            except BlockingIOError:
                return number
            except ConnectionError:  # an earlier datagram found nobody at the peer
                continue
            if sender != self._wires[port].peer:
                self.strangers += 1
                continue
            now_us = (time.monotonic_ns() - self._begun) // 1000
            for out, packet in self.switch.process(port, frame, now_us):
                self._send(out, packet)
        return FRAMES_PER_TURN

    def _send(self, port: int, packet: bytes) -> None:
        if port not in self._sockets:
            self.unsent[port] += 1
            return
        try:
            self._sockets[port].sendto(packet, self._wires[port].peer)
        except OSError:  # a full buffer, or too large: a switch drops it, and so do we
            self.unsent[port] += 1
