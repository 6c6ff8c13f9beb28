"""What `explain()` tells of a connection."""

from __future__ import annotations

from typing import NamedTuple


class LayerChoice(NamedTuple):
    """One layer: who runs it, and why."""

    type: str
    implementation: str
    """Its name; `client / server` where the ends run different ones; empty: it was removed."""
    ends: str
    reason: str


class Explanation(NamedTuple):
    """A connection's layers from application to wire; prints as a table."""

    title: str
    layers: tuple[LayerChoice, ...]
    notes: tuple[str, ...] = ()
    """What was reordered, merged or removed."""

    def implementation(self, type: str) -> str:
        """What runs a layer; KeyError where there is none of the type."""
        for choice in self.layers:
            if choice.type == type:
                return choice.implementation
        raise KeyError(type)

    def data(self) -> dict[str, object]:
        """For scripts."""
        return {"layers": [each._asdict() for each in self.layers], "notes": list(self.notes)}

    def __str__(self) -> str:
        rows = [(c.type, c.implementation or "-", c.ends, c.reason) for c in self.layers]
        widths = [max((len(row[k]) for row in rows), default=0) for k in range(3)]
        lines = [
            "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), why])
            for *row, why in rows
        ]
        return "\n".join(
            [self.title, *(f"  {line.rstrip()}" for line in lines),
             *(f"  optimized: {note}" for note in self.notes)]
        )  # fmt: skip
