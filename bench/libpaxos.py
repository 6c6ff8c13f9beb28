"""libpaxos' own client and learner, unchanged, on libpaxos and on this log; its C interface.

Both sides keep nothing on disk, have three acceptors, each a process, and one proposer's port. The
client keeps so many values of 64 bytes outstanding and counts those that its learner delivers. The
learner that catches up is libpaxos' too; it prints a line for each value. Where its programs are is
told by LIBPAXOS_BIN; without them only this project's own library and client are measured. The
library is compiled for the run (gcc, libevent-dev); its program does what libpaxos' client does,
through a replica handle, and does not count its first half second.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import NamedTuple

import trio

from bench.errors import BenchError
from bench.peers.libpaxos import Libpaxos, Second, conf_text, parse_statistics
from bench.peers.peer import REPLICAS, VALUE_BYTES, wait_for
from bench.processes import Child, children
from bench.results import Figure, Metric, Point, Sample
from bench.store_cluster import free_base_port
from p4xos.compat import libpaxos_c
from p4xos.compat.libpaxos import Submission, Submitting
from p4xos.compat.libpaxos.conf import PaxosConf
from p4xos.tables import Address

OUTSTANDING = (1, 10, 100, 1000)
SECONDS = 3.0
TOLD = 100
"""The number outstanding at which the gateway is to be no slower than libpaxos."""
CATCH_UP_VALUES = 100_000
LIBPAXOS_CATCH_UP = 110
"""Instances/s, on any machine: ten at a time, each tenth of a second."""
OWN_OUTSTANDING = 10_000
PATIENCE_S = 60.0
LIBRARY = Path(libpaxos_c.__file__).parent

RATE = Figure("libpaxos", "values by outstanding", "outstanding", "values/s", True, True)
LATENCY = Figure("libpaxos", "mean latency by outstanding", "outstanding", "us", True, True)
RATIO = Metric("libpaxos", f"gateway to libpaxos at {TOLD} outstanding", "times", at_least=1)
CATCH_UP = Metric(
    "libpaxos", "its learner catches up at the gateway", "instances/s", 100 * LIBPAXOS_CATCH_UP
)
LIBRARY_RATIO = Metric(
    "libpaxos", f"C library to libpaxos at {TOLD} outstanding", "times", at_least=3
)
OWN = Metric("libpaxos", f"own Python client, {OWN_OUTSTANDING} outstanding", "values/s")


class Measured(NamedTuple):
    """What the client told, without its first second."""

    per_s: float
    mean_us: float


def run(scratch: Path, runs: int, scale: float) -> Iterator[Sample | Point]:
    """Yields all sides' curves, the ratios, and how fast a learner catches up."""
    measure = _library(scratch / "library")
    programs = Libpaxos("libpaxos", "memory")
    missing = programs.missing()
    if missing is not None:
        print(f"libpaxos: its programs are skipped: {missing}", file=sys.stderr, flush=True)
    else:
        programs.start(scratch / "programs")
    for _ in range(runs):
        if missing is None:
            theirs = {o: _libpaxos(programs, o, SECONDS * scale) for o in OUTSTANDING}
            yield from _points("libpaxos", theirs)
        with _gateway(scratch) as (conf, started):
            if missing is None:
                ours = {o: _client(programs, conf, started, o, SECONDS * scale)
                        for o in OUTSTANDING}  # fmt: skip
                yield from _points("gateway", ours)
                yield Sample(RATIO, ours[TOLD].per_s / theirs[TOLD].per_s)
            if measure is not None:
                by_library = {o: _measure(measure, conf, o, SECONDS * scale) for o in OUTSTANDING}
                yield from _points("C library", by_library)
                if missing is None:
                    yield Sample(LIBRARY_RATIO, by_library[TOLD].per_s / theirs[TOLD].per_s)
            values = max(round(CATCH_UP_VALUES * scale), 1000)
            before, rate = trio.run(_fill, PaxosConf.load(conf), values)
            yield Sample(OWN, rate)
            if missing is None:
                yield Sample(CATCH_UP, _catch_up(programs, conf, started, before + values))


def _points(series: str, found: dict[int, Measured]) -> Iterator[Point]:
    for outstanding, measured in found.items():
        yield Point(RATE, series, outstanding, measured.per_s)
        yield Point(LATENCY, series, outstanding, measured.mean_us)


def _libpaxos(programs: Libpaxos, outstanding: int, seconds: float) -> Measured:
    with children() as started:
        return _measured(programs.launch(started, outstanding), started, seconds)


def _client(
    programs: Libpaxos, conf: Path, started: list[Child], outstanding: int, seconds: float
) -> Measured:
    """Its client at the gateway, which goes on running."""
    client = programs.program(
        "client", str(conf), "-o", str(outstanding), "-v", str(VALUE_BYTES), log=conf.parent
    )
    try:
        return _measured(client, [*started, client], seconds)
    finally:
        client.kill()


def _measured(client: Child, started: list[Child], seconds: float) -> Measured:
    wanted = max(round(seconds), 1) + 1

    def told() -> list[Second]:
        return parse_statistics(client.log_text())

    wait_for(lambda: len(told()) >= wanted, started, f"{wanted} seconds of libpaxos' client")
    found = told()[1:wanted]
    values = sum(second.values for second in found)
    if not values:
        raise BenchError(f"nothing was delivered; libpaxos' client said:\n{client.last_lines()}")
    mean_us = sum(second.values * second.mean_us for second in found) / values
    return Measured(values / len(found), mean_us)


def _library(directory: Path) -> Path | None:
    """The program that measures through the library; None where it cannot be compiled here."""
    directory.mkdir(parents=True, exist_ok=True)
    command = ["make", "-s", "-C", str(LIBRARY), f"BUILD={directory}"]
    try:
        made = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        print(f"libpaxos: the C library is skipped: make: {error}", file=sys.stderr, flush=True)
        return None
    if made.returncode:
        last = made.stderr.strip().splitlines()[-1:]
        print(
            f"libpaxos: the C library is skipped, since it does not compile (gcc, libevent-dev): "
            f"{' '.join(last)}", file=sys.stderr, flush=True,
        )  # fmt: skip
        return None
    return directory / "measure"


def _measure(program: Path, conf: Path, outstanding: int, seconds: float) -> Measured:
    """Values through a replica handle, which needs a file that names replicas."""
    with_replicas = conf.with_name("replicas.conf")
    lines = conf.read_text().splitlines()
    acceptors = [line.split() for line in lines if line.startswith("acceptor ")]
    with_replicas.write_text("".join(f"replica {' '.join(words[1:])}\n" for words in acceptors))
    command = [str(program), str(with_replicas), "--outstanding", str(outstanding)]
    command += ["--size", str(VALUE_BYTES), "--seconds", str(seconds), "--warm-up", "0.5"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=seconds + PATIENCE_S
    )
    if done.returncode:
        raise BenchError(f"{program.name} ended with {done.returncode}: {done.stderr.strip()}")
    told = json.loads(done.stdout)
    if not told["values"]:
        raise BenchError(f"nothing was delivered; {program.name} said:\n{done.stderr}")
    return Measured(told["values_s"], told["mean_us"])


@contextmanager
def _gateway(scratch: Path) -> Iterator[tuple[Path, list[Child]]]:
    """A cluster for a paxos.conf, as a user starts it."""
    directory = Path(mkdtemp(dir=scratch))
    base = free_base_port()
    *acceptors, proposer = (Address("127.0.0.1", base + k) for k in range(REPLICAS + 1))
    conf = directory / "paxos.conf"
    conf.write_text(conf_text(acceptors, proposer, "memory", directory / "unused"))
    with children() as started:
        command = [sys.executable, "-m", "p4xos", "libpaxos", "--config", str(conf)]
        command += ["--directory", str(directory / "data")]
        child = Child("p4xos libpaxos", command, directory / "gateway.txt")
        started.append(child)
        wait_for(lambda: "Ctrl-C stops" in child.log_text(), started, "that the gateway serves")
        yield conf, [child]
        child.stop()


async def _fill(conf: PaxosConf, values: int) -> tuple[int, float]:
    """Values through this project's own client; how many were there before, and values/s."""
    submitting = Submitting(conf)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(submitting.run)
        before = await submitting.submit(b"first").wait()
        assert before is not None, "a gateway that was started just now loses no connection"
        began = time.perf_counter()
        waiting: list[Submission] = []
        for number in range(values):
            waiting.append(submitting.submit(b"%064d" % number))
            if len(waiting) >= OWN_OUTSTANDING:
                await waiting[-OWN_OUTSTANDING].wait()
        for submission in waiting:
            await submission.wait()
        elapsed_s = time.perf_counter() - began
        nursery.cancel_scope.cancel()
    return before, values / elapsed_s


def _catch_up(programs: Libpaxos, conf: Path, started: list[Child], values: int) -> float:
    """Instances/s of its learner, which begins with nothing."""
    with_all = conf.with_name("learner.conf")
    with_all.write_text(conf.read_text().replace("learner-catch-up no", "learner-catch-up yes"))
    began = time.perf_counter()
    learner = programs.program("learner", str(with_all), log=conf.parent)
    try:
        wait_for(
            lambda: learner.log.read_bytes().count(b"\n") >= values,
            [*started, learner], f"that its learner has all {values} values",
        )  # fmt: skip
        return values / (time.perf_counter() - began)
    finally:
        learner.kill()
