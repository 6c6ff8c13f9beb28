"""The command line of the bench: python -m bench [SCENARIO ...], and the verbs of VERBS."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

from bench import compare, environment, plots, report
from bench.environment import Environment
from bench.errors import BenchError
from bench.interrupts import interruptible
from bench.progress import Told
from bench.results import (
    RESULTS_NAME,
    Curve,
    Point,
    Results,
    Sample,
    Summary,
    curves,
    summarize,
    table,
)
from bench.scenarios import RUNS, SCENARIOS, Run, Scenario
from p4xos import arguments
from p4xos.errors import P4xosError

ALL = "all"
RESULTS = Path("bench-results")
"""Where results go, each run's into a directory that has the UTC time as its name."""
VERBS = {"compare": compare.parser, "report": report.parser}
"""First words that are no scenarios."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the scenarios; returns the exit code. A target that is missed is a result, no failure."""
    words = sys.argv[1:] if argv is None else argv
    if words and words[0] in VERBS:
        return arguments.run(VERBS[words[0]](), words[1:])
    return arguments.run(_parser(), words)


def _parser() -> argparse.ArgumentParser:
    names = [scenario.name for scenario in SCENARIOS]
    parser = arguments.Parser(
        prog="bench",
        description="Measures the project on this machine; every node and role is a process.",
        epilog="; ".join(f"{scenario.name}: {scenario.about}" for scenario in SCENARIOS)
        + ". Other verbs: bench compare A B, bench report DIRECTORY",
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
    parser.add_argument(
        "--results", type=Path, metavar="DIRECTORY",
        help=f"for {RESULTS_NAME}, plots and {report.REPORT_NAME}; default: {RESULTS}/<UTC time>",
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
        results = _results_directory(flags.results)
        machine = environment.look(Path(scratch))
        print(machine.header())
        for warning in machine.warnings():
            print(f"WARNING: {warning}")
        if not plots.can_draw():
            print(plots.MISSING)
        _run_all(runs, Path(scratch), results, flags, machine)


def _results_directory(wanted: Path | None) -> Path:
    """Makes it.

    Raises:
      ValueError: there are results in it already.
    """
    directory = wanted or RESULTS / time.strftime("%Y-%m-%dT%H%M%SZ", time.gmtime())
    if (directory / RESULTS_NAME).exists():
        raise ValueError(f"{directory} has results already: name another directory, or remove it")
    directory.mkdir(parents=True, exist_ok=True)
    return directory


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
    results: Path,
    flags: argparse.Namespace,
    machine: Environment,
) -> None:
    """Runs one after the other; those that failed do not keep the others from being shown."""
    summaries: list[Summary] = []
    drawn: list[Curve] = []
    failed: list[str] = []
    files = [results / RESULTS_NAME, *([flags.json] if flags.json is not None else [])]
    with Told(len(runs)) as told:
        for scenario, run in runs:
            taken: list[Sample | Point] = []
            directory = scratch / scenario.name
            directory.mkdir()
            times = flags.runs or scenario.runs
            told.begin(scenario.name, times)
            try:
                for one in run(directory, times, flags.scale):
                    told.tell(one)
                    taken.append(one)
            except P4xosError as error:
                failed.append(f"{scenario.name}: {error}")
            found = summarize(one for one in taken if isinstance(one, Sample))
            lines = curves(one for one in taken if isinstance(one, Point))
            summaries += found
            drawn += lines
            _append(files, [*found, *lines], machine)
    if summaries:
        print(f"\n{table(summaries)}")
    print(f"\n{report.write(Results(summaries, drawn, machine._asdict()), results)}")
    if failed:
        raise BenchError("\n".join(failed))


def _append(files: Sequence[Path], found: Sequence[Summary | Curve], machine: Environment) -> None:
    """A line each, as soon as a scenario is done: what follows may take hours, or be stopped."""
    for file in files:
        with file.open("a") as opened:
            opened.writelines(f"{one.as_json(machine._asdict())}\n" for one in found)
