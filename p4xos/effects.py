"""What a role owes the world after a step, in the order in which the driver pays it."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from p4xos.wire import Rows, Type


class Role(IntEnum):
    """Who sends and who receives; a proposer shares id and address with its learner."""

    ACCEPTOR = 1
    COORDINATOR = 2
    LEARNER = 3
    PROPOSER = 4


SENDS: dict[Role, tuple[Type, ...]] = {
    Role.ACCEPTOR: (
        Type.PHASE1B, Type.PHASE2B, Type.READ_INDEX_REPLY,
        Type.RECORD, Type.RECORDED, Type.RECOVERING, Type.ASK_CHECKPOINT,
    ),
    Role.COORDINATOR: (Type.PHASE1A, Type.PHASE2A, Type.HEARTBEAT, Type.READ_INDEX),
    Role.LEARNER: (
        Type.REQUEST, Type.RECOVER, Type.LEARN, Type.CHECKPOINT, Type.READ_INDEX,
    ),
}  # fmt: skip
"""What each role may send; a learner's address is its proposer's too."""


class To(NamedTuple):
    """A destination: one member of a role, or all of them where `id` is None."""

    role: Role
    id: int | None = None


ACCEPTORS = To(Role.ACCEPTOR)
COORDINATORS = To(Role.COORDINATOR)
LEARNERS = To(Role.LEARNER)


class Delivery(NamedTuple):
    """Values delivered in order: consecutive instances, consecutive sequences of one session.

    A command that travelled in fragments is a delivery of one value, at the instance that
    completes it, with the sequence of its first fragment.
    """

    instance: int
    session: int
    sequence: int
    values: Rows
    """(n, width) uint8: the payloads without envelopes, zero-padded; owned by the receiver."""
    lengths: NDArray[np.int64]
    """(n,) int64: bytes of each payload."""

    def payloads(self) -> list[bytes]:
        """The payloads as Python bytes."""
        width = self.values.shape[1]
        data = self.values.tobytes()
        return [
            data[row * width : row * width + length]
            for row, length in enumerate(self.lengths.tolist())
        ]


class Opened(NamedTuple):
    """A session was opened; its id is the instance that chose it."""

    instance: int
    proposer: int
    nonce: int


class Pieces(NamedTuple):
    """Fragments that were chosen, of a command that is not complete: they need not be sent again.

    Consecutive sequences of one session.
    """

    instance: int
    session: int
    sequence: int
    fragments: int


class Refused(NamedTuple):
    """A chosen value that is never applied; whoever submitted it cannot know more than that."""

    instance: int
    session: int
    sequence: int
    session_lost: bool
    """Whether the session itself is unknown, so that nothing in flight under it can succeed."""


class Unknown(NamedTuple):
    """Submissions whose outcome this proposer will not report: they may or may not be chosen."""

    tickets: list[int]
    session_lost: int | None
    """The session that was lost, or None where the deadline passed."""


class ReadReady(NamedTuple):
    """Reads that are linearizable on a replica that has applied `read_index`; None: no majority."""

    read_index: int | None
    tokens: list[object]


class Chosen(NamedTuple):
    """Consecutive chosen values as they are in the log, no-ops and duplicates included."""

    instance: int
    values: Rows
    """(n, width) uint8: the values with their envelopes, zero-padded."""
    lengths: NDArray[np.int64]
    """(n,) int64: bytes of each value; 0 is a no-op."""


Delivered = Delivery | Opened | Pieces | Refused | Unknown | ReadReady


class Effects(NamedTuple):
    """Persist, then send, then deliver.

    Nothing of `send` may leave before all of `persist` is durable.
    """

    persist: list[Rows]
    send: list[tuple[To, Rows]]
    deliver: list[Delivered]
    chosen: list[Chosen]
    """What `deliver` was made from, for whoever retains the log."""

    @classmethod
    def none(cls) -> Effects:
        """Fresh, empty effects, to be filled in place."""
        return cls([], [], [], [])

    def extend(self, other: Effects) -> None:
        """Appends what another step owes behind what this one does."""
        self.persist.extend(other.persist)
        self.send.extend(other.send)
        self.deliver.extend(other.deliver)
        self.chosen.extend(other.chosen)
