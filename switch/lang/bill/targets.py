"""What a target has: profiles, TOML files; those that come with the project have a name.

name = "small"
[limits]              # each may be left out: without a bound
stages = 12           # of ingress, and of egress
stage_sram_bits = 10_485_760
[model]               # what one stage can do, for the count of stages
stateful_operations = 2
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields
from pathlib import Path

PROFILES = Path(__file__).parent / "targets"
NAMES = tuple(sorted(path.stem for path in PROFILES.glob("*.toml")))


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Bounds of a target; None is no bound."""

    name: str
    stages: int | None = None
    """Match-action stages that ingress, and that egress, can be spread over."""
    stage_tables: int | None = None
    stage_registers: int | None = None
    stage_sram_bits: int | None = None
    """For exact tables, registers and counters; a register or counter lies in one stage."""
    stage_tcam_bits: int | None = None
    """For ternary, lpm and range keys."""
    packet_bits: int | None = None
    """Of headers and metadata that travel with a packet."""
    register_bits: int | None = None
    """The widest cell of a register."""
    arithmetic_bits: int | None = None
    """The widest operands of `+`, `-`, `<` and their like."""
    multiplies: bool = True
    """`*`, `/`, `%`, and shifts by what is not a constant."""
    stateful_operations: int = 0
    """Dependent operations that fit between the reading and writing of a register's cell in one
    stage."""


def load(name: str) -> Target:
    """The profile of a name, or in a file; ValueError with what is wrong in it."""
    path = PROFILES / f"{name}.toml" if name in NAMES else Path(name)
    if not path.exists():
        raise ValueError(
            f"target {name}: neither a known one ({', '.join(NAMES)}) nor a file; write a profile "
            f"as {PROFILES / 'tofino.toml'} is one"
        )
    try:
        read = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: {error}") from error
    return _from_toml(path, read)


def _from_toml(path: Path, read: dict[str, object]) -> Target:
    sections = [read.get(key, {}) for key in ("limits", "model")]
    if not isinstance(read.get("name"), str) or not all(isinstance(s, dict) for s in sections):
        raise ValueError(f"{path}: a profile has a name, and sections [limits] and [model]")
    if unknown := read.keys() - {"name", "limits", "model"}:
        raise ValueError(f"{path}: {min(unknown)} is unknown: name, [limits], [model] are not")
    known = {each.name for each in fields(Target)} - {"name"}
    values: dict[str, int] = {}
    multiplies = True
    for section in sections:
        assert isinstance(section, dict)
        for key, value in section.items():
            if key not in known:
                raise ValueError(f"{path}: {key} is unknown; known are {', '.join(sorted(known))}")
            if key == "multiplies":
                multiplies = bool(value)
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise ValueError(f"{path}: {key} = {value!r}: it must be a whole number, not < 0")
            values[key] = value
    return Target(name=str(read["name"]), multiplies=multiplies, **values)
