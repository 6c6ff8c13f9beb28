"""Put before a node's modules by its PYTHONPATH: breaks one promise, which CHAOS_SABOTAGE names.

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

elif SABOTAGE == "votes-are-not-kept":
    from p4xos.storage import AcceptorLog
    from p4xos.wire import Rows, Type, headers

    append = AcceptorLog.append

    def append_some(self: AcceptorLog, records: list[Rows]) -> None:
        """Votes leave, and are nowhere on the disk."""
        append(self, [rows for rows in records if headers(rows)["type"][0] != Type.PHASE2B])

    AcceptorLog.append = append_some  # type: ignore[method-assign]
