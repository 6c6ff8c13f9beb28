"""What a learner keeps for peers: bounded in memory, whatever it is made of."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from p4xos.effects import Chosen
from p4xos.retained import RetainedLog

BYTES_MAX = 1 << 20


@pytest.mark.parametrize("width", [8, 100, 1400])
def test_single_instances_take_no_more_memory_than_the_bound(width: int) -> None:
    """A batch of one small value is mostly Python's and numpy's own."""
    tracemalloc.start()
    try:
        log = RetainedLog(1, BYTES_MAX)
        for instance in range(1, 3 * BYTES_MAX // width):
            values = np.zeros((1, width), dtype=np.uint8)
            log.append(Chosen(instance, values, np.array([width], dtype=np.int64)))
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken <= 1.1 * BYTES_MAX
    assert log.next - log.low >= BYTES_MAX // (width + 600)
