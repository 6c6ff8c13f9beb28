"""Which record an operation is for, drawn in bulk, as YCSB draws it.

Sources: Cooper et al. 2010, section 4.1 (the distributions); Gray et al. 1994, "Quickly generating
billion-record synthetic databases" (zipfian numbers without a table); YCSB's ZipfianGenerator,
ScrambledZipfianGenerator and Utils.fnvhash64 (constants and hash).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

THETA = 0.99
"""YCSB's ZIPFIAN_CONSTANT."""
SCRAMBLED_ITEMS = 10_000_000_000
SCRAMBLED_ZETA = 26.46902820178302
"""The sum of 1/i**THETA for i from 1 to SCRAMBLED_ITEMS, as YCSB has it: long to compute."""
_FNV_OFFSET, _FNV_PRIME = np.uint64(0xCBF29CE484222325), np.uint64(1099511628211)

Generator = np.random.Generator
Records = NDArray[np.int64]
"""Numbers of records, or ranks."""


def zeta(items: int) -> float:
    """The sum of 1/i**THETA for i from 1 to items."""
    return float((1 / np.arange(1, items + 1, dtype=np.float64) ** THETA).sum())


def zipfian(random: Generator, count: int, items: int, zeta_items: float | None = None) -> Records:
    """Ranks, of which rank r is as frequent as 1/(r+1)**THETA.

    Args:
      random: drawn from once a rank.
      count: how many.
      items: ranks are 0 to items - 1.
      zeta_items: zeta(items) if it is known.

    Returns:
      (count,) int64, a fresh array.

    Source: Gray et al. 1994, figure 4; its first two ranks are exact, the others a close fit.
    """
    total = zeta(items) if zeta_items is None else zeta_items
    u = random.random(count)
    if items == 1:
        return np.zeros(count, np.int64)
    if items == 2:  # eta below divides by zero
        return (u * total >= 1).astype(np.int64)
    eta = (1 - (2 / items) ** (1 - THETA)) / (1 - (1 + 0.5**THETA) / total)
    ranks = (items * (eta * u - eta + 1) ** (1 / (1 - THETA))).astype(np.int64)
    ranks[u * total < 1 + 0.5**THETA] = 1
    ranks[u * total < 1] = 0
    found: Records = np.minimum(ranks, items - 1)  # u next to 1 may be rounded up
    return found


def scrambled_zipfian(random: Generator, count: int, records: int) -> Records:
    """Records of which some are far more frequent than others, scattered over all of them.

    Returns:
      (count,) int64, 0 to records - 1, a fresh array.
    """
    ranks = zipfian(random, count, SCRAMBLED_ITEMS, SCRAMBLED_ZETA)
    return fnv_hash(ranks) % records


def fnv_hash(values: Records) -> Records:
    """YCSB's 64-bit FNV-1a over the eight bytes of each value, the lowest first, without a sign.

    Args:
      values: (n,) int64.

    Returns:
      (n,) int64, not negative, a fresh array.
    """
    rest = values.astype(np.uint64)
    found = np.full(values.shape, _FNV_OFFSET)
    for _ in range(8):
        found = (found ^ (rest & np.uint64(0xFF))) * _FNV_PRIME
        rest >>= np.uint64(8)
    # The lowest number has no positive counterpart; Java's abs has the same hole.
    return np.abs(found.view(np.int64)) & np.int64((1 << 63) - 1)


def uniform(random: Generator, count: int, records: int) -> Records:
    """Every record as often as every other; (count,) int64, a fresh array."""
    return random.integers(0, records, count)
