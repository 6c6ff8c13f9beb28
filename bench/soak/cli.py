"""The command line of the soak: python -m bench.soak --minutes 30."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bench.errors import BenchError
from bench.interrupts import interruptible
from bench.soak.soaking import Plan, soak, summary
from bench.soak.trend import SPAN_MIN_S
from p4xos import arguments

SERIES = "soak.jsonl"


def main(argv: Sequence[str] | None = None) -> int:
    """Run it; returns the exit code: 1 when something grows, differs or complains."""
    return arguments.run(_parser(), argv)


def _parser() -> argparse.ArgumentParser:
    parser = arguments.Parser(
        prog="soak",
        description="Loads a cluster for a long time and looks whether anything grows.",
    )
    parser.add_argument("--minutes", type=float, default=30.0, help="of load; default: %(default)g")
    parser.add_argument("--nodes", type=int, default=3, help="odd; default: %(default)s")
    parser.add_argument(
        "--window", type=int, default=Plan(0).window,
        help="instances held at once; memory is judged from when they were used once, so a large "
        "one takes long; default: %(default)s",
    )  # fmt: skip
    parser.add_argument(
        "--restart-every", type=float, default=180.0, metavar="SECONDS",
        help="one node is restarted so often; default: %(default)g",
    )  # fmt: skip
    parser.add_argument(
        "--backup-every", type=float, default=240.0, metavar="SECONDS",
        help="a backup is taken so often; default: %(default)g",
    )  # fmt: skip
    parser.add_argument(
        "--samples", type=Path, default=Path(SERIES), metavar="FILE",
        help="a line of JSON for each sample is appended; default: %(default)s",
    )  # fmt: skip
    parser.add_argument(
        "--directory", type=Path, default=Path(tempfile.gettempdir()),
        help="where the data of the run go, and are removed; default: %(default)s",
    )  # fmt: skip
    parser.set_defaults(call=_soak)
    return parser


def _soak(flags: argparse.Namespace) -> None:
    if flags.minutes <= 0:
        raise ValueError(f"--minutes is {flags.minutes:g}, allowed is more than 0")
    if flags.nodes < 3:
        raise ValueError(f"--nodes is {flags.nodes}, allowed is an odd number from 3")
    if 60 * flags.minutes < SPAN_MIN_S:
        print(f"WARNING: less than {SPAN_MIN_S / 60:g} minutes tell of no trend", file=sys.stderr)
    plan = Plan(
        60 * flags.minutes, restart_s=flags.restart_every, backup_s=flags.backup_every,
        nodes=flags.nodes, window=flags.window,
    )  # fmt: skip
    scratch_directory = tempfile.TemporaryDirectory(prefix="soak-", dir=flags.directory)
    with interruptible(), scratch_directory as scratch:
        report = soak(Path(scratch), plan, flags.samples, _tell)
    print(summary(report))
    if report.problems:
        raise BenchError(f"{len(report.problems)} things are wrong; the samples: {flags.samples}")


def _tell(what: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {what}", file=sys.stderr, flush=True)
