"""etcd's Put and Range as its own clients send them: gRPC, which is protobuf in HTTP/2 frames.

Just what one unary call at a time on one connection needs. Header fields are sent by index from
the second request on, as every gRPC client does; those that come are not decoded: a unary call
that succeeds sends a message before it ends, and one that fails sends none.
"""

from __future__ import annotations

from bench.errors import BenchError
from bench.peers.peer import Kind, item

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_ACK = _END_STREAM = 1
_END_HEADERS = 4
_FRAME_HEADER_BYTES = 9
_WINDOW_BYTES = 65_535  # of a connection, before any update
_LARGEST_WINDOW_BYTES = (1 << 31) - 1
"""Granted at once: answers are small, so that no update is needed for tens of millions of them."""

METHODS: dict[Kind, bytes] = {"write": b"/etcdserverpb.KV/Put", "read": b"/etcdserverpb.KV/Range"}
# RFC 7541, appendix A: ":method: POST" is entry 3 of the static table, ":scheme: http" entry 6.
_POST_HTTP = b"\x83\x86"
# The four fields that `_fields` adds to the dynamic table, by index; the latest is 62.
_FIELDS_AGAIN = _POST_HTTP + b"\xc1\xc0\xbf\xbe"


class Call:
    """One connection's Puts (of `item`) or linearizable Ranges (of its key)."""

    def __init__(self, kind: Kind, authority: str) -> None:
        """`authority` is host:port of the server."""
        self._kind: Kind = kind
        self._authority = authority.encode()
        self._stream = -1  # a client's streams are odd
        self._buffer = b""
        self._got_message = False

    def opening(self) -> bytes:
        """The preface, default settings, and the window of the connection."""
        more = (_LARGEST_WINDOW_BYTES - _WINDOW_BYTES).to_bytes(4)
        return _PREFACE + frame(_SETTINGS, 0, 0, b"") + frame(_WINDOW_UPDATE, 0, 0, more)

    def request(self, number: int) -> bytes:
        """A stream of its own: header fields, and one message."""
        first = self._stream < 0
        self._stream += 2
        self._got_message = False
        fields = _fields(METHODS[self._kind], self._authority) if first else _FIELDS_AGAIN
        key, value = item(number)
        message = _bytes_field(1, key)
        if self._kind == "write":
            message += _bytes_field(2, value)
        return frame(_HEADERS, _END_HEADERS, self._stream, fields) + frame(
            _DATA, _END_STREAM, self._stream, b"\0" + len(message).to_bytes(4) + message
        )

    def receive(self, data: bytes) -> tuple[bool, bytes]:
        """Complete with the end of the stream; settings and pings are acknowledged."""
        buffer = self._buffer + data
        answered, sending, start = False, b"", 0
        while len(buffer) - start >= _FRAME_HEADER_BYTES:
            end = start + _FRAME_HEADER_BYTES + int.from_bytes(buffer[start : start + 3])
            if end > len(buffer):
                break
            kind, flags = buffer[start + 3], buffer[start + 4]
            payload = buffer[start + _FRAME_HEADER_BYTES : end]
            if kind == _DATA:
                self._got_message = True
            elif kind in (_SETTINGS, _PING) and not flags & _ACK:
                sending += frame(kind, _ACK, 0, payload if kind == _PING else b"")
            elif kind in (_RST_STREAM, _GOAWAY):
                raise BenchError(f"the server ended the conversation: {payload!r}")
            if kind in (_DATA, _HEADERS) and flags & _END_STREAM:
                if not self._got_message:
                    raise BenchError(f"the server refused a {self._kind}: {payload!r}")
                answered = True
            start = end
        self._buffer = buffer[start:]
        return answered, sending


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """An HTTP/2 frame (RFC 9113, section 4.1)."""
    return b"%b%c%c%b%b" % (len(payload).to_bytes(3), kind, flags, stream.to_bytes(4), payload)


def _fields(path: bytes, authority: bytes) -> bytes:
    """A request's header fields, of which the last four enter the dynamic table.

    0x40 and the index of a name in the static table: :path 4, :authority 1, content-type 31; 0x40
    alone: the name follows.
    """
    return b"".join(
        (
            _POST_HTTP,
            b"\x44" + _short(path),
            b"\x41" + _short(authority),
            b"\x5f" + _short(b"application/grpc"),
            b"\x40" + _short(b"te") + _short(b"trailers"),
        )
    )


def _bytes_field(number: int, content: bytes) -> bytes:
    """A protobuf field of wire type 2, length-delimited."""
    return bytes([number << 3 | 2]) + _short(content)


def _short(content: bytes) -> bytes:
    """Its length in one byte, then itself; HPACK and protobuf write short lengths alike."""
    assert len(content) < 127
    return bytes([len(content)]) + content
