"""The acceptor (docs/PROTOCOL.md, section 3).

Registers: floor, highest_round, low, highest, seen[n]; by slot: instance, round, vround, value.
`promised(i) = max(floor, slot.round if slot.instance == i)`; a slot that holds another instance
is emptied first: `instance = i; round = vround = NO_ROUND`.

    PHASE1A, PHASE2A, HEARTBEAT, msg.low > low:  low = msg.low; highest = max(highest, low - 1)

    PHASE1A to the end, round >= floor:          floor = round; reply PHASE1B summary, votes
    PHASE1A [i, j), round >= promised(k):        slot[k].round = round, each k in [i, j);
                                                 reply PHASE1B summary, votes
    PHASE2A i in window, round >= promised(i):   slot[i] = (i, round, round, value);
                                                 highest = max(highest, i); reply PHASE2B
    PHASE2A i voted in that round already:       reply PHASE2B from the slot
    LEARN [i, j):                                reply PHASE2B, each vote held in [i, j)
    READ_INDEX:                                  reply READ_INDEX_REPLY highest, highest_round, low
    RECORD of another acceptor a:                seen[a] = max(seen[a], incarnation told);
                                                 reply RECORDED highest_round, low, seen
    anything else, and every stale round:        silence and a counter

An instance outside [low, low + window) is never an array index. An acceptor that has forgotten
what it promised is in `rejoining` until it may act on this table again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from p4xos import wire
from p4xos.batching import SCALAR_BELOW, Run, split_runs, split_where_changes
from p4xos.effects import LEARNERS, Effects, Role, To
from p4xos.errors import BadPacket
from p4xos.quorum import NO_ROUND
from p4xos.roles.memory import Memory
from p4xos.wire import HEADER_BYTES, Frame, Message, Rows, Type

ANSWER_ROWS_MAX = 128
ANSWER_BYTES_MAX = 65_536
"""Rows that follow one question at most: what one system call sends. Whoever asked asks again for
the rest, so an answer never overruns the socket buffer of the one who waits for it."""

COORDINATOR_ASKS = 1
PROPOSER_ASKS = 0
"""READ_INDEX names in `instance` in which role its sender asks."""

_VOTE, _REPEAT, _STALE = range(3)


class Acceptor:
    """Promises and votes for the instances of one group, in a ring of `window` slots."""

    def __init__(
        self,
        *,
        frame: Frame,
        acceptors: int,
        window: int,
        value_bytes: int,
        incarnation: int = 0,
        scalar_below: int = SCALAR_BELOW,
    ) -> None:
        """Empty, as at the creation of the cluster.

        Args:
          frame: cluster, group and this acceptor's id.
          acceptors: how many there are, odd, 1 to 15.
          window: slots, a power of two.
          value_bytes: largest value.
          incarnation: how often this acceptor has come back having forgotten.
          scalar_below: runs of fewer messages take the scalar path.
        """
        self.frame = frame
        self.id = frame.sender
        self.window = window
        self.value_bytes = value_bytes
        self.incarnation = incarnation
        self.floor = NO_ROUND  # promised for every instance, voted or not
        self.highest_round = NO_ROUND  # >= floor and every slot's round: never promised above
        self.low = 1  # every instance below is forgotten
        self.highest = 0  # of all votes; never below low - 1
        self.seen = (0,) * acceptors  # incarnations; not below what any of them has shown
        self.slot_instance = np.zeros(window, dtype=np.int64)  # 0: the slot never held one
        self.slot_round = np.zeros(window, dtype=np.uint32)  # promised, >= slot_vround
        self.slot_vround = np.zeros(window, dtype=np.uint32)  # NO_ROUND: no vote
        self.slot_length = np.zeros(window, dtype=np.uint16)  # bytes of the value
        self.slot_value = np.zeros((window, value_bytes), dtype=np.uint8)  # junk beyond it
        self.counters = dict.fromkeys(
            (
                "votes", "repeated_votes", "promises", "stale_round", "out_of_window",
                "round_zero", "low_jump", "value_too_long", "malformed", "ignored",
            ),
            0,
        )  # fmt: skip
        self._scalar_below = scalar_below
        # The same registers for the scalar path: a memoryview's item costs a third of an array's.
        self._instance_of = self.slot_instance.data
        self._round_of = self.slot_round.data
        self._vround_of = self.slot_vround.data
        self._length_of = self.slot_length.data
        self._value_of = self.slot_value.reshape(-1).data
        self._registers_changed = False
        self._actions: dict[int, Callable[[Rows, Run, Effects], None]] = {
            Type.PHASE1A: self._each(self._phase1a),
            Type.PHASE2A: self._phase2a,
            Type.HEARTBEAT: self._each(self._heartbeat),
            Type.LEARN: self._each(self._learn),
            Type.READ_INDEX: self._each(self._read_index),
            Type.RECORD: self._each(self._record),
        }

    # The driver's side ---------------------------------------------------------------------------

    def step(self, rows: Rows, now: float) -> Effects:
        """Acts on a batch.

        Args:
          rows: (n, stride) uint8, valid messages of configured senders. The acceptor keeps them:
            a PHASE2A becomes the PHASE2B in place, as in a switch.
          now: not used; an acceptor knows no time.
        """
        effects = Effects.none()
        for run in split_runs(rows, self.window):
            action = self._actions.get(run.type)
            if action is None:
                self.counters["ignored"] += run.size
                continue
            action(rows, run, effects)
            if self._registers_changed:
                effects.persist.append(self._registers())
                self._registers_changed = False
        return effects

    def tick(self, now: float) -> Effects:
        """Nothing: an acceptor only answers."""
        return Effects.none()

    def deadline(self) -> float | None:
        """Never."""
        return None

    @property
    def empty(self) -> bool:
        """Whether it has promised nothing and voted for nothing."""
        return self.highest_round == NO_ROUND and not self.slot_instance.any()

    def begin(self) -> None:
        """Takes part from the first instance on, as it was made to."""
        assert self.empty

    def join(self, *, incarnation: int, round: int, low: int, seen: tuple[int, ...]) -> Rows:
        """Begins anew after having forgotten (docs/PROTOCOL.md, section 8); only while empty.

        Args:
          incarnation: above every one that this acceptor has ever shown.
          round: the highest that a majority of the others told: promised for every instance.
          low: the group's; everything that this acceptor may have voted for lies below.
          seen: of all acceptors, as the others told.

        Returns:
          The log record of it, to be durable before anything is answered.
        """
        assert self.highest_round == NO_ROUND, "an acceptor that remembers does not join"
        self.incarnation = incarnation
        self.floor = self.highest_round = round
        self.low, self.highest = low, low - 1
        self.seen = tuple(
            max(known, incarnation) if a == self.id else known for a, known in enumerate(seen)
        )
        return self._registers()

    def leave(self) -> Memory:
        """All that it must remember, to go on elsewhere; nobody may step this one from here on."""
        slots = np.flatnonzero(self._live())
        slots = slots[np.argsort(self.slot_instance[slots])]
        width = int(self.slot_length[slots].max(initial=0))
        return Memory(
            self.incarnation, self.floor, self.highest_round, self.low, self.highest, self.seen,
            self.slot_instance[slots], self.slot_round[slots], self.slot_vround[slots],
            self.slot_length[slots], self.slot_value[slots, :width], dict(self.counters),
        )  # fmt: skip

    def stay(self) -> None:
        """Goes on here after `leave`, with its registers as they were."""

    def take(self, memory: Memory) -> None:
        """Goes on as the acceptor that left with this memory; only while empty."""
        assert self.empty, "an acceptor that remembers takes no other memory"
        assert memory.value.shape[1] <= self.value_bytes
        self.incarnation = memory.incarnation
        self.floor, self.highest_round = memory.floor, memory.highest_round
        self.low, self.highest, self.seen = memory.low, memory.highest, memory.seen
        slots = memory.instance & (self.window - 1)
        self.slot_instance[slots] = memory.instance
        self.slot_round[slots] = memory.round
        self.slot_vround[slots] = memory.vround
        self.slot_length[slots] = memory.length
        self.slot_value[slots, : memory.value.shape[1]] = memory.value
        self.counters.update(memory.counters)

    def close(self) -> None:
        """Holds nothing that is to be given back."""

    def carry_over(self) -> list[Rows]:
        """What still matters besides votes, as log records: registers, and promises above votes.

        Where there is no vote, promises below the floor as well: summaries count them, and one
        that counted fewer after a restart would take reports from before it for those of votes.
        """
        bare = (self.slot_round > self.floor) & (self.slot_round != self.slot_vround)
        bare |= (self.slot_round != NO_ROUND) & (self.slot_vround == NO_ROUND)
        bare &= self._live()
        slots = np.flatnonzero(bare)
        records = [self._registers()]
        if len(slots):
            records.append(self._promise_records(self.slot_instance[slots], self.slot_round[slots]))
        return records

    def restore(self, records: Sequence[Rows]) -> None:
        """Takes log records back, in the order in which they were persisted."""
        for rows in records:
            for start, stop in split_where_changes(wire.headers(rows)["type"]):
                self._restore(rows[start:stop])

    def check_invariants(self) -> None:
        """Asserts what every comment on a register claims."""
        live = self._live()
        assert self.highest >= self.low - 1
        assert self.highest_round >= self.floor
        assert (self.slot_round[live] >= self.slot_vround[live]).all()
        assert (self.slot_round[live] <= self.highest_round).all()
        voted = live & (self.slot_vround != NO_ROUND)
        assert (self.slot_instance[voted] <= self.highest).all()
        holds = self.slot_instance != 0
        slots = np.flatnonzero(holds)
        assert ((self.slot_instance[slots] & (self.window - 1)) == slots).all()

    # Rules ---------------------------------------------------------------------------------------

    def _raise_low(self, low: int, count: int) -> bool:
        """The window's lower end moves, only up; False when the message is to be dropped."""
        if low > self.low:
            if low > self.low + wire.LOW_JUMP_MAX:
                self.counters["low_jump"] += count
                return False
            self.low = low
            self.highest = max(self.highest, low - 1)
            self._registers_changed = True
        return True

    def _phase2a(self, rows: Rows, run: Run, effects: Effects) -> None:
        if not self._raise_low(run.low, run.size):
            return
        if run.round == NO_ROUND:
            self.counters["round_zero"] += run.size
            return
        first = max(run.instance, self.low)
        end = min(run.instance + run.size, self.low + self.window)
        inside = max(end - first, 0)
        self.counters["out_of_window"] += run.size - inside
        if inside == 0:
            return
        start = run.start + first - run.instance
        if inside < self._scalar_below or self._too_long(rows[start : start + inside]):
            self._vote_one_by_one(rows, start, start + inside, effects)
            return
        slot = first & (self.window - 1)
        instances = np.arange(first, end, dtype=np.int64)
        same = self.slot_instance[slot : slot + inside] == instances
        if run.round >= self.floor and not same.any():
            self._vote_slice(rows, start, slot, instances, run.round, effects)
            return
        kind = self._classify(slot, same, run.round)
        for offset, stop in split_where_changes(kind):
            if kind[offset] == _STALE:
                self.counters["stale_round"] += stop - offset
            elif kind[offset] == _REPEAT:
                self.counters["repeated_votes"] += stop - offset
                effects.send.append((LEARNERS, self._votes(np.arange(slot + offset, slot + stop))))
            else:
                self._vote_slice(
                    rows, start + offset, slot + offset, instances[offset:stop], run.round, effects
                )

    def _classify(self, slot: int, same: NDArray[np.bool_], round: int) -> NDArray[np.uint8]:
        """What the PHASE2A of one round does to each of consecutive slots."""
        part = slice(slot, slot + len(same))
        kind = np.full(len(same), _VOTE, dtype=np.uint8)
        kind[same & (self.slot_vround[part] == round)] = _REPEAT
        kind[same & (self.slot_round[part] > round)] = _STALE
        if round < self.floor:
            kind[:] = _STALE
        return kind

    def _vote_slice(
        self,
        rows: Rows,
        start: int,
        slot: int,
        instances: NDArray[np.int64],
        round: int,
        effects: Effects,
    ) -> None:
        """Votes for consecutive instances: registers take the rows, the rows become PHASE2B."""
        count = len(instances)
        part = slice(slot, slot + count)
        votes = rows[start : start + count]
        header = wire.headers(votes)
        width = min(rows.shape[1] - HEADER_BYTES, self.value_bytes)
        self.slot_instance[part] = instances
        self.slot_round[part] = round
        self.slot_vround[part] = round
        self.slot_length[part] = header["length"]
        self.slot_value[part, :width] = votes[:, HEADER_BYTES : HEADER_BYTES + width]
        header["type"] = Type.PHASE2B
        header["vround"] = round
        header["sender"] = self.id
        header["incarnation"] = self.incarnation
        header["low"] = 0
        self._voted(int(instances[-1]), round, count)
        self._vote_rows(rows, start, start + count, effects)

    def _vote_one_by_one(self, rows: Rows, start: int, stop: int, effects: Effects) -> None:
        """The same rule message by message; neighbours that are voted for leave together."""
        data = rows.reshape(-1).data
        stride = rows.shape[1]
        accepted = start  # rows[accepted:row] are votes that have not been given to `effects` yet
        for row in range(start, stop):
            offset = row * stride
            fields = wire.HEADER_STRUCT.unpack_from(data, offset)
            instance, round, length = fields[4], fields[5], fields[8]
            slot = instance & (self.window - 1)
            same = self._instance_of[slot] == instance
            if length > self.value_bytes:
                self.counters["value_too_long"] += 1
            elif round < self.floor or (same and round < self._round_of[slot]):
                self.counters["stale_round"] += 1
            elif same and self._vround_of[slot] == round:
                self.counters["repeated_votes"] += 1
                self._vote_rows(rows, accepted, row, effects)
                accepted = row + 1
                effects.send.append((LEARNERS, self._votes(np.array([slot]))))
                continue
            else:
                self._instance_of[slot] = instance
                self._round_of[slot] = self._vround_of[slot] = round
                self._length_of[slot] = length
                value = slot * self.value_bytes
                self._value_of[value : value + length] = data[
                    offset + HEADER_BYTES : offset + HEADER_BYTES + length
                ]
                wire.HEADER_STRUCT.pack_into(
                    data, offset, fields[0], Type.PHASE2B, fields[2], fields[3], instance,
                    round, round, self.id, length, self.incarnation, 0,
                )  # fmt: skip
                self._voted(instance, round, 1)
                continue
            self._vote_rows(rows, accepted, row, effects)
            accepted = row + 1
        self._vote_rows(rows, accepted, stop, effects)

    def _vote_rows(self, rows: Rows, start: int, stop: int, effects: Effects) -> None:
        if start < stop:
            effects.persist.append(rows[start:stop])
            effects.send.append((LEARNERS, rows[start:stop]))

    def _too_long(self, rows: Rows) -> bool:
        if rows.shape[1] - HEADER_BYTES <= self.value_bytes:
            return False
        return bool(wire.headers(rows)["length"].max() > self.value_bytes)

    def _voted(self, instance: int, round: int, count: int) -> None:
        self.highest = max(self.highest, instance)
        if round > self.highest_round:  # a vote implies the promise
            self.highest_round = round
        self.counters["votes"] += count

    def _phase1a(self, m: Message, effects: Effects) -> None:
        if not self._raise_low(m.low, 1):
            return
        try:
            end = wire.unpack_end(m.value)
        except BadPacket:
            end = -1
        if m.round == NO_ROUND:
            self.counters["round_zero"] += 1
        elif end < m.instance:
            self.counters["malformed"] += 1
        elif m.round < self.floor:
            self.counters["stale_round"] += 1
        elif end == wire.END_OF_LOG:
            if m.round > self.floor:
                self.floor = m.round
                self._promised(m.round)
            self._answer_phase1a(m, max(m.instance, self.low), self.low + self.window, effects)
        else:
            first, end = max(m.instance, self.low), min(end, self.low + self.window)
            if first >= end or self._promise(first, end, m.round, effects):
                self._answer_phase1a(m, first, end, effects)
            else:
                self.counters["stale_round"] += 1

    def _promise(self, first: int, end: int, round: int, effects: Effects) -> bool:
        """Bounded phase 1 of [first, end), inside the window; whether anything is promised."""
        instances = np.arange(first, end, dtype=np.int64)
        slots = instances & (self.window - 1)
        other = self.slot_instance[slots] != instances
        emptied = slots[other]
        self.slot_instance[emptied] = instances[other]
        self.slot_round[emptied] = NO_ROUND
        self.slot_vround[emptied] = NO_ROUND
        self.slot_length[emptied] = 0
        free = self.slot_round[slots] <= round
        if not free.any():
            return False
        raised = slots[free & (self.slot_round[slots] < round)]
        self.slot_round[raised] = round
        self._promised(round)
        if len(raised):
            effects.persist.append(
                self._promise_records(self.slot_instance[raised], self.slot_round[raised])
            )
        return True

    def _promised(self, round: int) -> None:
        self.counters["promises"] += 1
        if round > self.highest_round:
            self.highest_round = round
        self._registers_changed = True

    def _answer_phase1a(self, m: Message, first: int, end: int, effects: Effects) -> None:
        """The summary, then votes of [first, end) in instance order, as many as one call sends."""
        instances = np.arange(min(first, end), end, dtype=np.int64)  # first may be any 64 bits
        slots = instances & (self.window - 1)
        held = slots[self.slot_instance[slots] == instances]
        summary = wire.Summary(self.highest, len(held), m.vround, self.seen)
        to = To(Role.COORDINATOR, m.sender)
        effects.send.append(
            (to, self._encode(Type.PHASE1B, instance=first, round=m.round, low=self.low,
                              value=wire.pack_summary(summary)))
        )  # fmt: skip
        if len(held):
            votes = self._votes(held[: self._answer_rows(held)])
            header = wire.headers(votes)
            header["type"] = Type.PHASE1B
            header["round"] = np.maximum(self.slot_round[held[: len(votes)]], self.floor)
            effects.send.append((to, votes))

    def _answer_rows(self, slots: NDArray[np.int64]) -> int:
        lengths = self.slot_length[slots[:ANSWER_ROWS_MAX]]
        stride = wire.stride_for(int(lengths.max()))
        return min(len(lengths), ANSWER_BYTES_MAX // stride)

    def _heartbeat(self, m: Message, effects: Effects) -> None:
        self._raise_low(m.low, 1)

    def _learn(self, m: Message, effects: Effects) -> None:
        try:
            end = wire.unpack_end(m.value)
        except BadPacket:
            end = -1
        if end < m.instance:
            self.counters["malformed"] += 1
            return
        first, end = max(m.instance, self.low), min(end, self.low + self.window, self.highest + 1)
        instances = np.arange(min(first, end), end, dtype=np.int64)
        slots = instances & (self.window - 1)
        voted = (self.slot_instance[slots] == instances) & (self.slot_vround[slots] != NO_ROUND)
        held = slots[voted]
        if len(held):
            votes = self._votes(held[: self._answer_rows(held)])
            effects.send.append((To(Role.LEARNER, m.sender), votes))

    def _read_index(self, m: Message, effects: Effects) -> None:
        roles = {PROPOSER_ASKS: Role.PROPOSER, COORDINATOR_ASKS: Role.COORDINATOR}
        role = roles.get(m.instance)
        if role is None:
            self.counters["malformed"] += 1
            return
        reply = self._encode(
            Type.READ_INDEX_REPLY, instance=self.highest, round=self.highest_round,
            vround=m.vround, low=self.low,
        )  # fmt: skip
        effects.send.append((To(role, m.sender), reply))

    def _record(self, m: Message, effects: Effects) -> None:
        """Another one has forgotten: what it showed before is told apart from what it will show."""
        forgetful = m.sender
        try:
            incarnation = wire.unpack_incarnation(m.value)
        except BadPacket:
            incarnation = -1
        if incarnation < 0 or m.instance != forgetful or forgetful >= len(self.seen):
            self.counters["malformed"] += 1
            return
        if forgetful == self.id:
            self.counters["ignored"] += 1  # a question of its own former life
            return
        if incarnation > self.seen[forgetful]:
            seen = list(self.seen)
            seen[forgetful] = incarnation
            self.seen = tuple(seen)
            self._registers_changed = True
        reply = self._encode(
            Type.RECORDED, instance=forgetful, round=self.highest_round, vround=m.vround,
            low=self.low, value=wire.pack_seen(self.seen),
        )  # fmt: skip
        effects.send.append((To(Role.ACCEPTOR, forgetful), reply))

    # Rows and records ----------------------------------------------------------------------------

    def _each(
        self, rule: Callable[[Message, Effects], None]
    ) -> Callable[[Rows, Run, Effects], None]:
        """A rule for one message as an action on a run."""

        def act(rows: Rows, run: Run, effects: Effects) -> None:
            for row in range(run.start, run.stop):
                rule(wire.message(rows, row), effects)

        return act

    def _votes(self, slots: NDArray[np.int64]) -> Rows:
        """PHASE2B rows from slots, fresh, of the stride of the longest value."""
        lengths = self.slot_length[slots]
        width = int(lengths.max())
        rows = self._new_rows(len(slots), width, Type.PHASE2B)
        header = wire.headers(rows)
        header["instance"] = self.slot_instance[slots]
        header["round"] = self.slot_vround[slots]
        header["vround"] = self.slot_vround[slots]
        header["length"] = lengths
        values = rows[:, HEADER_BYTES : HEADER_BYTES + width]
        values[:] = self.slot_value[slots, :width]
        if lengths.min() != width:
            values[np.arange(width) >= lengths[:, np.newaxis]] = 0
        return rows

    def _new_rows(self, count: int, value_bytes: int, type: Type) -> Rows:
        rows = wire.new_rows(count, value_bytes)
        header = wire.headers(rows)
        header["version"] = wire.VERSION
        header["type"] = type
        header["group"] = self.frame.group
        header["cluster"] = self.frame.cluster
        header["sender"] = self.id
        header["incarnation"] = self.incarnation
        return rows

    def _encode(
        self, type: Type, *, instance: int, round: int, vround: int = 0, low: int,
        value: bytes = b"",
    ) -> Rows:  # fmt: skip
        return wire.encode(
            self.frame.cluster, self.frame.group, type, instance=instance, round=round,
            vround=vround, sender=self.id, incarnation=self.incarnation, low=low, value=value,
        )  # fmt: skip

    def _registers(self) -> Rows:
        """The log record of everything that is not a slot."""
        return self._encode(
            Type.RECORDED, instance=self.highest, round=self.highest_round, vround=self.floor,
            low=self.low, value=wire.pack_seen(self.seen),
        )  # fmt: skip

    def _promise_records(self, instances: NDArray[np.int64], rounds: NDArray[np.uint32]) -> Rows:
        """Log records of slots' promises: PHASE1B without a vote."""
        rows = self._new_rows(len(instances), 0, Type.PHASE1B)
        header = wire.headers(rows)
        header["instance"] = instances
        header["round"] = rounds
        return rows

    def _restore(self, rows: Rows) -> None:
        """Records of one type."""
        header = wire.headers(rows)
        if header["type"][0] == Type.RECORDED:
            last = wire.message(rows, len(rows) - 1)
            self.floor, self.low = last.vround, last.low
            self.incarnation = last.incarnation
            self.seen = wire.unpack_seen(last.value, len(self.seen))
            self.highest_round = max(self.highest_round, last.round)
            self.highest = max(self.highest, last.instance, self.low - 1)
            return
        for row in range(len(rows)):  # starting is rare: one at a time, so that repeats are right
            m = wire.message(rows, row)
            slot = m.instance & (self.window - 1)
            held = int(self.slot_instance[slot])
            if held > m.instance:
                continue  # a record of an instance whose slot was since taken over
            if held < m.instance:
                self.slot_instance[slot] = m.instance
                self.slot_round[slot] = self.slot_vround[slot] = NO_ROUND
                self._set_value(slot, b"")
            self.slot_round[slot] = max(int(self.slot_round[slot]), m.round)
            self.highest_round = max(self.highest_round, m.round)
            if m.type == Type.PHASE2B and m.vround >= self.slot_vround[slot]:
                self.slot_vround[slot] = m.vround
                self._set_value(slot, m.value)
                self.highest = max(self.highest, m.instance)
        # An accepted vote implies a window that reached it, even if the registers were not written.
        self.low = max(self.low, int(header["instance"].max()) - self.window + 1)

    def _set_value(self, slot: int, value: bytes) -> None:
        self.slot_length[slot] = len(value)
        self.slot_value[slot, : len(value)] = np.frombuffer(value, np.uint8)

    def _live(self) -> NDArray[np.bool_]:
        return (self.slot_instance >= self.low) & (self.slot_instance < self.low + self.window)
