"""Histories made by hand, by chance, and by a store that is really linearizable."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import permutations

from kvstore.checking.history import Command, Output
from kvstore.checking.model import MULTI, NOT_AN_INTEGER, StoreModel
from p4xos.testing.linearizability import UNKNOWN, Operation, check

MODEL = StoreModel()


def word(value: object) -> object:
    """Texts of a test as the bytes of a command."""
    if isinstance(value, str):
        return value.encode()
    return tuple(map(word, value)) if isinstance(value, tuple) else value


def op(
    called: int, returned: int | None, text: str, output: object = UNKNOWN, client: str = "c"
) -> Operation:
    """One command, its words in a text; a transaction has a ; between its commands."""
    parts = tuple(tuple(part.encode().split()) for part in text.split(";"))
    input: Command = parts[0] if len(parts) == 1 else (MULTI, *parts)
    return Operation(client, called, returned, input, word(output))


def judged(*history: Operation) -> str:
    return check(history, MODEL).judgement


class Store:
    """What the model says, done for real: one command after the other."""

    def __init__(self) -> None:
        self.values: dict[bytes, bytes | None] = {}

    def run(self, command: Command) -> Output:
        if command[0] == MULTI:
            return tuple(self.run(part) for part in command[1:])
        key, held = command[1], self.values.get(command[1])
        match command:
            case (b"GET", _):
                return held
            case (b"SET", _, value, b"IFEQ", wanted):
                if held != wanted:
                    return None
                self.values[key] = value
                return b"OK"
            case (b"SET", _, value):
                self.values[key] = value
                return b"OK"
            case (b"DEL", *keys):
                held_by = [self.values.pop(key, None) for key in keys]
                return sum(value is not None for value in held_by)
            case (b"APPEND", _, piece):
                self.values[key] = (held or b"") + piece
                return len(self.values[key] or b"")
            case (b"INCR", _):
                if held is not None and not held.isdigit():
                    return NOT_AN_INTEGER
                self.values[key] = b"%d" % (int(held or b"0") + 1)
                return int(held or b"0") + 1
        raise AssertionError(command)


def explained(history: Sequence[Operation]) -> bool:
    """Whether some order explains a tiny history: all orders, with all sets of unknown ones."""
    done = [o for o in history if o.returned is not None]
    unknown = [o for o in history if o.returned is None]
    for chosen in range(1 << len(unknown)):
        part = [*done, *(o for k, o in enumerate(unknown) if chosen >> k & 1)]
        if any(fits(order) for order in permutations(part)):
            return True
    return False


def fits(order: Sequence[Operation]) -> bool:
    store = Store()
    latest = -1  # the latest call so far: nothing behind it may have returned before
    for operation in order:
        if operation.returned is not None and operation.returned < latest:
            return False
        latest = max(latest, operation.called)
        output = store.run(operation.input)
        if operation.output is not UNKNOWN and operation.output != output:
            return False
    return True


def drawn_command(chance: random.Random, keys: Sequence[str], value: int) -> str:
    """A command on registers and logs; counters have keys of their own."""
    key = chance.choice(keys)
    return chance.choice(
        [f"GET {key}"] * 4
        + [f"SET {key} {value}"] * 3
        + [f"SET {key} {value} IFEQ {chance.randint(1, max(value - 1, 1))}", f"DEL {key}",
           f"APPEND {key} x{value}", f"INCR n{key}", f"INCR n{key}", f"GET n{key}",
           f"SET {keys[0]} {value};GET {keys[-1]}", f"GET {keys[0]};GET {keys[-1]}"]
    )  # fmt: skip


def linearizable_history(
    chance: random.Random, count: int, clients: int, keys: Sequence[str], unknown: float = 0.0
) -> list[Operation]:
    """Of a store that does each command at one moment between its call and its return.

    Args:
      chance: decides everything.
      count: operations.
      clients: at the same time.
      keys: of the commands.
      unknown: how many of the answers are lost; half of these commands are never done, the others
        at some time, perhaps long behind the moment at which their client gave up.
    """
    moments: list[tuple[float, int, str]] = []
    free = [0.0] * clients
    spans: list[tuple[float, float, bool]] = []
    for number in range(count):
        client = min(range(clients), key=free.__getitem__)
        called = free[client] + chance.random()
        lost = chance.random() < unknown
        returned = called + chance.random() * 3
        free[client] = returned
        at = chance.uniform(called, returned + (50 if lost else 0))
        if not lost or chance.random() < 0.5:
            moments.append((at, number, ""))
        spans.append((called, returned, lost))
    texts = [drawn_command(chance, keys, number + 1) for number in range(count)]
    store, outputs = Store(), dict[int, Output]()
    for _, number, _ in sorted(moments):
        outputs[number] = store.run(op(0, 0, texts[number]).input)
    return [
        op(int(called * 1e6), None if lost else int(returned * 1e6), texts[number],
           UNKNOWN if lost else outputs[number], f"c{number % clients}")
        for number, (called, returned, lost) in enumerate(spans)
    ]  # fmt: skip
