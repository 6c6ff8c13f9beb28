"""Runs a whole cluster on one machine: every node a process, watched and stopped together.

What the nodes are is the application's (`Application`); this module knows processes only.

- Each node is a child in a session of its own, so that Ctrl-C reaches the launcher alone and the
  nodes are stopped in order. The kernel sends them SIGTERM when the launcher is killed
  (PR_SET_PDEATHSIG): a launcher that is gone leaves no cluster behind that nobody sees.
- A node that dies is left dead and reported with the command that starts it: to see what a lost
  node does is what this is for. One started by hand is no child, and belongs to its terminal; its
  lock file tells about it, and the end of the launcher stops it too.
"""

from __future__ import annotations

import os
import select
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, Protocol

import trio

from p4xos import planes, secret
from p4xos.config import ROLE_NAMES, Cluster
from p4xos.creation import CLUSTER_NAME, LAUNCHER_LOCK, Wanted, find_or_create
from p4xos.errors import P4xosError
from p4xos.ports import Protocol as Transport
from p4xos.ports import obstacles
from p4xos.processes import (
    NODE_LOCK,
    claimed,
    end_with_parent,
    open_process,
    running_process,
    send_signal,
)
from p4xos.tables import Address

READY_LIMIT_S = 60.0  # a node that reads a full acceptor log takes seconds
READY_POLL_S = 0.05
STOP_LIMIT_S = 10.0  # a node syncs its store when it stops
LOG_NAME = "log.txt"
LOG_BYTES_MAX = 16 << 20  # a longer log is put aside at the next start, once
LOG_LINES_SHOWN = 15



class Application(Protocol):
    """What runs in the nodes."""

    def complete(self, cluster: Cluster, wanted: Wanted) -> Cluster:
        """A new cluster with the tables of this application added."""

    def command(self, cluster_file: Path, node: str) -> Sequence[str]:
        """What starts one node, with absolute paths."""

    def endpoints(self, cluster: Cluster) -> Mapping[str, Address]:
        """Where clients connect (TCP), by node; only nodes that serve clients."""

    async def ready(self, endpoint: Address) -> bool:
        """Whether the node there serves; bounded, and never an error."""

    def try_it(self, cluster: Cluster) -> Sequence[str]:
        """Commands to type, for the user."""


class LogApplication:
    """Nodes that serve the log alone: `p4xos cluster`."""

    def complete(self, cluster: Cluster, wanted: Wanted) -> Cluster:
        """The template as it is."""
        return cluster

    def command(self, cluster_file: Path, node: str) -> Sequence[str]:
        """What starts one node."""
        arguments = ["node", "--cluster", str(cluster_file), "--name", node]
        return [sys.executable, "-m", "p4xos", *arguments]

    def endpoints(self, cluster: Cluster) -> Mapping[str, Address]:
        """Where clients of the log connect."""
        return {node.name: node.peer for node in cluster.nodes}

    async def ready(self, endpoint: Address) -> bool:
        """Whether the node takes connections."""
        return await exchange(endpoint, b"", lambda answer: True)

    def try_it(self, cluster: Cluster) -> Sequence[str]:
        """A look at the nodes."""
        file = str(cluster.directory / CLUSTER_NAME)
        return [shlex.join([sys.executable, "-m", "p4xos", "status", "--cluster", file])]


class LaunchError(P4xosError):
    """The cluster could not be started, or not be stopped cleanly."""


def launch(
    directory: Path,
    wanted: Wanted,
    application: Application,
    say: Callable[[str], None] | None = None,
) -> None:
    """Create or find the cluster in a directory and run it until a signal asks to stop.

    Raises:
      P4xosError, ConfigError, OSError, ValueError: it could not start, or had to be killed.
    """
    directory = directory.absolute()
    with claimed(directory / LAUNCHER_LOCK, f"a launcher of the cluster in {directory}"):
        cluster = find_or_create(directory, wanted, application.complete)
        _refuse_running(cluster)
        # Of a release that knew none: all of its nodes are here, and none runs.
        if cluster.secret == "none" and not secret.path_of(cluster).exists():
            secret.create(secret.path_of(cluster))
        with planes.find(cluster.data_plane).laid(cluster) as apart:
            _refuse_obstacles(cluster, application, apart)
            trio.run(_Launcher(cluster, application, say or _print).run)


def _print(text: str) -> None:
    """To the terminal, which may be gone: that is one reason to be told to stop."""
    with suppress(OSError):
        print(text, flush=True)


def restart_command(cluster: Cluster, application: Application, node: str) -> str:
    """The line that starts one node, to be pasted into a shell."""
    return shlex.join(application.command(cluster.directory / CLUSTER_NAME, node))


def _refuse_running(cluster: Cluster) -> None:
    """A node that was started by hand may outlive its launcher."""
    for node in cluster.nodes:
        pid = running_process(cluster.data_directory(node.name) / NODE_LOCK)
        if pid is not None:
            complaint = f"node {node.name} of this cluster is running already, as process {pid}"
            raise LaunchError(f"{complaint}; stop it first: kill {pid}")


def _refuse_obstacles(cluster: Cluster, application: Application, apart: bool) -> None:
    """All ports are free, or none of the nodes is started; `apart`: nobody else has UDP ports."""
    wanted: list[tuple[Transport, Address, str]] = []
    for name, endpoint in application.endpoints(cluster).items():
        wanted.append(("TCP", endpoint, f"node {name} (clients)"))
    for node in cluster.nodes:
        if node.peer not in application.endpoints(cluster).values():
            wanted.append(("TCP", node.peer, f"node {node.name} (peers)"))
    for node in cluster.nodes:
        if node.metrics is not None:
            wanted.append(("TCP", node.metrics, f"node {node.name} (metrics)"))
    for role in () if apart else ROLE_NAMES:
        wanted += [("UDP", m.address, f"{role} {m.id}") for m in cluster.members(role)]
    found = obstacles(wanted)
    if found:
        more = f" (and {len(found) - 1} more like it)" if len(found) > 1 else ""
        mend = "stop what holds it, or make another cluster with --directory and --base-port"
        raise LaunchError(f"{found[0]}{more}; {mend}")


class _Child:
    """A node that this launcher started."""

    def __init__(self, node: str, command: Sequence[str], directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.node = node
        self.log = directory / LOG_NAME
        with self._open_log() as log:
            # Not trio's: it starts processes from a worker thread, and PR_SET_PDEATHSIG fires
            # at the end of the thread that forked.
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=end_with_parent(signal.SIGTERM),
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )
        self.handle = os.pidfd_open(self.process.pid)

    def _open_log(self) -> IO[bytes]:
        with suppress(FileNotFoundError):
            if self.log.stat().st_size > LOG_BYTES_MAX:
                self.log.rename(self.log.with_suffix(".old.txt"))
        return self.log.open("ab")

    def ended(self) -> str | None:
        """How the process ended, in words; None while it runs."""
        status = self.process.poll()
        if status is None:
            return None
        if status < 0:
            return f"was ended by signal {-status} ({signal.Signals(-status).name})"
        return f"ended with exit status {status}"

    def last_lines(self) -> str:
        """The end of its log, indented."""
        with self.log.open("rb") as file:
            file.seek(max(0, self.log.stat().st_size - 8192))
            lines = file.read().decode(errors="replace").splitlines()[-LOG_LINES_SHOWN:]
        return "\n".join(f"  | {line}" for line in lines)

    def close(self) -> None:
        """Let go of the process, which has ended."""
        self.process.wait()
        os.close(self.handle)


class _Launcher:
    """One run of a cluster."""

    def __init__(
        self, cluster: Cluster, application: Application, say: Callable[[str], None]
    ) -> None:
        self._cluster = cluster
        self._application = application
        self._say = say
        self._children: dict[str, _Child] = {}
        self._stop_asked = trio.Event()
        self._stop_limit = trio.CancelScope()

    async def run(self) -> None:
        """Start all, report, wait for a signal, stop all."""
        failure: Exception | None = None
        killed: list[str] = []
        async with trio.open_nursery() as nursery:
            await nursery.start(self._receive_signals)
            try:
                self._start()
                await self._wait_until_ready()
                await self._watch()
            except (P4xosError, OSError) as error:
                failure = error  # raised below: the nursery would wrap it in a group
            finally:
                # What was started is stopped, whatever went wrong.
                with trio.CancelScope(shield=True):
                    killed = await self._stop()
                nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure
        if killed:
            raise LaunchError(
                f"{', '.join(killed)} did not stop when asked to and had to be killed;"
                f" nothing acknowledged is lost, and {LOG_NAME} tells what it was doing"
            )
        self._say("All nodes have stopped.")

    def _start(self) -> None:
        """Start every node as a child."""
        for node in self._cluster.nodes:
            command = self._application.command(self._cluster.directory / CLUSTER_NAME, node.name)
            directory = self._cluster.data_directory(node.name)
            self._children[node.name] = _Child(node.name, command, directory)

    async def _watch(self) -> None:
        """Tell what runs and what ends, until a signal asks to stop."""
        if self._stop_asked.is_set():
            return
        self._say(self._greeting())
        async with trio.open_nursery() as watchers:
            for child in self._children.values():
                watchers.start_soon(self._report_end, child)
            await self._stop_asked.wait()
            watchers.cancel_scope.cancel()

    async def _receive_signals(self, task_status: trio.TaskStatus[None]) -> None:
        """The first signal asks to stop; the next one to wait no longer."""
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
            task_status.started()
            async for _ in signals:
                if self._stop_asked.is_set():
                    self._stop_limit.cancel()
                self._stop_asked.set()

    async def _wait_until_ready(self) -> None:
        """Every endpoint serves; a child that ends before is the error."""
        waiting = dict(self._application.endpoints(self._cluster))
        limit = trio.current_time() + READY_LIMIT_S
        while not self._stop_asked.is_set():
            for child in self._children.values():
                ended = child.ended()
                if ended is not None:
                    raise LaunchError(
                        f"node {child.node} {ended} while it started; the end of {child.log}:\n"
                        f"{child.last_lines()}\nMend what it names, then start again."
                    )
            for node, endpoint in list(waiting.items()):
                if await self._application.ready(endpoint):
                    del waiting[node]
            if not waiting:
                return
            if trio.current_time() > limit:
                logs = " and ".join(str(self._children[node].log) for node in waiting)
                complaint = f"{', '.join(waiting)} did not serve within {READY_LIMIT_S:g} s"
                raise LaunchError(f"{complaint}; see {logs}")
            with trio.move_on_after(READY_POLL_S):
                await self._stop_asked.wait()

    async def _report_end(self, child: _Child) -> None:
        """Tell that a node has ended and how it is started again; the others go on."""
        await trio.lowlevel.wait_readable(child.handle)
        shown = "" if child.process.poll() == -signal.SIGKILL else f"\n{child.last_lines()}"
        self._say(
            f"Node {child.node} (process {child.process.pid}) {child.ended()}; "
            f"the others go on.{shown}\nStart it again with\n"
            f"  {restart_command(self._cluster, self._application, child.node)}"
        )

    async def _stop(self) -> list[str]:
        """Stop all nodes, those started by hand too; the names of those that had to be killed."""
        with ExitStack() as stack:
            handles: dict[str, int] = {}
            for child in self._children.values():
                stack.callback(child.close)
                if child.ended() is None:
                    handles[child.node] = child.handle
            for node in self._cluster.nodes:
                lock = self._cluster.data_directory(node.name) / NODE_LOCK
                by_hand = None if node.name in handles else open_process(lock)
                if by_hand is not None:
                    stack.callback(os.close, by_hand)
                    handles[node.name] = by_hand
            killed = await self._end_processes(handles)
            for child in self._children.values():
                status = child.process.poll()
                if child.node in handles and status is not None and status > 0:
                    self._say(f"Node {child.node} {child.ended()} when asked to stop: {child.log}")
            return killed

    async def _end_processes(self, handles: Mapping[str, int]) -> list[str]:
        """SIGTERM, a bounded wait, SIGKILL; the names of those that needed the latter."""
        for handle in handles.values():
            send_signal(handle, signal.SIGTERM)
        running = dict(handles)
        self._stop_limit.deadline = trio.current_time() + STOP_LIMIT_S
        with self._stop_limit:
            for name, handle in handles.items():
                await trio.lowlevel.wait_readable(handle)
                del running[name]
        killed = [name for name, handle in running.items() if not _has_ended(handle)]
        for name in killed:
            send_signal(handles[name], signal.SIGKILL)
            await trio.lowlevel.wait_readable(handles[name])
        return killed

    def _greeting(self) -> str:
        """Endpoints, processes, what to type, how to start each node alone."""
        cluster = self._cluster
        endpoints = self._application.endpoints(cluster)
        rows = [("node", "clients connect to", "process", "log")]
        for name, child in self._children.items():
            endpoint = str(endpoints.get(name, "-"))
            rows.append((name, endpoint, str(child.process.pid), str(child.log)))
        restarts = [restart_command(cluster, self._application, n.name) for n in cluster.nodes]
        first = next(iter(self._children.values())).process.pid
        return "\n".join(
            [
                f"Cluster {cluster.id:#010x} in {cluster.directory}, storage: {cluster.storage}",
                "",
                *_aligned(rows),
                "",
                "Try it, in another terminal:",
                *(f"  {line}" for line in self._application.try_it(cluster)),
                "",
                f"End a node (kill -9 {first}) and the others go on. To start one again:",
                *(f"  {line}" for line in restarts),
                "",
                "Ctrl-C stops all nodes; their data stay for the next start.",
            ]
        )


def _has_ended(handle: int) -> bool:
    """Whether the process of a pidfd has ended."""
    return bool(select.select([handle], [], [], 0)[0])


def _aligned(rows: Iterable[Sequence[str]]) -> list[str]:
    """Rows as lines with columns, indented."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = ((cell.ljust(w) for cell, w in zip(row, widths, strict=True)) for row in rows)
    return ["  " + "  ".join(row).rstrip() for row in padded]


async def exchange(
    endpoint: Address, send: bytes, expected: Callable[[bytes], bool], limit_s: float = 1.0
) -> bool:
    """Whether a TCP endpoint answers as expected; False for whatever goes wrong."""
    with trio.move_on_after(limit_s), suppress(OSError):
        async with await trio.open_tcp_stream(*endpoint) as stream:
            if send:
                await stream.send_all(send)
            return expected(await stream.receive_some(4096) if send else b"")
    return False
