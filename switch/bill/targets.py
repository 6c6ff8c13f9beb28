"""What a target has: profiles, TOML files; those that come with the project have a name.

name = "small"
[limits]              # each may be left out: without a bound
stages = 12           # of ingress, and of egress
stage_sram_bits = 10_485_760
[model]               # what one stage can do, for the count of stages
stateful_operations = 2
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

from p4xos.tables import Table, parse_toml

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
    """For exact tables and registers; a register lies in one stage."""
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
    """The profile of a name, or in a file.

    Raises:
      ConfigError: what is wrong in it, and how to mend it.
    """
    path = PROFILES / f"{name}.toml" if name in NAMES else Path(name)
    if not path.exists():
        raise ValueError(
            f"target {name}: neither a known one ({', '.join(NAMES)}) nor a file; write a profile "
            f"as {PROFILES / 'tofino.toml'} is one"
        )
    data = parse_toml(path.read_text(encoding="utf-8", errors="replace"), str(path))
    whole = Table(str(path), "the file", data, {"name", "limits", "model"})
    limits = Table(str(path), "[limits]", data.get("limits", {}), _LIMITS)
    model = Table(str(path), "[model]", data.get("model", {}), _MODEL)
    bounds = {key: limits.integer(key, 0, 1 << 62) for key in _LIMITS if limits.has(key)}
    stateful = model.integer("stateful_operations", 0, 64) if model.has(_MODEL[0]) else 0
    return Target(
        name=whole.text("name", "the target's name"),
        multiplies=not model.has("multiplies")
        or model.choice("multiplies", ("yes", "no")) == "yes",
        stateful_operations=stateful,
        **bounds,
    )


_MODEL = ("stateful_operations", "multiplies")
_LIMITS = tuple(each.name for each in fields(Target) if each.name not in ("name", *_MODEL))
