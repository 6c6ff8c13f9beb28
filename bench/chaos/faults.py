"""The faults of a run: each draws what it does from the seed, begins, and ends healed.

To add one, write a class and name it in `FAULTS`. What a fault does is drawn when it is made and
when it begins, never from the clock. Who takes a node out (kills it, stops it, spoils its disk)
claims it, so that no other fault touches a process that is not there. Each tells afterwards how
often it is known to have bitten: packets dropped, syncs failed, processes killed.
"""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import ClassVar

from bench.chaos.cluster import ChaosCluster, Violation
from bench.chaos.relay import READY
from bench.errors import BenchError
from bench.processes import Child, python_module, wait_until
from p4xos.tables import Address

STOP_LIMIT_S = 20.0
"""A node whose disk has failed has stopped by then: it syncs several times a second."""
_RELAY_LIMIT_S = 20.0
_marks = count(1)


class NotNow(Exception):
    """There is nothing that this fault could take at the moment."""


class Fault(ABC):
    """One fault, once."""

    kind: ClassVar[str]
    shortest_s: ClassVar[float] = 0.2
    longest_s: ClassVar[float] = 3.0

    def __init__(self, cluster: ChaosCluster, chance: random.Random) -> None:
        """Draws what does not depend on how the cluster is."""
        self.cluster = cluster
        self.chance = chance
        self.lasts_s = chance.uniform(self.shortest_s, self.longest_s)
        self.bites = 0
        self._claimed: list[str] = []

    @abstractmethod
    def begin(self) -> str:
        """Begins, and says what was done.

        Raises:
          NotNow: nothing was done.
        """

    @abstractmethod
    def end(self) -> None:
        """Mends what was broken.

        Raises:
          Violation: what it broke did not break as it should.
        """

    def claim(self, names: Iterable[str]) -> list[str]:
        """Takes nodes for this fault, which `release` gives back."""
        chosen = list(names)
        if not chosen:
            raise NotNow
        assert not self.cluster.out.intersection(chosen)
        self.cluster.out.update(chosen)
        self._claimed += chosen
        return chosen

    def release(self) -> None:
        """Gives back what was taken."""
        self.cluster.out.difference_update(self._claimed)
        self._claimed = []

    def any_node(self) -> str:
        """A free node: as often as not one that coordinates, since most rules are about it."""
        if self.chance.random() < 0.5:
            leader = self.cluster.coordinator(self.chance)
            if leader is not None:
                return leader
        free = self.cluster.free()
        if not free:
            raise NotNow
        return self.chance.choice(free)


# Processes


class Kill(Fault):
    """kill -9 of one node, and its restart."""

    kind = "kill"

    def begin(self) -> str:
        """Kills."""
        (self.name,) = self.claim([self.any_node()])
        self.cluster.kill([self.name])
        self.bites += 1
        return f"kill -9 of {self.name}"

    def end(self) -> None:
        """Starts it again."""
        self.cluster.launch(self.name)
        self.release()


class KillAll(Fault):
    """kill -9 of all nodes at once: what was acknowledged is on the disks."""

    kind = "kill-all"
    longest_s = 0.5

    def begin(self) -> str:
        """Kills."""
        self.names = self.claim(self.cluster.free())
        self.cluster.kill(self.names)
        self.bites += len(self.names)
        return f"kill -9 of {', '.join(self.names)} at once"

    def end(self) -> None:
        """Starts them again."""
        for name in self.names:
            self.cluster.launch(name)
        self.release()


class Pause(Fault):
    """SIGSTOP for longer than a takeover takes; whoever coordinated wakes up deposed."""

    kind = "pause"
    shortest_s = 0.5
    longest_s = 5.0

    def begin(self) -> str:
        """Stops it."""
        (self.name,) = self.claim([self.any_node()])
        self.cluster.signal(self.name, signal.SIGSTOP)
        self.bites += 1
        return f"SIGSTOP of {self.name} for {self.lasts_s:.1f} s"

    def end(self) -> None:
        """Lets it go on."""
        self.cluster.signal(self.name, signal.SIGCONT)
        self.release()


# The network


class _Rules(Fault):
    """What nft does on the router."""

    def begin(self) -> str:
        """Puts the rules in the way."""
        rules, told = self.rules()
        self.table = self.cluster.network.add_rules(rules)
        return told

    def end(self) -> None:
        """Removes them."""
        self.bites = self.cluster.network.remove_rules(self.table)

    @abstractmethod
    def rules(self) -> tuple[list[str], str]:
        """The rules, and what they do in words."""

    def address(self, name: str) -> str:
        """A node's address."""
        return self.cluster.host(name).address

    def split(self) -> tuple[list[str], list[str]]:
        """All nodes in two groups."""
        names = self.cluster.names[:]
        self.chance.shuffle(names)
        cut = self.chance.randrange(1, len(names))
        return names[:cut], names[cut:]

    def between(self, source: Iterable[str], target: Iterable[str]) -> str:
        """What matches packets from some nodes to others."""
        sources, targets = (", ".join(map(self.address, names)) for names in (source, target))
        return f"ip saddr {{ {sources} }} ip daddr {{ {targets} }}"


class Loss(_Rules):
    """A share of the packets is lost, between all nodes or to and from one."""

    kind = "loss"

    def rules(self) -> tuple[list[str], str]:
        """Drops by chance; the clients' packets are left alone."""
        percent = self.chance.choice((1, 5, 15, 40))
        ones = self.chance.choice((self.cluster.names, [self.chance.choice(self.cluster.names)]))
        chance = f"numgen random mod 100 < {percent} counter drop"
        names = self.cluster.names
        rules = [f"{self.between(ones, names)} {chance}"]
        if len(ones) < len(names):
            rules.append(f"{self.between(names, ones)} {chance}")
        return rules, f"{percent} % loss at {', '.join(ones)}"


class Partition(_Rules):
    """Two groups of nodes that do not hear each other."""

    kind = "partition"

    def rules(self) -> tuple[list[str], str]:
        """Drops both ways."""
        ones, others = self.split()
        rules = [f"{self.between(a, b)} counter drop" for a, b in ((ones, others), (others, ones))]
        return rules, f"partition: {', '.join(ones)} | {', '.join(others)}"


class OneWay(_Rules):
    """A group of nodes that another does not hear, though it hears them."""

    kind = "one-way"

    def rules(self) -> tuple[list[str], str]:
        """Drops one way."""
        ones, others = self.split()
        return [f"{self.between(ones, others)} counter drop"], (
            f"{', '.join(others)} cannot hear {', '.join(ones)}"
        )


class _CoordinatorCut(_Rules):
    """The coordinator in charge is cut off from all of one role, both ways, and no more."""

    def rules(self) -> tuple[list[str], str]:
        """By address and UDP port: a role has its own."""
        name = self.cluster.coordinator(self.chance)
        if name is None:
            raise NotNow
        cluster = self.cluster.cluster
        coordinator = next(m.address for m in cluster.coordinators if m.node == name)
        members = cluster.acceptors if self.role == "acceptor" else cluster.learners
        others = [member.address for member in members if member.node != name]
        rules = [self.pair(coordinator, other) for other in others]
        rules += [self.pair(other, coordinator) for other in others]
        return rules, f"the coordinator of {name} is cut off from the {self.role}s"

    role: ClassVar[str]

    @staticmethod
    def pair(source: Address, target: Address) -> str:
        """Drops what one role sends to another."""
        return (
            f"ip saddr {source.host} udp sport {source.port} "
            f"ip daddr {target.host} udp dport {target.port} counter drop"
        )


class CoordinatorWithoutAcceptors(_CoordinatorCut):
    """Learners hear its heartbeats, and it can have nothing chosen."""

    kind = "coordinator-acceptors"
    role = "acceptor"


class CoordinatorWithoutLearners(_CoordinatorCut):
    """It has values chosen, and gets no requests and no checkpoints."""

    kind = "coordinator-learners"
    role = "learner"


class _Relayed(_Rules):
    """What a relay does to the packets between nodes (bench/chaos/relay.py)."""

    def begin(self) -> str:
        """Starts the relay, then sends packets to it."""
        self.figures_drawn = delay_s, jitter_s, repeated, late_s = self.figures()
        mark = next(_marks)
        name = f"relay{mark}"
        figures = (mark, delay_s, jitter_s, repeated, late_s, self.chance.getrandbits(32))
        command = python_module("bench.chaos.relay", name, *map(str, figures))
        router = self.cluster.network.router
        self._relay = Child(name, router.command(command), self.cluster.directory / f"{name}.txt")
        self.cluster.helpers.append(self._relay)
        wait_until(self._ready, _RELAY_LIMIT_S, f"that {name} relays")
        among = self.between(self.cluster.names, self.cluster.names)
        # Not what a relay has let go already: it would go round for ever.
        rules = [f'iifname != "relay*" {among} counter meta mark set {mark}']
        self.table = self.cluster.network.add_rules(rules, "prerouting")
        return (
            f"{self.kind}: {delay_s * 1000:.0f} ms, jitter {jitter_s * 1000:.0f} ms, "
            f"{repeated:.0%} repeated up to {late_s:.1f} s later"
        )

    def _ready(self) -> bool:
        if not self._relay.running:
            raise BenchError(f"the relay ended: {self._relay.last_lines()}")
        return self._relay.log_text().startswith(READY)

    def end(self) -> None:
        """Packets go past the relay; then it lets go of what waits there."""
        self.cluster.network.remove_rules(self.table)
        status = self._relay.stop()
        if status:
            raise BenchError(f"the relay failed: {self._relay.last_lines()}")
        self.counts: dict[str, int] = json.loads(self._relay.last_lines(1))
        self.bites = self.counts[self.counted]

    def rules(self) -> tuple[list[str], str]:
        """They need the relay's mark: `begin` makes them."""
        raise NotImplementedError

    counted: ClassVar[str]
    """The relay's count of packets that this fault means."""

    @abstractmethod
    def figures(self) -> tuple[float, float, float, float]:
        """Delay, jitter, the share that is repeated, how much later."""


class Delay(_Relayed):
    """Everything takes longer; past a tenth of a second so long that coordinators are doubted."""

    kind = "delay"
    counted = "relayed"

    def figures(self) -> tuple[float, float, float, float]:
        """In order."""
        return self.chance.choice((0.005, 0.03, 0.15, 0.4)), 0.0, 0.0, 0.0


class Duplicate(_Relayed):
    """Datagrams that come twice, the second time from long ago."""

    kind = "duplicate"
    counted = "repeated"

    def figures(self) -> tuple[float, float, float, float]:
        """Late enough to come to another round."""
        return 0.0, 0.0, self.chance.choice((0.05, 0.3, 1.0)), self.chance.choice((0.01, 0.5, 3.0))


class Reorder(_Relayed):
    """Datagrams that overtake each other."""

    kind = "reorder"
    counted = "overtaken"

    def figures(self) -> tuple[float, float, float, float]:
        """By as much as they are delayed."""
        return 0.0, self.chance.choice((0.002, 0.02, 0.1)), 0.0, 0.0


# Disks and clocks


class _Stops(Fault):
    """A fault that must stop its node loudly, since the node cannot keep its promises."""

    longest_s = 1.0
    name: str

    def must_stop(self, what: str) -> None:
        """Returns when the node has stopped as it should.

        Raises:
          Violation: it goes on, or stopped in silence.
        """
        child = self.cluster.children[self.name]
        limit = time.monotonic() + STOP_LIMIT_S
        while child.running and time.monotonic() < limit:
            time.sleep(0.02)
        if child.running:
            if not self.bitten():
                child.kill()  # it had nothing to do with its disk in all the time
                return
            raise Violation(f"{child.name} goes on though {what}")
        self.bites += 1
        status = child.process.returncode
        said = child.last_lines(3)
        if status != 1 or what not in said:
            raise Violation(
                f"{child.name} ended with {status} when its disk failed, saying:\n{said}"
            )

    @abstractmethod
    def bitten(self) -> bool:
        """Whether the node has met the fault."""

    def again(self) -> None:
        """Starts the node on a disk that is good again."""
        self.cluster.launch(self.name)
        self.release()

    def with_a_disk(self) -> str:
        """A free node whose acceptor syncs: one that forgot does not before it has joined."""
        free = set(self.cluster.free()) - self.cluster.forgetful
        able = [n for n in self.cluster.names if n in free and "acceptor" in self.cluster.roles[n]]
        if not able:
            raise NotNow
        return self.chance.choice(able)


class FullDisk(_Stops):
    """No space is left."""

    kind = "disk-full"
    shortest_s = 1.0
    longest_s = 4.0

    def begin(self) -> str:
        """Fills the small disk."""
        small = self.cluster.small
        if small is None or small in self.cluster.out:
            raise NotNow
        (self.name,) = self.claim([small])
        self.filler = self.cluster.data(small) / "filler"
        self.fill()
        return f"the disk of {small} is full"

    def fill(self) -> None:
        """To the last byte."""
        with self.filler.open("ab", buffering=0) as file, suppress(OSError):
            chunk = bytes(1 << 20)
            while chunk:
                try:
                    file.write(chunk)
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    chunk = chunk[: len(chunk) // 2]

    def end(self) -> None:
        """Makes room."""
        try:
            # A node with reserved space to spare lives until that is used up, and need not stop.
            child = self.cluster.children[self.name]
            if child.running:
                self.cluster.kill([self.name])
            else:
                self.must_stop("No space left")
        finally:
            self.filler.unlink()
        self.again()

    def bitten(self) -> bool:
        """The file system refuses to hold more."""
        state = os.statvfs(self.cluster.data(self.name))
        return state.f_bavail == 0


class SyncError(_Stops):
    """fsync and fdatasync fail: nothing that was written can be promised."""

    kind = "fsync-error"

    def begin(self) -> str:
        """By what is preloaded."""
        (self.name,) = self.claim([self.with_a_disk()])
        self._page = self.cluster.pages[self.name]
        self._before = self._page.failed_syncs
        self._page.fail_syncs(True)
        return f"every fsync of {self.name} fails"

    def end(self) -> None:
        """Good again; the node, which has stopped, is started."""
        try:
            self.must_stop("Input/output error")
        finally:
            self._page.fail_syncs(False)
        self.again()

    def bitten(self) -> bool:
        """A sync was asked for."""
        return self._page.failed_syncs > self._before


class EmptyDisk(Fault):
    """A disk is lost with all that was on it; the node joins with an empty one.

    One node at a time, from the loss until it has joined: more than a minority that forgets at once
    is beyond what a cluster promises (docs/PROTOCOL.md, section 8).
    """

    kind = "empty-disk"

    def begin(self) -> str:
        """Kills it, and removes what it had."""
        if not self.cluster.all_have_joined():
            raise NotNow
        (self.name,) = self.claim([self.any_node()])
        self.cluster.forgetful.add(self.name)
        self.cluster.kill([self.name])
        empty(self.cluster.data(self.name))
        self.bites += 1
        return f"{self.name} loses its disk"

    def end(self) -> None:
        """The operator's way."""
        self.cluster.launch(self.name)
        self.release()


def empty(directory: Path) -> None:
    """Removes what is in a directory, which may be the root of a mounted disk."""
    for path in directory.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


class Clock(Fault):
    """The wall clock of a node is wrong, then right: two jumps."""

    kind = "clock"

    def begin(self) -> str:
        """Forwards or backwards."""
        name = self.chance.choice(self.cluster.names)
        offset_s = self.chance.choice((-86400.0, -60.0, -0.5, 0.5, 60.0, 86400.0))
        self._page = self.cluster.pages[name]
        self._before = self._page.shifted_reads
        self._page.set_clock(offset_s)
        return f"the clock of {name} jumps by {offset_s:g} s"

    def end(self) -> None:
        """Jumps back."""
        self._page.set_clock(0.0)
        self.bites = self.shifted()

    def shifted(self) -> int:
        """How often the node has read its clock since."""
        return self._page.shifted_reads - self._before


FAULTS: dict[str, type[Fault]] = {
    fault.kind: fault
    for fault in (
        Kill, KillAll, Pause, Loss, Partition, OneWay, CoordinatorWithoutAcceptors,
        CoordinatorWithoutLearners, Delay, Duplicate, Reorder, FullDisk, SyncError, EmptyDisk,
        Clock,
    )
}  # fmt: skip
