"""The learner (docs/PROTOCOL.md, section 5).

Registers: delivered, heard, low; by slot of the window above `delivered`: round, voters, value,
chosen. The round before a slot's latest is counted apart.

    PHASE2B (i, r) from acceptor a, i in (delivered, delivered + window]:
        slot.round == r:          voters |= {a}; another value in that round stops the learner
        slot.round < r:           the old count is put apart; (round, voters, value) = (r, {a}, v)
        slot.round > r:           counted apart
        f + 1 voters of a round:  chosen; nothing overwrites it
    instance delivered + 1 chosen:                        deliver it; delivered += 1
    HEARTBEAT, READ_INDEX_REPLY, votes:                   heard = max(heard, what they tell of)
    delivered < heard for gap_timeout:                    LEARN to the acceptors, then RECOVER to
                                                          the coordinators, in turn
    delivered + 1 < low:                                  behind: it takes a snapshot (section 7)
    ASK_CHECKPOINT:                                       CHECKPOINT to the acceptor that asked, as
                                                          last reported in this life; else silence
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from p4xos import wire
from p4xos.batching import SCALAR_BELOW, Run, split_runs, split_where_changes
from p4xos.effects import ACCEPTORS, COORDINATORS, Chosen, Effects, Role, To
from p4xos.errors import ConflictingVotes
from p4xos.quorum import NO_ROUND, majority, reached_table
from p4xos.roles.acceptor import ANSWER_BYTES_MAX, ANSWER_ROWS_MAX
from p4xos.roles.sessions import Sessions, SessionState
from p4xos.wire import HEADER_BYTES, Frame, Rows, Type, alike

LEARN_CHUNK = 32
"""Instances of one LEARN: an answer fits one system call at any value size. Once it is known how
long the values are, as many as an answer holds."""
LEARN_CHUNKS_MAX = 32
"""LEARNs at once; how many are under way doubles as long as answers come and halves when they do
not."""
GAPS_AT_ONCE = 16
GAP_DOUBLINGS_MAX = 5


@dataclass
class _Count:
    """Votes of one (instance, round) that is not the slot's latest round."""

    round: int
    voters: int
    value: bytes


class Learner:
    """Counts votes, delivers what is chosen in order, and asks for what it missed."""

    def __init__(
        self,
        *,
        frame: Frame,
        acceptors: int,
        window: int,
        value_bytes: int,
        delivered: int = 0,
        sessions: SessionState | None = None,
        gap_timeout_s: float = 0.01,
        scalar_below: int = SCALAR_BELOW,
    ) -> None:
        """Knows the log through `delivered`.

        Args:
          frame: cluster, group and this learner's id.
          acceptors: how many there are, 1 to 15.
          window: slots, a power of two.
          value_bytes: largest value.
          delivered: the last instance whose effect is in the application's state.
          sessions: the session table stored with that state.
          gap_timeout_s: how long an instance may be missing before it is asked for.
        """
        self.frame = frame
        self.window = window
        self.value_bytes = value_bytes
        self.delivered = delivered  # every instance through it is delivered, without gaps
        self.heard = delivered  # >= delivered: the highest instance heard of
        self.low = 1  # the largest told by a coordinator: below it acceptors have forgotten
        self.slot_round = np.zeros(window, dtype=np.uint32)  # the latest voted; NO_ROUND: none
        self.slot_voters = np.zeros(window, dtype=np.uint16)  # in that round, a bit an acceptor
        self.slot_chosen = np.zeros(window, dtype=np.bool_)  # the value is final
        self.slot_length = np.zeros(window, dtype=np.uint16)
        self.slot_value = np.zeros((window, value_bytes), dtype=np.uint8)
        self.counters = dict.fromkeys(
            (
                "delivered", "late_votes", "beyond_window", "value_too_long", "malformed",
                "ignored", "learns_sent", "recovers_sent", "low_jump",
            ),
            0,
        )  # fmt: skip
        self.sessions = Sessions(fragments_max=window // 4, counters=self.counters)
        if sessions is not None:
            self.sessions.load(*sessions)
        self.former: int | None = None  # no life before this delivered more; None: not known yet
        self.checkpointed: int | None = None  # as last reported; None: nothing yet in this life
        self._answers: list[tuple[To, Rows]] = []  # owed by the step under way
        self._acceptors = acceptors
        self._reached = reached_table(acceptors)
        self._reached_of = self._reached.tolist()
        self._apart: dict[int, _Count] = {}  # by instance: the latest round but one
        self._gap_timeout_s = gap_timeout_s
        self._gap_at: float | None = None  # when to ask for what is missing
        self._asks = 0  # since delivered last moved
        self._burst = 1  # LEARNs at once
        self._longest: int | None = None  # value of this catch-up; None: none came yet
        self._heard_from = 0  # acceptors that have voted since it last asked, a bit each
        self._catch_up_mark = 0  # delivered through it: the burst was answered, ask on
        self._catch_up_end = 0  # what was heard of when it asked; above it votes are under way
        self._scalar_below = scalar_below
        self._round_of = self.slot_round.data
        self._voters_of = self.slot_voters.data
        self._chosen_of = self.slot_chosen.data
        self._length_of = self.slot_length.data
        self._value_of = self.slot_value.reshape(-1).data
        self._actions: dict[int, Callable[[Rows, Run], None]] = {
            Type.PHASE2B: self._votes,
            Type.HEARTBEAT: self._heartbeats,
            Type.READ_INDEX_REPLY: self._read_index_replies,
            Type.ASK_CHECKPOINT: self._ask_checkpoints,
        }

    # The driver's side ---------------------------------------------------------------------------

    def step(self, rows: Rows, now: float) -> Effects:
        """Acts on a batch of valid messages of configured senders; the rows are not kept.

        Raises:
          ConflictingVotes: two values in one instance and round; the learner must stop.
        """
        return self.step_runs(rows, split_runs(rows, self.window), now)

    def step_runs(self, rows: Rows, runs: list[Run], now: float) -> Effects:
        """As `step`, for a batch whose runs are known already."""
        effects = Effects.none()
        for run in runs:
            action = self._actions.get(run.type)
            if action is None:
                self.counters["ignored"] += run.size
            else:
                action(rows, run)
        if self._answers:
            effects.send.extend(self._answers)
            self._answers.clear()
        self._deliver(effects)
        self._watch_gap(now, effects)
        return effects

    def takes_late_votes(self, rows: Rows) -> bool:
        """Counts a batch that holds votes for delivered instances and nothing else; else False.

        Beyond a majority every vote comes so, and two rows tell, with one look at the types. If an
        instance between were another, its vote would be lost, as on the way.
        """
        first, last = (wire.HEADER_STRUCT.unpack_from(rows[row].data) for row in (0, -1))
        late = (
            first[1] == Type.PHASE2B
            and first[4] + len(rows) - 1 == last[4] <= self.delivered
            and alike(wire.words(rows)[:, 0])
        )
        if late:
            self.counters["late_votes"] += len(rows)
        return late

    def tick(self, now: float) -> Effects:
        """Asks for what is missing when it is time."""
        effects = Effects.none()
        if self._gap_at is not None and now >= self._gap_at:
            self._ask(now, effects)
        return effects

    def deadline(self) -> float | None:
        """When `tick` next matters."""
        return self._gap_at

    @property
    def asking(self) -> bool:
        """Whether it has asked for what it misses."""
        return self._asks > 0

    @property
    def behind(self) -> bool:
        """Whether what it needs next is forgotten by the acceptors: it must take a snapshot."""
        return self.delivered + 1 < self.low

    def learned(self, chosen: Chosen, now: float) -> Effects:
        """Takes chosen values from another learner's retained log (section 7).

        Args:
          chosen: beginning at or before delivered + 1; what is already delivered is left out.
        """
        effects = Effects.none()
        skip = self.delivered + 1 - chosen.instance
        if 0 <= skip < len(chosen.lengths):
            rest = Chosen(self.delivered + 1, chosen.values[skip:], chosen.lengths[skip:])
            self._empty_slots(len(rest.lengths))
            self._hand_over(rest, effects)
            self._deliver(effects)
        self._watch_gap(now, effects)
        return effects

    def install(self, delivered: int, sessions: SessionState) -> None:
        """Jumps to a snapshot's state; votes counted so far above it are asked for again."""
        assert delivered >= self.delivered
        for array in (self.slot_round, self.slot_voters, self.slot_chosen):
            array[:] = 0
        self._apart.clear()
        self.delivered = delivered
        self.heard = max(self.heard, delivered)
        self._gap_at = None  # whether anything is missing still shows at the next step
        self._asks = 0
        self._catch_up_mark = 0
        self.sessions.load(*sessions)

    def checkpoint(self, durable_through: int) -> Effects:
        """Reports that the application's state through an instance is durable.

        Nothing is reported before the state holds all that this learner may have delivered, and so
        reported, before it was started: its store may be another one now, or an older one. A read
        index that was asked for since tells how far that may be (`former`).
        """
        effects = Effects.none()
        if self.former is None or durable_through < self.former:
            return effects
        self.checkpointed = durable_through
        effects.send.append((COORDINATORS, self._encode(Type.CHECKPOINT, durable_through)))
        return effects

    def check_invariants(self) -> None:
        """Asserts what the registers' comments claim."""
        assert self.heard >= self.delivered
        assert ((self.slot_round != NO_ROUND) == (self.slot_voters != 0)).all()
        assert not (self.slot_chosen & (self.slot_round == NO_ROUND)).any()
        assert not self._chosen_of[(self.delivered + 1) & (self.window - 1)]
        assert all(instance > self.delivered for instance in self._apart)

    # Votes ---------------------------------------------------------------------------------------

    def _votes(self, rows: Rows, run: Run) -> None:
        if run.round == NO_ROUND or run.vround != run.round or run.sender >= self._acceptors:
            self.counters["malformed"] += run.size
            return
        self._heard_from |= 1 << run.sender
        first = max(run.instance, self.delivered + 1)
        end = min(run.instance + run.size, self.delivered + 1 + self.window)
        if end <= first:
            late = run.instance <= self.delivered
            self.counters["late_votes" if late else "beyond_window"] += run.size
            self._hear(run.instance + run.size - 1)
            return
        self.counters["late_votes"] += first - run.instance
        self.counters["beyond_window"] += run.instance + run.size - end
        self._hear(run.instance + run.size - 1)
        start = run.start + first - run.instance
        count = end - first
        if count < self._scalar_below or self._too_long(rows[start : start + count]):
            for row in range(start, start + count):
                self._vote_scalar(rows, row)
            return
        slot = first & (self.window - 1)
        held = self.slot_round[slot : slot + count]
        chosen = self.slot_chosen[slot : slot + count]
        if alike(held) and alike(chosen):
            states = [(0, count, -1 if chosen[0] else int(held[0]))]
        else:
            key = np.where(chosen, np.int64(-1), held)
            states = [(a, b, int(key[a])) for a, b in split_where_changes(key)]
        for offset, stop, state in states:
            part = slice(slot + offset, slot + stop)
            votes = rows[start + offset : start + stop]
            if state == -1:
                self.counters["late_votes"] += stop - offset
            elif state == NO_ROUND:
                self._first_votes(part, votes, run)
            elif state == run.round:
                self._more_votes(part, votes, run, first + offset)
            else:
                for row in range(start + offset, start + stop):
                    self._vote_scalar(rows, row)

    def _first_votes(self, part: slice, votes: Rows, run: Run) -> None:
        width = min(votes.shape[1] - HEADER_BYTES, self.value_bytes)
        self.slot_round[part] = run.round
        self.slot_voters[part] = 1 << run.sender
        self.slot_length[part] = wire.headers(votes)["length"]
        self.slot_value[part, :width] = votes[:, HEADER_BYTES : HEADER_BYTES + width]
        self.slot_chosen[part] = self._reached_of[1 << run.sender]

    def _more_votes(self, part: slice, votes: Rows, run: Run, first: int) -> None:
        self._check_same_values(part, votes, run, first)
        self.slot_voters[part] |= 1 << run.sender
        self.slot_chosen[part] = self._reached[self.slot_voters[part]]

    def _check_same_values(self, part: slice, votes: Rows, run: Run, first: int) -> None:
        """Stops the learner when a vote names another value than the round's earlier votes."""
        lengths = wire.headers(votes)["length"].astype(np.uint16)
        same = lengths.tobytes() == self.slot_length[part].tobytes()
        if same and alike(lengths):
            longest = int(lengths[0])
            theirs = votes[:, HEADER_BYTES : HEADER_BYTES + longest].tobytes()
            if theirs == self.slot_value[part, :longest].tobytes():
                return
        for row in range(len(votes)):
            length = int(lengths[row])
            slot = part.start + row
            theirs = votes[row, HEADER_BYTES : HEADER_BYTES + length].tobytes()
            if length != self._length_of[slot] or theirs != self._value_at(slot):
                raise ConflictingVotes(first + row, run.round)

    def _vote_scalar(self, rows: Rows, row: int) -> None:
        """The same rules for one message."""
        m = wire.message(rows, row)
        slot = m.instance & (self.window - 1)
        latest = self._round_of[slot]
        if m.length > self.value_bytes:
            self.counters["value_too_long"] += 1
        elif self._chosen_of[slot]:
            self.counters["late_votes"] += 1
        elif m.round > latest:
            if latest != NO_ROUND:
                count = _Count(latest, self._voters_of[slot], self._value_at(slot))
                self._apart[m.instance] = count
            self._set(slot, m.round, 1 << m.sender, m.value)
        elif m.round == latest:
            if m.value != self._value_at(slot):
                raise ConflictingVotes(m.instance, m.round)
            self._voters_of[slot] |= 1 << m.sender
            self._chosen_of[slot] = self._reached_of[self._voters_of[slot]]
        else:
            self._count_apart(m, slot)

    def _count_apart(self, m: wire.Message, slot: int) -> None:
        """A vote of a round before the slot's latest: of the latest but one, or of an older."""
        held = self._apart.get(m.instance)
        if held is None or m.round > held.round:
            held = self._apart[m.instance] = _Count(m.round, 0, m.value)
        elif m.round < held.round:
            self.counters["late_votes"] += 1
            return
        if m.value != held.value:
            raise ConflictingVotes(m.instance, m.round)
        held.voters |= 1 << m.sender
        if self._reached_of[held.voters]:
            self._set(slot, held.round, held.voters, held.value)

    def _set(self, slot: int, round: int, voters: int, value: bytes) -> None:
        self._round_of[slot] = round
        self._voters_of[slot] = voters
        self._length_of[slot] = len(value)
        start = slot * self.value_bytes
        self._value_of[start : start + len(value)] = value
        self._chosen_of[slot] = self._reached_of[voters]

    def _value_at(self, slot: int) -> bytes:
        start = slot * self.value_bytes
        return bytes(self._value_of[start : start + self._length_of[slot]])

    def _too_long(self, rows: Rows) -> bool:
        if rows.shape[1] - HEADER_BYTES <= self.value_bytes:
            return False
        return bool(wire.headers(rows)["length"].max() > self.value_bytes)

    # Delivery ------------------------------------------------------------------------------------

    def _deliver(self, effects: Effects) -> None:
        """Delivers what is chosen without a gap."""
        while self._chosen_of[(self.delivered + 1) & (self.window - 1)]:
            slot = (self.delivered + 1) & (self.window - 1)
            if slot + 1 == self.window or not self._chosen_of[slot + 1]:
                length = self._length_of[slot]
                value = self.slot_value[slot : slot + 1, :length].copy()
                self._empty_slots(1)
                self._hand_over(Chosen(self.delivered + 1, value, np.array([length])), effects)
                continue
            ahead = self.slot_chosen[slot : slot + self.heard - self.delivered].tobytes()
            count = ahead.find(0)
            count = len(ahead) if count < 0 else count
            part = slice(slot, slot + count)
            lengths = self.slot_length[part].astype(np.int64)
            width = int(lengths.max())
            values = self.slot_value[part, :width].copy()
            shorter = np.flatnonzero(lengths < width)
            if len(shorter) < self._scalar_below:  # a slot keeps anything behind its value
                for row in shorter.tolist():
                    values[row, lengths[row] :] = 0
            else:
                values[np.arange(width) >= lengths[:, np.newaxis]] = 0
            self._empty_slots(count)
            self._hand_over(Chosen(self.delivered + 1, values, lengths), effects)

    def _empty_slots(self, count: int) -> None:
        """The slots of the next instances to be delivered become those of a window later."""
        for instance in list(self._apart) if self._apart else ():
            if instance <= self.delivered + count:
                del self._apart[instance]
        start = (self.delivered + 1) & (self.window - 1)
        if count == 1:
            self._round_of[start] = NO_ROUND
            self._voters_of[start] = 0
            self._chosen_of[start] = False
            return
        end = start + min(count, self.window)
        for part in (slice(start, end), slice(0, max(end - self.window, 0))):
            self.slot_round[part] = NO_ROUND
            self.slot_voters[part] = 0
            self.slot_chosen[part] = False

    def _hand_over(self, chosen: Chosen, effects: Effects) -> None:
        self.delivered += len(chosen.lengths)
        self.heard = max(self.heard, self.delivered)
        self.counters["delivered"] += len(chosen.lengths)
        effects.deliver.extend(self.sessions.deliver(chosen))
        effects.chosen.append(chosen)
        if self._catch_up_mark:
            self._longest = max(self._longest or 0, chosen.values.shape[1])

    # What it missed ------------------------------------------------------------------------------

    def _heartbeats(self, rows: Rows, run: Run) -> None:
        for m in wire.messages(rows[run.start : run.stop]):
            if wire.low_jumps(m.low, self.low):
                self.counters["low_jump"] += 1
                continue
            self.low = max(self.low, m.low)
            self._hear(m.instance - 1)

    def _read_index_replies(self, rows: Rows, run: Run) -> None:
        for m in wire.messages(rows[run.start : run.stop]):
            self._hear(m.instance)

    def _ask_checkpoints(self, rows: Rows, run: Run) -> None:
        """An acceptor that forgot asks how far this one is."""
        if self.checkpointed is None:
            self.counters["ignored"] += run.size
            return
        for m in wire.messages(rows[run.start : run.stop]):
            answer = self._encode(Type.CHECKPOINT, self.checkpointed, vround=m.vround)
            self._answers.append((To(Role.ACCEPTOR, m.sender), answer))

    def _hear(self, instance: int) -> None:
        if self.heard < instance <= self.delivered + wire.LOW_JUMP_MAX:
            self.heard = instance

    def _watch_gap(self, now: float, effects: Effects) -> None:
        """Whether something is missing, and since when; a catch-up in flow asks on at once."""
        if self.delivered >= self.heard:
            self._gap_at = None
            self._asks = 0
            self._catch_up_mark = 0
        elif self._gap_at is None or effects.chosen:
            self._gap_at = now + self._gap_timeout_s
            self._asks = 0
            if self.delivered >= self._catch_up_end:
                self._catch_up_mark = 0
            elif self._catch_up_mark and self.delivered >= self._catch_up_mark:
                self._burst = min(self._burst * 2, LEARN_CHUNKS_MAX)
                self._learn(effects, self._who_answered())

    def _ask(self, now: float, effects: Effects) -> None:
        """LEARN first: it needs no new round; then RECOVER, in turn, ever more patiently."""
        if self._asks % 2 == 0:
            self._burst = max(self._burst // 2, 1) if self._asks else self._burst
            self._catch_up_end = self.heard
            self._longest = None
            self._learn(effects, [ACCEPTORS])
        else:
            first, end = self._missing()[0]
            question = self._encode(Type.RECOVER, first, wire.pack_end(end))
            effects.send.append((COORDINATORS, question))
            self.counters["recovers_sent"] += 1
        self._asks += 1
        doublings = min(self._asks, GAP_DOUBLINGS_MAX)
        self._gap_at = now + self._gap_timeout_s * 2**doublings

    @property
    def _learn_chunk(self) -> int:
        """Instances that one answer holds."""
        if self._longest is None:
            return LEARN_CHUNK
        return min(ANSWER_BYTES_MAX // wire.stride_for(self._longest), ANSWER_ROWS_MAX)

    def _who_answered(self) -> list[To]:
        """A majority that answered, of which every vote counts; all when there is none."""
        heard = [a for a in range(self._acceptors) if self._heard_from >> a & 1]
        enough = majority(self._acceptors)
        if len(heard) < enough:
            return [ACCEPTORS]
        return [To(Role.ACCEPTOR, acceptor) for acceptor in heard[:enough]]

    def _learn(self, effects: Effects, asked: list[To]) -> None:
        """LEARN for the first missing stretches, in chunks that one answer covers."""
        missing, step = self._missing(), self._learn_chunk
        chunks = [
            (start, min(start + step, end))
            for first, end in missing
            for start in range(first, end, step)
        ][: self._burst if len(missing) == 1 else GAPS_AT_ONCE]
        self._catch_up_mark = chunks[-1][1] - 1
        questions = np.concatenate(
            [self._encode(Type.LEARN, first, wire.pack_end(end)) for first, end in chunks]
        )
        effects.send.extend((to, questions) for to in asked)
        self.counters["learns_sent"] += len(chunks)
        self._heard_from = 0

    def _missing(self) -> list[tuple[int, int]]:
        """The first stretches of [delivered + 1, heard] that are not chosen, at least one."""
        most = self._learn_chunk * LEARN_CHUNKS_MAX
        count = min(self.heard - self.delivered, most, self.window)
        instances = np.arange(self.delivered + 1, self.delivered + 1 + count)
        chosen: NDArray[np.bool_] = self.slot_chosen[instances & (self.window - 1)]
        return [
            (self.delivered + 1 + start, self.delivered + 1 + stop)
            for start, stop in split_where_changes(chosen)
            if not chosen[start]
        ][:GAPS_AT_ONCE]

    def _encode(
        self, type: Type, instance: int, value: bytes = b"", *, vround: int = 0
    ) -> Rows:
        return wire.encode(
            self.frame.cluster, self.frame.group, type, instance=instance, vround=vround,
            sender=self.frame.sender, value=value,
        )  # fmt: skip
