"""Ports for new clusters: free, and nobody else's by the time they are bound."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

from p4xos.ports import free_addresses

DRAWS = "from p4xos.ports import free_addresses; print(*(a.port for a in free_addresses(40)))"
WAITS = DRAWS + "; import sys; sys.stdout.flush(); sys.stdin.read()"


def test_processes_at_once_get_different_ports() -> None:
    """Nothing is bound yet when the next one looks."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", WAITS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    drawn = [a.port for a in free_addresses(40)]
    for process in processes:
        assert process.stdout is not None
        drawn += map(int, process.stdout.readline().split())
    for process in processes:
        process.communicate("")
    assert len(drawn) == len(set(drawn)) == 200


def test_a_child_of_a_fork_has_ports_of_its_own() -> None:
    free_addresses(1)
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.write(writer, b" ".join(b"%d" % a.port for a in free_addresses(20)))
        os._exit(0)
    drawn = {a.port for a in free_addresses(20)}
    os.waitpid(child, 0)
    theirs = {int(port) for port in os.read(reader, 1000).split()}
    os.close(reader)
    os.close(writer)
    assert len(theirs) == 20
    assert not drawn & theirs


def test_no_outgoing_connection_gets_them() -> None:
    low, high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    assert not [a for a in free_addresses(50) if low <= a.port <= high]


def test_more_than_one_block_has() -> None:
    assert len(set(free_addresses(700))) == 700


def test_what_is_in_use_is_left_out() -> None:
    """For TCP or for UDP: all that follow in the block are taken, and none of them is given."""
    first = free_addresses(1)[0]
    with socket.socket() as held, socket.socket(type=socket.SOCK_DGRAM) as held_too:
        held.bind(("127.0.0.1", first.port + 1))
        held_too.bind(("127.0.0.1", first.port + 2))
        assert not {first.port + 1, first.port + 2} & {a.port for a in free_addresses(600)}
