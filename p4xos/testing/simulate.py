"""Runs the simulator: `python -m p4xos.testing.simulate --seeds 300`."""

from __future__ import annotations

import argparse
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from p4xos.testing.simulator.scenario import draw
from p4xos.testing.simulator.world import Simulation

KEPT = Path("tests/simulator/failing_seeds.txt")
"""Seeds that have failed once, with their cause; they run first."""


def kept_seeds(path: Path = KEPT) -> list[int]:
    """The seeds in a file: one a line, a comment behind `#`."""
    if not path.exists():
        return []
    lines = (line.split("#")[0].strip() for line in path.read_text().splitlines())
    return [int(line) for line in lines if line]


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when every seed held, 1 when one failed."""
    parser = argparse.ArgumentParser(prog="python -m p4xos.testing.simulate", description=__doc__)
    parser.add_argument("--seeds", type=int, default=300, help="how many to run")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--seed", type=int, help="run this one alone")
    parser.add_argument("--trace", action="store_true", help="print every message")
    parser.add_argument("--keep-going", action="store_true", help="run on after a failure")
    options = parser.parse_args(arguments)
    if options.seed is not None:
        seeds = [options.seed]
    else:
        seeds = [*kept_seeds(), *range(options.first, options.first + options.seeds)]
    failed = messages = 0
    began = time.perf_counter()
    for seed in seeds:
        simulation = Simulation(draw(seed), trace=print if options.trace else None)
        print(f"seed {seed}", end=": ", flush=True)
        try:
            simulation.run()
        except Exception as error:
            failed += 1
            print(f"FAILED: {type(error).__name__}: {error}")
            if options.seed is not None:
                traceback.print_exc()
            print(f"  again: python -m p4xos.testing.simulate --seed {seed} --trace", flush=True)
            if not options.keep_going:
                return 1
        else:
            print(_told(simulation))
        messages += simulation.messages
    took = time.perf_counter() - began
    print(
        f"{len(seeds)} seeds, {failed} failed, {messages} messages, {took:.1f} s, "
        f"{len(seeds) / took:.1f} seeds/s"
    )
    return 1 if failed else 0


def _told(simulation: Simulation) -> str:
    outcomes: dict[str, int] = {}
    for replica in simulation.replicas():
        for name, count in replica.outcomes.items():
            outcomes[name] = outcomes.get(name, 0) + count
    told = ", ".join(f"{count} {name}" for name, count in outcomes.items())
    return (
        f"{simulation.messages} messages, {simulation.crashes} crashes, "
        f"{simulation.disks_lost} disks lost, {simulation.rejoined} acceptors joined again, "
        f"{simulation.replica_checker.reached} instances, {told}, {simulation.now:.1f} s virtual"
    )


if __name__ == "__main__":
    raise SystemExit(main())
