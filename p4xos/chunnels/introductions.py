"""Introductions: how a server tells a shard of a connection in which the shard is to take part.

    INTRODUCE  tag, [until, id, the client's name and address, the shard's number, the choice]
    CONFIRMED, DENIED   back, as to a client; then PING, PONG, CLOSE between server and shard

An introduction is taken only from who has the key of this user on this host (`key_of`), which
servers and shards find by themselves; shards on other hosts need a copy of its file.
"""

from __future__ import annotations

import hmac
import logging
import os
import secrets
import time
from contextlib import suppress
from ipaddress import IPv4Address
from pathlib import Path
from typing import NamedTuple

import msgpack

from p4xos.chunnels import messages
from p4xos.chunnels.choosing import Choice, Chosen
from p4xos.chunnels.messages import ID_BYTES
from p4xos.chunnels.negotiation import Address, Admitted
from p4xos.chunnels.offers import integer_untrusted, text_untrusted
from p4xos.chunnels.sharding import SHARD
from p4xos.chunnels.singly import ORIGINS_MAX
from p4xos.chunnels.udp import Datagrams, ServerSocket
from p4xos.errors import BadPacket

log = logging.getLogger(__name__)

KEY_FILE = "steering.key"
KEY_BYTES = 32
VALID_S = 30.0
"""How long an introduction may be used: its sender says it again, and clocks differ."""
_TAG_BYTES = 16


def key_of(directory: Path | None) -> bytes:
    """What servers and shards of one user know; made at first use.

    Raises:
      OSError: there is no place where only this user can read it.
    """
    if directory is None:
        raise FileNotFoundError("there is no directory for sockets of this user")
    path = directory / KEY_FILE
    with suppress(FileNotFoundError):
        found = path.read_bytes()
        if len(found) >= KEY_BYTES:
            return found
    made = directory / f"{KEY_FILE}.{secrets.token_hex(8)}"
    descriptor = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(descriptor, secrets.token_bytes(KEY_BYTES))
        with suppress(FileExistsError):  # another process was faster
            os.link(made, path)
    finally:
        os.close(descriptor)
        made.unlink()
    return path.read_bytes()


class Introduction(NamedTuple):
    """A connection that a shard is to take part in."""

    id: bytes
    name: str
    client: Address
    """Where answers go."""
    number: int
    choice: Choice
    """All layers, from `shard` to the wire."""


def pack_introduction(key: bytes, what: Introduction, now: float) -> bytes:
    """An INTRODUCE, valid for VALID_S from `now` (of the clock on the wall)."""
    body: bytes = msgpack.packb(
        [round(now + VALID_S), what.id, what.name, list(what.client), what.number,
         messages.plain_choice(what.choice)]
    )  # fmt: skip
    return messages.INTRODUCE + _tag(key, body) + body


def introduction_untrusted(key: bytes, data: bytes, now: float) -> Introduction:
    """What stands in an INTRODUCE, without its kind; BadPacket where it is not of the key's."""
    tag, body = data[:_TAG_BYTES], data[_TAG_BYTES:]
    if not hmac.compare_digest(tag, _tag(key, body)):
        raise BadPacket("it was not made with this user's key")
    try:
        match msgpack.unpackb(body):
            case [int(until), bytes(id), name, [host, port], number, choice] if (
                len(id) == ID_BYTES
            ):
                if not 0 <= until - now <= 2 * VALID_S:
                    raise BadPacket("it is old, or the clocks of both hosts differ")
                client = str(IPv4Address(text_untrusted(host))), integer_untrusted(port)
                if not 0 < client[1] < 1 << 16 or not 0 < integer_untrusted(number) < ORIGINS_MAX:
                    raise BadPacket("no port, or no number of a shard")
                return Introduction(
                    id, text_untrusted(name), client, number, messages.choice_untrusted(choice)
                )
    except (ValueError, TypeError, msgpack.UnpackException, RecursionError) as error:
        raise BadPacket(f"no introduction ({error})") from None
    raise BadPacket("no introduction")


def _tag(key: bytes, body: bytes) -> bytes:
    return hmac.digest(key, b"introduce" + body, "sha256")[:_TAG_BYTES]


class Introduced(NamedTuple):
    """A connection to begin at a shard."""

    admitted: Admitted
    carried: Datagrams


def take_introduction_untrusted(
    data: bytes, address: Address, key: bytes, socket: ServerSocket
) -> Introduced | bytes | None:
    """An INTRODUCE that came to a shard.

    Returns:
      The connection that it makes, a datagram to answer with, or None: it was none.
    """
    try:
        what = introduction_untrusted(key, data, time.time())
        below = _below_untrusted(what.choice)
    except BadPacket as error:
        socket.counters["bad_introductions"] += 1
        log.debug("an introduction was dropped: %s", error)
        return None
    known = socket.connections.get(what.id)
    if known is not None:
        if known.via is None or not known.begun:
            return None
        known.via = address
        return messages.CONFIRMED + what.id
    carried = socket.open(what.id, what.client)
    carried.via = address
    choice = what.choice._replace(layers=below)
    return Introduced(Admitted(what.id, what.name, what.client, choice, (), what.number), carried)


def _below_untrusted(choice: Choice) -> tuple[Chosen, ...]:
    types = [each.type for each in choice.layers]
    if SHARD not in types:
        raise BadPacket("its layers are not those of shards")
    return choice.layers[types.index(SHARD) + 1 :]
