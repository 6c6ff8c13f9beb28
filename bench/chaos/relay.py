"""A relay on the router that delays, repeats and reorders packets; their senders stay the same.

The router sends what is marked (nft) into a TUN device, this process reads it there, and writes it
back later: to the router a packet that arrives, from the address that it always had. The kernel has
split large sends and filled in checksums by then, so each packet is one datagram.

    python -m bench.chaos.relay NAME MARK DELAY_S JITTER_S REPEATED LATE_S SEED

Each packet waits DELAY_S and up to JITTER_S more, so that jitter reorders; of so many (a share)
REPEATED ones a copy comes again, up to LATE_S after. It says "ready" when it relays; on SIGTERM it
lets go of all that waits, and tells what it did as one line of JSON.
"""

from __future__ import annotations

import fcntl
import heapq
import json
import os
import random
import select
import signal
import struct
import subprocess
import sys
import time
from types import FrameType

READY = "ready"
TABLE_OFFSET = 100
"""Routing tables of the relays; those below 256 that have a name are not among them."""
HELD_MAX = 100_000
"""Packets that wait at once; more are dropped and counted."""
_TUNSETIFF = 0x400454CA  # linux/if_tun.h
_IFF_TUN, _IFF_NO_PI = 1, 0x1000
_READS_MAX = 256
_PACKET_BYTES = 1 << 16


class Relay:
    """Holds packets until it is their time."""

    def __init__(
        self, delay_s: float, jitter_s: float, repeated: float, late_s: float, seed: int
    ) -> None:
        self.counts = {"relayed": 0, "repeated": 0, "overtaken": 0, "dropped": 0}
        self._delay_s, self._jitter_s = delay_s, jitter_s
        self._repeated, self._late_s = repeated, late_s
        self._random = random.Random(seed).random
        self._held: list[tuple[float, int, bytes]] = []
        self._taken = 0
        self._newest_sent = 0

    def take(self, packet: bytes, now: float) -> None:
        """A packet has arrived."""
        at = now + self._delay_s + self._random() * self._jitter_s
        self._hold(at, packet)
        if self._repeated and self._random() < self._repeated:
            self.counts["repeated"] += 1
            self._hold(at + self._random() * self._late_s, packet)

    def _hold(self, at: float, packet: bytes) -> None:
        if len(self._held) >= HELD_MAX:
            self.counts["dropped"] += 1
            return
        self._taken += 1
        heapq.heappush(self._held, (at, self._taken, packet))

    def due(self, now: float) -> list[bytes]:
        """The packets whose time has come."""
        found = []
        while self._held and self._held[0][0] <= now:
            _, number, packet = heapq.heappop(self._held)
            self.counts["relayed"] += 1
            self.counts["overtaken"] += number < self._newest_sent
            self._newest_sent = max(self._newest_sent, number)
            found.append(packet)
        return found

    def wait_s(self, now: float) -> float:
        """How long nothing is due."""
        return max(self._held[0][0] - now, 0.0) if self._held else 1.0


def main(arguments: list[str]) -> int:
    """Relays until SIGTERM."""
    name, mark, *figures, seed = arguments
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    wanted = struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI)
    fcntl.ioctl(device, _TUNSETIFF, wanted)
    os.set_blocking(device, False)
    table = TABLE_OFFSET + int(mark)
    for line in (
        f"ip link set dev {name} up txqueuelen 10000",
        f"ip route add default dev {name} table {table}",
        f"ip rule add fwmark {mark} table {table}",
    ):
        subprocess.run(line.split(), check=True)
    delay_s, jitter_s, repeated, late_s = map(float, figures)
    relay = Relay(delay_s, jitter_s, repeated, late_s, int(seed))
    stopping: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        stopping.append(number)

    signal.signal(signal.SIGTERM, stop)
    print(READY, flush=True)
    while not stopping:
        select.select([device], [], [], min(relay.wait_s(time.monotonic()), 0.05))
        _turn(relay, device)
    subprocess.run(f"ip rule del fwmark {mark} table {table}".split(), check=True)
    _turn(relay, device)
    _write(device, relay.due(float("inf")))
    print(json.dumps(relay.counts), flush=True)
    return 0


def _turn(relay: Relay, device: int) -> None:
    """Takes what has arrived, lets go of what is due."""
    now = time.monotonic()
    for _ in range(_READS_MAX):
        try:
            relay.take(os.read(device, _PACKET_BYTES), now)
        except BlockingIOError:
            break
    _write(device, relay.due(now))


def _write(device: int, packets: list[bytes]) -> None:
    for packet in packets:
        os.write(device, packet)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
