"""An acceptor that has forgotten what it promised and voted (docs/PROTOCOL.md, section 8).

Registers: stage, incarnation, low, round, seen, silent_until.

    ASKING     RECORDED of f + 1 others:                  incarnation = max seen[self] told + 1
                                                                                      -> RECORDING
    RECORDING  RECORDED of f + 1 others with seen[self] = incarnation:
                                                          round, seen = the largest told
               and checkpoints of a quorum of learners:   silent_until = max + 1 + window  -> SILENT
    SILENT     low >= silent_until:                       an acceptor with floor = round, with that
                                                          low, seen and incarnation    -> JOINED
    JOINED     everything:                                the acceptor's, in `acceptor`
    before     PHASE1A, PHASE2A, HEARTBEAT, RECORDED:     low moves up
               anything else:                             silence

Until it has joined it answers nobody and keeps nothing: one that stops meanwhile begins again, with
a later incarnation. Why each step is there: what it voted for lies below silent_until, and is
forgotten by all when it speaks again; what it promised before is told apart by its incarnation from
what it promises now, or, where the others gave their promise before they recorded that, is in the
round which they tell.

Source: Michael et al., Recovering Shared Objects Without Stable Storage, DISC 2017.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Protocol

from p4xos import wire
from p4xos.batching import split_runs
from p4xos.effects import ACCEPTORS, COORDINATORS, LEARNERS, Effects
from p4xos.errors import BadPacket
from p4xos.quorum import NO_ROUND, majority
from p4xos.roles.memory import Memory
from p4xos.wire import Frame, Message, Rows, Type

ASK_EVERY_S = 0.1
"""Questions are repeated so often: joining again takes a second, and datagrams get lost."""


class Stage(Enum):
    """How far an acceptor that forgot has come."""

    ASKING = "asking"
    RECORDING = "recording"
    SILENT = "silent"
    JOINED = "joined"


class Voter(Protocol):
    """An acceptor, wherever its registers are: `roles.acceptor`, or a data plane's."""

    frame: Frame
    window: int

    @property
    def counters(self) -> dict[str, int]:
        """Everything counted, by name; a role in its place adds to them."""

    @property
    def incarnation(self) -> int:
        """How often it has come back having forgotten."""

    @property
    def floor(self) -> int:
        """Promised for every instance."""

    @property
    def low(self) -> int:
        """Every instance below is forgotten."""

    @property
    def highest(self) -> int:
        """Of all votes; never below low - 1."""

    @property
    def highest_round(self) -> int:
        """Never promised above."""

    @property
    def seen(self) -> tuple[int, ...]:
        """Incarnations of all acceptors."""

    @property
    def empty(self) -> bool:
        """Whether it has promised nothing and voted for nothing."""

    def begin(self) -> None:
        """Takes part from the first instance on, in a cluster that is new."""

    def join(self, *, incarnation: int, round: int, low: int, seen: tuple[int, ...]) -> Rows:
        """Takes part again, with what others have told; returns the record of it."""

    def leave(self) -> Memory:
        """Answers nothing any more, and tells all that it must remember to go on elsewhere."""

    def stay(self) -> None:
        """Goes on here after `leave`: nobody has gone on elsewhere, or will."""

    def take(self, memory: Memory) -> None:
        """Goes on as the acceptor that left with this memory; only while empty.

        Raises whatever its data plane does; it is then as it was, or closed.
        """

    def close(self) -> None:
        """Answers nothing any more, and gives back what its data plane took; nothing follows."""

    def step(self, rows: Rows, now: float) -> Effects:
        """Acts on a batch."""

    def tick(self, now: float) -> Effects:
        """What time demands."""

    def deadline(self) -> float | None:
        """When `tick` next matters."""

    def check_invariants(self) -> None:
        """Asserts what its registers' comments claim."""


class ForgetfulAcceptor:
    """Brings an empty acceptor back into its group, then is that acceptor."""

    def __init__(
        self,
        acceptor: Voter,
        *,
        learners: int,
        random: Callable[[], float],
        now: float,
        ask_every_s: float = ASK_EVERY_S,
    ) -> None:
        """Silent.

        Args:
          acceptor: empty; it acts once it has joined.
          learners: how many there are.
          random: uniform in [0, 1), for nonces.
          now: seconds, monotonic.
        """
        self.acceptor = acceptor
        self.stage = Stage.ASKING
        self.incarnation = 0  # SILENT, JOINED: above every one that others have seen of it
        self.low = wire.LOW_UNKNOWN  # the largest heard
        self.round = NO_ROUND  # SILENT: the highest that any of f + 1 others had promised
        self.silent_until = 0  # SILENT: every instance that it may have voted for is below
        self.seen = acceptor.seen  # the latest incarnations told, of all acceptors
        self._frame = acceptor.frame
        self._acceptors = len(acceptor.seen)
        self._learners = learners
        self._nonce = int(random() * 2**32)
        self._told: dict[int, int] = {}  # by acceptor that answered this stage: its highest round
        self._shown = 0  # ASKING: the latest incarnation of this acceptor that any of them has seen
        self._checkpoints: dict[int, int] = {}  # by learner, told since this acceptor started
        self._ask_every_s = ask_every_s
        self._ask_at: float | None = now

    @property
    def counters(self) -> dict[str, int]:
        """The acceptor's."""
        return self.acceptor.counters

    @property
    def joined(self) -> bool:
        """Whether it takes part again."""
        return self.stage is Stage.JOINED

    # The driver's side ---------------------------------------------------------------------------

    def step(self, rows: Rows, now: float) -> Effects:
        """Acts on a batch of valid messages of configured senders; rows are kept once joined."""
        if self.stage is Stage.JOINED:
            return self.acceptor.step(rows, now)
        effects = Effects.none()
        for run in split_runs(rows, self.acceptor.window):
            if run.type == Type.PHASE2A:  # the load of the group: one look for all of it
                self._raise_low(run.low)
                continue
            for m in wire.messages(rows[run.start : run.stop]):
                self._take(m)
        self._advance(now, effects)
        return effects

    def tick(self, now: float) -> Effects:
        """Asks again, when it is time; what time demands of the acceptor, at any stage."""
        effects = self.acceptor.tick(now)
        if self._ask_at is not None and now >= self._ask_at:
            self._ask(now, effects)
        return effects

    def deadline(self) -> float | None:
        """When `tick` next matters."""
        times = (self._ask_at, self.acceptor.deadline())
        return min((time for time in times if time is not None), default=None)

    def check_invariants(self) -> None:
        """The acceptor's once it has joined; before, that it is empty."""
        self.acceptor.check_invariants()
        if self.stage is not Stage.JOINED:
            assert self.acceptor.empty

    def status(self) -> str:
        """What it waits for, for people."""
        answered = f"{len(self._told)} of the {majority(self._acceptors)} other acceptors needed"
        if self.stage is Stage.ASKING:
            return f"it asks what it has shown before: {answered} have answered"
        if self.stage is Stage.RECORDING:
            return (
                f"it tells that it has forgotten: {answered} have recorded it, and "
                f"{len(self._checkpoints)} of the {majority(self._learners)} learners needed have "
                "told their checkpoints"
            )
        if self.stage is Stage.SILENT:
            return (
                f"it votes again once all instances below {self.silent_until} are checkpointed; "
                f"that has come to {self.low}"
            )
        return f"it has joined again, as incarnation {self.incarnation}"

    # Rules ---------------------------------------------------------------------------------------

    def _take(self, m: Message) -> None:
        if m.type in (Type.PHASE1A, Type.HEARTBEAT):
            self._raise_low(m.low)
        elif m.type == Type.RECORDED:
            self._recorded(m)
        elif m.type == Type.CHECKPOINT and m.vround == self._nonce:
            if not wire.low_jumps(m.instance, self.low):
                known = self._checkpoints.get(m.sender, 0)
                self._checkpoints[m.sender] = max(known, m.instance)
        else:
            self.counters["ignored"] += 1

    def _raise_low(self, low: int) -> None:
        if wire.low_jumps(low, self.low):
            self.counters["low_jump"] += 1
        else:
            self.low = max(self.low, low)

    def _recorded(self, m: Message) -> None:
        try:
            seen = wire.unpack_seen(m.value, self._acceptors)
        except BadPacket:
            self.counters["malformed"] += 1
            return
        if m.vround != self._nonce or m.instance != self._frame.sender:
            self.counters["ignored"] += 1
            return
        self._raise_low(m.low)
        mine = seen[self._frame.sender]
        if self.stage is Stage.ASKING:
            self._shown = max(self._shown, mine)
        elif self.stage is Stage.SILENT or mine < self.incarnation:
            self.counters["ignored"] += 1  # an answer to the first question, or one too many
            return
        elif mine > self.incarnation:  # a former life came further, and few heard of it
            self.incarnation = mine + 1
            self._told.clear()
            return
        self.seen = tuple(map(max, self.seen, seen))
        self._told[m.sender] = max(self._told.get(m.sender, NO_ROUND), m.round)

    def _advance(self, now: float, effects: Effects) -> None:
        enough = len(self._told) >= majority(self._acceptors)
        if self.stage is Stage.ASKING and enough:
            self.incarnation = self._shown + 1
            self._told.clear()
            self.stage = Stage.RECORDING
            self._ask(now, effects)
        elif self.stage is Stage.RECORDING and enough:
            if len(self._checkpoints) >= majority(self._learners):
                self.round = max(self._told.values())
                highest = max(self._checkpoints.values())
                self.silent_until = highest + 1 + self.acceptor.window
                self.stage = Stage.SILENT
                self._ask(now, effects)
        if self.stage is Stage.SILENT and self.low >= self.silent_until:
            record = self.acceptor.join(
                incarnation=self.incarnation, round=self.round, low=self.low, seen=self.seen
            )
            effects.persist.append(record)
            self.stage = Stage.JOINED
            self._ask_at = None

    def _ask(self, now: float, effects: Effects) -> None:
        self._ask_at = now + self._ask_every_s
        if self.stage is Stage.SILENT:
            effects.send.append(
                (COORDINATORS, self._encode(Type.RECOVERING, self.silent_until, 0, b""))
            )
            return
        value = wire.pack_incarnation(self.incarnation)
        question = self._encode(Type.RECORD, self._frame.sender, self._nonce, value)
        effects.send.append((ACCEPTORS, question))
        if len(self._checkpoints) < majority(self._learners):
            asked = self._encode(Type.ASK_CHECKPOINT, 0, self._nonce, b"")
            effects.send.append((LEARNERS, asked))

    def _encode(self, type: Type, instance: int, vround: int, value: bytes) -> Rows:
        return wire.encode(
            self._frame.cluster, self._frame.group, type, instance=instance, vround=vround,
            sender=self._frame.sender, value=value,
        )  # fmt: skip
