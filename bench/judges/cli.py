"""The command line of the judges: python -m bench.judges --redis PATH --redis-py PATH."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.errors import BenchError
from bench.interrupts import interruptible
from bench.judges import redis_py, redis_suite
from bench.judges.outcomes import Outcome, Verdict, table
from bench.store_cluster import StoreCluster
from p4xos import arguments
from p4xos.tables import Address


def main(argv: Sequence[str] | None = None) -> int:
    """Run the judges; returns the exit code. A test that fails is a result, no failure."""
    return arguments.run(_parser(), argv)


def _parser() -> argparse.ArgumentParser:
    parser = arguments.Parser(
        prog="judges",
        description="Runs Redis' own tests and redis-py's against a cluster of three nodes, which "
        "it starts and removes, and counts what passes. Neither project is fetched.",
    )
    parser.add_argument(
        "--redis", type=Path, metavar="DIRECTORY", help="source of Redis 7.0.15; wants tclsh"
    )
    parser.add_argument(
        "--redis-py", type=Path, metavar="DIRECTORY", help="source of redis-py, as on PyPI"
    )
    parser.add_argument(
        "--unit", action="append", metavar="UNIT",
        help=f"of Redis' suite, may be repeated; default: {', '.join(redis_suite.UNITS)}",
    )  # fmt: skip
    parser.add_argument(
        "--flags", default="", metavar="FLAGS",
        help="for Redis' suite, such as '--singledb --tags -needs:repl'; tests/README.md there",
    )  # fmt: skip
    parser.add_argument(
        "--port", type=int, help="judge the server on this port of 127.0.0.1, start no cluster; "
        "all of its data are lost",
    )  # fmt: skip
    parser.set_defaults(call=_judge)
    return parser


def _judge(flags: argparse.Namespace) -> None:
    if flags.redis is None and flags.redis_py is None:
        raise ValueError("nothing to judge by: give --redis, --redis-py, or both")
    if flags.redis is not None:
        redis_suite.check(flags.redis)
    if flags.redis_py is not None:
        redis_py.check(flags.redis_py)
    missing: list[str] = []
    with (
        interruptible(),
        tempfile.TemporaryDirectory(prefix="judges-") as scratch,
        _server(flags.port, Path(scratch)) as address,
    ):
        for judge, outcomes in _judges(flags, address, Path(scratch)):
            try:
                _tell(judge, outcomes)
            except BenchError as error:
                missing.append(str(error))
    if missing:
        raise BenchError("\n".join(missing))


@contextmanager
def _server(port: int | None, scratch: Path) -> Iterator[Address]:
    """The server to judge: one that is there, or the first node of a cluster made for it."""
    if port is not None:
        yield Address("127.0.0.1", port)
        return
    with StoreCluster(scratch / "cluster") as cluster:
        cluster.start()
        cluster.wait_until_writable()
        yield cluster.endpoint(cluster.names[0])


def _judges(
    flags: argparse.Namespace, address: Address, scratch: Path
) -> Iterator[tuple[str, Iterator[Outcome]]]:
    if flags.redis is not None:
        units = flags.unit or redis_suite.UNITS
        yield "Redis", redis_suite.run(flags.redis.resolve(), address, units, flags.flags, scratch)
    if flags.redis_py is not None:
        yield "redis-py", redis_py.run(flags.redis_py.resolve(), address, scratch)


def _tell(judge: str, outcomes: Iterator[Outcome]) -> None:
    """Tells failed tests on stderr as they come, the table in the end."""
    seen: list[Outcome] = []
    for outcome in outcomes:
        seen.append(outcome)
        if outcome.verdict is Verdict.FAILED:
            print(f"failed: {outcome.as_line()}", file=sys.stderr, flush=True)
    print(f"\n{judge}\n\n{table(seen)}", flush=True)
