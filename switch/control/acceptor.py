"""The controller of an acceptor that a data plane runs (docs/PROTOCOL.md, sections 3 and 8).

    begin       the cluster is new:   low = 1; the port opens
    join        it has forgotten, and `p4xos.roles.rejoining` knows what it must know:
                                      floor = highest_round = round; low, highest = low - 1; seen;
                                      the port opens, under its new incarnation
    leave       it moves elsewhere:   the port closes; all registers are read
    take        it comes from there:  all registers are written; the port opens, under the
                                      incarnation that it had
    LEARN of a range                  one LEARN for each instance of it
    everything else                   the data plane's

A data plane has no disk: whenever it was off it has forgotten. So its port is closed from the
moment it is loaded until `begin`, `join` or `take`, and what is said above is all that is ever
written.
"""

from __future__ import annotations

from itertools import groupby

from p4xos import wire
from p4xos.effects import Effects, To
from p4xos.errors import BadPacket
from p4xos.roles.acceptor import ANSWER_ROWS_MAX
from p4xos.roles.memory import Memory
from p4xos.wire import Message, Rows, Type
from switch.control.backend import DataPlane, pack_seen, unpack_seen
from switch.control.batches import Batches
from switch.control.memory import read_memory, write_memory
from switch.control.plan import Plan


class SwitchAcceptor:
    """An acceptor on a data plane (p4xos.roles.rejoining.Voter)."""

    _ranged: tuple[Type, ...] = (Type.LEARN,)
    """Types of which a question is about a range, and the data plane answers for one instance."""

    def __init__(self, plane: DataPlane, plan: Plan) -> None:
        """Silent: its port is closed.

        Args:
          plane: its own; nothing is loaded.
          plan: what the cluster file says.
        """
        plane.load(plan)
        self.frame = plan.frame
        self.window = plan.window
        self.incarnation = 0
        self._counters = dict.fromkeys(("ignored", "low_jump", "malformed"), 0)
        self._plane = plane
        self._plan = plan
        self._open = False
        self._counted_before: dict[str, int] = {}  # by whoever brought it back into the group

    @property
    def counters(self) -> dict[str, int]:
        """Everything counted; asking a data plane takes time, so it is asked when they are."""
        if self._open:
            for name, count in self._plane.statistics().items():
                self._counters[name] = self._counted_before.get(name, 0) + count
        return self._counters

    # Registers -----------------------------------------------------------------------------------

    @property
    def low(self) -> int:
        """Every instance below is forgotten."""
        return self._plane.read("low")

    @property
    def highest(self) -> int:
        """Of all votes; never below low - 1."""
        return self._plane.read("highest")

    @property
    def floor(self) -> int:
        """Promised for every instance."""
        return self._plane.read("floor")

    @property
    def highest_round(self) -> int:
        """Never promised above."""
        return self._plane.read("highest_round")

    @property
    def seen(self) -> tuple[int, ...]:
        """Incarnations of all acceptors."""
        return unpack_seen(self._plane.read("seen"), self._plan.acceptors)

    @property
    def empty(self) -> bool:
        """Whether it has promised nothing and voted for nothing."""
        return not self._open and self.low == self.highest_round == 0

    # Coming up -----------------------------------------------------------------------------------

    def begin(self) -> None:
        """Takes part from the first instance on; only in a cluster that is new."""
        assert self.empty
        self._plane.write("low", 1)
        self._open_port(0)

    def join(self, *, incarnation: int, round: int, low: int, seen: tuple[int, ...]) -> Rows:
        """As `p4xos.roles.acceptor.Acceptor.join`."""
        assert self.empty, "an acceptor that remembers does not join"
        own = self.frame.sender
        seen = (*seen[:own], max(seen[own], incarnation), *seen[own + 1 :])
        for register, value in (
            ("floor", round), ("highest_round", round), ("low", low), ("highest", low - 1),
            ("seen", pack_seen(seen)),
        ):  # fmt: skip
            self._plane.write(register, value)
        self._open_port(incarnation)
        return wire.encode(
            self.frame.cluster, self.frame.group, Type.RECORDED, instance=low - 1, round=round,
            vround=round, sender=own, incarnation=incarnation, low=low, value=wire.pack_seen(seen),
        )  # fmt: skip

    # Moving --------------------------------------------------------------------------------------

    def leave(self) -> Memory:
        """As p4xos.roles.rejoining.Voter."""
        assert self._open, "it has nothing to take along yet"
        self._plane.close()
        counters = self.counters
        self._open = False
        return read_memory(self._plane, self._plan, self.incarnation, counters)

    def stay(self) -> None:
        """As p4xos.roles.rejoining.Voter."""
        self._plane.open(self.incarnation)
        self._open = True

    def take(self, memory: Memory) -> None:
        """As p4xos.roles.rejoining.Voter."""
        assert self.empty, "an acceptor that remembers takes no other memory"
        write_memory(self._plane, self._plan, memory)
        self.counters.update(memory.counters)
        self._open_port(memory.incarnation)

    def close(self) -> None:
        """As p4xos.roles.rejoining.Voter."""
        self._open = False
        self._plane.teardown()

    def _open_port(self, incarnation: int) -> None:
        self.incarnation = incarnation
        self._counted_before = dict(self._counters)
        self._plane.open(incarnation)
        self._open = True

    # The driver's side ---------------------------------------------------------------------------

    def step(self, rows: Rows, now: float) -> Effects:
        """Acts on a batch of valid messages of configured senders."""
        assert self._open, "the port is closed"
        batches = Batches()
        for ranged, run in groupby(range(len(rows)), lambda row: rows[row, 1] in self._ranged):
            some = rows[list(run)]
            if not ranged:
                batches.add(self._plane.inject(some))
                continue
            for m in wire.messages(some):
                batches.add(self._answers(m))
        effects = Effects.none()
        effects.send.extend(batches.sends())
        return effects

    def tick(self, now: float) -> Effects:
        """Nothing: an acceptor only answers."""
        return Effects.none()

    def deadline(self) -> float | None:
        """Never."""
        return None

    def check_invariants(self) -> None:
        """Asserts what can be seen from here: of the group, not of every slot."""
        if self._open:
            assert self.low >= 1
            assert self.highest >= self.low - 1
            assert self.highest_round >= self.floor

    def _answers(self, m: Message) -> list[tuple[To, Rows]]:
        """What a question about a range is answered, in order."""
        return self._plane.inject(self._learn(m))

    def _learn(self, m: Message) -> Rows:
        """One question an instance: a data plane sends one packet for one."""
        try:
            end = wire.unpack_end(m.value)
        except BadPacket:
            return wire.from_messages([m])  # the data plane's to count
        first = max(m.instance, self.low)
        end = min(end, self.highest + 1, first + ANSWER_ROWS_MAX)
        if end <= first + 1:
            return wire.from_messages([m])
        return wire.from_messages(
            [m._replace(instance=i, value=wire.pack_end(i + 1)) for i in range(first, end)]
        )
