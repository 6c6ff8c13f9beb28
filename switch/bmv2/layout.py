"""What p4c says of a program: its tables, actions, registers and counters, with their widths.

bmv2 takes numbers as bytes, exactly as many as a key or an argument has, and tells of a mistake by
a code at best. So everything that a controller names is looked up and measured here first.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from p4xos.errors import P4xosError
from switch.bmv2.runtime import REGISTER_BITS_MAX

Found = TypeVar("Found")


class LayoutError(P4xosError):
    """The file is not what this code knows how to use."""

    def __init__(self, path: Path, what: str) -> None:
        super().__init__(
            f"{path}: {what}; remove the file so that p4c makes it again, and take p4c 1.2.5 "
            "if that does not help"
        )


class Action(NamedTuple):
    """One of a table's."""

    name: str
    bits: tuple[int, ...]
    """Of its arguments."""


class Table(NamedTuple):
    """One whose entries the control plane adds."""

    name: str
    bits: tuple[int, ...]
    """Of its keys, all of them exact."""
    actions: Mapping[str, Action]


class Register(NamedTuple):
    """An array of cells."""

    name: str
    bits: int
    size: int

    @property
    def readable(self) -> bool:
        """Whether the control plane has room for a cell."""
        return self.bits <= REGISTER_BITS_MAX


@dataclass(frozen=True)
class Layout:
    """Names are looked up by what stands behind their last dot."""

    path: Path
    tables: Mapping[str, Table]
    registers: Mapping[str, Register]
    counters: Mapping[str, int]
    """Cells, by full name."""

    @classmethod
    def read(cls, path: Path) -> Layout:
        """The JSON that p4c wrote.

        Raises:
          LayoutError: it is none, or something in it is missing.
        """
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise LayoutError(path, f"cannot be read as JSON: {error}") from None
        try:
            return cls(
                path, _by_last_part(_tables(data)),
                _by_last_part(
                    Register(each["name"], each["bitwidth"], each["size"])
                    for each in data["register_arrays"]
                ),
                # Those of a table's entries have no size of their own.
                {each["name"]: each["size"] for each in data["counter_arrays"] if "size" in each},
            )  # fmt: skip
        except (KeyError, TypeError, IndexError) as error:
            raise LayoutError(path, f"is no program of bmv2: {error!r}") from None

    def table(self, name: str) -> Table:
        """By its last part; LayoutError where the program has none."""
        return self._found("table", name, self.tables)

    def register(self, name: str) -> Register:
        """By its last part; ValueError where the program has none, as Backend says."""
        if name not in self.registers:
            raise ValueError(f"no register {name}: the program has none of that name")
        return self.registers[name]

    def counter(self, name: str) -> tuple[str, int]:
        """Its full name and how many cells it has."""
        names = {each.rpartition(".")[2]: each for each in self.counters}
        full = self._found("counter", name, names)
        return full, self.counters[full]

    def entry(
        self, table: str, keys: Sequence[int], action: str, arguments: Sequence[int]
    ) -> tuple[str, list[bytes], str, list[bytes]]:
        """An entry as `Runtime.add_entry` takes it; LayoutError where the program is another."""
        of = self.table(table)
        act = self._found(f"action of {of.name}", action, of.actions)
        return (
            of.name, self._bytes(f"keys of {of.name}", keys, of.bits),
            act.name, self._bytes(f"arguments of {act.name}", arguments, act.bits),
        )  # fmt: skip

    def _bytes(self, what: str, numbers: Sequence[int], bits: Sequence[int]) -> list[bytes]:
        if len(numbers) != len(bits):
            raise LayoutError(self.path, f"{what} are {len(bits)}, not {len(numbers)}")
        for number, width in zip(numbers, bits, strict=True):
            if number >> width:
                raise LayoutError(self.path, f"{what}: {number} has more than {width} bits")
        return [
            number.to_bytes((width + 7) // 8, "big")
            for number, width in zip(numbers, bits, strict=True)
        ]

    def _found(self, what: str, name: str, known: Mapping[str, Found]) -> Found:
        if name not in known:
            raise LayoutError(self.path, f"has no {what} {name}, only {', '.join(sorted(known))}")
        return known[name]


def _tables(data: Mapping[str, Any]) -> Iterable[Table]:
    """Those of all pipelines that have only exact keys."""
    kinds = {
        kind["name"]: {field[0]: field[1] for field in kind["fields"]}
        for kind in data["header_types"]
    }
    headers = {header["name"]: kinds[header["header_type"]] for header in data["headers"]}
    actions = {
        action["id"]: Action(
            action["name"], tuple(each["bitwidth"] for each in action["runtime_data"])
        )
        for action in data["actions"]
    }
    for pipeline in data["pipelines"]:
        for table in pipeline["tables"]:
            if all(key["match_type"] == "exact" for key in table["key"]):
                yield Table(
                    table["name"],
                    tuple(headers[key["target"][0]][key["target"][1]] for key in table["key"]),
                    {
                        action.name.rpartition(".")[2]: action
                        for action in map(actions.__getitem__, table["action_ids"])
                    },
                )


Named = TypeVar("Named", Table, Register)


def _by_last_part(found: Iterable[Named]) -> dict[str, Named]:
    return {each.name.rpartition(".")[2]: each for each in found}
