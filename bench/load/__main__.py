"""`python -m bench.load PLAN OUTCOME`: a generator; reads the one file, writes the other."""

import gc
import sys
from pathlib import Path

from bench.load.generator import Generator
from bench.load.network import Sockets
from bench.load.plan import Plan
from p4xos.errors import P4xosError


def main(plan_file: Path, outcome_file: Path) -> int:
    """Runs the plan; returns the exit code."""
    plan = Plan.from_json(plan_file.read_text())
    try:
        with Sockets(plan.addresses, plan.clients) as network:
            generator = Generator(plan, network)
            gc.freeze()  # nothing that follows makes cycles, and a collection would be a pause
            gc.disable()
            outcome = generator.run()
    except P4xosError as error:
        print(error, file=sys.stderr)
        return 1
    outcome_file.write_text(outcome.as_json())
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
