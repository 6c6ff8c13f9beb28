"""Errors of the world as heads of frames, and back; see `framing`."""

from __future__ import annotations

from collections.abc import Mapping

from p4xos.errors import (
    NoQuorum,
    NotDelivered,
    Overloaded,
    P4xosError,
    SessionLost,
    Trimmed,
)
from p4xos.framing import integer_untrusted, text_untrusted

_TEXT_MAX = 4096


class Refused(P4xosError):
    """A node did not do what it was asked; the message is the node's and says what to do."""


def error_head(error: P4xosError) -> dict[str, object]:
    """An error for the wire: its name, its fields, its text."""
    head: dict[str, object] = {"error": type(error).__name__, "text": str(error)[:_TEXT_MAX]}
    match error:
        case Trimmed():
            head |= {"instance": error.instance, "low": error.low}
        case NotDelivered():
            head |= {"instance": error.instance, "next": error.next}
        case NoQuorum():
            head |= {"waited_ms": round(error.waited_s * 1000)}
        case Overloaded():
            head |= {"in_flight": error.in_flight, "limit": error.limit}
        case SessionLost():
            head |= {"session": error.session}
    return head


def raise_error_untrusted(head: Mapping[str, object]) -> None:
    """Raises the error that a head carries, if it carries one; BadPacket if that is malformed."""
    if "error" not in head:
        return
    match head["error"]:
        case "Trimmed":
            raise Trimmed(integer_untrusted(head, "instance"), integer_untrusted(head, "low"))
        case "NotDelivered":
            raise NotDelivered(integer_untrusted(head, "instance"), integer_untrusted(head, "next"))
        case "NoQuorum":
            raise NoQuorum(None, integer_untrusted(head, "waited_ms") / 1000)
        case "Overloaded":
            in_flight = integer_untrusted(head, "in_flight")
            raise Overloaded(in_flight, integer_untrusted(head, "limit"))
        case "SessionLost":
            raise SessionLost(integer_untrusted(head, "session"))
        case _:
            raise Refused(text_untrusted(head, "text")[:_TEXT_MAX])
