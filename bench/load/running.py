"""Generators as processes of their own, and what they measured in all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.errors import BenchError
from bench.load.outcome import Outcome, merge
from bench.load.plan import Plan
from bench.processes import Child, children, python_module

START_LIMIT_S = 60.0
"""To start Python, connect the clients and write the outcome, on a machine that does much else."""


def run(plans: Plan | Sequence[Plan], directory: Path) -> Outcome:
    """One generator for each plan, all at one time.

    They start within the time that a process takes to start, which the warm-up has to cover.

    Args:
      plans: one, or the parts of one load; see `Plan.part`.
      directory: for plans, outcomes and logs; made when it does not exist, and used again.

    Raises:
      ValueError: a plan makes no sense.
      StoodStill: the machine did, so the run is void.
      Late: a generator did not keep up; the run is void.
      BenchError: one failed, or the store answered with errors.
    """
    all_plans = [plan.check() for plan in ([plans] if isinstance(plans, Plan) else plans)]
    directory.mkdir(parents=True, exist_ok=True)
    with children() as started:
        for number, plan in enumerate(all_plans):
            wanted, found = directory / f"plan{number}.json", directory / f"outcome{number}.json"
            wanted.write_text(plan.as_json())
            found.unlink(missing_ok=True)
            log = directory / f"generator{number}.txt"
            log.unlink(missing_ok=True)
            command = python_module("bench.load", str(wanted), str(found))
            started.append(Child(f"load generator {number}", command, log))
        for child, plan in zip(started, all_plans, strict=True):
            load_s = plan.warm_up_s + plan.seconds + plan.drain_s
            if child.wait(load_s + START_LIMIT_S):
                raise BenchError(f"{child.name} failed; its last lines:\n{child.last_lines()}")
    outcomes = [
        Outcome.from_json((directory / f"outcome{number}.json").read_text())
        for number in range(len(all_plans))
    ]
    for outcome, plan in zip(outcomes, all_plans, strict=True):
        outcome.check(plan.lag_limit_ms)
    return merge(outcomes)
