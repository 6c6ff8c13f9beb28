"""What the commands of a workload mean, told once more: simple, and apart from the store's code."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from kvstore.checking.history import Command, Output
from kvstore.replies import Error
from p4xos.testing.linearizability import UNKNOWN, Key, Operation

MULTI = b"MULTI"
NOT_AN_INTEGER = Error(b"ERR value is not an integer or out of range")
OVERFLOW = Error(b"ERR increment or decrement would overflow")
STATE_ERRORS = frozenset(error.text for error in (NOT_AN_INTEGER, OVERFLOW))
"""Answers that tell of the state; any other error is a refusal, which tells nothing of it."""
_INTEGERS = range(-(1 << 63), 1 << 63)

Value = bytes | None


def _get(value: Value, command: Command) -> tuple[Value, Output]:
    return value, value


def _set(value: Value, command: Command) -> tuple[Value, Output]:
    if len(command) == 5 and value != command[4]:
        return value, None
    return command[2], b"OK"


def _del(value: Value, command: Command) -> tuple[Value, Output]:
    return None, int(value is not None)


def _incr(value: Value, command: Command) -> tuple[Value, Output]:
    held = value or b"0"
    digits = held.removeprefix(b"-")
    canonical = value is None or held == b"0" or (digits.isdigit() and not digits.startswith(b"0"))
    if not canonical or len(digits) > 19 or value == b"" or int(held) not in _INTEGERS:
        return value, NOT_AN_INTEGER
    counted = int(held) + 1
    if counted not in _INTEGERS:
        return value, OVERFLOW
    return b"%d" % counted, counted


def _append(value: Value, command: Command) -> tuple[Value, Output]:
    appended = (value or b"") + command[2]
    return appended, len(appended)


_MEANINGS: dict[bytes, tuple[int, Callable[[Value, Command], tuple[Value, Output]]]] = {
    b"GET": (2, _get),
    b"SET": (3, _set),
    b"DEL": (2, _del),
    b"INCR": (2, _incr),
    b"APPEND": (3, _append),
}
"""By name: how many words, and value and command to new value and answer."""


def check_command(command: Command) -> None:
    """Whether the model knows it.

    Raises:
      ValueError: it does not.
    """
    if command[0] == MULTI:
        if len(command) < 2:
            raise ValueError("a MULTI of no commands")
        for part in command[1:]:
            if not isinstance(part, tuple) or not part or part[0] == MULTI:
                raise ValueError("what stands in a MULTI must be commands")
            check_command(part)
        return
    if not all(isinstance(word, bytes) for word in command):
        raise ValueError("the words of a command must be texts")
    known = _MEANINGS.get(command[0])
    conditional = len(command) == 5 and command[0] == b"SET" and command[3] == b"IFEQ"
    if known is None or not (len(command) == known[0] or conditional):
        shown = b" ".join(command)[:60].decode("utf-8", "replace")
        raise ValueError(
            f"{shown}: known are GET k, SET k v, SET k v IFEQ old, DEL k, INCR k, APPEND k v"
        )


class StoreModel:
    """GET, SET, SET IFEQ, DEL, INCR, APPEND, and MULTI of these, on keys that begin missing."""

    def keys(self, input: Command) -> list[Key]:
        """As `Model.keys`."""
        if input[0] == MULTI:
            return [part[1] for part in input[1:]]
        return [input[1]]

    def machine(self, keys: Sequence[Key], unknown: Sequence[Command]) -> _One | _Several:
        """As `Model.machine`."""
        return _One(unknown) if len(keys) == 1 else _Several(keys)

    def reads(self, input: Command) -> bool:
        """As `Model.reads`."""
        if input[0] == MULTI:
            return all(part[0] == b"GET" for part in input[1:])
        return bool(input[0] == b"GET")

    def setting(self, keys: Sequence[Key], state: tuple[Value, ...]) -> tuple[Command, Output]:
        """As `Model.setting`."""
        parts = tuple(
            (b"DEL", key) if value is None else (b"SET", key, value)
            for key, value in zip(keys, state, strict=True)
        )
        answers = tuple(0 if part[0] == b"DEL" else b"OK" for part in parts)
        return (parts[0], answers[0]) if len(parts) == 1 else ((MULTI, *parts), answers)

    def describe(self, operation: Operation) -> str:
        """As `Model.describe`."""
        return f"{_shown_command(operation.input)} -> {_shown(operation.output)}"


class _One:
    """One key. A state is (value,): None would mean that an operation does not fit."""

    def __init__(self, unknown: Sequence[Command]) -> None:
        self.initial: tuple[Value] = (None,)
        # Only APPEND makes a value out of another one: what a value grows to begins with it.
        self._grows = all(
            command[0] in (b"DEL", b"APPEND") or (command[0] == b"SET" and len(command) == 3)
            for command in unknown
        )

    def step(self, state: tuple[Value], input: Command, output: Output) -> tuple[Value] | None:
        if input[0] == MULTI:
            value = state[0]
            answers = []
            for part in input[1:]:
                value, answer = _MEANINGS[part[0]][1](value, part)
                answers.append(answer)
            return None if output is not UNKNOWN and output != tuple(answers) else (value,)
        value, answer = _MEANINGS[input[0]][1](state[0], input)
        # An Error is a tuple with one word in it, and equal to one that is not.
        fits = output is UNKNOWN or (output == answer and type(output) is type(answer))
        return (value,) if fits else None

    def reaches(self, state: tuple[Value], input: Command, output: Output) -> bool:
        """As `Machine.reaches`. A SET or DEL behind another command leaves nothing of that one."""
        if not self._grows:
            return True
        value = state[0]
        match input:
            case (b"GET", _):
                if output is None or value is None:
                    return output is not None or value is None
                return type(output) is bytes and output.startswith(value)
            case (b"APPEND", _, piece):
                return type(output) is int and len(value or b"") + len(piece) <= output
            case (b"SET", _, _):
                return False
            case (b"DEL", _):
                return output != 0 or value is None
        return True


class _Several:
    """Keys that transactions join. A state is a tuple of their values."""

    def __init__(self, keys: Sequence[Key]) -> None:
        self._places = {key: place for place, key in enumerate(keys)}
        self.initial: tuple[Value, ...] = (None,) * len(keys)

    def step(
        self, state: tuple[Value, ...], input: Command, output: Output
    ) -> tuple[Value, ...] | None:
        values = list(state)
        answers = []
        for part in input[1:] if input[0] == MULTI else (input,):
            place = self._places[part[1]]
            values[place], answer = _MEANINGS[part[0]][1](values[place], part)
            answers.append(answer)
        wanted: Any = tuple(answers) if input[0] == MULTI else answers[0]
        fits = output is UNKNOWN or (output == wanted and type(output) is type(wanted))
        return tuple(values) if fits else None

    def reaches(self, state: tuple[Value, ...], input: Command, output: Output) -> bool:
        """As `Machine.reaches`."""
        return True


def _shown_command(command: Command) -> str:
    if command[0] == MULTI:
        return f"MULTI {{{'; '.join(map(_shown_command, command[1:]))}}}"
    return b" ".join(command).decode("utf-8", "backslashreplace")


def _shown(output: Output) -> str:
    match output:
        case None:
            return "(nil)"
        case Error(text):
            return f"({text.decode('utf-8', 'backslashreplace')})"
        case bytes():
            return output.decode("utf-8", "backslashreplace")
        case tuple():
            return f"[{', '.join(map(_shown, output))}]"
        case _:
            return "unknown" if output is UNKNOWN else str(output)
