"""What can go wrong between a program and the store; each message ends with what to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeGuard

from p4xos.errors import P4xosError


class StoreError(P4xosError):
    """The base of what `kvstore.Client` raises."""


class ErrorReply(StoreError):
    """The store refused the command; nothing of it was done."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    @property
    def code(self) -> str:
        """The first word: `ERR`, `WRONGTYPE`, ..."""
        return self.text.partition(" ")[0]


class Unavailable(StoreError):
    """No node ran the command in time; nothing was changed by it."""

    def __init__(self, command: str, reason: str, problems: Mapping[str, str]) -> None:
        told = "; ".join(f"{node}: {why}" for node, why in problems.items())
        super().__init__(
            f"{command}: {reason}{f' ({told})' if told else ''}; nothing was changed: "
            "look whether a majority of the nodes runs, then try again"
        )
        self.command = command
        self.reason = reason
        self.problems = dict(problems)


class OutcomeUnknown(StoreError):
    """A write left for a node, and nobody knows whether it was or will be done."""

    def __init__(self, command: str, node: str, reason: str) -> None:
        super().__init__(
            f"the outcome of {command} is unknown ({node}: {reason}): it may have been done, or be "
            "done a little later; read before you write again"
        )
        self.command = command
        self.node = node
        self.reason = reason


class Aborted(StoreError):
    """A transaction was not done, as a whole."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"{reason}; nothing of the transaction was done: read again, then retry")
        self.reason = reason


class UnexpectedReply(StoreError):
    """The store answered with something that this command has no use for."""

    def __init__(self, command: str, reply: object) -> None:
        super().__init__(
            f"{command} was answered with {repr(reply)[:80]}; is this address a node of the store?"
        )
        self.command = command


_REFUSALS = frozenset(("LOADING", "BUSY", "TRYAGAIN", "MASTERDOWN", "CLUSTERDOWN", "READONLY"))
_UNKNOWN = frozenset(("NOQUORUM", "UNKNOWN"))


def says_refused(error: object, *, reads: bool) -> TypeGuard[ErrorReply]:
    """Whether nothing was done and another node, or the same one later, may do it."""
    if not isinstance(error, ErrorReply):
        return False
    return error.code in _REFUSALS or (reads and error.code in _UNKNOWN)


def says_unknown(error: ErrorReply) -> bool:
    """Whether this reply to a write leaves open whether it was done."""
    return error.code in _UNKNOWN
