"""Frames over TCP, between clients and nodes and between nodes that catch up.

    0  u32  bytes of the head, 1 to HEAD_BYTES_MAX        network byte order
    4  u32  bytes of the body, at most BODY_BYTES_MAX
    8  head: a msgpack map with text keys                 what is asked or answered
       body: raw bytes                                    values, as `packing` writes them
       tag: TAG_BYTES, once both sides have the secret    of all before (`sealing`)

Values stand outside of the msgpack part: they are then never parsed one by one, and a few bytes
cannot unfold into many objects. Memory grows with what has arrived, never with what was announced;
only a few connections at once may receive a large frame, and no frame may take for ever.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Mapping
from typing import NamedTuple

import msgpack
import trio

from p4xos.errors import BadPacket
from p4xos.sealing import TAG_BYTES, Seal

HEAD_BYTES_MAX = 1 << 16
BODY_BYTES_MAX = 32 << 20
"""Holds the longest command at the largest window's default, and many shorter ones."""
SMALL_BODY_BYTES = 256 << 10
"""What any connection may hold at once; a larger body waits for its turn."""
LARGE_AT_ONCE = 4
FRAME_PATIENCE_S = 30.0
"""A frame that has begun must be complete within this time."""
LINGER_S = 1.0
"""How long a connection that is closed on an error may take to read why."""

_PREFIX = struct.Struct(">II")
_RECEIVE_BYTES = 1 << 16


class Frame(NamedTuple):
    """One message: a small map, and values."""

    head: dict[str, object]
    body: bytes = b""


def encode_head(head: Mapping[str, object]) -> bytes:
    """The head of a frame as bytes, the same whoever packs it: its keys keep their order."""
    packed: bytes = msgpack.packb(head)
    return packed


def encode_frame(
    head: Mapping[str, object], body: bytes = b"", seal: Seal | None = None
) -> bytes:
    """A frame as bytes, with its tag where there is a seal; both parts within their bounds."""
    packed = encode_head(head)
    assert 0 < len(packed) <= HEAD_BYTES_MAX, "a head is small: values belong into the body"
    assert len(body) <= BODY_BYTES_MAX
    parts = _PREFIX.pack(len(packed), len(body)), packed, body
    return b"".join(parts if seal is None else (*parts, seal.tag(*parts)))


def decode_head_untrusted(data: bytes) -> dict[str, object]:
    """The map of a head; BadPacket whatever else the bytes are."""
    try:
        head = msgpack.unpackb(data, strict_map_key=False)
    except (ValueError, TypeError, msgpack.UnpackException, RecursionError) as error:
        # TypeError: a key that is itself a list or a map.
        raise BadPacket(f"the head of a frame is not msgpack ({error})") from None
    if not isinstance(head, dict) or not all(isinstance(key, str) for key in head):
        raise BadPacket("the head of a frame is not a map with text keys")
    return head


def integer_untrusted(
    head: Mapping[str, object], key: str, lowest: int = 0, highest: int = 2**64 - 1
) -> int:
    """A whole number of a head, in [lowest, highest]."""
    value = head.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not lowest <= value <= highest:
        raise BadPacket(f'"{key}" is no whole number from {lowest} to {highest}')
    return value


def text_untrusted(head: Mapping[str, object], key: str) -> str:
    """A text of a head."""
    value = head.get(key)
    if not isinstance(value, str):
        raise BadPacket(f'"{key}" is no text')
    return value


def bytes_untrusted(head: Mapping[str, object], key: str, count: int) -> bytes:
    """So many bytes of a head."""
    value = head.get(key)
    if not isinstance(value, bytes) or len(value) != count:
        raise BadPacket(f'"{key}" has not {count} bytes')
    return value


class FrameStream:
    """A TCP connection as frames.

    `post` never waits: whoever posts bounds what is posted and not yet sent. `run_writer` sends
    it, so that a caller who is cancelled never leaves half a frame on the wire.
    """

    def __init__(
        self,
        stream: trio.abc.HalfCloseableStream,
        *,
        body_bytes_max: int = BODY_BYTES_MAX,
        large: trio.CapacityLimiter | None = None,
    ) -> None:
        """Owns the stream.

        Args:
          stream: connected.
          body_bytes_max: of what is received.
          large: shared by all connections of a server, so that few of them receive a body over
            SMALL_BODY_BYTES at once.
        """
        self.stream = stream
        self.head_bytes_max = HEAD_BYTES_MAX
        """Of what is received."""
        self.body_bytes_max = body_bytes_max
        self.seal: Seal | None = None
        """Once it is set, every frame is sealed, in both directions."""
        self._large = large
        self._received = bytearray()
        self.posted_bytes = 0
        """Posted and not yet taken by the peer's side."""
        self._posted: deque[bytes] = deque()
        self._wake = trio.Event()  # something was posted
        self._sent = trio.Event()  # something was sent
        self._inside_frame = False

    # Receiving -----------------------------------------------------------------------------------

    async def receive_untrusted(self) -> Frame | None:
        """The next frame; None when the peer has ended the connection between two frames.

        Raises:
          BadPacket: not a frame; nothing that follows can be told apart, so close.
          trio.BrokenResourceError: the connection is lost.
        """
        while not self._received:
            if not await self._receive_more():
                return None
        with trio.move_on_after(FRAME_PATIENCE_S):
            return await self._receive_rest()
        raise BadPacket(f"a frame took longer than {FRAME_PATIENCE_S:g} s")

    async def _receive_rest(self) -> Frame:
        await self._receive_until(_PREFIX.size)
        head_bytes, body_bytes = _PREFIX.unpack_from(self._received)
        if not 0 < head_bytes <= self.head_bytes_max or body_bytes > self.body_bytes_max:
            raise BadPacket(
                f"not a frame of this protocol, or too long a one ({head_bytes} and {body_bytes} "
                f"bytes; the limits are {self.head_bytes_max} and {self.body_bytes_max})"
            )
        end = _PREFIX.size + head_bytes + body_bytes
        total = end if self.seal is None else end + TAG_BYTES
        if body_bytes > SMALL_BODY_BYTES and self._large is not None:
            async with self._large:
                await self._receive_until(total)
        else:
            await self._receive_until(total)
        body_start = _PREFIX.size + head_bytes
        with memoryview(self._received) as data:
            if self.seal is not None:
                self.seal.check_untrusted(data[:end], data[end:total])
            head = decode_head_untrusted(bytes(data[_PREFIX.size : body_start]))
            body = bytes(data[body_start:end])
        del self._received[:total]
        return Frame(head, body)

    async def _receive_until(self, count: int) -> None:
        while len(self._received) < count:
            if not await self._receive_more():
                raise BadPacket("the connection ended inside a frame")

    async def _receive_more(self) -> bool:
        data = await self.stream.receive_some(_RECEIVE_BYTES)
        self._received += data
        return bool(data)

    # Sending -------------------------------------------------------------------------------------

    def post(self, head: Mapping[str, object], body: bytes = b"") -> None:
        """Leaves a frame to `run_writer`."""
        frame = encode_frame(head, body, self.seal)
        self._posted.append(frame)
        self.posted_bytes += len(frame)
        self._wake.set()

    async def run_writer(self) -> None:
        """Sends what is posted, until cancelled.

        Raises:
          trio.BrokenResourceError: the connection is lost.
        """
        while True:
            if not self._posted:
                self._wake = trio.Event()
                await self._wake.wait()
            await self.flush()

    async def flush(self) -> None:
        """Sends what is posted by now; for whoever has no writer beside it.

        Raises:
          trio.BrokenResourceError: the connection is lost, or stands inside a frame.
        """
        if self._inside_frame:
            raise trio.BrokenResourceError("sending was cancelled inside a frame")
        while self._posted:
            data = b"".join(self._posted)
            self._posted.clear()
            self._inside_frame = True
            await self.stream.send_all(data)
            self._inside_frame = False
            self.posted_bytes -= len(data)
            self._tell()

    async def wait_posted_below(self, limit_bytes: int) -> None:
        """Waits until fewer bytes than this are posted and not sent; the reader's pace."""
        while self.posted_bytes >= limit_bytes:
            await self._sent.wait()

    def _tell(self) -> None:
        """Wakes whoever waits for what is posted to leave; each looks again."""
        self._sent.set()
        self._sent = trio.Event()

    async def aclose(self) -> None:
        """Closes the connection at once; nobody waits for it any more."""
        self.posted_bytes = 0
        self._posted.clear()
        self._tell()
        await trio.aclose_forcefully(self.stream)

    async def aclose_politely(self) -> None:
        """Lets the peer read the last frame: closing with unread bytes would destroy it."""
        try:
            with trio.move_on_after(LINGER_S):
                await self.stream.send_eof()
                while await self.stream.receive_some(_RECEIVE_BYTES):
                    pass
        except trio.BrokenResourceError:
            pass  # the peer has gone
        finally:
            await trio.aclose_forcefully(self.stream)
