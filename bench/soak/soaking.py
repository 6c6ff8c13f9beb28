"""A run: the cluster, its load, what happens to it meanwhile, and the verdict."""

from __future__ import annotations

import json
import math
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from bench.copies import BACKUP_LIMIT_S
from bench.errors import BenchError
from bench.processes import Child, python_module, wait_until
from bench.results import aligned, in_figures
from bench.soak.load import Worker, loading
from bench.soak.samples import Sample, look
from bench.soak.trend import Bound, Trend, trend
from bench.store_cluster import StoreCluster
from bench.writers import connect
from kvstore import comparison
from p4xos.creation import CLUSTER_NAME

MEBIBYTE = 1 << 20
BOUNDS = {
    "rss_bytes": Bound(per_hour=32 * MEBIBYTE, growth_min=2 * MEBIBYTE),
    "descriptors": Bound(per_hour=6, growth_min=2),
    "threads": Bound(per_hour=2, growth_min=0.5),
}
"""Beyond these a process leaks. Memory: a few MiB of noise in minutes, and a leak of 1 KiB a
hundred commands would be 50 MiB an hour under this load."""
TOLD = ("clients", "data_bytes", "segments", "data_descriptors", "lag")
"""Fitted too and shown, with no bound: compactions and the log's segments make them go up and down
by more than any bound could allow."""
NO_BOUND = Bound(math.inf, math.inf)
ERROR_SIGNS = (" ERROR ", " CRITICAL ", "Traceback")
WARM_INSTANCES = 65_536
"""Beside the window: what a process holds by design is full by then, the entries kept for peers
(64 MiB), RocksDB's buffers (32 MiB each, written to at some 1.7 KB an instance) and its cache."""
WORKERS = 4
QUIET_LIMIT_S = 60.0


class Plan(NamedTuple):
    """How long and how often; seconds."""

    load_s: float
    sample_s: float = 2.0
    restart_s: float = 180.0
    backup_s: float = 240.0
    nodes: int = 3
    window: int = 4096
    """A process grows until each slot of its rings was used once; few slots make that short."""
    events_min: int = 0
    """Restarts, and backups, at the least: the load goes on until then on a slow machine."""


class Line(NamedTuple):
    """One line of the summary."""

    node: str
    pid: int
    name: str
    samples: int
    trend: Trend | None
    bounded: bool


class Report(NamedTuple):
    """What came of a run."""

    lines: list[Line]
    problems: list[str]
    """Why it failed; none: it passed."""
    facts: dict[str, object]


def soak(scratch: Path, plan: Plan, series: Path, tell: Callable[[str], None]) -> Report:
    """Runs it.

    Args:
      scratch: for the data of the run.
      plan: how long.
      series: a line of JSON for each sample goes there.
      tell: is given what happens, for people.
    """
    seed = random.randrange(1 << 32)
    tell(f"load drawn with seed {seed}")
    problems: list[str] = []
    with (
        StoreCluster(scratch / "soak", nodes=plan.nodes, window=plan.window) as cluster,
        series.open("a") as file,
    ):
        cluster.start()
        cluster.wait_until_writable()
        before = {sample.pid: sample for sample in look(cluster, 0.0)}
        began = time.monotonic()
        samples: list[Sample] = []
        events = _Events(cluster, plan, scratch, tell)
        addresses = [cluster.endpoint(name) for name in cluster.names]
        with loading(addresses, WORKERS, seed) as workers:
            while (now := time.monotonic() - began) < plan.load_s or events.due:
                for sample in look(cluster, now):
                    samples.append(sample)
                    file.write(json.dumps(sample._asdict()) + "\n")
                file.flush()
                events.go_on(now)
                time.sleep(max(0.0, plan.sample_s - (time.monotonic() - began - now)))
        problems += _after_load(cluster, before)
        problems += _counts(cluster, workers)
        problems += log_errors(cluster)
        lag_worst = max((sample.lag for sample in samples), default=0)
        after = look(cluster, time.monotonic() - began)
        stopped = cluster.stop()
        problems += [f"node {n} stopped with status {s}" for n, s in stopped.items() if s]
    lines = fitted(samples, plan.window + WARM_INSTANCES)
    problems += [_leak(line) for line in lines if line.bounded and line.trend and line.trend.leaks]
    problems += stale_lows(samples, plan.window)
    done = sum((worker.done for worker in workers), Counter[str]())
    failed = sum((worker.failed for worker in workers), Counter[str]())
    facts: dict[str, object] = {
        **events.counts,
        "commands": dict(done),
        "errors told to clients": dict(failed),
        "worst lag": lag_worst,
        "dropped": {sample.node: sample.dropped for sample in after},
        "socket drops": {sample.node: sample.socket_drops for sample in after},
    }
    return Report(lines, problems, facts)


class _Events:
    """Restarts and backups, when they are due.

    The first node is never restarted, so that one process sees all of the load. The others are, in
    turn, by kill -9 and by SIGTERM.
    """

    def __init__(
        self, cluster: StoreCluster, plan: Plan, scratch: Path, tell: Callable[[str], None]
    ) -> None:
        self.counts = {"restarts": 0, "backups": 0}
        self._cluster, self._plan = cluster, plan
        self._backup = scratch / "backup.tar"
        self._tell = tell
        self._restart_at, self._backup_at = plan.restart_s, plan.backup_s

    @property
    def due(self) -> bool:
        """Whether less has happened than is planned."""
        return min(self.counts.values()) < self._plan.events_min

    def go_on(self, now: float) -> None:
        """Does what is due after so many seconds of load."""
        if now >= self._restart_at:
            self._restart_at = now + self._plan.restart_s
            self._restart()
        if now >= self._backup_at:
            self._backup_at = now + self._plan.backup_s
            self._back_up()

    def _restart(self) -> None:
        cluster, number = self._cluster, self.counts["restarts"]
        victim = cluster.names[1 + number % (len(cluster.names) - 1)]
        killed = number % 4 < 2
        if killed:
            cluster.kill(victim)
        elif status := cluster.children[victim].stop(signal.SIGTERM):
            raise BenchError(f"node {victim} stopped with status {status}")
        cluster.start(victim)
        self.counts["restarts"] += 1
        self._tell(f"restarted {victim} after {'kill -9' if killed else 'SIGTERM'}")

    def _back_up(self) -> None:
        file = self._cluster.cluster.directory / CLUSTER_NAME
        command = python_module(
            "kvstore", "backup", "--cluster", str(file), "--to", str(self._backup)
        )
        child = Child("kvstore backup", command, self._backup.with_suffix(".txt"))
        if child.wait(BACKUP_LIMIT_S) != 0:
            raise BenchError(f"the backup failed:\n{child.last_lines()}")
        self._tell(f"backup of {self._backup.stat().st_size} bytes")
        self._backup.unlink()
        self.counts["backups"] += 1


def _after_load(cluster: StoreCluster, before: Mapping[int, Sample]) -> list[str]:
    """Without load: nobody lags, all have one state, and what clients held is given back."""
    cluster.wait_until_alike()
    found: list[str] = []
    last: list[Sample] = []

    def quiet() -> bool:
        last[:] = look(cluster, 0.0)
        found[:] = [
            f"node {now.node}, process {now.pid}: {now.descriptors} descriptors after the load, "
            f"{before[now.pid].descriptors} before it"
            for now in last
            if now.pid in before and now.descriptors != before[now.pid].descriptors
        ]
        found.extend(
            f"node {now.node} lags by {now.lag} instances, {now.in_flight} submissions in flight"
            for now in last
            if now.lag or now.in_flight
        )
        return len(last) == len(cluster.names) and not found

    with suppress(BenchError):  # what is wrong is told below
        wait_until(quiet, QUIET_LIMIT_S, "that nothing is left of the load")
    if len(last) < len(cluster.names):
        found.append(f"only {[sample.node for sample in last]} answer after the load")
    compared = comparison.compare(cluster.cluster)
    if not compared.good:
        found.append(f"the replicas are not alike: {compared}")
    return found


def _counts(cluster: StoreCluster, workers: Sequence[Worker]) -> list[str]:
    """Whether each worker's counter is what it was told."""
    found = []
    with connect(cluster.endpoint(cluster.names[0])) as client:
        for worker in workers:
            value = client.get(worker.counter)
            assert value is None or isinstance(value, bytes)
            count = int(value or 0)
            if not worker.counted <= count <= worker.counted + worker.uncertain:
                found.append(
                    f"{worker.counter} is {count}: {worker.counted} were acknowledged and "
                    f"{worker.uncertain} are unknown"
                )
    return found


def log_errors(cluster: StoreCluster) -> list[str]:
    """Lines of the nodes' logs that tell of an error."""
    return [
        f"node {name} said: {line}"
        for name, child in cluster.children.items()
        for line in child.log_text().splitlines()
        if any(sign in line for sign in ERROR_SIGNS)
    ]


def fitted(samples: Sequence[Sample], warm: int) -> list[Line]:
    """A line for each process and series, from when the process has delivered `warm` instances."""
    by_process: dict[tuple[str, int], list[Sample]] = {}
    for sample in samples:
        by_process.setdefault((sample.node, sample.pid), []).append(sample)
    lines = []
    for (node, pid), all_samples in sorted(by_process.items()):
        full = all_samples[0].delivered + warm
        own = [sample for sample in all_samples if sample.delivered >= full]
        times = [sample.at_s for sample in own]
        for name in (*BOUNDS, *TOLD):
            values = [float(getattr(sample, name)) for sample in own]
            bound = BOUNDS.get(name)
            found = trend(times, values, bound or NO_BOUND)
            lines.append(Line(node, pid, name, len(own), found, bound is not None))
    return lines


def _leak(line: Line) -> str:
    assert line.trend is not None
    return (
        f"node {line.node}, process {line.pid}: {line.name} grows by {line.trend.per_hour:,.0f} "
        f"an hour (give or take {line.trend.error_per_hour:,.0f}), from {line.trend.first:,.0f} "
        f"to {line.trend.last:,.0f}; allowed is {BOUNDS[line.name].per_hour:,.0f}"
    )


def stale_lows(samples: Sequence[Sample], window: int) -> list[str]:
    """Nodes that delivered a window and more while `low` stood still: nothing was forgotten."""
    found = []
    for node in sorted({sample.node for sample in samples}):
        since: Sample | None = None
        for sample in (sample for sample in samples if sample.node == node):
            if since is None or sample.low > since.low:
                since = sample
            elif sample.delivered - since.delivered > window:
                found.append(
                    f"node {node}: low stands at {sample.low} since instance {since.delivered}, "
                    f"and it has delivered through {sample.delivered}"
                )
                break
    return found


def summary(report: Report) -> str:
    """A table of the trends, what was counted, and the verdict."""
    rows: list[tuple[str, ...]] = [
        ("node", "process", "series", "samples", "first", "last", "an hour", "+-", "verdict")
    ]
    short: dict[tuple[str, int], int] = {}
    for line in report.lines:
        found = line.trend
        if found is None:
            short[line.node, line.pid] = line.samples
            continue
        figures = (found.first, found.last, found.per_hour, found.error_per_hour)
        verdict = ("LEAKS" if found.leaks else "steady") if line.bounded else ""
        told = (*(in_figures(figure) for figure in figures), verdict)
        rows.append((line.node, str(line.pid), line.name, str(line.samples), *told))
    for (node, pid), samples in short.items():
        rows.append((node, str(pid), "all", str(samples), *[""] * 4, "too short"))
    text = aligned(rows, numbers=range(3, 8))
    facts = "\n".join(f"{name}: {fact}" for name, fact in report.facts.items())
    verdict = "\n".join(f"FAIL: {problem}" for problem in report.problems) or "PASS"
    return f"{text}\n{facts}\n{verdict}"
