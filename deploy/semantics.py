"""What Python does where compiled code may do otherwise.

`deploy/compile.py` compiles this module with the others, lets `found` run compiled and as source,
and throws the build away unless both find the same. Each function is a place where a compiler is
known to take a way of its own: types that are known are what it makes use of, so all are written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

ENDS = (-5, -3, -1, 0, 1, 2, 4, 9, 1 << 62, -(1 << 62), 1 << 70)
"""Of slices of three items; the last three are no small numbers to mypyc."""
NUMBERS = (0, 1, -1, 7, -7, (1 << 62) - 1, 1 << 62, -(1 << 62), (1 << 63) - 1, -(1 << 63), 1 << 64)


def found() -> list[str]:
    """What each of them finds, by name."""
    return [f"{name}: {list(outcomes())}" for name, outcomes in sorted(_PLACES.items())]


def _bytes() -> Iterator[object]:
    whole: bytes
    for whole in (b"", b"abc"):
        for start in ENDS:
            yield whole[start:]
            yield whole[:start]
            for end in ENDS:
                yield whole[start:end]
            yield _or_error(lambda whole=whole, at=start: whole[at])  # type: ignore[misc]


def _byte_arrays() -> Iterator[object]:
    whole = bytearray(b"abc")
    for start in ENDS:
        for end in ENDS:
            yield bytes(whole[start:end])


def _texts() -> Iterator[object]:
    whole: str = "abc"
    for start in ENDS:
        for end in ENDS:
            yield whole[start:end]


def _lists() -> Iterator[object]:
    whole: list[int] = [1, 2, 3]
    several: tuple[int, ...] = (1, 2, 3)
    for start in ENDS:
        for end in ENDS:
            yield whole[start:end]
            yield several[start:end]


def _whole_numbers() -> Iterator[object]:
    a: int
    b: int
    for a in NUMBERS:
        yield -a, ~a, abs(a), a.bit_length(), b"%d" % a, f"{a}", float(a), bool(a)
        for b in NUMBERS:
            yield a + b, a - b, a * b, a & b, a | b, a ^ b, a < b, a == b, max(a, b), min(a, b)
            yield _or_error(lambda a=a, b=b: (a // b, a % b))  # type: ignore[misc]
        for shift in (0, 1, 31, 62, 63, 64):
            yield a << shift, a >> shift


def _ends_of_loops() -> Iterator[object]:
    position = -1
    for position in range(3):  # noqa: B007 # what is left of it is what is looked at
        pass
    yield position
    for position, _ in enumerate(b"ab"):  # noqa: B007
        pass
    yield position
    items = [1, 2, 3]
    for item in items:
        if item == 1:
            items.append(4)
    yield items


def _errors() -> Iterator[object]:
    happened: list[str] = []
    for raised in (KeyError("k"), OSError(2, "no"), None):
        try:
            try:
                if raised is not None:
                    raise raised
                happened.append("nothing")
            except KeyError as error:
                happened.append(repr(error))
                raise ValueError("second") from None
            finally:
                happened.append("finally")
        except (ValueError, OSError) as other:
            happened.append(repr(other))
    yield happened
    counts: dict[str, int] = {"a": 1}
    yield _or_error(lambda: counts["b"])
    yield _or_error(lambda: [counts.pop(name) for name in counts])
    yield _or_error(lambda: _first(()))
    yield _or_error(lambda: int(b"x"))


def _first(items: Sequence[int]) -> int:
    (only,) = items
    return only


def _or_error(outcome: Callable[[], object]) -> object:
    try:
        return outcome()
    except Exception as error:
        return type(error).__name__


_PLACES: dict[str, Callable[[], Iterator[object]]] = {
    "bytes": _bytes,
    "bytearray": _byte_arrays,
    "str": _texts,
    "list and tuple": _lists,
    "int": _whole_numbers,
    "loops": _ends_of_loops,
    "errors": _errors,
}
