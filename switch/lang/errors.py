"""What a P4 program can be told it has wrong."""

from __future__ import annotations

from switch.lang.ir import Where


class P4Error(ValueError):
    """A program that is not one, or that asks for what is not supported here."""

    def __init__(self, where: Where, text: str) -> None:
        super().__init__(f"{where}: {text}")
        self.where = where
        self.text = text


def unsupported(where: Where, text: str) -> P4Error:
    """P4-16 has it, this front end has not."""
    return P4Error(where, f"not supported: {text}")
