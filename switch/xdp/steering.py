"""The steering program with its maps: loaded, attached, told of shards and connections.

It gives each message of a client to the shard that has its key (`shard.bpf.c`); what it is part of
is p4xos.chunnels.steering. Links, programs and maps are descriptors of this process, and end with
it.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping, Sequence
from enum import IntEnum

import numpy as np

from p4xos.tables import Address
from switch.control.packets import host_number
from switch.xdp import attaching, libbpf, neighbours
from switch.xdp.build import build
from switch.xdp.errors import XdpUnavailable

NAME_BYTES = 32
SHARDS_MAX = 64
_SERVICE, _SERVICE_REST = struct.Struct(">IH"), struct.Struct(f"=HII{NAME_BYTES}s")
_SHARD = struct.Struct(">IHBB6s2x")
_PLACE = struct.Struct(">IH2x")
_UP, _CONNECTION = struct.Struct("=Q"), struct.Struct(">IHBB6s2x")
_CONNECTION_BYTES = _UP.size + _CONNECTION.size
_MAC_AT = _UP.size + 8  # with the mark that it is known before it
_NUMBER = struct.Struct("=I")


class Verdict(IntEnum):
    """What becomes of a packet; `steering.h` has the same, and says what each means."""

    FOREIGN = 0
    CONTROL = 1
    UNKNOWN = 2
    STRANGER = 3
    LENGTH = 4
    NO_KEY = 5
    SHARD_DOWN = 6
    NO_WAY = 7
    STEERED = 8
    SENT_ON = 9
    ANSWERED = 10


class SteeringProgram:
    """As p4xos.chunnels.steering.Plane."""

    def __init__(self, address: Address, key_name: str, shards: Sequence[Address]) -> None:
        """Loads it; nothing passes it yet.

        Args:
          address: of the server.
          key_name: the field of messages that is the key.
          shards: where they are, in order.

        Raises:
          XdpUnavailable: this machine, or the program, cannot do it.
        """
        self.check_first(key_name, shards)
        self.address = address
        self.shards = list(shards)
        self.interface = ""
        self.native = False
        self._links: list[int] = []
        self._counted = np.zeros(len(Verdict), np.uint64)
        self._loaded = libbpf.Loaded(build("shard", {}))
        self._program = self._loaded.program("steer")
        self._processors = libbpf.processors()
        counts_bytes = 8 * len(Verdict) * self._processors
        self._verdicts = self._loaded.map("verdicts", counts_bytes)
        self._services = self._loaded.map("services", _SERVICE.size + _SERVICE_REST.size)
        self._shards = self._loaded.map("shards", _SHARD.size)
        self._connections = self._loaded.map("connections", _CONNECTION_BYTES)
        self._name = key_name.encode()
        self._number = 0
        self._closed = False
        self.behind: Sequence[bool] = [False] * len(shards)
        places = self._loaded.map("places", _NUMBER.size)
        for number, shard in enumerate(shards):
            places.write(_NUMBER.pack(number), _PLACE.pack(*_numbers(shard)))
        self.describe(self.behind, {})

    @staticmethod
    def check_first(key_name: str, shards: Sequence[Address]) -> None:
        """What can be seen before anything is loaded, which takes a second: XdpUnavailable."""
        name = key_name.encode()
        if len(name) > NAME_BYTES or len(shards) > SHARDS_MAX:
            raise XdpUnavailable(
                f"the key's name has {len(name)} bytes and there are {len(shards)} shards; the "
                f"limits are {NAME_BYTES} and {SHARDS_MAX}",
                "shorten what is too long",
            )
        if os.geteuid() != 0:
            raise XdpUnavailable("it needs root", "run it as root")

    def describe(self, behind: Sequence[bool], macs: Mapping[str, bytes | None]) -> None:
        """Tells the program of the server and its shards.

        Args:
          behind: of each shard, whether it is on another machine.
          macs: the Ethernet addresses of the next hops to those, as far as known.
        """
        self.behind = list(behind)
        rest = _SERVICE_REST.pack(len(self.shards), self._number, len(self._name), self._name)
        self._services.write(_SERVICE.pack(*_numbers(self.address)) + rest)
        for number, (shard, away) in enumerate(zip(self.shards, behind, strict=True)):
            mac = macs.get(shard.host)
            packed = _SHARD.pack(*_numbers(shard), away, mac is not None, mac or bytes(6))
            self._shards.write(packed, number)

    # On an interface -----------------------------------------------------------------------------

    def attach(self, *, native: bool | None = None) -> None:
        """Puts it on the interface that has the server's address.

        Raises:
          XdpUnavailable: there is none that takes it, or a shard is where no packet of an
            interface comes.
        """
        self.interface, self._number = attaching.interface_with(self.address.host)
        behind = [not neighbours.is_local(shard.host) for shard in self.shards]
        for shard, away in zip(self.shards, behind, strict=True):
            if not away and shard.host.startswith("127."):
                raise XdpUnavailable(
                    f"the shard {shard} is on the loopback, where no packet of {self.interface} "
                    "comes",
                    f"let it listen at {self.address.host}",
                )
        self.describe(behind, {})
        link, self.native = attaching.attached(
            self._program.attach, self.interface, self._number, native=native, sends=any(behind),
            else_="slower",
        )  # fmt: skip
        self._links.append(link)
        if not all(behind):
            try:
                answers = self._loaded.program("answers")
                self._links.append(answers.attach_egress(self._number))
            except OSError as error:
                raise XdpUnavailable(
                    f"what leaves {self.interface} cannot be given the server's address: "
                    f"{error.strerror}",
                    f"use Linux 6.6 or later (this is {os.uname().release})",
                ) from None
        self.check()

    def check(self) -> str | None:
        """As Plane."""
        if attaching.number_of(self.interface) != self._number:
            return f"the interface {self.interface} is gone, and the steering program on it"
        away = [s.host for s, far in zip(self.shards, self.behind, strict=True) if far]
        if away:
            known = neighbours.known(away, self.interface)
            neighbours.ask(host for host, mac in known.items() if mac is None)
            self.describe(self.behind, known)
        return None

    def close(self) -> None:
        """Detaches it, and gives back all; twice does nothing. Connections may end after it."""
        self._closed = True
        while self._links:
            os.close(self._links.pop())
        self._loaded.close()

    # Connections ---------------------------------------------------------------------------------

    def steer(self, id: bytes, client: tuple[str, int], up: int, *, numbered: bool) -> None:
        """As Plane."""
        if self._closed:
            return  # the server ends, and with it the connection
        before = self._connections.find(id)
        placed, mac = (0, bytes(6)) if before is None else (before[_MAC_AT - 1], before[_MAC_AT:])
        host, port = _numbers(Address(*client))
        packed = _CONNECTION.pack(host, port, numbered, placed, mac[:6])
        self._connections.write(_UP.pack(up) + packed, id)

    def forget(self, id: bytes) -> None:
        """As Plane."""
        if not self._closed:
            self._connections.remove(id)

    def counted(self) -> Mapping[str, int]:
        """As Plane: by `xdp_` and the verdict's name."""
        now = self._sums()
        news = now - self._counted
        self._counted = now
        return {f"xdp_{each.name.lower()}": int(news[each]) for each in Verdict}

    def counters(self) -> dict[str, int]:
        """All packets that it has seen, by verdict."""
        sums = self._sums()
        return {each.name.lower(): int(sums[each]) for each in Verdict}

    def _sums(self) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
        cells = np.frombuffer(self._verdicts.read(), np.uint64)
        found: np.ndarray[tuple[int], np.dtype[np.uint64]] = cells.reshape(
            self._processors, len(Verdict)
        ).sum(axis=0, dtype=np.uint64)
        return found

    def run(self, packet: bytes) -> tuple[int, bytes]:
        """What the program says of a packet, and the packet afterwards; for tests and figures."""
        return self._program.run(packet)

    def repeat(self, packet: bytes, times: int) -> int:
        """The nanoseconds that it takes for a packet on average."""
        self._program.run(packet, times)
        return self._program.duration_ns


def _numbers(address: Address) -> tuple[int, int]:
    return host_number(address.host), address.port
