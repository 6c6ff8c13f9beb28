"""All that an acceptor must remember, to go on elsewhere (docs/PROTOCOL.md, section 8).

An acceptor that moves to other registers takes its memory with it: it leaves where it was, so that
nothing more is promised or voted for there, and only then goes on from the same registers.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from p4xos.quorum import NO_ROUND


class Memory(NamedTuple):
    """Registers of a group, and the slots of its window that hold something.

    The arrays are the memory's own, one row a slot, by instance. Slots of instances below `low` are
    forgotten by rule, and not among them.
    """

    incarnation: int
    floor: int
    highest_round: int
    low: int
    highest: int
    seen: tuple[int, ...]
    instance: NDArray[np.int64]
    round: NDArray[np.uint32]
    vround: NDArray[np.uint32]
    length: NDArray[np.uint16]
    value: NDArray[np.uint8]
    """(n, width): as wide as the longest value, at least; junk behind each."""
    counters: dict[str, int]
    """What was counted, which goes on as well."""

    @property
    def votes(self) -> int:
        """How many of the slots hold a vote."""
        return int((self.vround != NO_ROUND).sum())
