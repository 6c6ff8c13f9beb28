"""Clients that use a running store in ways that show what it does wrong, and record all of it.

What is chosen, and why:

- Keys of four kinds, under a prefix of the run's own: registers (SET, SET IFEQ, DEL, now and then
  INCR), counters (INCR), logs (APPEND), and groups of three keys that transactions join.
- Each written value is written once, so a read names the write that it saw.
- Some keys are used much more than others: what is done at the same time meets.
- Each client uses one node at a time, all nodes have clients, and clients move, so that what is
  written at one node is read at another.
- A key is given up for a fresh one after a while, and soon after outcomes that are unknown: each
  of them may be done at any later time, so many of them leave nothing to be proven about a key.

A client sends a command once, and the next when it is answered, or known not to be, or given up.
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from time import monotonic_ns

import trio

from kvstore.checking.connection import PLAIN, Connection, Result
from kvstore.checking.history import Attempt, Command, History
from kvstore.checking.model import MULTI
from kvstore.client.dialing import Greeting, NotLetIn, NotReached, NotTrusted
from p4xos.errors import P4xosError
from p4xos.tables import Address

CLIENTS = 8
KEYS = 16
PATIENCE_S = 15.0
"""Longer than a node waits for a majority (10 s), so that its own answer comes first."""
KEY_ATTEMPTS = 400
"""Before a key is given up."""
KEY_UNKNOWN = 2
"""Writes of unknown outcome, before a key is given up; those under way at that time come on top."""
MOVE_EVERY = 100
"""Commands of a client at one node, on average."""
SKEW = 0.9
"""Of Zipf's law: how much more the first keys are used."""
RETRY_S = 0.05
"""Before a client turns to another node, so that a cluster that refuses all is not flooded."""
GIVE_UP_S = 60.0
"""Without a connection of any client to any node: nothing will come of it."""
FINAL_S = 20.0
"""For each read at the end, and each removal: a node may be starting, or wait for a majority."""
REMOVED_TOGETHER = 100
"""Keys of one command."""
GROUP = (b"a", b"b", b"c")


class NoNodeAnswers(P4xosError):
    """No node of the cluster can be used."""

    def __init__(self, problems: Mapping[str, str]) -> None:
        told = "; ".join(f"{node}: {why}" for node, why in problems.items())
        super().__init__(f"no node answers ({told}); start the cluster, or check the addresses")
        self.problems = dict(problems)


class NotAdmitted(P4xosError):
    """A node refuses this client, or is not the one that it says: to try again is of no use."""

    def __init__(self, node: str, why: NotLetIn | NotTrusted) -> None:
        mend = (
            "look at --tls-ca and --tls-certificate"
            if isinstance(why, NotTrusted)
            else "give --user NAME, who may write, and the right password"
        )
        super().__init__(f"{node}: {why}; {mend}")
        self.node = node


class Slot:
    """A place among the keys: its kind stays, its key is replaced now and then."""

    def __init__(self, number: int, name: Callable[[int, int], bytes]) -> None:
        """With its first key.

        Args:
          number: chooses the kind.
          name: gives the key of a slot's number and generation.
        """
        self.number = number
        self.draw = _KINDS[number % len(_KINDS)]
        self._name = name
        self._generation = 0
        self._begin()

    def _begin(self) -> None:
        self._generation += 1
        self.key = self._name(self.number, self._generation)
        self.attempts = self.unknown = 0
        self.seen: bytes = b""
        """A value that the key had, for conditions."""

    @property
    def keys(self) -> list[bytes]:
        """The keys of now."""
        if self.draw is _draw_group:
            return [self.key + b":" + part for part in GROUP]
        return [self.key]

    def note(self, key: bytes, command: Command, result: Result) -> None:
        """What became of a command on `key`; takes a fresh key when it is time."""
        if key != self.key:
            return
        self.attempts += 1
        if command[0] == b"GET" and type(result.output) is bytes:
            self.seen = result.output
        elif command[0] == b"SET" and result.output == b"OK":
            self.seen = command[2]
        if result.outcome == "unknown" and command[0] != b"GET":
            self.unknown += 1
        if self.attempts >= KEY_ATTEMPTS or self.unknown >= KEY_UNKNOWN:
            self._begin()


Draw = Callable[[Slot, random.Random, bytes], Command]
"""A command for a slot, with a value that nobody else writes."""


def _draw_register(slot: Slot, chance: random.Random, value: bytes) -> Command:
    key, part = slot.key, chance.random()
    if part < 0.45:
        return (b"GET", key)
    if part < 0.75:
        return (b"SET", key, value)
    if part < 0.90:
        return (b"SET", key, value, b"IFEQ", slot.seen)
    return (b"DEL", key) if part < 0.97 else (b"INCR", key)


def _draw_counter(slot: Slot, chance: random.Random, value: bytes) -> Command:
    part = chance.random()
    if part < 0.60:
        return (b"INCR", slot.key)
    return (b"GET", slot.key) if part < 0.97 else (b"DEL", slot.key)


def _draw_log(slot: Slot, chance: random.Random, value: bytes) -> Command:
    part = chance.random()
    if part < 0.55:
        return (b"APPEND", slot.key, value + b",")
    if part < 0.92:
        return (b"GET", slot.key)
    return (b"DEL", slot.key) if part < 0.96 else (b"SET", slot.key, value + b",")


def _draw_group(slot: Slot, chance: random.Random, value: bytes) -> Command:
    a, b, c = slot.keys
    part = chance.random()
    if part < 0.35:
        return (MULTI, (b"GET", a), (b"GET", b), (b"GET", c))
    if part < 0.65:
        return (MULTI, (b"SET", a, value), (b"INCR", c), (b"SET", b, value))
    if part < 0.80:
        return (MULTI, (b"GET", b), (b"APPEND", a, b"+"), (b"APPEND", b, b"+"))
    if part < 0.90:
        return (b"GET", chance.choice((a, b)))
    if part < 0.95:
        return (b"SET", a, value)
    return (MULTI, (b"DEL", a), (b"SET", b, value), (b"SET", c, b"0"))


_KINDS: tuple[Draw, ...] = (_draw_register, _draw_counter, _draw_log, _draw_group)


class Workload:
    """Clients over all nodes; `run` in a nursery, or awaited with a bound.

    What was done is in `history`, whatever happens to `run`: also a command that was under way when
    it was cancelled is there, its outcome unknown.
    """

    def __init__(
        self,
        nodes: Mapping[str, Address],
        *,
        seed: int,
        clients: int = CLIENTS,
        keys: int = KEYS,
        history: History | None = None,
        patience_s: float = PATIENCE_S,
        first_client: int = 0,
        prefix: str = "",
        greeting: Greeting = PLAIN,
    ) -> None:
        """Nothing is sent yet.

        Args:
          nodes: where each serves RESP, by name.
          seed: of what clients do; when they do it is up to the machine.
          clients: at the same time.
          keys: in use at the same time.
          history: gets all attempts; default: a new one.
          patience_s: how long an answer is awaited before its outcome counts as unknown.
          first_client: clients are numbered from it; workloads that share keys need different
            ones, so that no two write the same value.
          prefix: of all keys, which must not exist; given by who wants several workloads to share
            keys. Default: one that nobody else has.
          greeting: of every connection, in RESP2: its TLS, its user.
        """
        if not nodes or clients < 1 or keys < 1:
            raise ValueError("a workload needs a node, a client and a key at least")
        self.nodes = dict(nodes)
        self.history = history if history is not None else History()
        self.prefix = (prefix or f"check:{secrets.token_hex(8)}:").encode()
        self.problems: dict[str, str] = {}
        """Why a node could not be used when it was tried last, by node."""
        self.gave_up = False
        """It stopped by itself, since no node could be used for `GIVE_UP_S`."""
        self.not_admitted: NotAdmitted | None = None
        """It stopped by itself, since this node refused it; no connection is opened any more."""
        self.greeting = greeting
        self._connected_at = 0.0
        self._names = list(nodes)
        self._seed = seed
        self.patience_s = patience_s
        self._numbers = range(first_client, first_client + clients)
        self._slots = [Slot(number, self._name) for number in range(keys)]
        self._weights = [*accumulate(1 / (rank + 1) ** SKEW for rank in range(keys))]
        self._keys: dict[bytes, None] = {}
        """All that were ever used, in that order."""
        self._left: int | None = None
        """Attempts to be begun yet; None: no bound."""
        self._stopped = trio.Event()

    def _name(self, slot: int, generation: int) -> bytes:
        return self.prefix + b"%d.%d" % (slot, generation)

    async def run(self, *, seconds: float | None = None, operations: int | None = None) -> None:
        """Runs the clients until either bound, or `stop`; returns when what was begun has ended."""
        self._left = operations
        self._connected_at = trio.current_time()
        async with trio.open_nursery() as nursery:
            ends = trio.CancelScope()
            if seconds is not None:
                nursery.start_soon(self._stop_after, seconds, ends)
            async with trio.open_nursery() as clients:
                for number in self._numbers:
                    clients.start_soon(self._be_client, number)
            ends.cancel()

    def stop(self) -> None:
        """Lets clients begin nothing more."""
        self._stopped.set()

    async def _stop_after(self, seconds: float, ends: trio.CancelScope) -> None:
        with ends:
            await trio.sleep(seconds)
            self.stop()

    async def read_all(self) -> int:
        """Reads every key that was used at every node, for the history; call it behind `run`.

        What was acknowledged and lost shows here at the latest. A node that does not answer is
        asked again for a while, and then left.

        Returns:
          How many reads were not answered.
        """
        missed = 0

        async def read(node: str, number: int) -> None:
            nonlocal missed
            client = _Client(self, number, node)
            try:
                for place, key in enumerate(self._keys):
                    if not await self._insist(client, (b"GET", key)):
                        missed += len(self._keys) - place
                        break
            finally:
                client.close()

        async with trio.open_nursery() as nursery:
            for place, node in enumerate(self._names):
                nursery.start_soon(read, node, self._numbers.stop + place)
        return missed

    async def remove(self) -> int:
        """Deletes every key that was used; not part of the history.

        A write of unknown outcome may be done later, and leave its key behind.

        Returns:
          How many keys could not be deleted.
        """
        keys = list(self._keys)
        client = _Client(self, self._numbers.stop, self._names[0])
        try:
            for start in range(0, len(keys), REMOVED_TOGETHER):
                command = (b"DEL", *keys[start : start + REMOVED_TOGETHER])
                if not await self._insist(client, command, record=False):
                    return len(keys) - start
            return 0
        finally:
            client.close()

    async def _insist(self, client: _Client, command: Command, *, record: bool = True) -> bool:
        """Until it is answered; for a read, at one node, and for what may be done twice, at any."""
        with trio.move_on_after(FINAL_S):
            while self.not_admitted is None:
                if await client.connected():
                    if (await client.attempt(command, record=record)).outcome == "answered":
                        return True
                await trio.sleep(RETRY_S)
                if not record:
                    client.move(self._names)
        return False

    async def _be_client(self, number: int) -> None:
        chance = random.Random(f"{self._seed} {number}")
        client = _Client(self, number, self._names[number % len(self._names)])
        written = 0
        try:
            while not self._stopped.is_set() and self._left != 0:
                if chance.random() * MOVE_EVERY < 1:
                    client.move(self._names, chance)
                if not await client.connected():
                    if trio.current_time() - self._connected_at > GIVE_UP_S:
                        self.gave_up = True
                        self.stop()
                    await trio.sleep(RETRY_S)
                    client.move(self._names, chance)
                    continue
                self._connected_at = trio.current_time()
                if self._left is not None:
                    if not self._left:
                        return
                    self._left -= 1
                (slot,) = chance.choices(self._slots, cum_weights=self._weights)
                written += 1
                key = slot.key
                self._keys.update(dict.fromkeys(slot.keys))
                command = slot.draw(slot, chance, b"%d-%d" % (number, written))
                result = await client.attempt(command)
                slot.note(key, command, result)
                if result.outcome != "answered":
                    await trio.sleep(RETRY_S)
                    client.move(self._names, chance)
        finally:
            client.close()


class _Client:
    """One after the other: connections to one node at a time."""

    def __init__(self, workload: Workload, number: int, node: str) -> None:
        self._workload = workload
        self._number = number
        self._node = node
        self._connection: Connection | None = None

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def move(self, names: Sequence[str], chance: random.Random | None = None) -> None:
        """Goes to another node, if there is one: the next, or any."""
        others = [name for name in names if name != self._node]
        if others:
            self.close()
            following = names[(names.index(self._node) + 1) % len(names)]
            self._node = chance.choice(others) if chance else following

    async def connected(self) -> bool:
        """Whether there is a connection; tries to make one."""
        if self._connection is None:
            workload = self._workload
            if workload.not_admitted is not None:
                return False
            address = workload.nodes[self._node]
            try:
                self._connection = await Connection.open(address, workload.greeting)
            except NotReached as error:
                workload.problems[self._node] = str(error)
                if isinstance(error, NotLetIn | NotTrusted):
                    workload.not_admitted = NotAdmitted(self._node, error)
                    workload.stop()
                return False
            workload.problems.pop(self._node, None)
        return True

    async def attempt(self, command: Command, *, record: bool = True) -> Result:
        """Sends a command once, and records what became of it, also when it is cancelled."""
        assert self._connection is not None
        called = monotonic_ns()
        result = Result("unknown", None, "the check was stopped", lost=True)
        try:
            result = await self._connection.attempt(command, self._workload.patience_s)
        finally:
            ended = monotonic_ns()
            if result.lost:
                self.close()
            if record:
                self._workload.history.add(
                    Attempt(self._number, self._node, called, ended, command, *result[:3])
                )
        return result
