"""The invariants of docs/PROTOCOL.md, section 10, as observers of what processes take in and give.

Strategy: a checker sees messages, records, deliveries and restarts, never a role's registers,
except where a restart is judged (Durability). From the votes that became durable `Votes` knows what
is chosen, as nobody in the cluster can; every claim of the roles is held against that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from p4xos import wire
from p4xos.effects import Chosen, Delivery, Effects, Role
from p4xos.envelope import ENVELOPE_BYTES, OPEN_SESSION, open_envelope, proposer_of_open
from p4xos.quorum import NO_ROUND, majority, round_owner
from p4xos.roles.acceptor import Acceptor
from p4xos.wire import Message, Rows, Type


class Violation(Exception):
    """An invariant does not hold; `invariant` is its name in section 10."""

    def __init__(self, invariant: str, detail: str) -> None:
        super().__init__(f"{invariant}: {detail}")
        self.invariant = invariant


def demand(holds: bool, invariant: str, detail: str) -> None:
    """Raises Violation unless it holds."""
    if not holds:
        raise Violation(invariant, detail)


def unpack(batches: Sequence[Rows]) -> list[Message]:
    """All messages of some batches."""
    return [m for rows in batches for m in wire.messages(rows)]


class Votes:
    """Agreement, seen from above: what is chosen, from the votes that are durable."""

    def __init__(self, acceptors: int) -> None:
        self.quorum = majority(acceptors)
        self.values: dict[tuple[int, int], bytes] = {}  # by instance and round
        self.voters: dict[tuple[int, int], set[int]] = {}
        self.chosen: dict[int, bytes] = {}  # by instance

    def cast(self, acceptor: int, instance: int, round: int, value: bytes) -> None:
        """A vote is durable."""
        held = self.values.setdefault((instance, round), value)
        demand(
            held == value, "One value a round",
            f"votes for {held.hex()} and {value.hex()} in instance {instance}, round {round:#x}",
        )  # fmt: skip
        voters = self.voters.setdefault((instance, round), set())
        voters.add(acceptor)
        if len(voters) >= self.quorum:
            before = self.chosen.setdefault(instance, value)
            demand(
                before == value, "Agreement",
                f"{before.hex()} and {value.hex()} are both chosen in instance {instance}, "
                f"the second in round {round:#x}",
            )  # fmt: skip


@dataclass
class _Memory:
    """What one acceptor must never forget."""

    floor: int = NO_ROUND
    low: int = 1
    promised: dict[int, int] = field(default_factory=dict)  # by instance
    votes: dict[int, tuple[int, bytes]] = field(default_factory=dict)  # the last, by instance
    doubtful: list[Message] = field(default_factory=list)  # persisting them was interrupted


class AcceptorChecker:
    """Promise and Durability, of every acceptor."""

    def __init__(self, acceptors: int, window: int, votes: Votes) -> None:
        self._votes = votes
        self._window = window
        self._memories = [_Memory() for _ in range(acceptors)]

    def persisted(
        self, acceptor: int, asked: Sequence[Message], persist: Sequence[Message],
        sent: Sequence[Message],
    ) -> None:  # fmt: skip
        """A step whose records are durable.

        Args:
          acceptor: its id.
          asked: what it took in.
          persist: what it made durable, in order.
          sent: what it is about to send, in order.
        """
        memory = self._memories[acceptor]
        durable = {(m.instance, m.vround): m.value for m in persist if m.type == Type.PHASE2B}
        to_the_end = {
            (m.sender, m.round)
            for m in asked
            if m.type == Type.PHASE1A and wire.unpack_end(m.value) == wire.END_OF_LOG
        }
        asked_rounds = {m.round for m in asked if m.type == Type.PHASE1A}
        floors = {m.vround for m in persist if m.type == Type.RECORDED}
        lows = {m.low for m in persist if m.type == Type.RECORDED}
        for m in sent:
            if m.type == Type.PHASE2B:
                self._vote(acceptor, m, durable)
            elif m.type == Type.PHASE1B:
                if wire.is_summary(m.vround, m.length):
                    demand(
                        m.round in asked_rounds, "Promise",
                        f"acceptor {acceptor} promised round {m.round:#x}, which nobody asked for",
                    )  # fmt: skip
                    if any(round == m.round for _, round in to_the_end):
                        self._promise_all(acceptor, m.round, floors)
                    self._tells_low(acceptor, m.low, lows)
                else:
                    self._report(acceptor, m, persist)
            elif m.type == Type.READ_INDEX_REPLY:
                self._tells_low(acceptor, m.low, lows)
        memory.low = max(memory.low, *lows, 1)

    def _vote(self, acceptor: int, m: Message, durable: dict[tuple[int, int], bytes]) -> None:
        memory = self._memories[acceptor]
        demand(m.round == m.vround, "Promise", f"a PHASE2B of round {m.round:#x}, not its vote's")
        held = memory.votes.get(m.instance)
        if held is not None and held[0] == m.vround:
            self._votes.cast(acceptor, m.instance, m.vround, m.value)  # repeated: the same value
            return
        demand(
            durable.get((m.instance, m.vround)) == m.value, "Durability",
            f"acceptor {acceptor} sends a vote for instance {m.instance} that is not on its disk",
        )  # fmt: skip
        promised = max(memory.floor, memory.promised.get(m.instance, NO_ROUND))
        if held is not None:
            promised = max(promised, held[0])
        demand(
            m.round >= promised, "Promise",
            f"acceptor {acceptor} votes in instance {m.instance}, round {m.round:#x}, "
            f"below its promise {promised:#x}",
        )  # fmt: skip
        memory.votes[m.instance] = (m.vround, m.value)
        self._votes.cast(acceptor, m.instance, m.vround, m.value)

    def _promise_all(self, acceptor: int, round: int, floors: set[int]) -> None:
        memory = self._memories[acceptor]
        demand(
            round >= memory.floor, "Promise",
            f"acceptor {acceptor} promises {round:#x} below its floor {memory.floor:#x}",
        )  # fmt: skip
        demand(
            round == memory.floor or any(floor >= round for floor in floors), "Durability",
            f"acceptor {acceptor} promises {round:#x} and has not persisted it",
        )  # fmt: skip
        memory.floor = max(memory.floor, round)

    def _report(self, acceptor: int, m: Message, persist: Sequence[Message]) -> None:
        """A PHASE1B for one instance: a promise, and the vote held."""
        memory = self._memories[acceptor]
        before = max(
            memory.floor,
            memory.promised.get(m.instance, NO_ROUND),
            memory.votes.get(m.instance, (NO_ROUND, b""))[0],
        )
        demand(
            m.round >= before, "Promise",
            f"acceptor {acceptor} reports promise {m.round:#x} in instance {m.instance}, after "
            f"{before:#x}",
        )  # fmt: skip
        demand(
            m.round == before
            or any(
                r.type in (Type.PHASE1B, Type.PHASE2B) and r.instance == m.instance
                and r.round >= m.round
                for r in persist
            ),
            "Durability",
            f"acceptor {acceptor} reports promise {m.round:#x} in instance {m.instance} and has "
            "not persisted it",
        )  # fmt: skip
        vote = memory.votes.get(m.instance, (wire.NO_VOTE, b""))
        demand(
            (m.vround, m.value) == vote, "Durability",
            f"acceptor {acceptor} reports the vote {m.vround:#x} in instance {m.instance}; it "
            f"voted in {vote[0]:#x}",
        )  # fmt: skip
        memory.promised[m.instance] = m.round

    def _tells_low(self, acceptor: int, low: int, lows: set[int]) -> None:
        memory = self._memories[acceptor]
        demand(low >= memory.low, "Durability", f"low of acceptor {acceptor} fell to {low}")
        demand(
            low == memory.low or any(low <= durable for durable in lows), "Durability",
            f"acceptor {acceptor} tells low {low} and has not persisted it",
        )  # fmt: skip

    def forgot(self, acceptor: int) -> None:
        """Its disk is gone: it may be silent, and it may join again (section 8)."""
        self._memories[acceptor] = _Memory(low=self._memories[acceptor].low)

    def silent(self, acceptor: int, sent: Sequence[Message]) -> None:
        """What an acceptor that has forgotten says before it has joined again."""
        answers = (Type.PHASE1B, Type.PHASE2B, Type.READ_INDEX_REPLY, Type.RECORDED)
        for m in sent:
            demand(
                m.type not in answers, "Durability",
                f"acceptor {acceptor} has forgotten, has not joined, and sends {Type(m.type).name}",
            )  # fmt: skip

    def interrupted(self, acceptor: int, persist: Sequence[Message]) -> None:
        """A crash came while these were being made durable: each may be or not."""
        self._memories[acceptor].doubtful.extend(m for m in persist if m.type != Type.RECORDED)

    def restored(self, acceptor: int, role: Acceptor) -> None:
        """A restart: everything that was durable is there."""
        memory = self._memories[acceptor]
        for m in memory.doubtful:
            slot = m.instance & (self._window - 1)
            voted = (int(role.slot_instance[slot]), int(role.slot_vround[slot]))
            if m.type == Type.PHASE2B and voted == (m.instance, m.vround):
                memory.votes[m.instance] = (m.vround, m.value)
                self._votes.cast(acceptor, m.instance, m.vround, m.value)
            elif voted[0] == m.instance and role.slot_round[slot] >= m.round:
                held_round = memory.promised.get(m.instance, NO_ROUND)
                memory.promised[m.instance] = max(held_round, m.round)
        memory.doubtful.clear()
        demand(
            role.floor >= memory.floor, "Durability",
            f"acceptor {acceptor} came back with floor {role.floor:#x} after {memory.floor:#x}",
        )  # fmt: skip
        demand(
            role.low >= memory.low, "Durability",
            f"acceptor {acceptor} came back with low {role.low} after {memory.low}",
        )  # fmt: skip
        memory.low = role.low
        memory.floor = role.floor  # perhaps a promise whose step was interrupted behind the disk
        for instance in [i for i in memory.votes if i < role.low]:
            del memory.votes[instance]
            memory.promised.pop(instance, None)
        for instance, (vround, value) in memory.votes.items():
            slot = instance & (self._window - 1)
            length = int(role.slot_length[slot])
            held = (
                int(role.slot_instance[slot]),
                int(role.slot_vround[slot]),
                role.slot_value[slot, :length].tobytes(),
            )
            demand(
                held == (instance, vround, value), "Durability",
                f"acceptor {acceptor} came back without its vote in instance {instance}, round "
                f"{vround:#x}: the slot holds instance {held[0]}, round {held[1]:#x}",
            )  # fmt: skip
        for instance, round in memory.promised.items():
            slot = instance & (self._window - 1)
            if instance < role.low:
                continue
            own = int(role.slot_round[slot]) if role.slot_instance[slot] == instance else NO_ROUND
            demand(
                max(own, role.floor) >= round, "Durability",
                f"acceptor {acceptor} came back without its promise {round:#x} in {instance}",
            )  # fmt: skip


class CoordinatorChecker:
    """One value a round, and that a round belongs to one life of one coordinator."""

    def __init__(self) -> None:
        self._values: dict[tuple[int, int], bytes] = {}  # by instance and round
        self._drawn: dict[int, tuple[int, int]] = {}  # round: coordinator, life

    def persisted(self, coordinator: int, life: int, records: Sequence[Message]) -> None:
        """Rounds that are on disk from here on."""
        for m in records:
            owner = self._drawn.setdefault(m.round, (coordinator, life))
            demand(
                owner == (coordinator, life), "One value a round",
                f"round {m.round:#x} is drawn by coordinator, life {owner} and by "
                f"{(coordinator, life)}",
            )  # fmt: skip

    def forgot(self, coordinator: int) -> None:
        """Its disk is gone: rounds in which it proposed nothing may be drawn again."""
        used = {round for _, round in self._values}
        self._drawn = {
            round: owner
            for round, owner in self._drawn.items()
            if owner[0] != coordinator or round in used
        }

    def sent(self, coordinator: int, life: int, messages: Sequence[Message]) -> None:
        """What a coordinator sends."""
        for m in messages:
            if m.type not in (Type.PHASE1A, Type.PHASE2A):
                continue
            demand(
                round_owner(m.round) == coordinator
                and self._drawn.get(m.round) == (coordinator, life),
                "One value a round",
                f"coordinator {coordinator} uses round {m.round:#x}, which it did not draw and "
                "persist in this life",
            )  # fmt: skip
            if m.type == Type.PHASE2A:
                held = self._values.setdefault((m.instance, m.round), m.value)
                demand(
                    held == m.value, "One value a round",
                    f"coordinator {coordinator} proposes {held.hex()} and {m.value.hex()} in "
                    f"instance {m.instance}, round {m.round:#x}",
                )  # fmt: skip


class TrimChecker:
    """Trim: `low` follows what a learner quorum holds durably, and the window follows `low`."""

    def __init__(self, learners: int, window: int) -> None:
        self._durable = [0] * learners
        self._quorum = majority(learners)
        self._window = window
        self._told: dict[tuple[int, int], int] = {}  # the largest low, by coordinator and life
        self.low = 1  # nothing at or above may be forgotten by a quorum

    def durable(self, learner: int, through: int) -> None:
        """A learner's state through an instance is on its disk."""
        self._durable[learner] = max(self._durable[learner], through)
        self.low = sorted(self._durable, reverse=True)[self._quorum - 1] + 1

    def sent(self, sender: tuple[Role, int], life: int, messages: Sequence[Message]) -> None:
        """What an acceptor or a coordinator sends."""
        for m in messages:
            demand(
                m.low <= self.low, "Trim",
                f"{sender[0].name} {sender[1]} tells low {m.low}; a learner quorum holds durably "
                f"what is below {self.low}",
            )  # fmt: skip
            if m.type == Type.PHASE2B:
                demand(
                    m.instance < self.low + self._window, "Trim",
                    f"acceptor {sender[1]} voted in {m.instance}, in the slot of instance "
                    f"{m.instance - self._window}, and low is {self.low}",
                )  # fmt: skip
            elif m.type == Type.PHASE2A:
                key = (sender[1], life)
                self._told[key] = max(self._told.get(key, 1), m.low)
                demand(
                    self._told[key] <= m.instance < self.low + self._window, "Trim",
                    f"coordinator {sender[1]} proposes instance {m.instance}, its low is "
                    f"{self._told[key]}",
                )  # fmt: skip


class ReplicaChecker:
    """Agreement, Validity, Order and Once, of every learner."""

    def __init__(self, learners: int, votes: Votes) -> None:
        self._votes = votes
        self._submitted: set[bytes] = set()
        self._pieces: set[bytes] = set()  # every payload that may stand behind an envelope
        self._through = [0] * learners
        self._applied: list[set[bytes]] = [set() for _ in range(learners)]
        self._log: dict[int, list[bytes]] = {}  # what each instance delivers, on every learner
        self.reached = 0  # the last instance that any learner has delivered

    def submitted(self, payload: bytes, piece_bytes: int) -> None:
        """A proposer takes a command."""
        self._submitted.add(payload)
        pieces = range(0, max(len(payload), 1), piece_bytes)
        self._pieces.update(payload[start : start + piece_bytes] for start in pieces)

    def began(self, learner: int, applied: int, commands: Sequence[bytes]) -> None:
        """A learner starts from a durable state, or takes another one's."""
        self._through[learner] = applied
        self._applied[learner] = set(commands)
        demand(
            len(self._applied[learner]) == len(commands), "Once",
            f"learner {learner} starts from a state that applied a command twice",
        )  # fmt: skip

    def delivered(self, learner: int, effects: Effects) -> None:
        """What a step of a learner delivers."""
        first = self._through[learner] + 1
        for chosen in effects.chosen:
            self._check_chosen(learner, chosen)
        through = self._through[learner]
        here: dict[int, list[bytes]] = {}
        last = first
        for event in effects.deliver:
            if not isinstance(event, Delivery):
                continue
            end = event.instance + len(event.lengths)
            demand(
                last <= event.instance and end - 1 <= through, "Order",
                f"learner {learner} delivers instance {event.instance} in a step that reached "
                f"{last} of {first} to {through}",
            )  # fmt: skip
            last = event.instance
            for offset, payload in enumerate(event.payloads()):
                self._check_once(learner, event.instance + offset, payload)
                here.setdefault(event.instance + offset, []).append(payload)
        for instance in range(first, through + 1):
            commands = here.get(instance, [])
            told = self._log.setdefault(instance, commands)
            demand(
                told == commands, "Agreement",
                f"learner {learner} delivers {commands!r} in instance {instance}, another {told!r}",
            )  # fmt: skip

    def _check_chosen(self, learner: int, chosen: Chosen) -> None:
        demand(
            chosen.instance == self._through[learner] + 1, "Order",
            f"learner {learner} delivers instance {chosen.instance} after "
            f"{self._through[learner]}",
        )  # fmt: skip
        for row, length in enumerate(chosen.lengths.tolist()):
            instance = chosen.instance + row
            value = chosen.values[row, :length].tobytes()
            demand(
                self._votes.chosen.get(instance) == value, "Agreement",
                f"learner {learner} delivers {value.hex()} in instance {instance}; chosen is "
                f"{(self._votes.chosen.get(instance) or b'').hex() or 'nothing or a no-op'}",
            )  # fmt: skip
            self._check_validity(learner, instance, value)
        self._through[learner] += len(chosen.lengths)
        self.reached = max(self.reached, self._through[learner])

    def _check_validity(self, learner: int, instance: int, value: bytes) -> None:
        if not value:
            return
        head = open_envelope(value)
        demand(head is not None, "Validity", f"instance {instance} holds {value.hex()}")
        assert head is not None
        if head.session == OPEN_SESSION:
            demand(proposer_of_open(value) is not None, "Validity", f"a bad OPEN in {instance}")
        else:
            demand(
                value[ENVELOPE_BYTES:] in self._pieces, "Validity",
                f"learner {learner} delivers {value.hex()} in instance {instance}, which nobody "
                "submitted",
            )  # fmt: skip

    def _check_once(self, learner: int, instance: int, payload: bytes) -> None:
        demand(
            payload in self._submitted, "Validity",
            f"learner {learner} applies {payload!r} in instance {instance}, which nobody submitted",
        )  # fmt: skip
        demand(
            payload not in self._applied[learner], "Once",
            f"learner {learner} applies {payload!r} a second time, in instance {instance}",
        )  # fmt: skip
        self._applied[learner].add(payload)


class ReadChecker:
    """Reads: as new as every write acknowledged before the read began."""

    def __init__(self, replicas: ReplicaChecker) -> None:
        self._replicas = replicas
        self._acknowledged: dict[int, int] = {}  # by read: what anybody could know of at its begin

    def began(self, read: int) -> None:
        """A client asks for a read."""
        self._acknowledged[read] = self._replicas.reached

    def finished(self, read: int, applied: int) -> None:
        """It is answered from a state that has applied so far."""
        wanted = self._acknowledged.pop(read)
        demand(
            applied >= wanted, "Reads",
            f"read {read} is answered from instance {applied}; {wanted} was delivered before",
        )  # fmt: skip
