"""The coordinator (docs/PROTOCOL.md, section 4).

    FOLLOWING   no heartbeat for timeout * (1 + rank):   ask for the highest round   -> ASKING
    ASKING      READ_INDEX_REPLY of f + 1:               round above it, persisted;
                                                         PHASE1A to the end          -> PREPARING
    PREPARING   f + 1 complete PHASE1B:                  each instance of [low, highest]: the value
                                                         of the highest vround, else a no-op;
                                                         next = max(low, highest+1)  -> PROPOSING
    PROPOSING   all of those sent:                                                   -> SERVING
    SERVING     REQUEST, next < low + window:            PHASE2A (next, round, value); next += 1
                REQUEST, window full:                    queue, bounded; then drop and count
                RECOVER [i, j):                          PHASE2A again, in the round and with the
                                                         value last sent; still not chosen:
                                                         bounded phase 1 in the recovery round
                requests outstanding, no progress:       ask                         -> ASKING
    PROPOSING,
    SERVING     its sequencer moves:                     ask, for a fresh round      -> ASKING
    any         HEARTBEAT of a higher foreign round:     follow it                   -> FOLLOWING
                CHECKPOINT:                              low = (g+1)-th highest checkpoint + 1
    SERVING     RECOVERING(silent_until), low below it:  no-ops up to it, as far as nothing waits

Time is only for liveness. The sequencer is the part that a switch can take over.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

import numpy as np

from p4xos import wire
from p4xos.batching import SCALAR_BELOW, Run, split_runs, split_where_changes
from p4xos.effects import ACCEPTORS, COORDINATORS, LEARNERS, Effects, Role, To
from p4xos.errors import BadPacket
from p4xos.quorum import NO_ROUND, majority, make_round, round_counter, round_owner
from p4xos.roles.acceptor import COORDINATOR_ASKS
from p4xos.roles.progress import Progress
from p4xos.roles.promises import Promises
from p4xos.roles.reads import Answer, ReadIndex
from p4xos.roles.recovery import Recoveries
from p4xos.roles.sent import SentRing
from p4xos.roles.sequencer import Sequencer
from p4xos.roles.waiting import WaitingRequests
from p4xos.wire import Frame, Rows, Type

PROPOSE_CHUNK = 256
PROPOSE_EVERY_S = 0.001
"""After a takeover the values found are proposed so many at a time, so often: a whole window at
once would overrun every socket buffer on its way."""
BEATS_AFTER_NEWS = 4
"""Acceptors and learners hear every heartbeat until they have been told of a change so many times,
then one of `idle_beats`: what says nothing new wakes them for nothing, and an idle cluster is to
cost next to nothing. Candidates hear all: to them it says that the coordinator lives."""
UNVOTED_MAX = 8
"""So many recoveries that find no vote for what was sent twice mean that the round is refused. A
READ_INDEX_REPLY need not tell: the coordinator's own recovery rounds may be above the round that
was promised since, and then every request would become a no-op for ever."""


class Phase(Enum):
    """Where a coordinator stands between following another one and serving."""

    FOLLOWING = "following"
    ASKING = "asking"
    PREPARING = "preparing"
    PROPOSING = "proposing"
    SERVING = "serving"


@dataclass(frozen=True)
class CoordinatorTiming:
    """Seconds, and a count of heartbeats; each is for liveness alone."""

    heartbeat_s: float = 0.08
    takeover_s: float = 0.25
    retry_s: float = 0.03
    stall_s: float = 0.25
    backoff_max_s: float = 2.0
    idle_beats: int = 8

    def __post_init__(self) -> None:
        if not 0 < self.heartbeat_s * 2 < self.takeover_s:
            raise ValueError(
                f"takeover_s = {self.takeover_s:g} must be more than twice heartbeat_s = "
                f"{self.heartbeat_s:g}: else one lost heartbeat deposes the coordinator"
            )


class Term(NamedTuple):
    """How a term began, for people."""

    since: float
    """When it began to serve, by the clock that `step` is told."""
    found: int
    """Instances that phase 1 found and that were proposed again, no-ops among them."""
    waited: int
    """Requests that waited for it."""


class Coordinator:
    """Wins a round, gives each request an instance in it, and mends what was lost."""

    def __init__(
        self,
        *,
        frame: Frame,
        coordinators: tuple[int, ...],
        acceptors: int,
        learners: int,
        window: int,
        value_bytes: int,
        random: Callable[[], float],
        now: float,
        last_round: int = NO_ROUND,
        timing: CoordinatorTiming | None = None,
        queue_messages: int = 65_536,
        scalar_below: int = SCALAR_BELOW,
        sequencer: Sequencer | None = None,
    ) -> None:
        """A follower.

        Args:
          frame: cluster, group and this coordinator's id.
          coordinators: the ids of all candidates, this one's among them.
          acceptors, learners: how many there are.
          window: instances, a power of two, the acceptors'.
          value_bytes: largest value, the acceptors'.
          random: uniform in [0, 1), for jitter and nonces.
          now: seconds, monotonic.
          last_round: the highest round that this coordinator ever wrote to its disk.
          queue_messages: requests that wait at most.
          sequencer: one that a data plane runs; None: its own.
        """
        self.frame = frame
        self.timing = timing or CoordinatorTiming()
        self.phase = Phase.FOLLOWING
        self.round = last_round  # the highest this coordinator has used; persisted before use
        self.leader_round = NO_ROUND  # the highest heard in a heartbeat
        self.low = 1  # below it nothing is proposed, now or in recovery
        self.highest_told = last_round  # the highest round heard of anywhere
        self.sequencer = sequencer or Sequencer(
            frame=frame, window=window, value_bytes=value_bytes, scalar_below=scalar_below
        )
        self.counters = self.sequencer.counters
        own = (
            "takeovers", "stepped_down", "queued", "queue_full", "resent", "recovered", "stalls",
            "low_jump", "malformed", "filled",
        )  # fmt: skip
        self.counters.update(dict.fromkeys(own, 0))
        self.term = Term(now, 0, 0)  # the last one that it has served in, or none
        self._next_heard = 1  # of the coordinator it follows, for people
        self._coordinators = tuple(sorted(coordinators))
        self._acceptors = acceptors
        self._learners = learners
        self._window = window
        self._value_bytes = value_bytes
        self._random = random
        self._checkpoints: dict[int, int] = {}
        self._waiting = WaitingRequests(queue_messages)
        self._promises: Promises | None = None
        self._propose_through = 0  # PROPOSING: the last instance that phase 1 found
        self._found = 0  # PROPOSING: how many instances that are
        self._retry_at: float | None = None
        self._heartbeat_at: float | None = None
        self._told = (0, NO_ROUND, 0)  # next, round and low of the last heartbeat
        self._beats = 0  # heartbeats since they changed
        self._fill_through = 0  # SERVING: what acceptors that join again wait for
        self._fill_at: float | None = None
        self._tell_at = 0.0  # PREPARING: when the other candidates are to hear that it goes on
        self._attempts = 0
        self._progress = Progress(self.timing.stall_s)
        self._unvoted = 0  # of this term: proposals for which a majority had not voted when asked
        self._sent = SentRing(window, value_bytes)
        self._recoveries = Recoveries(acceptors)
        self._read_index = ReadIndex(
            frame=frame, acceptors=acceptors, asks_as=COORDINATOR_ASKS,
            retry_s=self.timing.retry_s, first_nonce=int(random() * 2**32),
        )  # fmt: skip
        self._takeover_at: float | None = now + self._patience()
        self._actions: dict[int, Callable[[Rows, float, Effects], None]] = {
            Type.REQUEST: self._requests,
            Type.PHASE1B: self._phase1b,
            Type.HEARTBEAT: self._heartbeats,
            Type.RECOVER: self._recovers,
            Type.CHECKPOINT: self._checkpoint_reports,
            Type.READ_INDEX_REPLY: self._read_index_replies,
            Type.RECOVERING: self._recovering_acceptors,
        }

    # The driver's side ---------------------------------------------------------------------------

    def step(self, rows: Rows, now: float) -> Effects:
        """Acts on a batch of valid messages of configured senders; REQUEST rows are kept."""
        effects = Effects.none()
        for run in split_runs(rows, self._window):
            action = self._actions.get(run.type)
            if action is None:
                self.counters["ignored"] += run.size
            else:
                action(self._part(rows, run), now, effects)
        return effects

    def tick(self, now: float) -> Effects:
        """Does what time demands: heartbeats, retries, takeover."""
        effects = Effects.none()
        self._read_index.tick(now, effects)
        if self._takeover_at is not None and now >= self._takeover_at:
            self._ask(now, effects)
        if self._retry_at is not None and now >= self._retry_at:
            self._retry(now, effects)
        if self._heartbeat_at is not None and now >= self._heartbeat_at:
            self._send_heartbeat(now, effects)
        if self._progress.look_at is not None and now >= self._progress.look_at:
            self._look_for_progress(now, effects)
        if self._fill_at is not None and now >= self._fill_at:
            self._go_on_filling(now, effects)
        if self.phase is Phase.SERVING:
            self._tick_recoveries(now, effects)
        return effects

    def deadline(self) -> float | None:
        """When `tick` next matters."""
        times = (
            self._takeover_at, self._retry_at, self._heartbeat_at, self._progress.look_at,
            self._read_index.deadline(), self._recoveries.deadline(), self._fill_at,
        )  # fmt: skip
        return min([time for time in times if time is not None], default=None)

    def move(self, sequencer: Sequencer, now: float) -> Effects:
        """Has requests numbered elsewhere from here on (docs/PROTOCOL.md, section 4).

        One that serves takes over from itself: in a fresh round, so that nothing depends on what
        the sequencer that it had has given away, or may still send.

        Args:
          sequencer: inactive; the one before it is the caller's to close.
          now: as in `step`.
        """
        effects = Effects.none()
        before, self.sequencer = self.sequencer, sequencer
        before.round = NO_ROUND
        sequencer.low = max(before.low, self.low)
        sequencer.counters.update(self.counters)
        self.counters = sequencer.counters
        if self.phase in (Phase.PROPOSING, Phase.SERVING):
            self._ask(now, effects)
        return effects

    def status(self) -> dict[str, object]:
        """For people: where it stands, and why writes wait if they do."""
        blocked = self.phase is Phase.SERVING and self.sequencer.room == 0
        serves = self.phase in (Phase.PROPOSING, Phase.SERVING)
        alive = f"{len(self._checkpoints)} of {self._learners} learners have reported"
        return {
            "phase": self.phase.value,
            "round": self.round if self.phase is Phase.SERVING else self.leader_round,
            "leader": self._leader(),
            "next": self.sequencer.next if serves else self._next_heard,
            "low": self.low,
            "queued": len(self._waiting),
            "blocked": f"window full, low stands at {self.low}: {alive}" if blocked else "",
        }

    def check_invariants(self) -> None:
        """Asserts what the registers' comments claim."""
        self.sequencer.check_invariants()
        active = self.phase in (Phase.PROPOSING, Phase.SERVING)
        assert (self.sequencer.round != NO_ROUND) == active
        assert not active or self.sequencer.round <= self.round
        self._waiting.check_invariants()

    # Taking over ---------------------------------------------------------------------------------

    def _ask(self, now: float, effects: Effects) -> None:
        """Asks a quorum for the highest round ever promised, to use one above it."""
        self._become(Phase.ASKING)
        self._read_index.ask(now, effects)
        self._attempts += 1
        backoff = min(self._patience() * 2 ** min(self._attempts, 8), self.timing.backoff_max_s)
        self._takeover_at = now + backoff * (1 + self._random())

    def _prepare(self, now: float, effects: Effects) -> None:
        """Batched phase 1: to the end of the log, in a fresh round that is on disk first."""
        self._become(Phase.PREPARING)
        self._fresh_round(effects)
        self._promises = Promises(
            acceptors=self._acceptors, round=self.round, nonce=int(self._random() * 2**32),
            first=self.low, window=self._window, value_bytes=self._value_bytes,
        )  # fmt: skip
        self._tell_at = now + self.timing.heartbeat_s
        self._retry(now, effects)

    def _fresh_round(self, effects: Effects) -> None:
        """A round above everything heard of; persisted before anything that uses it leaves."""
        counter = round_counter(max(self.round, self.highest_told, self.leader_round)) + 1
        self.round = make_round(counter, self.frame.sender)
        effects.persist.append(self._encode(Type.HEARTBEAT, round=self.round))

    def _retry(self, now: float, effects: Effects) -> None:
        if self.phase is Phase.PREPARING:
            self._ask_promises(effects)
            self._retry_at = now + self.timing.retry_s
        elif self.phase is Phase.PROPOSING:
            self._propose_found(now, effects)

    def _ask_promises(self, effects: Effects) -> None:
        assert self._promises is not None
        for acceptor in self._promises.silent():
            question = self._phase1a(
                self.round, self._promises.first, wire.END_OF_LOG, self._promises.nonce
            )
            effects.send.append((To(Role.ACCEPTOR, acceptor), question))
        self._ask_chunks(effects)

    def _ask_chunks(self, effects: Effects) -> None:
        assert self._promises is not None
        for acceptor, first, end in self._promises.missing_chunks():
            question = self._phase1a(self.round, first, end, self._promises.chunk_nonce)
            effects.send.append((To(Role.ACCEPTOR, acceptor), question))

    def _phase1b(self, rows: Rows, now: float, effects: Effects) -> None:
        if self.phase is Phase.SERVING:
            self._recovery_promises(rows, now, effects)
            return
        if self.phase is not Phase.PREPARING or self._promises is None:
            self.counters["ignored"] += len(rows)
            return
        before = self._promises.reported
        for sender in dict.fromkeys(wire.headers(rows)["sender"].tolist()):
            self._promises.add(rows[wire.headers(rows)["sender"] == sender])
        self._raise_low(self._promises.low)
        if self._promises.reported > before:
            self._go_on_preparing(now, effects)
        members = self._promises.quorum()
        if members is not None:
            self._win(members, now, effects)
        elif self._promises.wants_chunks():
            self._ask_chunks(effects)
            self._retry_at = now + self.timing.retry_s

    def _go_on_preparing(self, now: float, effects: Effects) -> None:
        """Phase 1 was told more: nobody begins another meanwhile, neither this one nor others.

        Of a full window of large values it takes seconds. Candidates that try again for want of a
        heartbeat would each begin it anew, for ever. One that stops being told stops telling.
        """
        assert self._takeover_at is not None
        self._takeover_at = max(self._takeover_at, now + self._patience())
        if now >= self._tell_at:
            self._tell_at = now + self.timing.heartbeat_s
            beat = self._encode(
                Type.HEARTBEAT, instance=self._next_heard, round=self.round, low=self.low
            )
            effects.send.append((COORDINATORS, beat))

    def _win(self, members: tuple[int, ...], now: float, effects: Effects) -> None:
        """The round is this coordinator's: what phase 1 found is proposed first."""
        assert self._promises is not None
        self._become(Phase.PROPOSING)
        self.counters["takeovers"] += 1
        self.leader_round = max(self.leader_round, self.round)
        self._propose_through = self._promises.highest(members)
        self._found = max(self._propose_through + 1 - self.low, 0)
        self._sent.clear()
        self.sequencer.round = self.round
        self.sequencer.low = self.low
        self.sequencer.next = self.low
        self._send_heartbeat(now, effects)
        self._propose_found(now, effects)

    def _propose_found(self, now: float, effects: Effects) -> None:
        """The next chunk of [low, highest]: the value of the highest vround, else a no-op."""
        assert self._promises is not None
        sequencer = self.sequencer
        sequencer.next = first = max(sequencer.next, self.low)
        end = min(first + PROPOSE_CHUNK, self._propose_through + 1, first + sequencer.room)
        while sequencer.next < end:
            stop = sequencer.next
            while stop < end and stop not in self._promises.refused:
                stop += 1
            if stop == sequencer.next:
                # Somebody promised it higher, so its vote does not count in this round and a
                # no-op here might be chosen beside it: it is taken in the recovery round instead.
                sequencer.next += 1
                continue
            values = [self._promises.found(instance) for instance in range(sequencer.next, stop)]
            self._propose(self._value_rows(values), effects)
        if sequencer.next > self._propose_through:
            self._serve(now, effects)
        else:
            # No room: the window is full until learners have checkpointed.
            self._retry_at = now + (PROPOSE_EVERY_S if first < end else self.timing.retry_s)

    def _serve(self, now: float, effects: Effects) -> None:
        assert self._promises is not None
        self._become(Phase.SERVING)
        self.sequencer.hand_over()
        self.term = Term(now, self._found, len(self._waiting))
        self._attempts = 0
        self._progress.begin(now)
        self._unvoted = 0
        self._recoveries.begin_term(self._promises.highest_refusal)
        for instance in sorted(self._promises.refused):
            if self.low <= instance < self.sequencer.next:
                self._recover_instance(instance, now, effects)
        self._promises = None
        self._drain_queue(effects)

    def _become(self, phase: Phase) -> None:
        """Changes phase; whatever belonged to the old one is over."""
        self.phase = phase
        self._takeover_at = self._takeover_at if phase is Phase.PREPARING else None
        self._retry_at = None
        self._fill_at = None
        self._progress.stop()
        if phase not in (Phase.PROPOSING, Phase.SERVING):
            self.sequencer.round = NO_ROUND
            self._heartbeat_at = None
            self._recoveries.stop()
        if phase not in (Phase.PREPARING, Phase.PROPOSING, Phase.SERVING):
            self._promises = None
        if phase is not Phase.ASKING:
            self._read_index.stop()

    def _follow(self, now: float) -> None:
        if self.phase is not Phase.FOLLOWING:
            self.counters["stepped_down"] += int(self.phase is Phase.SERVING)
            self._become(Phase.FOLLOWING)
            self._attempts = 0
            self._waiting.clear()
        self._takeover_at = now + self._patience()

    def _patience(self) -> float:
        """Seconds without a heartbeat before this candidate tries: its rank behind the last one."""
        members = self._coordinators
        mine = members.index(self.frame.sender)
        leader = round_owner(self.leader_round)
        if self.leader_round != NO_ROUND and leader in members:
            rank = (mine - members.index(leader) - 1) % len(members)
        else:
            rank = mine
        return self.timing.takeover_s * (1 + rank + 0.1 * self._random())

    def _leader(self) -> int | None:
        """Who serves, as far as this candidate has heard."""
        if self.phase is Phase.SERVING:
            return self.frame.sender
        return None if self.leader_round == NO_ROUND else round_owner(self.leader_round)

    # Serving -------------------------------------------------------------------------------------

    def _requests(self, rows: Rows, now: float, effects: Effects) -> None:
        if self.phase is Phase.FOLLOWING:
            self.counters["inactive"] += len(rows)
            return
        rows = self.sequencer.fitting(rows)
        if not len(rows):
            return
        taken = 0
        if self.phase is Phase.SERVING and not self._waiting:
            taken = min(self.sequencer.room, len(rows))
            if taken:
                self._propose(rows[:taken], effects)
        if taken < len(rows):
            self._enqueue(rows[taken:])

    def _enqueue(self, rows: Rows) -> None:
        kept = self._waiting.add(rows)
        self.counters["queue_full"] += len(rows) - kept
        self.counters["queued"] += kept

    def _drain_queue(self, effects: Effects) -> None:
        while self._waiting and self.sequencer.room:
            self._propose(self._waiting.take(self.sequencer.room), effects)

    def _propose(self, rows: Rows, effects: Effects) -> None:
        rows = self.sequencer.propose(rows)
        if not len(rows):
            return
        # A data plane may give instances away in between: each proposal says which it got.
        count = len(rows)
        first = wire.message(rows, 0).instance
        if count == 1 or wire.message(rows, count - 1).instance - first == count - 1:
            self._sent.keep(first, self.sequencer.round, rows)
        else:
            instances = wire.headers(rows)["instance"]
            for start, stop in split_where_changes(instances - np.arange(count, dtype=np.uint64)):
                self._sent.keep(int(instances[start]), self.sequencer.round, rows[start:stop])
        effects.send.append((ACCEPTORS, rows))

    def _send_heartbeat(self, now: float, effects: Effects) -> None:
        self._heartbeat_at = now + self.timing.heartbeat_s
        told = (self.sequencer.next, self.sequencer.round, self.low)
        beat = self._encode(Type.HEARTBEAT, instance=told[0], round=told[1], low=told[2])
        self._beats = self._beats + 1 if told == self._told else 0
        self._told = told
        effects.send.append((COORDINATORS, beat))
        if self._beats < BEATS_AFTER_NEWS or self._beats % self.timing.idle_beats == 0:
            effects.send.extend(((ACCEPTORS, beat), (LEARNERS, beat)))

    def _heartbeats(self, rows: Rows, now: float, effects: Effects) -> None:
        for m in wire.messages(rows):
            if m.sender == self.frame.sender or m.round == NO_ROUND:
                continue
            self._raise_low(m.low)
            # The round it serves in, not that of its recoveries, which is higher.
            mine = self.round if self.phase is Phase.PREPARING else self.sequencer.round
            if m.round < max(self.leader_round, mine):
                continue  # of a term that is over, or about to be
            self.leader_round = m.round
            self._next_heard = m.instance
            self.highest_told = max(self.highest_told, m.round)
            self._follow(now)

    def _checkpoint_reports(self, rows: Rows, now: float, effects: Effects) -> None:
        for m in wire.messages(rows):
            if wire.low_jumps(m.instance, self.low):
                self.counters["low_jump"] += 1
            elif m.instance > self._checkpoints.get(m.sender, -1):
                self._checkpoints[m.sender] = m.instance
                self._progress.made(m.instance)
        reached = sorted(self._checkpoints.values(), reverse=True)
        wanted = majority(self._learners)
        if len(reached) >= wanted:
            self._raise_low(reached[wanted - 1] + 1)
        if self.phase is Phase.SERVING:
            self._drain_queue(effects)

    def _raise_low(self, low: int) -> None:
        if wire.low_jumps(low, self.low):
            self.counters["low_jump"] += 1
            return
        self.low = max(self.low, low)
        self.sequencer.low = max(self.sequencer.low, self.low)
        if self.phase is Phase.SERVING:
            self.sequencer.next = max(self.sequencer.next, self.low)

    # Acceptors that join again -------------------------------------------------------------------

    def _recovering_acceptors(self, rows: Rows, now: float, effects: Effects) -> None:
        """One that forgot votes again once `low` is where it says (section 8)."""
        if self.phase is not Phase.SERVING:
            self.counters["inactive"] += len(rows)
            return
        for m in wire.messages(rows):
            # It is a window above a checkpoint, and what is checkpointed was proposed.
            if m.instance > self.sequencer.next + self._window:
                self.counters["low_jump"] += 1
            elif m.instance > self.sequencer.next:
                self._fill_through = max(self._fill_through, m.instance - 1)
                self._fill_at = now if self._fill_at is None else self._fill_at

    def _go_on_filling(self, now: float, effects: Effects) -> None:
        sequencer = self.sequencer
        if not self._waiting and sequencer.room:  # else requests move the log on by themselves
            first = sequencer.next
            self._fill(min(self._fill_through + 1, first + sequencer.fill_chunk), effects)
            self.counters["filled"] += sequencer.next - first
        done = sequencer.next > self._fill_through
        pause_s = sequencer.fill_every_s if sequencer.room else self.timing.retry_s
        self._fill_at = None if done else now + pause_s

    # Progress ------------------------------------------------------------------------------------

    def _look_for_progress(self, now: float, effects: Effects) -> None:
        """Requests outstanding and none chosen: it asks the acceptors how far votes are."""
        progress = self._progress
        if not progress.look(now, self.sequencer.next - 1):
            return
        if progress.looking and self._read_index.under_way:  # unanswered a whole `stall_s` long
            self.counters["stalls"] += 1
            self._ask(now, effects)
            return
        progress.looking = True
        self._read_index.ask(now, effects)

    def _read_index_replies(self, rows: Rows, now: float, effects: Effects) -> None:
        for m in wire.messages(rows):
            self.highest_told = max(self.highest_told, m.round)
            answer = self._read_index.reply(m)
            if answer is None:
                continue
            if self.phase is Phase.ASKING:
                self._prepare(now, effects)
            elif self.phase is Phase.SERVING:
                self._answered_progress(answer, now, effects)

    def _answered_progress(self, answer: Answer, now: float, effects: Effects) -> None:
        """Deposed without a word, when there is a higher foreign round.

        Or when nothing was voted for since the last look: a round of its own recoveries may hide
        the foreign one.
        """
        voted = self._read_index.voted_by_quorum()
        stuck = self._progress.answered(voted, self.sequencer.next - 1)
        foreign = round_owner(answer.highest_round) != self.frame.sender
        if stuck or (foreign and answer.highest_round > self.round):
            self.counters["stalls"] += 1
            self._ask(now, effects)

    # Recovery ------------------------------------------------------------------------------------

    def _recovers(self, rows: Rows, now: float, effects: Effects) -> None:
        if self.phase is not Phase.SERVING:
            self.counters["inactive"] += len(rows)
            return
        for m in wire.messages(rows):
            try:
                end = wire.unpack_end(m.value)
            except BadPacket:
                self.counters["malformed"] += 1
                continue
            self._recover(max(m.instance, self.low), end, now, effects)

    def _recover(self, first: int, end: int, now: float, effects: Effects) -> None:
        """First the PHASE2A as sent; an instance asked for again goes through phase 1."""
        end = min(end, first + self._recoveries.RANGE_MAX, self.low + self._window)
        proposed = self.sequencer.next
        if end > proposed:
            self._fill(end, effects)
        again = []
        for instance in range(first, min(end, proposed)):
            if self._recoveries.begin_resend(instance, now):
                again.append(instance)
            else:
                self._recover_instance(instance, now, effects)
        for rows in self._sent.rows(again, self._encode_proposal):
            self.counters["resent"] += len(rows)
            effects.send.append((ACCEPTORS, rows))

    def _fill(self, end: int, effects: Effects) -> None:
        """No-ops in the main round, up to an instance that a learner has heard of."""
        count = min(end - self.sequencer.next, self.sequencer.room)
        if count > 0:
            self._propose(self._value_rows([b""] * count), effects)

    def _recover_instance(self, instance: int, now: float, effects: Effects) -> None:
        """Bounded phase 1 for one instance, in the recovery round."""
        if self._recoveries.needs_fresh_round(self._sent.round_of(instance)):
            self.highest_told = max(self.highest_told, self._recoveries.highest_refusal)
            self._fresh_round(effects)
            self._recoveries.use_round(self.round)
        if self._recoveries.begin(instance, now):
            self.counters["recovered"] += 1
        question = self._phase1a(self._recoveries.round_of(instance), instance, instance + 1)
        effects.send.append((ACCEPTORS, question))

    def _recovery_promises(self, rows: Rows, now: float, effects: Effects) -> None:
        for m in wire.messages(rows):
            if wire.is_summary(m.vround, m.length):
                self._raise_low(m.low)
                continue
            decided = self._recoveries.promise(m, now)
            if decided is None or m.instance < self.low:
                continue
            round, value = decided
            if not value and self._sent.value_in(m.instance, self.sequencer.round):
                self._unvoted += 1
            # Never again another round of its own below it: the ring now names this one.
            proposal = self._encode_proposal(m.instance, round, value)
            self._sent.keep(m.instance, round, proposal)
            effects.send.append((ACCEPTORS, proposal))
        if self._unvoted >= UNVOTED_MAX:
            self.counters["stalls"] += 1
            self._ask(now, effects)

    def _tick_recoveries(self, now: float, effects: Effects) -> None:
        due = self._recoveries.due(now, self.low)
        for instance in due:
            self._recover_instance(instance, now, effects)
        # Refused is silence too. Only a round that others have promised tells it from loss.
        if due and not self._read_index.under_way:
            self._read_index.ask(now, effects)

    # Rows ----------------------------------------------------------------------------------------

    def _part(self, rows: Rows, run: Run) -> Rows:
        return rows[run.start : run.stop]

    def _value_rows(self, values: list[bytes]) -> Rows:
        """Rows for values, of the stride of the longest; the sequencer stamps the rest."""
        rows = wire.new_rows(len(values), max(map(len, values)))
        header = wire.headers(rows)
        header["version"] = wire.VERSION
        header["group"], header["cluster"] = self.frame.group, self.frame.cluster
        header["length"] = [len(value) for value in values]
        for row, value in enumerate(values):
            if value:
                part = slice(wire.HEADER_BYTES, wire.HEADER_BYTES + len(value))
                rows[row, part] = np.frombuffer(value, np.uint8)
        return rows

    def _encode_proposal(self, instance: int, round: int, value: bytes) -> Rows:
        return self._encode(
            Type.PHASE2A, instance=instance, round=round, low=self.low, value=value
        )

    def _phase1a(self, round: int, first: int, end: int, nonce: int = 0) -> Rows:
        return self._encode(
            Type.PHASE1A, instance=first, round=round, vround=nonce, low=self.low,
            value=wire.pack_end(end),
        )  # fmt: skip

    def _encode(
        self, type: Type, *, instance: int = 0, round: int = 0, vround: int = 0, low: int = 0,
        value: bytes = b"",
    ) -> Rows:  # fmt: skip
        return wire.encode(
            self.frame.cluster, self.frame.group, type, instance=instance, round=round,
            vround=vround, sender=self.frame.sender, low=low, value=value,
        )  # fmt: skip
