"""The replicated log as an application sees it, and the application as the log sees it.

The node owns both sides' calls: it gives the application a `ReplicatedLog` and drives the
application's `StateMachine`. All calls are synchronous and happen in the node's trio loop, so
neither side needs a lock. docs/PROTOCOL.md, sections 6, 7 and 9.

What a machine may be able to do besides is asked of it with isinstance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

from p4xos.effects import Chosen
from p4xos.errors import NoQuorum, P4xosError


class Delivered(NamedTuple):
    """One payload, at its place in the log."""

    instance: int
    """Where it was chosen; of a command in fragments, the instance that completed it."""
    ticket: int | None
    """What `propose` gave for it here, or None when another replica proposed it, or this one
    before it was restarted."""
    payload: bytes


class ReplicatedLog(Protocol):
    """What a node offers to the application that runs beside its learner."""

    @property
    def max_value_bytes(self) -> int:
        """The payload that fits one instance; a longer one travels in fragments."""
        ...

    @property
    def max_command_bytes(self) -> int:
        """The longest payload that may travel at all, in fragments."""
        ...

    @property
    def applied(self) -> int:
        """The last instance that the state machine has applied; 0 when none."""
        ...

    def propose(self, values: Sequence[bytes]) -> list[int]:
        """Proposes values, and forgets them here: what becomes of them comes to the state machine.

        Each ticket ends exactly once: in a `Delivered` of `StateMachine.apply`, or in
        `StateMachine.unknown`. Values of one call are *not* promised to be delivered in the order
        in which they were given: the first copy may be lost and the retry chosen behind the rest.

        Returns:
          One ticket a value; tickets are never used twice.

        Raises:
          Overloaded: the bound on what is in flight is reached; nothing was taken.
          ValueError: a value is longer than `max_command_bytes`; nothing was taken.
        """
        ...

    def read_index(self, callback: Callable[[NoQuorum | None], None]) -> None:
        """Calls back when this replica has applied every write acknowledged before this call.

        The callback gets None, and a read of the local state is then linearizable; or it gets the
        error, and nothing may be read. It may run before this call returns. docs/PROTOCOL.md,
        section 9.
        """
        ...


class StateMachine(Protocol):
    """What an application gives to its node.

    State, `applied` and `learner_state` change together, in one atomic write: a position stored
    apart from the data makes a replica skip or repeat commands after a crash (docs/traps.md, 14).
    """

    @property
    def applied(self) -> int:
        """The last instance whose effect is in the state, durable or buffered; 0 when empty."""
        ...

    def learner_state(self) -> Mapping[bytes, bytes]:
        """The learner's part of the checkpoint, records stored with `applied`; none at first."""
        ...

    def apply(
        self,
        batch: Sequence[Delivered],
        through: int,
        learner_state: Mapping[bytes, bytes | None],
    ) -> None:
        """Applies a batch in order, as one atomic write with `applied = through`.

        With it go the learner's records that changed: to be written over those of the same key,
        or, where the value is None, removed.

        It must be deterministic: the same batches give the same state on every replica. The batch
        may be empty (no-ops and sessions only). An exception stops the node: a state that may be
        half written must not be built upon.
        """
        ...

    def unknown(self, tickets: Sequence[int], error: P4xosError) -> None:
        """These proposals have no known outcome: they may have been chosen, or still be."""
        ...

    def sync(self) -> int:
        """Makes all that is applied durable; returns the instance it is durable through."""
        ...

    def snapshot(self, directory: Path) -> int:
        """Writes a consistent copy into a new directory; returns the instance it holds."""
        ...

    def install(self, directory: Path) -> None:
        """Replaces the state by a snapshot; a crash leaves either the old state or the new."""
        ...


@runtime_checkable
class WritingOut(Protocol):
    """A state machine that can do beside the loop what would keep `snapshot` from being quick."""

    def write_out(self) -> None:
        """Writes to files what is only in memory; a worker thread may call it at any time."""
        ...


@runtime_checkable
class SyncingBeside(Protocol):
    """A state machine that batches can be applied to while its disk is waited for."""

    def begin_sync(self) -> Callable[[], int]:
        """Begins `StateMachine.sync` of what is applied now.

        Returns:
          The rest of it, for a worker thread, one at a time; everything else of the machine may
          be called meanwhile.
        """
        ...


@runtime_checkable
class Verifying(Protocol):
    """A state machine that can tell whether a snapshot is whole before it is installed."""

    def verify(self, directory: Path) -> int:
        """Reads all of a snapshot and returns its instance; P4xosError when it is damaged.

        A worker thread may call it at any time.
        """
        ...


@runtime_checkable
class Retained(Protocol):
    """The log's tail: consecutive chosen values through the last one delivered."""

    @property
    def low(self) -> int:
        """The oldest instance retained; `next` when there is none."""
        ...

    @property
    def next(self) -> int:
        """Behind the newest instance retained."""
        ...

    def append(self, chosen: Chosen) -> None:
        """Takes the next values."""
        ...

    def since(self, first: int) -> Iterator[Chosen]:
        """The values from an instance on, in order; Trimmed when it is no longer retained.

        The iterator is over as soon as the log changes: take what is wanted without an await.
        """
        ...

    def value(self, instance: int) -> bytes:
        """What was chosen in an instance, raw; Trimmed or LookupError when it is not here."""
        ...

    def hold(self, first: int | None) -> None:
        """Keeps the values from an instance on beyond the usual bound.

        It is then up to `p4xos.retained.HELD_FACTOR` times as large: a peer that fetches a snapshot
        needs what is chosen meanwhile. None: no peer does.
        """
        ...
