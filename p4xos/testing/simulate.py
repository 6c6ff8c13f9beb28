"""Runs the simulator: `python -m p4xos.testing.simulate --seeds 300 --jobs 2`."""

from __future__ import annotations

import argparse
import multiprocessing
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from p4xos.processes import end_with_parent
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


class Outcome(NamedTuple):
    """What came of one seed."""

    seed: int
    messages: int
    told: str
    problem: str
    """Why it failed; empty when it held."""


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when every seed held, 1 when one failed or Ctrl-C came."""
    options = _options(arguments)
    if options.seed is not None:
        return 1 if _run_traced(options.seed, options.trace).problem else 0
    seeds = [*kept_seeds(), *range(options.first, options.first + options.seeds)]
    done = failed = messages = 0
    interrupted = False
    began = time.perf_counter()
    with _runs(seeds, options.jobs) as outcomes:
        try:
            for outcome in outcomes:
                done += 1
                messages += outcome.messages
                print(f"seed {outcome.seed}: {outcome.told}")
                if outcome.problem:
                    failed += 1
                    print(f"  again: {_command(outcome.seed)}", flush=True)
                    if not options.keep_going:
                        break
        except KeyboardInterrupt:
            interrupted = True
    took = time.perf_counter() - began
    print(
        f"{done} of {len(seeds)} seeds, {failed} failed, {messages} messages, {took:.1f} s, "
        f"{done / took:.1f} seeds/s" + (", interrupted" if interrupted else "")
    )
    return 1 if failed or interrupted else 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m p4xos.testing.simulate", description=__doc__)
    parser.add_argument("--seeds", type=int, default=300, help="how many to run")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--jobs", type=int, default=1, help="processes that run them")
    parser.add_argument("--seed", type=int, help="run this one alone")
    parser.add_argument("--trace", action="store_true", help="print every message of --seed")
    parser.add_argument("--keep-going", action="store_true", help="run on after a failure")
    options = parser.parse_args(arguments)
    if options.jobs < 1:
        parser.error(f"--jobs is {options.jobs}, allowed is 1 or more")
    if options.trace and options.seed is None:
        parser.error("--trace is of one seed: give it with --seed")
    return options


@contextmanager
def _runs(seeds: Sequence[int], jobs: int) -> Iterator[Iterator[Outcome]]:
    """The outcomes of seeds, as they come; what still runs is ended when the block is left."""
    if jobs == 1:
        yield map(run_seed, seeds)
        return
    begin = (end_with_parent(signal.SIGKILL),)
    with multiprocessing.get_context("fork").Pool(jobs, _begin_job, begin) as pool:
        yield pool.imap_unordered(run_seed, seeds)


def _begin_job(end_with_us: Callable[[], None]) -> None:
    """Ctrl-C is for the parent, which ends its jobs; the kernel ends them should it be killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_us()


def run_seed(seed: int) -> Outcome:
    """Runs one seed; a failure is an outcome."""
    simulation = Simulation(draw(seed))
    try:
        simulation.run()
    except Exception as error:
        problem = f"{type(error).__name__}: {error}"
        return Outcome(seed, simulation.messages, f"FAILED: {problem}", problem)
    return Outcome(seed, simulation.messages, _told(simulation), "")


def _run_traced(seed: int, trace: bool) -> Outcome:
    """Runs one seed for a person to look at: every message, and where it failed."""
    simulation = Simulation(draw(seed), trace=print if trace else None)
    print(f"seed {seed}", end=": ", flush=True)
    try:
        simulation.run()
    except Exception as error:
        problem = f"{type(error).__name__}: {error}"
        print(f"FAILED: {problem}")
        traceback.print_exc()
        print(f"  again: {_command(seed)}")
        return Outcome(seed, simulation.messages, "", problem)
    print(_told(simulation))
    return Outcome(seed, simulation.messages, _told(simulation), "")


def _command(seed: int) -> str:
    return f"python -m p4xos.testing.simulate --seed {seed} --trace"


def _told(simulation: Simulation) -> str:
    outcomes: dict[str, int] = {}
    for replica in simulation.replicas():
        for name, count in replica.outcomes.items():
            outcomes[name] = outcomes.get(name, 0) + count
    told = ", ".join(f"{count} {name}" for name, count in outcomes.items())
    return (
        f"{simulation.messages} messages, {simulation.crashes} crashes, "
        f"{simulation.disks_lost} disks lost, {simulation.rejoined} acceptors joined again, "
        f"{simulation.moves} moves, "
        f"{simulation.replica_checker.reached} instances, {told}, {simulation.now:.1f} s virtual"
    )


if __name__ == "__main__":
    raise SystemExit(main())
