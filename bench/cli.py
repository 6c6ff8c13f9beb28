"""The command line of the bench: python -m bench [SCENARIO ...]."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path

from bench import environment
from bench.environment import Environment
from bench.errors import BenchError
from bench.interrupts import interruptible
from bench.results import Curve, Point, Sample, Summary, curves, in_figures, summarize, table
from bench.scenarios import RUNS, SCENARIOS, Run, Scenario
from p4xos import arguments
from p4xos.errors import P4xosError

ALL = "all"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the scenarios; returns the exit code. A target that is missed is a result, no failure."""
    return arguments.run(_parser(), argv)


def _parser() -> argparse.ArgumentParser:
    names = [scenario.name for scenario in SCENARIOS]
    parser = arguments.Parser(
        prog="bench",
        description="Measures the project on this machine; every node and role is a process.",
        epilog="; ".join(f"{scenario.name}: {scenario.about}" for scenario in SCENARIOS),
    )
    parser.add_argument(
        "scenario", nargs="*", metavar="SCENARIO",
        help=f"{', '.join(names)} or {ALL} (the default)",
    )  # fmt: skip
    defaults = ", ".join(f"{s.name} {s.runs}" for s in SCENARIOS if s.runs != RUNS)
    parser.add_argument("--runs", type=int, help=f"of each; default: {RUNS}, {defaults}")
    parser.add_argument(
        "--scale", type=float, default=1.0,
        help="factor on the work of a run, for a quick look; default: %(default)s",
    )  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE", help="append a line of JSON a metric")
    parser.add_argument(
        "--directory", type=Path, default=Path(tempfile.gettempdir()),
        help="where the data of the run go, and are removed; default: %(default)s",
    )  # fmt: skip
    parser.set_defaults(call=_bench)
    return parser


def _bench(flags: argparse.Namespace) -> None:
    chosen = choose(flags.scenario)
    if flags.runs is not None and flags.runs < 1:
        raise ValueError(f"--runs is {flags.runs}, allowed is 1 or more")
    if not 0.001 <= flags.scale <= 100:
        raise ValueError(f"--scale is {flags.scale:g}, allowed is 0.001 to 100")
    # A scenario whose needs are missing says so before another has run for minutes.
    runs = [(scenario, _load(scenario)) for scenario in chosen]
    scratch_directory = tempfile.TemporaryDirectory(prefix="bench-", dir=flags.directory)
    with interruptible(), scratch_directory as scratch:
        machine = environment.look(Path(scratch))
        print(machine.header())
        for warning in machine.warnings():
            print(f"WARNING: {warning}")
        _run_all(runs, Path(scratch), flags, machine)


def choose(names: Sequence[str]) -> list[Scenario]:
    """The scenarios of these names, in the order of the table.

    Raises:
      ValueError: there is no such scenario.
    """
    known = [scenario.name for scenario in SCENARIOS]
    for name in names:
        if name not in (*known, ALL):
            raise ValueError(f'no scenario "{name}"; known are {", ".join(known)} and {ALL}')
    if not names or ALL in names:
        return list(SCENARIOS)
    return [scenario for scenario in SCENARIOS if scenario.name in names]


def _load(scenario: Scenario) -> Run:
    """Imports it, and asks what it needs of the machine.

    Raises:
      BenchError: something is missing; the message says what to install.
    """
    module = import_module(scenario.module)
    needs: Callable[[], object] | None = getattr(module, "needs", None)
    if needs is not None:
        needs()
    run: Run = module.run
    return run


def _run_all(
    runs: Sequence[tuple[Scenario, Run]],
    scratch: Path,
    flags: argparse.Namespace,
    machine: Environment,
) -> None:
    """Runs one after the other; those that failed do not keep the others from being shown."""
    summaries: list[Summary] = []
    failed: list[str] = []
    for scenario, run in runs:
        taken: list[Sample | Point] = []
        directory = scratch / scenario.name
        directory.mkdir()
        try:
            for one in _told(run(directory, flags.runs or scenario.runs, flags.scale)):
                taken.append(one)
        except P4xosError as error:
            failed.append(f"{scenario.name}: {error}")
        found = summarize(one for one in taken if isinstance(one, Sample))
        drawn = curves(one for one in taken if isinstance(one, Point))
        summaries += found
        if flags.json is not None:
            with flags.json.open("a") as file:
                results: list[Summary | Curve] = [*found, *drawn]
                lines = [result.as_json(machine._asdict()) for result in results]
                file.writelines(f"{line}\n" for line in lines)
    if summaries:
        print(f"\n{table(summaries)}")
    if failed:
        raise BenchError("\n".join(failed))


def _told(taken: Iterator[Sample | Point]) -> Iterator[Sample | Point]:
    """Tells each figure on stderr as it comes: a run takes minutes."""
    for one in taken:
        if isinstance(one, Sample):
            metric = one.metric
            said = f"{metric.scenario}: {metric.name}: {in_figures(one.value)} {metric.unit}"
        else:
            figure = one.figure
            at = f"{figure.x} {in_figures(one.x)}"
            said = f"{figure.scenario}: {one.series}: {in_figures(one.y)} {figure.y} at {at}"
        print(said, file=sys.stderr, flush=True)
        yield one
