"""A switch: one `simple_switch` in a network of its own, and the two sockets to it.

It ends with the process that started it, whatever ends that one: the kernel kills it (the signal
of PR_SET_PDEATHSIG), and with the last process and socket of its network that is gone too.
"""

from __future__ import annotations

import logging
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Protocol

from p4xos.planes import NoDataPlane
from p4xos.processes import end_with_parent
from switch.bmv2 import network, programs

log = logging.getLogger(__name__)

PORT = 1
"""The number of the switch's only port: where packets come in, and all leave."""
_THRIFT_PORT = 9090  # bmv2 listens on every address, and there is nobody else in its network
_START_WAITS, _START_WAIT_S = 400, 0.05
_END_S = 1.0
_LAST_LINES = 5

_STARTER = ThreadPoolExecutor(1, "switches")
"""One thread starts all switches, and lives as long as this process: for the kernel, a parent that
ends is a thread. It is also the only one that ever leaves the first network."""


class Switch(Protocol):
    """A switch that runs."""

    port: socket.socket
    """Frames in and out, whole."""
    thrift: socket.socket
    """Its control plane."""

    def fate(self) -> str:
        """What has become of it, in words."""

    def stop(self) -> None:
        """Switches it off; nothing of it is left when this returns."""


class SimpleSwitch:
    """A Switch of bmv2's."""

    def __init__(
        self, process: subprocess.Popen[bytes], output: IO[bytes], port: socket.socket,
        thrift: socket.socket,
    ) -> None:  # fmt: skip
        self.pid = process.pid
        self.port = port
        self.thrift = thrift
        self._process = process
        self._output = output

    @classmethod
    def start(cls, program: Path) -> SimpleSwitch:
        """Runs a program that p4c made; ready for entries. May be called from any thread.

        Raises:
          NoDataPlane: it does not come up; the message has what it said last.
        """
        programs.require()
        return _STARTER.submit(cls._start, program).result()

    @classmethod
    def _start(cls, program: Path) -> SimpleSwitch:
        switch = shutil.which(programs.SWITCH) or programs.SWITCH
        # A file: nobody would read a pipe, and a full one would stop it.
        output = tempfile.TemporaryFile()  # noqa: SIM115  # open as long as the switch runs
        port: socket.socket | None = None
        process: subprocess.Popen[bytes] | None = None
        try:
            with network.own_network():
                port = network.port()
                process = subprocess.Popen(
                    [switch,
                     "-i", f"{PORT}@{network.SWITCH}", "--thrift-port", str(_THRIFT_PORT),
                     *programs.notifications(switch, _THRIFT_PORT + 1), str(program)],
                    stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                    preexec_fn=end_with_parent(signal.SIGKILL),
                )  # fmt: skip
                thrift = _connect(process, output)
        except BaseException:
            if process is not None:
                process.kill()
                process.wait()
            if port is not None:
                port.close()
            output.close()
            raise
        log.info(
            "runs on simple_switch, process %d; to look on: nsenter --net=/proc/%d/ns/net tcpdump "
            "-i %s", process.pid, process.pid, network.SWITCH,
        )  # fmt: skip
        return cls(process, output, port, thrift)

    def fate(self) -> str:
        """As Switch."""
        return _fate(self._process, self._output)

    def stop(self) -> None:
        """As Switch."""
        self._process.kill()
        self._process.wait()
        for each in (self.port, self.thrift, self._output):
            each.close()


def _connect(process: subprocess.Popen[bytes], output: IO[bytes]) -> socket.socket:
    """To the control plane, once it listens."""
    for _ in range(_START_WAITS):
        try:
            return socket.create_connection(("127.0.0.1", _THRIFT_PORT))
        except OSError:
            if process.poll() is not None:
                break
            time.sleep(_START_WAIT_S)
    raise NoDataPlane(
        f"a switch does not come up: {_fate(process, output)}; see whether simple_switch runs by "
        "itself, or take --data-plane p4"
    )


def _fate(process: subprocess.Popen[bytes], output: IO[bytes]) -> str:
    try:
        code: int | None = process.wait(_END_S)  # its sockets close before it has ended
    except subprocess.TimeoutExpired:
        code = None
    if code is None:
        what = "does not answer"
    elif code < 0:
        what = f"was killed by {signal.Signals(-code).name}"
    else:
        what = f"ended with {code}"
    output.seek(0)
    lines = output.read().decode(errors="replace").split("\n")
    said = "; ".join([line.strip() for line in lines if line.strip()][-_LAST_LINES:])
    return f"simple_switch, process {process.pid}, {what}" + (f' and said "{said}"' if said else "")
