"""The dialect of this project's own clients at the ports of a `paxos.conf`.

Frames, hello and errors are those of a node's service (`p4xos/framing.py`, `p4xos/service.py`), so
that a client that knows a node's service is at home. Instances are libpaxos' iids here, of 64 bits.

    asked                                          answered
    hello   cluster, version                       node, cluster, version, log, libpaxos
    submit  id, client, number; body: payloads     id; body: u64 iid of the first    or id, error
    deliver first; 0: what comes next              for ever: next; body: delivered values; for 0
                                                   an empty one first, at once
    trim    id, instance                           id
    status  id                                     id, status

A submission is answered once it is in the log, without an iid where it came for the second time.
Client and number are those of `clients`: what got no answer is sent again under the same number,
through this gateway or another one, and counts once.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np

from p4xos.compat.libpaxos.packs import Values, pack, read_payloads_untrusted
from p4xos.errors import BadPacket
from p4xos.framing import (
    HEAD_BYTES_MAX,
    decode_head_untrusted,
    encode_frame,
    integer_untrusted,
    text_untrusted,
)
from p4xos.packing import VALUES_MAX
from p4xos.remote_errors import Refused
from p4xos.service import OPEN_VERSION, SEALED_VERSION

FIRST_BYTE = 0
"""Of every frame, for a head has less than 2^24 bytes; of no message of libpaxos."""
BODY_BYTES_MAX = 1 << 20
"""Of a submission."""
assert HEAD_BYTES_MAX < 1 << 24

_PREFIX = struct.Struct(">II")
_COUNT = struct.Struct(">I")


class Request(NamedTuple):
    """A frame, taken apart."""

    ask: str
    head: dict[str, object]
    body: bytes


def parse_untrusted(data: bytes) -> tuple[list[Request], int]:
    """The whole frames at the beginning of what a peer sent, and how many bytes they are.

    Raises:
      BadPacket: what follows them is no frame, whatever else comes.
    """
    requests: list[Request] = []
    start = 0
    while len(data) - start >= _PREFIX.size:
        head_bytes, body_bytes = _PREFIX.unpack_from(data, start)
        if not 0 < head_bytes <= HEAD_BYTES_MAX or body_bytes > BODY_BYTES_MAX:
            raise BadPacket(
                f"not a frame of this protocol, or too long a one ({head_bytes} and {body_bytes} "
                f"bytes; the limits are {HEAD_BYTES_MAX} and {BODY_BYTES_MAX})"
            )
        body_start = start + _PREFIX.size + head_bytes
        end = body_start + body_bytes
        if end > len(data):
            break
        head = decode_head_untrusted(data[start + _PREFIX.size : body_start])
        requests.append(Request(text_untrusted(head, "ask"), head, data[body_start:end]))
        start = end
    return requests, start


def check_hello_untrusted(request: Request, cluster: int, node: str) -> None:
    """Refuses who speaks something else, or with another cluster."""
    if request.ask != "hello":
        raise BadPacket("the first request must be hello")
    version = integer_untrusted(request.head, "version")
    if version == SEALED_VERSION:
        raise Refused("the ports of a paxos.conf have no secret, and you have one: leave it out")
    if version != OPEN_VERSION:
        raise Refused(f"node {node} speaks version {OPEN_VERSION} here and you {version}")
    if integer_untrusted(request.head, "cluster") not in (0, cluster):
        raise Refused(f"node {node} belongs to cluster {cluster:08x}; check the address")


def read_submit_untrusted(request: Request, bytes_max: int) -> tuple[tuple[int, int], bytes]:
    """Client and number of a submission, and its pack.

    Raises:
      BadPacket: it is malformed.
      Refused: it is longer than the log takes.
    """
    key = integer_untrusted(request.head, "client", 1), integer_untrusted(request.head, "number", 1)
    if read_payloads_untrusted(request.body) is None:
        raise BadPacket(f"the body of submit is no payloads, or of more than {VALUES_MAX}")
    payload = pack(*key, request.body)
    if len(payload) > bytes_max:
        raise Refused(f"a submission takes {len(payload)} bytes, allowed are {bytes_max}; split it")
    return key, payload


def encode_delivered(values: Values) -> bytes:
    """A frame of delivered values; as `packing.pack_delivered` has it."""
    frames = []
    while values.size > VALUES_MAX:
        frames.append(_delivered(values.before(values.first + VALUES_MAX)))
        values = values.since(values.first + VALUES_MAX)
    frames.append(_delivered(values))
    return b"".join(frames)


def _delivered(values: Values) -> bytes:
    iids = np.arange(values.first, values.next, dtype=np.uint64).astype(">u8")
    parts = _COUNT.pack(values.size), iids.tobytes(), values.lengths, values.data
    return encode_frame({"next": values.next}, b"".join(parts))
