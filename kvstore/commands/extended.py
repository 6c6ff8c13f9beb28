"""Floating numbers of 80 bits, as Redis computes on x86-64, exactly and alike on every machine.

INCRBYFLOAT of Redis uses C's `long double`, which has 64 bits of mantissa on x86-64 and other
sizes elsewhere. Replicas may run on different machines and must agree on every digit, so numbers
here are pairs of integers, rounded where the format would round: when they are read, and after
each addition, to the nearest, ties to even.
"""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from typing import NamedTuple

MANTISSA_BITS = 64
MAX_EXPONENT = 16384
"""Every finite number is below 2 to this power."""
MIN_EXPONENT = -16445
"""All numbers are multiples of 2 to this power."""
MAX_TEXT_BYTES = 5 * 1024 - 1
"""Redis reads no longer number."""
FRACTION_DIGITS = 17
"""Digits that Redis prints behind the point; zeros at the end are cut off."""

_DECIMAL = re.compile(rb"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_HEXADECIMAL = re.compile(
    rb"([+-]?)0[xX](?=\.?[0-9a-fA-F])([0-9a-fA-F]*)\.?([0-9a-fA-F]*)(?:[pP]([+-]?[0-9]+))?"
)
_INFINITY = re.compile(rb"[+-]?inf(?:inity)?", re.IGNORECASE)
_GUARD_BITS = 2
"""Bits of a quotient below its mantissa: one for the half, one for whether anything is below."""
_MAX_DECIMAL_EXPONENT = 5000
"""What begins higher is too large, what begins lower than its negative is too small; between
them, powers are small enough to compute with."""


class Number(NamedTuple):
    """mantissa * 2**exponent; the mantissa has 64 bits at most, and the sign."""

    mantissa: int
    exponent: int


def parse(text: bytes) -> Number | None:
    """Reads a number as C's strtold does, without spaces around it; None is an infinity.

    Raises:
      ValueError: not a number, or one too large or too small for the format.
    """
    if len(text) > MAX_TEXT_BYTES:
        raise ValueError("too long")
    exponent = 0
    if _DECIMAL.fullmatch(text):
        numerator, denominator = _parse_decimal(text)
    elif found := _HEXADECIMAL.fullmatch(text):
        (numerator, exponent), denominator = _parse_hexadecimal(*found.groups(b"0")), 1
    elif _INFINITY.fullmatch(text):
        return None
    else:
        raise ValueError("not a number")
    try:
        number = _round(numerator, denominator, exponent)
    except OverflowError:
        raise ValueError("too large") from None
    if numerator and not number.mantissa:
        raise ValueError("too small")
    return number


def _parse_decimal(text: bytes) -> tuple[int, int]:
    """Numerator and denominator."""
    # By Decimal and not by int: Python's int refuses texts of more than 4300 digits.
    try:
        number = Decimal(text.decode())
    except InvalidOperation:
        raise ValueError("exponent out of range") from None
    if not number:
        return 0, 1
    if abs(number.adjusted()) > _MAX_DECIMAL_EXPONENT:
        raise ValueError("too large or too small")
    return number.as_integer_ratio()


def _parse_hexadecimal(sign: bytes, whole: bytes, part: bytes, power: bytes) -> tuple[int, int]:
    """Mantissa and exponent."""
    mantissa = int(sign + whole + part, 16)
    if not mantissa:
        return 0, 0
    exponent = int(Decimal(power.decode())) - 4 * len(part)
    if abs(exponent + mantissa.bit_length()) > 2 * MAX_EXPONENT:
        raise ValueError("too large or too small")
    return mantissa, exponent


def add(left: Number | None, right: Number | None) -> Number:
    """The rounded sum.

    Raises:
      OverflowError: it is infinite, or no number at all.
    """
    if left is None or right is None:
        raise OverflowError
    exponent = min(left.exponent, right.exponent)
    aligned = [number.mantissa << (number.exponent - exponent) for number in (left, right)]
    return _round(sum(aligned), 1, exponent)


def _round(numerator: int, denominator: int, exponent: int) -> Number:
    """The number nearest to numerator / denominator * 2**exponent, of two the even one.

    Raises:
      OverflowError: it is infinite.
    """
    missing = MANTISSA_BITS + _GUARD_BITS - numerator.bit_length() + denominator.bit_length()
    shift = max(missing, 0) if denominator > 1 else 0
    quotient, rest = divmod(numerator << shift, denominator)
    quotient |= rest != 0
    exponent -= shift
    dropped = max(quotient.bit_length() - MANTISSA_BITS, MIN_EXPONENT - exponent, 0)
    mantissa = _shift_right(quotient, dropped)
    exponent += dropped
    if mantissa.bit_length() + exponent > MAX_EXPONENT:
        raise OverflowError
    return Number(mantissa, exponent)


def _shift_right(integer: int, bits: int) -> int:
    """An integer / 2**bits, rounded to the nearest integer, of two the even one."""
    if bits <= 0:
        return integer << -bits
    half = 1 << (bits - 1)
    rest = integer & (2 * half - 1)
    shifted = integer >> bits
    return shifted + (rest > half or (rest == half and shifted & 1 == 1))


def format_plain(number: Number) -> bytes:
    """The number without an exponent, 17 digits behind the point, without zeros at their end."""
    scaled = _shift_right(number.mantissa * 10**FRACTION_DIGITS, -number.exponent)
    digits = str(Decimal(abs(scaled))).zfill(FRACTION_DIGITS + 1)
    text = f"{digits[:-FRACTION_DIGITS]}.{digits[-FRACTION_DIGITS:]}".rstrip("0").rstrip(".")
    return (f"-{text}" if scaled < 0 else text).encode()
