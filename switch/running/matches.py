"""What people write for the key of a table's entry."""

from __future__ import annotations

from ipaddress import IPv4Address

from switch.lang import ir


def to_match(value: object, key: ir.Key) -> ir.Match:
    """A number, or a text: a number, an address, value&&&mask, value/bits, low..high, or _."""
    width = key.expression.type.width if isinstance(key.expression.type, ir.Bits) else 1
    if isinstance(value, int):
        return ir.Match("exact", int(value))
    text = str(value)
    if text == "_":
        return ir.Match("any")
    if "&&&" in text:
        number, mask = map(_number, text.split("&&&", 1))
        return ir.Match("ternary", number, mask)
    if "/" in text:
        number, bits = map(_number, text.split("/", 1))
        if not 0 <= bits <= width:
            raise ValueError(f"{text}: a prefix of {key.name} has 0 to {width} bits")
        return ir.Match("lpm", number, (1 << width) - (1 << width - bits))
    if ".." in text:
        low, high = map(_number, text.split("..", 1))
        return ir.Match("range", low, high=high)
    return ir.Match("exact", _number(text))


def _number(text: str) -> int:
    try:
        return int(IPv4Address(text)) if text.count(".") == 3 else int(text, 0)
    except ValueError:
        raise ValueError(
            f'{text.strip()!r} is no number: write 5, "0x5", "10.0.0.1", "0x10&&&0xf0", '
            '"10.0.0.0/8", "1..9", or "_" for anything'
        ) from None
