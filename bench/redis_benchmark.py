"""redis-benchmark, the closed-loop load generator of Debian's package redis-tools."""

from __future__ import annotations

import csv
import shutil
import subprocess
from collections.abc import Sequence
from typing import NamedTuple

from bench.errors import BenchError
from p4xos.tables import Address

PROGRAM = "redis-benchmark"
RUN_LIMIT_S = 300.0


class Load(NamedTuple):
    """What is asked of it."""

    test: str  # as its option -t has it: "set", "get"
    clients: int
    pipeline: int
    requests: int
    value_bytes: int = 3  # its own default
    keys: int | None = None  # so many, drawn at random; None: its own default, one key

    def scaled(self, scale: float) -> Load:
        """With so many times the requests, at least so many that each client sends a few."""
        least = 4 * self.clients * self.pipeline
        return self._replace(requests=max(int(self.requests * scale), least))


class Result(NamedTuple):
    """What it says; latencies are of a whole pipeline where there is one."""

    requests_per_s: float
    p50_ms: float
    p99_ms: float
    max_ms: float


def find() -> str:
    """Where it is.

    Raises:
      BenchError: it is not installed.
    """
    program = shutil.which(PROGRAM)
    if program is None:
        raise BenchError(f"{PROGRAM} is missing; install it: sudo apt-get install redis-tools")
    return program


def run(load: Load, address: Address) -> Result:
    """One run against a node.

    Raises:
      BenchError: it is missing, failed, or got an error from the store.
    """
    (result,) = run_together([load], [address])
    return result


def run_together(loads: Sequence[Load], addresses: Sequence[Address]) -> list[Result]:
    """Runs at the same time, a process each.

    Raises:
      BenchError: as `run`.
    """
    program = find()
    running: list[subprocess.Popen[str]] = []
    try:
        for load, address in zip(loads, addresses, strict=True):
            command = _command(program, load, address)
            pipe = subprocess.PIPE
            running.append(subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True))
        return [_result(process) for process in running]
    finally:
        for process in running:
            process.kill()
            process.communicate()


def _command(program: str, load: Load, address: Address) -> list[str]:
    command = [
        program, "-h", address.host, "-p", str(address.port), "--csv", "--precision", "3",
        "-t", load.test, "-c", str(load.clients), "-P", str(load.pipeline),
        "-n", str(load.requests), "-d", str(load.value_bytes),
    ]  # fmt: skip
    if load.keys is not None:
        command += ["-r", str(load.keys)]
    return command


def _result(process: subprocess.Popen[str]) -> Result:
    command = " ".join(process.args) if isinstance(process.args, list) else str(process.args)
    try:
        said, complained = process.communicate(timeout=RUN_LIMIT_S)
    except subprocess.TimeoutExpired:
        raise BenchError(f"{PROGRAM} took over {RUN_LIMIT_S:g} s: {command}") from None
    if process.returncode or complained.strip():
        reason = complained.strip() or said.strip()[-500:]
        raise BenchError(f"{PROGRAM} failed ({process.returncode}): {reason}; run: {command}")
    return parse(said)


def parse(text: str) -> Result:
    """The one result in the output of `--csv`.

    Raises:
      BenchError: there is not exactly one, or a column is missing.
    """
    rows = list(csv.DictReader(line for line in text.splitlines() if line.startswith('"')))
    if len(rows) != 1:
        raise BenchError(f"one result of {PROGRAM} was expected, it said: {text.strip()[-500:]!r}")
    try:
        return Result(
            *(
                float(rows[0][column])
                for column in ("rps", "p50_latency_ms", "p99_latency_ms", "max_latency_ms")
            )
        )
    except (KeyError, TypeError, ValueError) as error:
        raise BenchError(f"{PROGRAM} --csv has other columns than expected: {error}") from error
