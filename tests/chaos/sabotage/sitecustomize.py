"""Put before a node's modules by its PYTHONPATH: breaks the promise that CHAOS_SABOTAGE names.

Python imports a module of this name when it starts. Only the tests of the verdict use it.
"""

from __future__ import annotations

import os
from collections.abc import Callable

SABOTAGE = os.environ.get("CHAOS_SABOTAGE")

if SABOTAGE == "reads-are-stale":
    import trio

    from p4xos.application import Application
    from p4xos.errors import NoQuorum

    def read_index(self: Application, callback: Callable[[NoQuorum | None], None]) -> None:
        """Answers from what is applied here, without asking the acceptors."""
        trio.lowlevel.current_trio_token().run_sync_soon(callback, None)

    Application.read_index = read_index  # type: ignore[method-assign]

elif SABOTAGE == "retries-are-applied":
    from p4xos.roles.sessions import SequenceSet

    take = SequenceSet.take

    def take_again(self: SequenceSet, first: int, stop: int) -> list[tuple[int, int]]:
        """Everything is new, however often it comes."""
        take(self, first, stop)
        return [(first, stop)]

    SequenceSet.take = take_again  # type: ignore[method-assign]
