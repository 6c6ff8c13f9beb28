"""Replies to values with types: each function takes one kind of reply and refuses the others."""

from __future__ import annotations

from typing import Any

from kvstore.client.errors import UnexpectedReply


def anything(command: str, reply: object) -> Any:
    """As hiredis gives it: None, bytes, int, float, bool, list or dict."""
    return reply


def integer(command: str, reply: object) -> int:
    """A number."""
    if isinstance(reply, int):
        return int(reply)
    raise UnexpectedReply(command, reply)


def truth(command: str, reply: object) -> bool:
    """1 or 0, or RESP3's own."""
    if isinstance(reply, int):
        return bool(reply)
    raise UnexpectedReply(command, reply)


def text(command: str, reply: object) -> bytes:
    """A string that is there."""
    if isinstance(reply, bytes):
        return reply
    raise UnexpectedReply(command, reply)


def text_or_none(command: str, reply: object) -> bytes | None:
    """A string, or nothing."""
    if reply is None or isinstance(reply, bytes):
        return reply
    raise UnexpectedReply(command, reply)


def done(command: str, reply: object) -> None:
    """OK."""
    if reply != b"OK":
        raise UnexpectedReply(command, reply)


def was_done(command: str, reply: object) -> bool:
    """OK, or nothing because a condition did not hold."""
    if reply is None or reply == b"OK":
        return reply is not None
    raise UnexpectedReply(command, reply)


def number(command: str, reply: object) -> float:
    """A number with a fraction."""
    if isinstance(reply, float):
        return reply
    try:
        return float(text(command, reply))
    except ValueError:
        raise UnexpectedReply(command, reply) from None


def texts_or_none(command: str, reply: object) -> list[bytes | None]:
    """Strings, or nothing in the place of one."""
    if isinstance(reply, list):
        return [text_or_none(command, item) for item in reply]
    raise UnexpectedReply(command, reply)


def integers_or_none(command: str, reply: object) -> list[int | None]:
    """Numbers, or nothing in the place of one."""
    if isinstance(reply, list):
        return [None if item is None else integer(command, item) for item in reply]
    raise UnexpectedReply(command, reply)


def page(command: str, reply: object) -> tuple[bytes, list[bytes]]:
    """A cursor and keys."""
    if isinstance(reply, list) and len(reply) == 2 and isinstance(reply[1], list):
        return text(command, reply[0]), [text(command, key) for key in reply[1]]
    raise UnexpectedReply(command, reply)


def sections(command: str, reply: object) -> dict[str, str]:
    """INFO's lines `key:value`, whatever their section."""
    lines = text(command, reply).decode("utf-8", "replace").splitlines()
    pairs = (line.partition(":") for line in lines if not line.startswith("#"))
    return {key: value for key, colon, value in pairs if colon}
