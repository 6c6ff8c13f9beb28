"""What is judged: operations of clients, and a model of what they mean."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from enum import Enum
from typing import Any, Final, NamedTuple, Protocol

Key = Hashable
State = Hashable


class Unknown(Enum):
    """In place of an answer that never came."""

    UNKNOWN = "unknown"

    def __repr__(self) -> str:
        return "UNKNOWN"


UNKNOWN: Final = Unknown.UNKNOWN


class Operation(NamedTuple):
    """What a client asked for, and what it was told."""

    client: str
    """For people; says nothing about order."""
    called: int
    """Before this moment it has had no effect. Any unit, one clock for the whole history."""
    returned: int | None
    """After this moment it has none; None: its outcome is unknown, and may come at any time."""
    input: Any
    """Hashable; the model knows what it means."""
    output: Any = UNKNOWN
    """UNKNOWN exactly when `returned` is None."""


class Machine(Protocol):
    """What a set of keys does, one operation after the other; deterministic."""

    @property
    def initial(self) -> State:
        """Before the first operation."""
        ...

    def step(self, state: Any, input: Any, output: Any) -> State | None:
        """The state behind an operation; None when it would not have given this output.

        Args:
          state: hashable, and never None; equal ones mean the same.
          input: of the operation.
          output: what it gave; UNKNOWN fits all.
        """
        ...

    def reaches(self, state: Any, input: Any, output: Any) -> bool:
        """False: in this state it cannot give this output, nor behind any of the unknown ones.

        Of these only such need be thought of as matter to the one behind: it would do something
        else without it. True where it is hard to tell; it only spares the search what leads
        nowhere.

        Args:
          state: to which an unknown operation has led.
          input: of an operation that was answered.
          output: its answer.
        """
        ...


class Model(Protocol):
    """What operations mean."""

    def keys(self, input: Any) -> Iterable[Key]:
        """What an operation touches: at least one key; others have no part in it."""
        ...

    def machine(self, keys: Sequence[Key], unknown: Sequence[Any]) -> Machine:
        """What these keys do together.

        Args:
          keys: all that any operation given to it touches.
          unknown: inputs of the operations whose outcome is unknown.
        """
        ...

    def reads(self, input: Any) -> bool:
        """Whether it changes no state, in whatever state it is done."""
        ...

    def setting(self, keys: Sequence[Key], state: Any) -> tuple[Any, Any]:
        """Input and output of an operation that puts these keys into a state, whatever they are."""
        ...

    def describe(self, operation: Operation) -> str:
        """Input and output, for people, on one line."""
        ...
