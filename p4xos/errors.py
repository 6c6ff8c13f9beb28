"""What can go wrong in the world, as exceptions whose message ends with what to do."""

from __future__ import annotations


class P4xosError(Exception):
    """The base of every error of the world; a caller's mistake is a ValueError instead."""


class Trimmed(P4xosError):
    """The instance lies below what is retained."""

    def __init__(self, instance: int, low: int) -> None:
        super().__init__(
            f"instance {instance} is no longer retained: the oldest one here is {low}; "
            "read on from there, or restore the state from a snapshot"
        )
        self.instance = instance
        self.low = low


class NotDelivered(P4xosError):
    """The instance lies ahead of what this learner has delivered."""

    def __init__(self, instance: int, next: int) -> None:
        super().__init__(
            f"instance {instance} is not delivered here yet: the next one is {next}; "
            "ask again later, or ask another node"
        )
        self.instance = instance
        self.next = next


class NoQuorum(P4xosError):
    """No majority answered in time; what was submitted may or may not be chosen later."""

    def __init__(self, instance: int | None, waited_s: float) -> None:
        what = "the submission" if instance is None else f"instance {instance}"
        super().__init__(
            f"no majority answered for {what} within {waited_s:g} s; the outcome is unknown: "
            "look whether a majority of the acceptors runs, then read before you submit again"
        )
        self.instance = instance
        self.waited_s = waited_s


class SessionLost(P4xosError):
    """The session under which values were submitted is gone; their outcome is unknown."""

    def __init__(self, session: int) -> None:
        super().__init__(
            f"session {session} was dropped by the group; the outcome of what was in flight is "
            "unknown: read before you submit again (a new session is opened by itself)"
        )
        self.session = session


class Overloaded(P4xosError):
    """The bound on what may be in flight is reached; nothing of the call was taken."""

    def __init__(self, in_flight: int, limit: int) -> None:
        super().__init__(
            f"{in_flight} values are in flight and the limit is {limit}; nothing was taken: "
            "wait for deliveries, then submit again"
        )
        self.in_flight = in_flight
        self.limit = limit


class ConflictingVotes(P4xosError):
    """Two values were voted for in one instance and round: an acceptor or coordinator is wrong."""

    def __init__(self, instance: int, round: int) -> None:
        super().__init__(
            f"two different values were voted for in instance {instance}, round {round:#x}; "
            "this learner stops so that nothing wrong is applied: find the coordinator or "
            "acceptor that lost its state, and rebuild it before starting this node again"
        )
        self.instance = instance
        self.round = round


class RoundsExhausted(P4xosError):
    """The coordinator's round counter is about to overflow."""

    def __init__(self, counter: int) -> None:
        super().__init__(
            f"round counter {counter} is at its end (24 bits); this coordinator stops: "
            "move the group's state to a new cluster id"
        )
        self.counter = counter


class BadPacket(P4xosError):
    """Bytes of a peer that are not what their type demands."""
