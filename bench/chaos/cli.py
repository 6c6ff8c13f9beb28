"""The command line of the chaos runs: python -m bench.chaos."""

from __future__ import annotations

import argparse
import json
import secrets
import shlex
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from bench.chaos.episode import Episode, Plan, Round
from bench.chaos.faults import FAULTS, Fault
from bench.interrupts import interruptible
from p4xos import arguments
from p4xos.processes import claimed, running_process

_PREFIX = "chaos-"
_LOCK = "run.pid"
_KEPT = "kept"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs episodes; exit code 1 when one of them shows a broken promise."""
    return arguments.run(_parser(), argv)


def _parser() -> argparse.ArgumentParser:
    parser = arguments.Parser(
        prog="bench.chaos",
        description="Breaks a cluster of real processes in all ways it knows, and judges whether "
        "what its clients saw is linearizable. It needs root. A failure keeps its directory.",
    )
    parser.add_argument(
        "--minutes", type=float, default=1.0,
        help="seed after seed is played until so long has passed; default: %(default)g",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, help="the first one; default: drawn")
    parser.add_argument(
        "--faults", type=_kinds, default=list(FAULTS.values()), metavar="NAME,...",
        help=f"of {', '.join(FAULTS)}; default: all",
    )  # fmt: skip
    parser.add_argument("--nodes", type=int, choices=(3, 5), default=3, help="default: %(default)s")
    parser.add_argument(
        "--separate-roles", action="store_true",
        help="each acceptor, coordinator and learner is a node; a kill is that of one role",
    )  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE", help="append a line of JSON a round")
    parser.add_argument(
        "--directory", type=Path, default=Path(tempfile.gettempdir()),
        help="where the data of the run go; default: %(default)s",
    )  # fmt: skip
    parser.set_defaults(call=_chaos)
    return parser


def _kinds(text: str) -> list[type[Fault]]:
    found = []
    for name in text.split(","):
        if name not in FAULTS:
            raise argparse.ArgumentTypeError(f"no fault {name!r}; known are {', '.join(FAULTS)}")
        found.append(FAULTS[name])
    return found


def _chaos(flags: argparse.Namespace) -> int:
    if not 0 < flags.minutes <= 10_000:
        raise ValueError(f"--minutes is {flags.minutes:g}, allowed is more than 0, to 10,000")
    if flags.seed is not None and flags.seed < 0:
        raise ValueError(f"--seed is {flags.seed}, allowed are whole numbers from 0")
    with interruptible():
        return _play_seeds(flags)


def _play_seeds(flags: argparse.Namespace) -> int:
    sweep(flags.directory)
    begun = time.monotonic()
    first = secrets.randbits(31) if flags.seed is None else flags.seed
    rounds: list[Round] = []
    seed = first
    good = True
    while good and (seed == first or time.monotonic() - begun < flags.minutes * 60):
        plan = Plan(seed, flags.faults, flags.nodes, flags.separate_roles)
        episode, directory = _play(plan, flags.directory)
        rounds += episode.rounds
        good = all(record.good for record in episode.rounds)
        if flags.json is not None:
            with flags.json.open("a") as file:
                file.writelines(json.dumps(record.data()) + "\n" for record in episode.rounds)
        if not good:
            print(f"\nSEED {seed} FAILED. Logs, data, histories: {directory}\nOnce more:")
            print(f"  {repeat_command(plan)}")
        seed += 1
    print("\n".join(["", *summary(rounds)]))
    return arguments.DONE if good else arguments.FAILED


def _play(plan: Plan, place: Path) -> tuple[Episode, Path]:
    """One episode in a directory of its own, which is kept when it shows a broken promise."""
    directory = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=place))
    kept = False
    try:
        with claimed(directory / _LOCK, "a run of bench.chaos"):
            begun = time.monotonic()

            def say(text: str) -> None:
                line = f"{time.monotonic() - begun:7.2f} {text}"
                print(line, flush=True)
                with (directory / "told.txt").open("a") as file:
                    file.write(line + "\n")

            say(f"seed {plan.seed}, {plan.nodes} nodes" + ", separate roles" * plan.separate)
            episode = Episode(plan, directory / "run", say)
            if not episode.play():
                kept = True
                (directory / _KEPT).write_text(f"{repeat_command(plan)}\n")
            return episode, directory
    except Exception:
        kept = True  # whatever it was, the logs may tell
        (directory / _KEPT).write_text(f"{repeat_command(plan)}\n")
        print(f"\nTHE RUN ITSELF FAILED. Logs, data, histories: {directory}")
        raise
    finally:
        if not kept:
            shutil.rmtree(directory)


def repeat_command(plan: Plan) -> str:
    """What plays this seed again."""
    words = ["--seed", str(plan.seed), "--nodes", str(plan.nodes)]
    words += ["--faults", ",".join(kind.kind for kind in plan.kinds)]
    words += ["--separate-roles"] * plan.separate
    return f"make chaos ARGS={shlex.quote(' '.join(words))}"


def sweep(place: Path) -> None:
    """Removes the directories of runs that were killed; all else of them the kernel has removed."""
    for directory in place.glob(f"{_PREFIX}*"):
        lock = directory / _LOCK
        if lock.exists() and not (directory / _KEPT).exists() and running_process(lock) is None:
            shutil.rmtree(directory, ignore_errors=True)


def summary(rounds: Sequence[Round]) -> list[str]:
    """All rounds in some lines."""
    outcomes: Counter[str] = Counter()
    faults: Counter[str] = Counter()
    bites: Counter[str] = Counter()
    for record in rounds:
        outcomes.update(record.outcomes)
        faults.update(record.faults)
        bites.update(record.bites)
    bad = [f"{record.seed}/{record.round}" for record in rounds if not record.good]
    verdict = f"BROKEN PROMISES in seed/round {', '.join(bad)}" if bad else "all linearizable"
    operations = sum(record.operations for record in rounds)
    told = ", ".join(f"{count:,} {name}" for name, count in outcomes.items())
    return [
        f"{len(rounds)} rounds: {verdict}",
        f"operations checked: {operations:,} ({told})",
        f"kill -9: {sum(record.kills for record in rounds)}",
        "faults (how often each bit): "
        + ", ".join(f"{kind} {count} ({bites[kind]:,})" for kind, count in sorted(faults.items())),
        "longest time without an acknowledged write: "
        f"{max((record.longest_gap_s for record in rounds), default=0.0):.1f} s",
    ]
