"""What generated programs call where one Python operator does not say it.

Values are ints in [0, 2**width), as everywhere in the representation.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable


def shifted_left(value: int, by: int, width: int) -> int:
    """`<<`: 0 when `by` reaches the width, however large it is."""
    return value << by & (1 << width) - 1 if by < width else 0


def as_signed(value: int, width: int) -> int:
    """The number that two's complement bits stand for."""
    half = 1 << width >> 1
    return (value ^ half) - half


def shifted_right_signed(value: int, by: int, width: int) -> int:
    """`>>` of int<width>: the sign fills up."""
    return as_signed(value, width) >> min(by, width) & (1 << width) - 1


def clamped(value: int, width: int) -> int:
    """The nearest value of bit<width>."""
    return min(max(value, 0), (1 << width) - 1)


def clamped_signed(value: int, width: int) -> int:
    """The nearest value of int<width>, in two's complement."""
    half = 1 << width >> 1
    return min(max(value, -half), half - 1) & (1 << width) - 1


def divided(value: int, by: int, fault: Callable[[int], int], number: int) -> int:
    """`/`; by zero it is a fault, and what `fault` returns."""
    return value // by if by else fault(number)


def remainder(value: int, by: int, fault: Callable[[int], int], number: int) -> int:
    """`%`; by zero it is a fault, and what `fault` returns."""
    return value % by if by else fault(number)


def internet_checksum(value: int, bits: int) -> int:
    """The ones' complement of the ones' complement sum of 16-bit words (RFC 1071).

    Zeros are put behind the bits up to a whole word.
    """
    value <<= -bits % 16
    # 2**16 is 1 modulo 2**16 - 1, so the remainder is the folded sum; only 0 has two forms.
    total = value % 0xFFFF or (0xFFFF if value else 0)
    return total ^ 0xFFFF


def hashed(algorithm: str, value: int, bits: int) -> int:
    """v1model's `hash`: over whole bytes, zeros put behind the bits."""
    if algorithm == "identity":
        return value
    if algorithm == "csum16":
        return internet_checksum(value, bits)
    data = (value << -bits % 8).to_bytes((bits + 7) // 8, "big")
    return zlib.crc32(data) if algorithm == "crc32" else _crc16(data)


def _crc16(data: bytes) -> int:
    """CRC-16/ARC: polynomial 0x8005 reflected, from 0."""
    rest = 0
    for byte in data:
        rest ^= byte
        for _ in range(8):
            rest = rest >> 1 ^ (0xA001 if rest & 1 else 0)
    return rest
