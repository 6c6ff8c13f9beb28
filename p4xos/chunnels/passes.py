"""Passes: how a server knows that an offer is of a program that may use the discovery service.

Resources must not be claimed for an offer that anybody could have forged: it would take all that
there is. So a server waits for the ticket, which only the client at that address can have, and that
is one more round trip. An offer with a pass needs none. The discovery service tells a key to who
may speak with it, and who has the key could claim the same resources by itself.

A pass is good for one offer of one nonce, once, and for PASS_S. What is forged, stale or said again
is counted, and its offer answered as one without a pass.
"""

from __future__ import annotations

import hmac
import struct

KEY_BYTES = 32
PASS_S = 5.0
"""How long a pass may be used; of the clock on the wall, since both ends are of one host."""
PASS_BYTES_MAX = 64
REMEMBERED_MAX = 1 << 16
"""Passes of the last PASS_S; while there are so many, more are not taken."""
_UNTIL = struct.Struct(">Q")
_TAG_BYTES = 16


def make(key: bytes, nonce: bytes, offer: bytes, now: float) -> bytes:
    """A pass for an offer; none where there is no key.

    Args:
      key: of the discovery service.
      nonce: of the offer.
      offer: as it is sent.
      now: of the clock on the wall.
    """
    if not key:
        return b""
    until = _UNTIL.pack(round((now + PASS_S) * 1000))
    return until + _tag(key, until, nonce, offer)


class Guard:
    """What a server knows of passes that were used."""

    def __init__(self) -> None:
        """None was."""
        self.counters = dict.fromkeys(("forged_passes", "stale_passes"), 0)
        self._used: dict[bytes, float] = {}  # nonces, until when; the oldest first

    def take_untrusted(
        self, made: bytes, key: bytes, nonce: bytes, offer: bytes, now: float
    ) -> bool:
        """Whether a pass is good; it is not good again.

        Args:
          made: what came with the offer; nothing is no pass, and not counted.
          key: of the discovery service, as this server knows it; nothing where it knows none.
          nonce: of the offer.
          offer: as it came.
          now: of the clock on the wall.
        """
        if not made:
            return False
        until, tag = made[: _UNTIL.size], made[_UNTIL.size :]
        if not key or not hmac.compare_digest(tag, _tag(key, until, nonce, offer)):
            self.counters["forged_passes"] += 1
            return False
        left = _UNTIL.unpack(until)[0] / 1000 - now
        self._forget(now)
        if not 0 < left <= 2 * PASS_S or nonce in self._used or self.remembered >= REMEMBERED_MAX:
            self.counters["stale_passes"] += 1
            return False
        self._used[nonce] = now + 2 * PASS_S
        return True

    @property
    def remembered(self) -> int:
        """Passes that were used and could come again."""
        return len(self._used)

    def _forget(self, now: float) -> None:
        while self._used:
            oldest = next(iter(self._used))
            if self._used[oldest] > now:
                return
            del self._used[oldest]


def _tag(key: bytes, until: bytes, nonce: bytes, offer: bytes) -> bytes:
    return hmac.digest(key, b"pass" + until + nonce + offer, "sha256")[:_TAG_BYTES]
