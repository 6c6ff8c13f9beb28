"""What leaves a data plane packet by packet, put together again: one batch a destination."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from p4xos.effects import To
from p4xos.wire import Rows


class Batches:
    """Collects packets; those of one size to one destination stay in their order."""

    def __init__(self) -> None:
        """Nothing has left."""
        self._rows: dict[tuple[To, int], list[Rows]] = {}

    def add(self, sent: Iterable[tuple[To, Rows]]) -> None:
        """Takes what one packet caused."""
        for to, rows in sent:
            self._rows.setdefault((to, rows.shape[1]), []).append(rows)

    def sends(self) -> list[tuple[To, Rows]]:
        """All of it, as a driver sends it."""
        return [(to, np.concatenate(rows)) for (to, _), rows in self._rows.items()]
