"""The datagrams between two ends: the first byte says which.

    OFFER      version, nonce, the client's name, its offer                     client to server
    ACCEPT     version, nonce, id, ticket, the choice, notes, whether to wait   back
    REFUSE     version, nonce, layer, why                                       back
    CONFIRM    ticket                                                           client to server
    CONFIRMED  id                                                               back
    DENIED     id, why                                                          back
    DATA       id, a message                                                    both
    CLOSE PING PONG    id                                                       both
    INTRODUCE  see `introductions`                                                   server to shard

A nonce has 16 random bytes, drawn for each offer; an id has 8, made by the server of the ticket.
OFFER, ACCEPT and REFUSE are msgpack, with VERSION as the first thing in them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgpack

from p4xos.chunnels.choosing import Choice, Chosen
from p4xos.chunnels.offers import (
    KEYS_MAX,
    integer_untrusted,
    levels_untrusted,
    text_untrusted,
)
from p4xos.chunnels.passes import PASS_BYTES_MAX
from p4xos.chunnels.places import Scope
from p4xos.chunnels.stack import LAYERS_MAX
from p4xos.errors import BadPacket

VERSION = 2
OFFER, ACCEPT, REFUSE, CONFIRM, CONFIRMED, DENIED, DATA, CLOSE, PING, PONG, INTRODUCE = (
    bytes([number]) for number in range(0xB1, 0xBC)
)
"""Far from what p4xos's own datagrams begin with, and from text."""
NONCE_BYTES, ID_BYTES = 16, 8
DATAGRAM_BYTES_MAX = 65_507
TICKET_BYTES_MAX = 8192
WORDS_MAX = 2000
"""Of a reason; longer ones are cut."""


class Accept(NamedTuple):
    """A server's answer to an offer that it takes."""

    nonce: bytes
    id: bytes
    """Of the connection that the ticket makes."""
    ticket: bytes
    choice: Choice
    notes: tuple[str, ...]
    wait: bool
    """Whether the connection begins only when it is confirmed: something must be claimed first."""


class Refuse(NamedTuple):
    """A server's answer to an offer that it does not take."""

    nonce: bytes
    layer: str
    why: str


class Asked(NamedTuple):
    """What stands in an OFFER."""

    nonce: bytes
    name: str
    offer: bytes
    made: bytes
    """A pass for it, as `passes` makes them, or nothing."""


def pack_offer(nonce: bytes, name: str, offer: bytes, made: bytes = b"") -> bytes:
    """An OFFER; see `Asked`."""
    packed: bytes = msgpack.packb([VERSION, nonce, name, offer, made])
    return OFFER + packed


def unpack_offer_untrusted(data: bytes) -> Asked:
    """What stands in an OFFER; BadPacket where it is none."""
    nonce, name, offer, made = _body_untrusted(data, 5)
    if not isinstance(offer, bytes):
        raise BadPacket("no offer")
    if not isinstance(made, bytes) or len(made) > PASS_BYTES_MAX:
        raise BadPacket("no pass, and not nothing")
    return Asked(_bytes(nonce, NONCE_BYTES), text_untrusted(name), offer, made)


def pack_accept(accept: Accept) -> bytes:
    """An ACCEPT."""
    packed: bytes = msgpack.packb(
        [VERSION, accept.nonce, accept.id, accept.ticket, plain_choice(accept.choice), accept.notes,
         accept.wait]
    )  # fmt: skip
    return ACCEPT + packed


def unpack_accept_untrusted(data: bytes) -> Accept:
    """An ACCEPT; BadPacket where it is none."""
    nonce, id, ticket, choice, notes, wait = _body_untrusted(data, 7)
    if not isinstance(ticket, bytes) or len(ticket) > TICKET_BYTES_MAX:
        raise BadPacket("no ticket")
    if not isinstance(wait, bool) or not isinstance(notes, list) or len(notes) > LAYERS_MAX:
        raise BadPacket("no notes, or no word on waiting")
    told = tuple(text_untrusted(note, WORDS_MAX) for note in notes)
    return Accept(
        _bytes(nonce, NONCE_BYTES), _bytes(id, ID_BYTES), ticket, choice_untrusted(choice), told,
        wait,
    )  # fmt: skip


def pack_refuse(refuse: Refuse) -> bytes:
    """A REFUSE."""
    packed: bytes = msgpack.packb(
        [VERSION, refuse.nonce, refuse.layer, refuse.why[:WORDS_MAX]]
    )
    return REFUSE + packed


def unpack_refuse_untrusted(data: bytes) -> Refuse:
    """A REFUSE, of any version: it may be about the version; BadPacket where it is none."""
    nonce, layer, why = _list_untrusted(data, 4)[1:]
    return Refuse(_bytes(nonce, NONCE_BYTES), text_untrusted(layer), text_untrusted(why, WORDS_MAX))


def plain_choice(choice: Choice) -> list[object]:
    """A choice as data."""
    return [
        choice.client_alternative, choice.server_alternative,
        [
            [each.type, each.client, each.server, dict(each.levels), each.reason[:WORDS_MAX],
             each.ends, int(each.scope), dict(each.parameters), each.merged]
            for each in choice.layers
        ],
    ]  # fmt: skip


def choice_untrusted(value: object) -> Choice:
    """A choice; BadPacket where it is none."""
    match value:
        case [int(ours), int(theirs), list(layers)] if len(layers) <= LAYERS_MAX:
            found = tuple(_chosen_untrusted(each) for each in layers)
            return Choice(integer_untrusted(ours), integer_untrusted(theirs), found)
    raise BadPacket("no choice")


def _chosen_untrusted(value: object) -> Chosen:
    match value:
        case [type, client, server, levels, reason, ends, int(scope), dict(parameters),
              list(merged)] if 0 <= scope < len(Scope) and len(merged) <= LAYERS_MAX:
            if len(parameters) > KEYS_MAX or not all(isinstance(key, str) for key in parameters):
                raise BadPacket("parameters are a small map with text keys")
            return Chosen(
                text_untrusted(type),
                None if client is None else text_untrusted(client),
                None if server is None else text_untrusted(server),
                levels_untrusted(levels), text_untrusted(reason, WORDS_MAX),
                text_untrusted(ends), Scope(scope), parameters,
                tuple(text_untrusted(each) for each in merged),
            )  # fmt: skip
    raise BadPacket("no chosen layer")


def other_version_untrusted(data: bytes) -> Refuse | None:
    """The answer to an OFFER of another version; None where it is of this one, or none at all."""
    try:
        found = msgpack.unpackb(data[1:], strict_map_key=False)
        version, nonce = found[0], _bytes(found[1], NONCE_BYTES)
    except (ValueError, TypeError, LookupError, msgpack.UnpackException, RecursionError, BadPacket):
        return None
    if not isinstance(version, int) or version == VERSION:
        return None
    return Refuse(
        nonce, "",
        f"this server speaks version {VERSION} of the negotiation and you {version}; use the same "
        "release on both sides: upgrade the older one",
    )  # fmt: skip


def _body_untrusted(data: bytes, count: int) -> Sequence[object]:
    """What follows the version, which must be this one."""
    found = _list_untrusted(data, count)
    if found[0] != VERSION:
        raise BadPacket(f"version {found[0]!r}; this end speaks {VERSION}")
    return found[1:]


def _list_untrusted(data: bytes, count: int) -> list[object]:
    try:
        found = msgpack.unpackb(data[1:], strict_map_key=False)
    except (ValueError, TypeError, msgpack.UnpackException, RecursionError) as error:
        raise BadPacket(f"not msgpack ({error})") from None
    if not isinstance(found, list) or len(found) != count:
        raise BadPacket(f"a list of {count} belongs here")
    return found


def _bytes(value: object, count: int) -> bytes:
    if not isinstance(value, bytes) or len(value) != count:
        raise BadPacket(f"{count} bytes belong here")
    return value

