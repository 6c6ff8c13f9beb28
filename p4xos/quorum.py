"""Majorities and rounds (docs/PROTOCOL.md, section 1)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from p4xos.errors import RoundsExhausted

NO_ROUND = 0
ACCEPTORS_MAX = 15
"""Acceptors of a group at most: votes are counted in a uint16, a bit for each."""

_COUNTER_MAX = (1 << 24) - 1
_COUNTER_MARGIN = 1 << 10  # room to stop loudly while recovery rounds are still to be had


def majority(members: int) -> int:
    """The size of a majority quorum: f + 1 of 2f + 1 members."""
    return members // 2 + 1


def reached_table(acceptors: int) -> NDArray[np.bool_]:
    """For each set of voters, whether it is a quorum.

    Args:
      acceptors: cluster size, 1 to 15.

    Returns:
      (2**acceptors,) bool; index: bit a set when acceptor a voted.

    Source: Lamport 2001, section 2.2.
    """
    voters = np.arange(1 << acceptors, dtype=np.uint32)
    counts = np.zeros(len(voters), dtype=np.uint8)
    for acceptor in range(acceptors):
        counts += ((voters >> acceptor) & 1).astype(np.uint8)
    return counts >= majority(acceptors)


def make_round(counter: int, coordinator: int) -> int:
    """The round with this counter that only this coordinator uses; loud before it overflows."""
    if counter > _COUNTER_MAX - _COUNTER_MARGIN:
        raise RoundsExhausted(counter)
    return counter << 8 | coordinator


def round_counter(round: int) -> int:
    """The counter in a round."""
    return round >> 8


def round_owner(round: int) -> int:
    """The id of the coordinator to whom a round belongs."""
    return round & 0xFF
