"""The clients of a run, as a process on a host of their own: `python -m bench.chaos.clients`.

They work until SIGTERM, then end what is under way, read every key once more, and write nothing
further. Everything that they did is in the history, line by line, even when they are killed.
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

import trio

from kvstore.checking import History, Workload
from kvstore.config import endpoints
from p4xos.config import Cluster


def main() -> int:
    """Runs the workload; 0 when it has read everything at the end."""
    parser = argparse.ArgumentParser(prog="bench.chaos.clients")
    parser.add_argument("--cluster", type=Path, required=True)
    parser.add_argument("--history", type=Path, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--clients", type=int, required=True)
    parser.add_argument("--keys", type=int, required=True)
    flags = parser.parse_args()
    with History(flags.history) as history:
        nodes = endpoints(Cluster.load(flags.cluster))
        workload = Workload(
            nodes, seed=flags.seed, clients=flags.clients, keys=flags.keys, history=history
        )
        trio.run(_run, workload)
    return 0


async def _run(workload: Workload) -> None:
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                async for _ in signals:
                    workload.stop()
                    return

            nursery.start_soon(watch)
            await workload.run()
            nursery.cancel_scope.cancel()


if __name__ == "__main__":
    sys.exit(main())
