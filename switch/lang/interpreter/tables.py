"""A table at run time: the text's entries, and what the control plane adds."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from switch.lang import ir
from switch.lang.interpreter.expressions import width_of

Variables = dict[str, int]
Run = Callable[[Variables], None]


class Found:
    """What a lookup yields: an action with its arguments; and the entry's direct counter."""

    __slots__ = ("arguments", "bytes", "call", "hit", "index", "packets", "run")

    def __init__(
        self, call: ir.ActionCall, hit: int, index: int, run: Run, arguments: Variables
    ) -> None:
        self.call = call
        self.hit = hit
        """1 of an entry, 0 of the default."""
        self.index = index
        """Of the action in the table's."""
        self.run = run
        self.arguments = arguments
        """By the path of the action's parameter."""
        self.packets = self.bytes = 0

    def count(self, length: int) -> None:
        """One packet more."""
        self.packets += 1
        self.bytes += length


class Table:
    """Entries in the order in which they are tried, and a default action."""

    def __init__(self, program: ir.Program, table: ir.Table, runs: Mapping[str, Run]) -> None:
        self._program, self._table, self._runs = program, table, runs
        self.reset()

    def reset(self) -> None:
        """As at first: what the program's text says."""
        self._default = self.last = self._found(self._table.default, hit=0)
        """`last` is what the last lookup found: direct counters count there."""
        self._entries = [
            (entry.matches, self._found(entry.call, hit=1)) for entry in self._table.entries
        ]
        self._order()

    def lookup(self, keys: tuple[int, ...]) -> Found:
        """The entry that the keys match, or the default."""
        found = self._exact.get(keys)
        if found is None:
            found = self._first_match(keys)
        self.last = found
        return found

    def _first_match(self, keys: tuple[int, ...]) -> Found:
        for matches, found in self._others:
            if all(map(_matches, matches, keys)):
                return found
        return self._default

    @property
    def entries(self) -> list[tuple[tuple[ir.Match, ...], Found]]:
        """All of them, in the order of the text and of `add`."""
        return list(self._entries)

    @property
    def default(self) -> Found:
        """What runs where no entry matches."""
        return self._default

    def add(self, matches: tuple[ir.Match, ...], call: ir.ActionCall) -> None:
        """An entry behind those that are there; ValueError where the program does not let it in."""
        table = self._table
        self._may_change(table.entries_are_const and bool(table.entries), "entries")
        if len(self._entries) >= table.size:
            raise ValueError(f"table {table.name} is full: size = {table.size}; remove an entry")
        if len(matches) != len(table.keys):
            raise ValueError(
                f"table {table.name} has {len(table.keys)} keys, not {len(matches)}: give each "
                "key a match"
            )
        for key, match in zip(table.keys, matches, strict=True):
            _check(table, key, match)
        if any(matches == others for others, _ in self._entries):
            raise ValueError(f"table {table.name} has an entry for the same keys: remove it first")
        self._entries.append((matches, self._found(call, hit=1)))
        self._order()

    def remove(self, matches: tuple[ir.Match, ...]) -> None:
        """The entry with just these matches is no longer there."""
        table = self._table
        self._may_change(table.entries_are_const and bool(table.entries), "entries")
        kept = [entry for entry in self._entries if entry[0] != matches]
        if len(kept) == len(self._entries):
            raise ValueError(f"table {table.name} has no entry with just these matches")
        self._entries = kept
        self._order()

    def set_default(self, call: ir.ActionCall) -> None:
        """Another action where no entry matches."""
        self._may_change(self._table.default_is_const, "default_action")
        self._default = self._found(call, hit=0)

    def _may_change(self, const: bool, what: str) -> None:
        if const:
            raise ValueError(f"table {self._table.name} has const {what}: change the program")

    def _found(self, call: ir.ActionCall, hit: int) -> Found:
        table = self._table
        if call.action not in table.actions:
            raise ValueError(
                f"table {table.name} has no action {call.action}: "
                f"it is one of {', '.join(table.actions)}"
            )
        parameters = self._program.actions[call.action].parameters
        if len(call.arguments) != len(parameters):
            raise ValueError(
                f"action {call.action} takes {len(parameters)} arguments, not {len(call.arguments)}"
            )
        for parameter, value in zip(parameters, call.arguments, strict=True):
            if not 0 <= value < 1 << width_of(parameter.type):
                raise ValueError(
                    f"{value} does not fit into {parameter.name} of action {call.action}, "
                    f"a {parameter.type}"
                )
        paths = (parameter.path for parameter in parameters)
        arguments = dict(zip(paths, call.arguments, strict=True))
        run = self._runs[call.action]
        return Found(call, hit, table.actions.index(call.action), run, arguments)

    def _order(self) -> None:
        """Entries as they are tried: exact ones through a dict, others one by one."""
        self._exact: dict[tuple[int, ...], Found] = {}
        self._others = self._entries
        kinds = {key.kind for key in self._table.keys}
        if all(match.kind == "exact" for matches, _ in self._entries for match in matches):
            for matches, found in self._entries:
                self._exact.setdefault(tuple(match.value for match in matches), found)
            self._others = []
        elif "lpm" in kinds and kinds <= {"lpm", "exact"}:
            self._others = sorted(
                self._entries, key=lambda entry: self._prefix_bits(entry[0]), reverse=True
            )

    def _prefix_bits(self, matches: tuple[ir.Match, ...]) -> int:
        """How long the prefixes are: of several that match, the longest is taken."""
        bits = 0
        for key, match in zip(self._table.keys, matches, strict=True):
            if match.kind == "exact":
                bits += width_of(key.expression.type)
            elif match.kind == "lpm":
                bits += match.mask.bit_count()
        return bits


def _matches(match: ir.Match, key: int) -> bool:
    match match.kind:
        case "exact":
            return key == match.value
        case "ternary" | "lpm":
            return key & match.mask == match.value & match.mask
        case "range":
            return match.value <= key <= match.high
        case "any":
            return True


_ALLOWED = {
    "exact": ("exact",),
    "optional": ("exact", "any"),
    "ternary": ("exact", "ternary", "any"),
    "lpm": ("exact", "lpm", "any"),
    "range": ("exact", "range", "any"),
}


def _check(table: ir.Table, key: ir.Key, match: ir.Match) -> None:
    """ValueError where a key of this kind cannot be matched so."""
    type_ = key.expression.type
    most = (1 << width_of(type_)) - 1
    if match.kind not in _ALLOWED[key.kind]:
        raise ValueError(
            f"table {table.name}: the key {key.name} is {key.kind}, its match cannot be "
            f"{match.kind}; use one of {', '.join(_ALLOWED[key.kind])}"
        )
    for value in (match.value, match.mask, match.high):
        if not 0 <= value <= most:
            raise ValueError(f"table {table.name}: {value} is no {type_}, as the key {key.name} is")
