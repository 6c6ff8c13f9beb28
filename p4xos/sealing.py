"""Proof that both ends of a connection know the cluster's secret, and that no frame was changed.

    dialing                                  listening
    hello, with a nonce (32 bytes)     ->
                                       <-    cluster, a nonce of its own
    {"ask": "prove"}, sealed           ->                        the first proof
                                       <-    the answer to hello, sealed: the second proof
    frames, each sealed                <->

    key of a direction = HMAC-SHA256(secret, "p4xos peer 2", who sends, cluster, both nonces, hello)
    tag of a frame     = BLAKE2b(key of the direction; its number in that direction, its bytes)

Both nonces are in each key, so nothing that was recorded is good on another connection; the sender
is, so nothing can be sent back to where it came from; the number is in each tag, so no frame can be
left out, repeated or moved; the hello is, so nothing in it can be changed on the way. The secret
has 256 random bits: there is nothing to guess. Nothing is encrypted (SECURITY.md).

BLAKE2b, which is a MAC by itself when it has a key, stands where HMAC-SHA256 would do: without
instructions for SHA it is two to three times as fast, and a copy is gigabytes of frames.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import struct
from typing import Literal, Self

from p4xos.errors import BadPacket
from p4xos.secret import Secret

NONCE_BYTES = 32
TAG_BYTES = 32
_LABEL = b"p4xos peer 2"
_NUMBER = struct.Struct(">Q")
_LENGTHS = struct.Struct(">IIII")

Side = Literal["dialing", "listening"]
_OTHER: dict[Side, Side] = {"dialing": "listening", "listening": "dialing"}


class Altered(BadPacket):
    """The tag of a frame is not what the keys of this connection give."""

    def __init__(self, *, first: bool) -> None:
        if first:
            super().__init__(
                "the other side did not prove that it has the secret of this cluster: its "
                "cluster.secret is another one, or something on the way changed what was sent; "
                "copy the same file to all machines"
            )
        else:
            super().__init__("a frame was changed, repeated or left out on the way")
        self.first = first


def new_nonce() -> bytes:
    """What this side puts into the keys of a connection."""
    return secrets.token_bytes(NONCE_BYTES)


class Seal:
    """The keys of one connection at one of its ends."""

    def __init__(self, sending: bytes, receiving: bytes) -> None:
        self._sending = sending
        self._receiving = receiving
        self._sent = 0
        self._received = 0

    @classmethod
    def of(cls, secret: Secret, side: Side, cluster: int, nonces: bytes, hello: bytes) -> Self:
        """The keys of a connection.

        Args:
          secret: the cluster's.
          side: which end this is.
          cluster: its id.
          nonces: of the dialing and of the listening side, in this order.
          hello: as it was sent.
        """

        def key(sender: Side) -> bytes:
            who = sender.encode()
            parts = _LENGTHS.pack(cluster, len(who), len(nonces), len(hello)), who, nonces, hello
            return hmac.digest(secret.key, b"".join((_LABEL, *parts)), "sha256")

        return cls(key(side), key(_OTHER[side]))

    def tag(self, *parts: bytes) -> bytes:
        """The tag of the next frame that is sent."""
        made = _tag(self._sending, self._sent, parts)
        self._sent += 1
        return made

    def check_untrusted(self, data: memoryview, tag: memoryview) -> None:
        """Compares the tag of the next frame that was received.

        Raises:
          Altered: it is another one.
        """
        expected = _tag(self._receiving, self._received, (data,))
        if not hmac.compare_digest(expected, tag):
            raise Altered(first=self._received == 0)
        self._received += 1


def _tag(key: bytes, number: int, parts: tuple[bytes | memoryview, ...]) -> bytes:
    made = hashlib.blake2b(_NUMBER.pack(number), key=key, digest_size=TAG_BYTES)
    for part in parts:
        made.update(part)
    return made.digest()
