"""The seam between a replica and its application: the log it submits to, the state it applies to.

One object is the application's `ReplicatedLog` and the driver's handler: what was delivered is
applied in one atomic write with the position and the session table, then the proposer learns what
is settled, then reads that waited for this position run. docs/PROTOCOL.md, sections 5 to 7 and 9.
"""

from __future__ import annotations

import heapq
import logging
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Protocol, cast

import trio

from p4xos import checkpointed
from p4xos.driver import Driver
from p4xos.effects import Chosen, Delivery, Effects, ReadReady, Unknown
from p4xos.errors import NoQuorum, NotDelivered, SessionLost
from p4xos.log import Delivered, Retained, StateMachine, SyncingBeside, Verifying, WritingOut
from p4xos.retained import RetainedLog
from p4xos.roles.replica import Replica

log = logging.getLogger(__name__)

CHECKPOINT_S = 0.1
"""How often an application that moved is made durable and says so: what a coordinator needs to
move the window on. Under load it happens at every eighth of a window, whichever comes first."""
CHECKPOINT_REPEAT_S = 1.0
"""How often the last checkpoint is repeated, for coordinators that were not there."""
READ_PATIENCE_S = 5.0

_FORMER = object()
"""The token of the read that tells what this replica may have delivered before it was started."""

ReadCallback = Callable[[NoQuorum | None], None]


class BatchMachine(Protocol):
    """A state machine that takes deliveries as arrays; see `StateMachine` for each call."""

    @property
    def applied(self) -> int:
        """The last instance whose effect is in the state."""
        ...

    def learner_state(self) -> Mapping[bytes, bytes]:
        """The learner's records stored with it; none at first."""
        ...

    def apply(
        self,
        deliveries: Sequence[tuple[Delivery, int | None]],
        through: int,
        learner_state: Mapping[bytes, bytes | None],
    ) -> None:
        """Applies deliveries, each with its first ticket where it was submitted here."""
        ...

    def unknown(self, tickets: Sequence[int], error: NoQuorum | SessionLost) -> None:
        """These have no known outcome."""
        ...

    def sync(self) -> int:
        """Makes all that is applied durable; returns the instance it is durable through."""
        ...

    def snapshot(self, directory: Path) -> int:
        """Writes a consistent copy; returns the instance it holds."""
        ...

    def install(self, directory: Path) -> None:
        """Replaces the state by a snapshot."""
        ...


class OneByOne:
    """A StateMachine, which takes payloads, as a BatchMachine."""

    def __init__(self, machine: StateMachine) -> None:
        self.machine = machine
        self.learner_state = machine.learner_state
        self.unknown = machine.unknown
        self.sync = machine.sync
        self.snapshot = machine.snapshot
        self.install = machine.install
        if isinstance(machine, WritingOut):
            self.write_out = machine.write_out
        if isinstance(machine, SyncingBeside):
            self.begin_sync = machine.begin_sync
        if isinstance(machine, Verifying):
            self.verify = machine.verify

    @property
    def applied(self) -> int:
        """The last instance whose effect is in the state."""
        return self.machine.applied

    def apply(
        self,
        deliveries: Sequence[tuple[Delivery, int | None]],
        through: int,
        learner_state: Mapping[bytes, bytes | None],
    ) -> None:
        """Applies them payload by payload, in one write."""
        batch = [
            Delivered(delivery.instance + k, None if ticket is None else ticket + k, payload)
            for delivery, ticket in deliveries
            for k, payload in enumerate(delivery.payloads())
        ]
        self.machine.apply(batch, through, learner_state)


class Application:
    """Owns what a replica delivers; the `ReplicatedLog` of the application in this process."""

    def __init__(self, replica: Replica, machine: BatchMachine) -> None:
        self.replica = replica
        self.machine = machine
        self.retained: Retained = (
            machine if isinstance(machine, Retained) else RetainedLog(machine.applied + 1)
        )
        """The log's tail: a machine that keeps it itself, as a plain node's, has the longer one."""
        self.durable_through = 0  # as last reported to the coordinators
        self.applied_more: Callable[[], None] | None = None
        """Called after each batch that was applied, for a server to flush its replies."""
        self.awaited = False
        """Whether somebody waits here for what others submit: deliveries then never wait."""
        self.fell_behind = trio.Event()
        """Set when this replica is behind; whoever catches up puts a new one in its place."""
        self._driver: Driver | None = None
        self._reads: list[tuple[int, int, float, ReadCallback]] = []
        self._read_order = count()
        self._former_asked = False
        self._applied = trio.Event()  # something is, since the last checkpoint
        self._checkpoint_now = trio.Event()  # so much that it should not wait

    def attach(self, driver: Driver) -> None:
        """The driver that runs the replica; before anything is proposed."""
        self._driver = driver

    # ReplicatedLog -------------------------------------------------------------------------------

    @property
    def max_value_bytes(self) -> int:
        """The payload that fits one instance."""
        return self.replica.proposer.piece_bytes

    @property
    def max_command_bytes(self) -> int:
        """The longest payload that may travel, in fragments."""
        return self.replica.proposer.command_bytes_max

    @property
    def applied(self) -> int:
        """The last instance that the state machine has applied."""
        return self.replica.learner.delivered

    def propose(self, values: Sequence[bytes]) -> list[int]:
        """Proposes values; see `ReplicatedLog.propose`."""
        effects, now = Effects.none(), trio.current_time()
        tickets = self.replica.proposer.submit(values, now, effects)
        self._perform(effects, now)
        return tickets

    def read_index(self, callback: Callable[[NoQuorum | None], None]) -> None:
        """Calls back when a local read is linearizable; see `ReplicatedLog.read_index`."""
        effects, now = Effects.none(), trio.current_time()
        self.replica.proposer.read(callback, now, effects)
        self._perform(effects, now)

    def _perform(self, effects: Effects, now: float) -> None:
        assert self._driver is not None
        self._driver.perform(effects, now)

    # The driver's handler ------------------------------------------------------------------------

    def handle(self, effects: Effects, now: float) -> Effects | None:
        """Applies what a step delivered; returns what follows from it."""
        more = Effects.none()
        tickets = self.replica.proposer.delivered(effects.deliver, now, more)
        if effects.chosen:
            deliveries = [
                (event, ticket)
                for event, ticket in zip(effects.deliver, tickets, strict=True)
                if isinstance(event, Delivery)
            ]
            for chosen in effects.chosen:
                self.retained.append(chosen)
            self._apply(deliveries)
        for event in effects.deliver:
            if isinstance(event, Unknown):
                self._unknown(event)
            elif isinstance(event, ReadReady):
                self._read_ready(event, now)
        if effects.chosen:
            self._run_reads()
            if self.applied_more is not None:
                self.applied_more()
        return more if more.send or more.deliver else None

    def unhurried(self) -> bool:
        """Whether nobody waits here for what is delivered next, and nothing is missing."""
        replica = self.replica
        busy = self.awaited or self._reads or replica.learner.asking
        return not busy and replica.proposer.idle

    def _apply(self, deliveries: list[tuple[Delivery, int | None]]) -> None:
        learner = self.replica.learner
        changes = checkpointed.changes_of(learner.sessions)
        self.machine.apply(deliveries, learner.delivered, changes)
        if not self._applied.is_set():
            self._applied.set()
        if learner.delivered - self.durable_through >= learner.window // 8:
            self._checkpoint_now.set()

    def _unknown(self, event: Unknown) -> None:
        error: NoQuorum | SessionLost
        if event.session_lost is None:
            error = NoQuorum(None, self.replica.proposer.timing.deadline_s)
        else:
            error = SessionLost(event.session_lost)
        log.warning("%d submissions: %s", len(event.tickets), error)
        self.machine.unknown(event.tickets, error)

    def _ask_former(self) -> None:
        """How far a former life may have come, and reported (docs/PROTOCOL.md, section 7)."""
        effects, now = Effects.none(), trio.current_time()
        self.replica.proposer.read(_FORMER, now, effects)
        self._perform(effects, now)

    def _read_ready(self, event: ReadReady, now: float) -> None:
        for token in event.tokens:
            if token is _FORMER:
                self._former_told(event.read_index)
                continue
            callback = cast("ReadCallback", token)
            if event.read_index is None:
                callback(NoQuorum(None, self.replica.proposer.timing.deadline_s))
            elif event.read_index <= self.applied:
                callback(None)
            else:
                until = now + READ_PATIENCE_S
                entry = (event.read_index, next(self._read_order), until, callback)
                heapq.heappush(self._reads, entry)

    def _former_told(self, read_index: int | None) -> None:
        if read_index is None:
            log.warning(
                "no majority of acceptors has told for %g s how far the log is; until then this "
                "replica reports no checkpoint", self.replica.proposer.timing.deadline_s,
            )  # fmt: skip
            self._former_asked = False
        else:
            self.replica.learner.former = read_index
            self._checkpoint_now.set()

    def _run_reads(self) -> None:
        while self._reads and self._reads[0][0] <= self.applied:
            heapq.heappop(self._reads)[3](None)

    def _fail_late_reads(self, now: float) -> None:
        """A read whose position is not reached in time is refused, never answered stale."""
        late = [entry for entry in self._reads if now >= entry[2]]
        if late:
            self._reads = [entry for entry in self._reads if now < entry[2]]
            heapq.heapify(self._reads)
            for read_index, _, _, callback in late:
                callback(NoQuorum(read_index, READ_PATIENCE_S))

    # Checkpoints and catch-up --------------------------------------------------------------------

    async def run_checkpoints(self) -> None:
        """Makes the state durable now and then, and says so to the coordinators."""
        repeat_at = 0.0
        while True:
            reported = self.replica.learner.checkpointed is not None
            with trio.move_on_after(CHECKPOINT_REPEAT_S if reported else CHECKPOINT_S):
                await self._applied.wait()
            with trio.move_on_after(CHECKPOINT_S):
                await self._checkpoint_now.wait()
            self._applied = trio.Event()
            self._checkpoint_now = trio.Event()
            if not self._former_asked:
                self._former_asked = True
                self._ask_former()
            now = trio.current_time()
            self._fail_late_reads(now)
            if self.applied > self.durable_through:
                self.durable_through = await self._sync()
            elif now < repeat_at:
                continue
            if self.replica.learner.checkpointed is not None:
                repeat_at = now + CHECKPOINT_REPEAT_S
            self._perform(self.replica.learner.checkpoint(self.durable_through), now)

    async def _sync(self) -> int:
        """Waits for the disk beside the loop, where the machine can: that takes milliseconds."""
        machine = self.machine
        if isinstance(machine, SyncingBeside):
            return await trio.to_thread.run_sync(machine.begin_sync())
        return machine.sync()

    @property
    def behind(self) -> bool:
        """Whether the acceptors have forgotten what this replica needs next."""
        return self.replica.learner.behind

    def look(self) -> None:
        """The replica had a turn: a heartbeat may have told it that it is behind."""
        if self.replica.learner.behind:
            self.fell_behind.set()

    def learned(self, chosen: Chosen) -> None:
        """Takes chosen values that a peer has retained."""
        now = trio.current_time()
        self._perform(self.replica.learner.learned(chosen, now), now)

    def installed(self) -> None:
        """The state machine was replaced by a snapshot: the learner goes on from there."""
        state = checkpointed.unpack(self.machine.learner_state())
        self.replica.learner.install(self.machine.applied, state)
        if isinstance(self.retained, RetainedLog):
            self.retained = RetainedLog(self.machine.applied + 1)
        # What was submitted here may have been delivered among what was skipped.
        effects, now = Effects.none(), trio.current_time()
        self.replica.proposer.installed(now, effects)
        self._perform(effects, now)
        self._run_reads()
        if self.applied_more is not None:
            self.applied_more()

    def recover(self, instance: int) -> bytes:
        """What was chosen in an instance, raw: with its envelope, b"" for a no-op.

        Raises:
          Trimmed: it is no longer retained here.
          NotDelivered: this replica has not delivered it yet.
        """
        if instance > self.applied:
            raise NotDelivered(instance, self.applied + 1)
        return self.retained.value(instance)
