"""Hosts of their own for the nodes of a run: namespaces, a router between them, rules on its links.

    host n1 ── eth0 ┐
    host n2 ── eth0 ┼── router: forwards; the rules of the faults are in its tables
    host n3 ── eth0 ┤
    host clients ───┘

A host is a network and a mount namespace that has no name: a process that sleeps holds it. The
kernel kills that process when the run dies (PR_SET_PDEATHSIG), however it dies, and with the last
process of a namespace go its links, rules and mounts: there is nothing that a next run would have
to find and remove. Nothing is ever added to the machine's own network, so no address can clash.

From a shell, `nsenter --target PID --net --mount` enters a host; PID is that of its `sleep`.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from bench.errors import BenchError
from bench.processes import Child, kill_all, wait_until
from switch.namespaces import Namespace

CLIENTS = "clients"
_ROUTER = "router"
_START_LIMIT_S = 20.0
_PREFIX = "10.77"
_NO_IPV6 = ("ipv6/conf/all/disable_ipv6", "1")


class Host:
    """One host; its processes are started with `command`."""

    def __init__(self, name: str, address: str, directory: Path) -> None:
        """Starts the process that holds its namespaces.

        Args:
          name: unique in the run.
          address: IPv4; empty for the router, which has one on each link.
          directory: gets a log file.
        """
        self.name = name
        self.address = address
        hold = ["unshare", "--net", "--mount", "--propagation", "private", "sleep", "infinity"]
        self.holder = Child(f"host {name}", hold, directory / f"host-{name}.txt")

    def wait(self) -> None:
        """Returns when the namespaces are there.

        Raises:
          BenchError: the system does not let us make them.
        """

        def ready() -> bool:
            if not self.holder.running:
                raise BenchError(
                    f"{self.holder.name} could not be made; it needs root:\n"
                    f"{self.holder.last_lines()}"
                )
            try:
                # Until the exec of `sleep`, `unshare` may not have made both.
                return Path(f"/proc/{self.holder.pid}/comm").read_text() == "sleep\n"
            except OSError:
                return False

        wait_until(ready, _START_LIMIT_S, f"that {self.holder.name} is there")

    def command(self, command: Sequence[str]) -> list[str]:
        """What runs a command on this host, in the process that it is started in."""
        target = f"--target={self.holder.pid}"
        return ["nsenter", target, "--net", "--mount", "--", *command]

    def run(self, command: Sequence[str], text: str = "") -> str:
        """Runs a command on this host to its end; returns what it said.

        Raises:
          BenchError: it failed.
        """
        done = subprocess.run(self.command(command), input=text, capture_output=True, text=True)
        if done.returncode:
            told = (done.stderr or done.stdout).strip()
            raise BenchError(f"on host {self.name}, {' '.join(command)} failed: {told}\n{text}")
        return done.stdout

    def path(self, path: Path) -> Path:
        """A path as this host sees it, with its own mounts."""
        return Path(f"/proc/{self.holder.pid}/root{path}")

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Sockets that this thread makes in the block are the host's, and stay it."""
        namespace = Namespace.open(f"/proc/{self.holder.pid}/ns/net")
        with closing(namespace), namespace.entered():
            yield

    def set_network(self, *settings: tuple[str, str]) -> None:
        """Writes settings below /proc/sys/net, which shows each thread those of its namespace."""
        with self.entered():
            for name, value in settings:
                Path("/proc/sys/net", name).write_text(value)


class Network:
    """Hosts and the router between them, until the block ends."""

    def __init__(self, names: Sequence[str], directory: Path) -> None:
        """Nothing is made yet.

        Args:
          names: of the hosts; the one for clients comes besides.
          directory: gets log files.
        """
        self._names = [*names, CLIENTS]
        self._directory = directory
        self.hosts: dict[str, Host] = {}
        """By name, without the router."""
        self._holders: list[Child] = []
        self._tables = 0

    def __enter__(self) -> Self:
        if os.geteuid() != 0:
            raise BenchError("hosts of their own need root: run it as root")
        try:
            self.router = self._host(_ROUTER, "")
            for number, name in enumerate(self._names):
                self.hosts[name] = self._host(name, f"{_PREFIX}.{number}.2")
            for host in (self.router, *self.hosts.values()):
                host.wait()
            self._connect()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._close()

    @property
    def clients(self) -> Host:
        """Where the clients run."""
        return self.hosts[CLIENTS]

    def _host(self, name: str, address: str) -> Host:
        host = Host(name, address, self._directory)
        self._holders.append(host.holder)
        return host

    def _close(self) -> None:
        kill_all(self._holders)

    def _connect(self) -> None:
        """A link from each host to the router, and routes."""
        # What a relay sends comes from its device, not from the link of the sender's address.
        self.router.set_network(
            ("ipv4/ip_forward", "1"), ("ipv4/conf/all/rp_filter", "0"),
            ("ipv4/conf/default/rp_filter", "0"), _NO_IPV6,
        )  # fmt: skip
        lines = ["link set dev lo up"]
        for number, host in enumerate(self.hosts.values()):
            lines += [
                f"link add name to{number} type veth peer name eth0 netns {host.holder.pid}",
                f"address add {_PREFIX}.{number}.1/24 dev to{number}",
                f"link set dev to{number} up",
            ]
        self.router.run(["ip", "-batch", "-"], "\n".join(lines))
        for number, host in enumerate(self.hosts.values()):
            host.set_network(_NO_IPV6)
            lines = [
                "link set dev lo up",
                f"address add {host.address}/24 dev eth0",
                "link set dev eth0 up",
                f"route add default via {_PREFIX}.{number}.1",
            ]
            host.run(["ip", "-batch", "-"], "\n".join(lines))

    def send_singly(self) -> None:
        """From now on each datagram travels alone, as on a wire: rules and losses see each.

        Else a batch of up to 128 that was sent by one call is one packet to the router.
        """
        for host in self.hosts.values():
            host.run(["ip", "link", "set", "dev", "eth0", "gso_max_segs", "1"])

    def add_rules(self, rules: Sequence[str], hook: str = "forward") -> str:
        """Puts rules of nft into the way of what the router forwards; returns their name."""
        self._tables += 1
        name = f"fault{self._tables}"
        priority = "mangle" if hook == "prerouting" else "filter"
        lines = "\n".join(rules)
        self.router.run(
            ["nft", "-f", "-"],
            f"table ip {name} {{\n chain rules {{\n"
            f"type filter hook {hook} priority {priority}; policy accept;\n{lines}\n}}\n}}\n",
        )
        return name

    def counted(self, name: str) -> int:
        """How many packets the counters of these rules have seen."""
        told = json.loads(self.router.run(["nft", "-j", "list", "table", "ip", name]))
        rules = [item["rule"]["expr"] for item in told["nftables"] if "rule" in item]
        counters = [part["counter"] for rule in rules for part in rule if "counter" in part]
        return sum(int(counter["packets"]) for counter in counters)

    def remove_rules(self, name: str) -> int:
        """Removes them; returns what they had counted."""
        counted = self.counted(name)
        self.router.run(["nft", "delete", "table", "ip", name])
        return counted
