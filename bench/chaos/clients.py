"""The clients of a run, as a process on a host of their own: `python -m bench.chaos.clients`.

They work until SIGTERM, then end what is under way, read every key once more at every node, and
write nothing further. A second SIGTERM ends that too. Everything that they did is in the history.
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
        missed = trio.run(_run, workload)
    if missed:
        print(f"{missed} of the reads at the end were never answered: {workload.problems}")
    return 1 if missed else 0


async def _run(workload: Workload) -> int:
    """The reads at the end that were never answered; all of them when it was told twice to end."""
    missed = 1
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                async for _ in signals:
                    workload.stop()
                    break
                async for _ in signals:
                    nursery.cancel_scope.cancel()

            nursery.start_soon(watch)
            await workload.run()
            missed = await workload.read_all()
            nursery.cancel_scope.cancel()
    return missed


if __name__ == "__main__":
    sys.exit(main())
